"""`vocadito`: vocadito, 40 recordings of a voice alone with their pitch (Bittner et al. 2021).

All are test. The voice is the only stem, so it is the mixture as well.
"""

import functools
import pathlib

import numpy as np

from majl_jax.datasets import notes, source_files
from majl_jax.datasets.curves import on_frames, read_annotation
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.source_files import natural_key
from majl_jax.datasets.track import BadTrack, Recording, Track

STEMS = ("voice",)
VOICES = 0  # voice i is the pitch of stem i
LENGTHS_DIFFER_S = 1.0
METADATA, COLUMNS = "vocadito_metadata.csv", ("track_id", "singer_id")
COPY = source_files.Copy("vocadito", "Audio/vocadito_N.wav and Annotations/F0/vocadito_N_f0.csv")


def tracks(source: str | None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The recordings below `source`, all test; their group is the singer, where
    vocadito_metadata.csv is there.
    """
    del seed
    root = COPY.root(source)
    found = sorted(root.glob("Audio/vocadito_*.wav"), key=lambda path: natural_key(path.name))
    if not found:
        raise COPY.nothing(root)
    metadata = root / METADATA
    rows = source_files.read_table(metadata, COLUMNS) if metadata.is_file() else []
    singers = {f"vocadito_{row['track_id']}": row["singer_id"] for row in rows}
    out = []
    for path in found:
        labels = root / "Annotations" / "F0" / f"{path.stem}_f0.csv"
        out.append(
            Track(
                id=path.stem,
                split="test",
                group=singers.get(path.stem, path.stem),
                paths=(path, labels),
                seconds=source_files.header_seconds(path),
                load=functools.partial(load, path, labels, grid=grid),
            )
        )
    return out


def load(path: pathlib.Path, labels: pathlib.Path, *, grid: Grid) -> Recording:
    """One recording with the pitch of the voice, labelled at every frame that the annotation
    reaches.
    """
    if not labels.is_file():
        raise BadTrack(f"{labels}: no such label file")
    rows = read_annotation(labels)
    audio = notes.read_mixture(path, grid=grid)
    seconds = grid.seconds(len(audio))
    if abs(rows[-1, 0] - seconds) > LENGTHS_DIFFER_S:
        raise BadTrack(
            f"{labels}: ends at {rows[-1, 0]:.1f} s, its audio at {seconds:.1f} s: is one of them"
            " cut off, or of another recording?"
        )
    f0_hz, known = on_frames(
        rows,
        voiced_only=False,
        frames=grid.frame_count(len(audio)),
        grid=grid,
    )
    return Recording(
        audio=audio,
        stems=STEMS,
        has_stems=np.ones(1, bool),
        f0_hz=f0_hz[:, None],
        has_pitch=known[:, None],
        grid=grid,
        voices=VOICES,
    )
