"""`su`: ten excerpts of quintets, sonatas and quartets with their notes (Su and Yang 2016).

Mixture and pitches only; all are test.
"""

import functools
import pathlib

import numpy as np

from majl_jax.datasets import notes, source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.track import BadTrack, Track

STEMS = notes.MIXTURE
VOICES = 16
AUDIO_END, NOTE_END = "_audio", "_note.txt"
COPY = source_files.Copy(
    "the Su data set", "audio/PIECE_audio.wav (.flac, .ogg, .mp3) and gt_Note/PIECE_note.txt"
)
NO_LABELS = "no note file of the piece in gt_Note/"


def tracks(source: str | None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The pieces below `source`, all test; those without notes are left out."""
    del seed
    folder = COPY.root(source)
    of_piece = {
        path.stem.removesuffix(AUDIO_END): path
        for suffix in reversed(source_files.AUDIO_SUFFIXES)
        for path in folder.glob(f"audio/*{AUDIO_END}{suffix}")
        if not path.name.startswith(".")
    }
    if not of_piece:
        raise COPY.nothing(folder)
    out = []
    for piece, path in sorted(of_piece.items()):
        labels = folder / "gt_Note" / f"{piece}{NOTE_END}"
        out.append(
            Track(
                id=piece,
                split="test",
                group=piece,
                paths=(path, labels),
                seconds=source_files.header_seconds(path),
                load=functools.partial(
                    notes.load_labelled, path, labels, read=read_labels, voices=VOICES, grid=grid
                ),
                left_out="" if labels.is_file() else NO_LABELS,
            )
        )
    return out


def read_labels(path: pathlib.Path) -> notes.NoteRows:
    """The notes of a file of lines "onset offset f0", in s, s and Hz."""
    if not path.is_file():
        raise BadTrack(f"{path}: no such label file")
    rows = []
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            onset_s, offset_s, f0_hz = (float(word) for word in line.split())
        except ValueError:
            raise BadTrack(
                f"{path}, line {number}: {line.strip()[:40]!r}; expected onset_s offset_s f0_hz"
            ) from None
        rows.append((onset_s, offset_s, f0_hz))
    return np.asarray(rows, np.float64).reshape(-1, 3)
