"""`trios`: TRIOS, five trios with the notes of each instrument (Fritsch 2012).

Mixture and pitches only, though the data set has stems; all are test. Drums have no pitch.
"""

import functools
import pathlib

import numpy as np

from majl_jax.datasets import notes, source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.track import BadTrack, Recording, Track

STEMS = notes.MIXTURE
VOICES = 16
PIECES = ("brahms", "lussier", "mozart", "schubert", "take_five")
PITCHED = (
    *("bassoon", "cello", "clarinet", "horn", "piano"),
    *("saxophone", "trumpet", "viola", "violin"),
)
COPY = source_files.Copy(
    "TRIOS",
    f"PIECE/mix.wav (.flac, .ogg, .mp3) and PIECE/INSTRUMENT.mid, PIECE one of {', '.join(PIECES)}",
)
NO_AUDIO = "no audio: mix.wav is missing"


def tracks(source: str | None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The pieces below `source`, all test."""
    del seed
    folder = root = COPY.root(source)
    if not any((root / piece).is_dir() for piece in PIECES):
        root = folder / "TRIOS Dataset"  # as the archive unpacks
    out = []
    for piece in PIECES:
        if not (root / piece).is_dir():
            continue
        mixture = root / piece / "mix.wav"
        found = source_files.find_audio(mixture)
        out.append(
            Track(
                id=piece,
                split="test",
                group=piece,
                paths=(found or mixture, *sorted((root / piece).glob("*.mid"))),
                seconds=source_files.header_seconds(found or mixture),
                load=functools.partial(load, found or mixture, grid=grid),
                left_out="" if found else NO_AUDIO,
            )
        )
    if all(one.left_out for one in out):
        raise COPY.nothing(folder)
    return out


def load(path: pathlib.Path, *, grid: Grid) -> Recording:
    """One piece with the notes of its pitched instruments."""
    return notes.load_with_notes(
        path,
        np.concatenate([notes.read_midi(midi) for midi in find_midi(path.parent)]),
        name=f"{path.parent}/*.mid",
        voices=VOICES,
        grid=grid,
    )


def find_midi(folder: pathlib.Path) -> list[pathlib.Path]:
    """The MIDI files of the pitched instruments; a stem of one without MIDI is a BadTrack."""
    found = [folder / f"{name}.mid" for name in PITCHED if (folder / f"{name}.mid").is_file()]
    for name in PITCHED:
        if (folder / f"{name}.wav").is_file() and folder / f"{name}.mid" not in found:
            raise BadTrack(f"{folder / name}.mid: is missing, while there is {name}.wav")
    if not found:
        raise BadTrack(
            f"{folder}: no MIDI file of a pitched instrument; expected {', '.join(PITCHED)}.mid"
        )
    return found
