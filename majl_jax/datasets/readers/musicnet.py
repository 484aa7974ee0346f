"""`musicnet`: MusicNet, 330 recordings of classical music with their notes (Thickstun et al. 2017).

Mixture and pitches only. Of the data set's two parts one is train, one is test; none is valid.
"""

import functools
import pathlib

import numpy as np

from majl_jax.datasets import source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.notes import MIXTURE, NoteRows, load_labelled, midi_hz
from majl_jax.datasets.track import BadTrack, Track

STEMS = MIXTURE
VOICES = 32
LABEL_RATE_HZ = 44100
PITCHES = (1, 127)
COPY = source_files.Copy(
    "MusicNet",
    "train_data/ID.wav, train_labels/ID.csv and the same for test (.flac, .ogg, .mp3 as well)",
)
COLUMNS = ("start_time", "end_time", "note")
NO_LABELS = "no label file beside the audio (train_labels/ID.csv, test_labels/ID.csv)"


def tracks(source: str | None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The recordings below `source`: train_data is train, test_data is test."""
    del seed
    folder = root = COPY.root(source)
    if not (folder / "train_data").is_dir() and not (folder / "test_data").is_dir():
        folder = root / "musicnet"  # as the archive unpacks
    groups = read_groups(folder)
    out = []
    for split in ("train", "test"):
        for path in find_recordings(folder / f"{split}_data"):
            labels = folder / f"{split}_labels" / f"{path.stem}.csv"
            out.append(
                Track(
                    id=path.stem,
                    split=split,
                    group=groups.get(path.stem, path.stem),
                    paths=(path, labels),
                    seconds=source_files.header_seconds(path),
                    load=functools.partial(
                        load_labelled, path, labels, read=read_labels, voices=VOICES, grid=grid
                    ),
                    left_out="" if labels.is_file() else NO_LABELS,
                )
            )
    if not out:
        raise COPY.nothing(root)
    return out


def find_recordings(folder: pathlib.Path) -> list[pathlib.Path]:
    """The audio files of a part, one per recording, in order of their numbers."""
    of_recording = {
        path.stem: path
        for suffix in reversed(source_files.AUDIO_SUFFIXES)
        for path in folder.glob(f"*{suffix}")
        if not path.name.startswith(".")
    }
    return sorted(of_recording.values(), key=lambda path: (len(path.stem), path.stem))


def read_groups(folder: pathlib.Path) -> dict[str, str]:
    """The piece that each recording is a movement of, where musicnet_metadata.csv is there."""
    for place in (folder, folder.parent):
        if (path := place / "musicnet_metadata.csv").is_file():
            rows = source_files.read_table(path, ("id", "composer", "composition"))
            return {row["id"]: f"{row['composer']}: {row['composition']}" for row in rows}
    return {}


def read_labels(path: pathlib.Path) -> NoteRows:
    """The notes of a label file; its times are samples at 44.1 kHz whatever the rate of the
    audio.
    """
    if not path.is_file():
        raise BadTrack(f"{path}: no such label file")
    rows = []
    for number, row in enumerate(source_files.read_table(path, COLUMNS), 2):
        try:
            start, end, note = (float(row[column]) for column in COLUMNS)
        except ValueError:
            raise BadTrack(
                f"{path}, line {number}: {[row[column] for column in COLUMNS]}; expected numbers "
                f"in {', '.join(COLUMNS)}"
            ) from None
        low, high = PITCHES
        if not low <= note <= high:
            raise BadTrack(f"{path}, line {number}: note {note:g}; expected {low} to {high}")
        rows.append((start / LABEL_RATE_HZ, end / LABEL_RATE_HZ, note))
    notes = np.asarray(rows, np.float64).reshape(-1, 3)
    notes[:, 2] = midi_hz(notes[:, 2])
    return notes
