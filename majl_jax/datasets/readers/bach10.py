"""`bach10`: Bach10, ten four-part chorales for violin, clarinet, saxophone and bassoon (Duan and
Pardo 2010).

All are test. The mixture is the sum of the four parts; where a piece has none of them, it is the
data set's own mixture.
"""

import functools
import pathlib
import re

import numpy as np
from jaxtyping import Float64

from majl_jax.datasets import source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.track import (
    BadTrack,
    Recording,
    Track,
    nearest_rows,
    stack,
)

STEMS = ("violin", "clarinet", "saxophone", "bassoon")
VOICES = 0  # voice i is the pitch of stem i
FIRST_S, ROW_S = 0.023, 0.010  # the times of an annotation's columns
HIGHEST_MIDI = 127.0
KEY = "GTF0s"
MEAN_S = 33.0
COPY = source_files.Copy(
    "Bach10",
    "NN-Name/{NN-Name.wav, NN-Name-violin.wav, -clarinet, -saxophone (or -saxphone), -bassoon, "
    "NN-Name-GTF0s.mat}",
)
SPELLINGS = {"saxophone": ("saxophone", "saxphone")}  # in the release it is the second


def tracks(source: str | None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The chorales below `source`, all test."""
    del seed
    root = COPY.root(source)
    folders = [
        path
        for path in (sorted(root.iterdir()) if root.is_dir() else [])
        if path.is_dir() and re.match(r"\d\d-", path.name)
    ]
    if not folders:
        raise COPY.nothing(root)
    return [
        Track(
            id=folder.name,
            split="test",
            group=folder.name,
            paths=(*find_audio(folder)[0], find_labels(folder)),
            seconds=MEAN_S,
            load=functools.partial(load, folder, grid=grid),
        )
        for folder in folders
    ]


def find_audio(folder: pathlib.Path) -> tuple[list[pathlib.Path], bool]:
    """The files of the four parts, and True; without any of them the mixture, and False."""
    parts = [_find_part(folder, stem) for stem in STEMS]
    if any(path.is_file() for path in parts):
        return parts, True
    return [folder / f"{folder.name}.wav"], False


def _find_part(folder: pathlib.Path, stem: str) -> pathlib.Path:
    names = [folder / f"{folder.name}-{name}.wav" for name in SPELLINGS.get(stem, (stem,))]
    return next((path for path in names if path.is_file()), names[0])


def find_labels(folder: pathlib.Path) -> pathlib.Path:
    """The file of the pitches of a chorale."""
    return folder / f"{folder.name}-{KEY}.mat"


def load(folder: pathlib.Path, *, grid: Grid) -> Recording:
    """One chorale with the pitches of its parts."""
    paths, in_parts = find_audio(folder)
    f0_hz = read_labels(find_labels(folder))
    for path in paths:
        if not path.is_file():
            what = "while other parts are there" if in_parts else "nor the four parts"
            raise BadTrack(f"{path}: no such file, {what}; expected {COPY.tree}")
    given = [source_files.read_audio(path, grid=grid) for path in paths]
    given += [np.zeros_like(given[0])] * (len(STEMS) - len(given))
    audio = stack(given, grid=grid)
    rows = nearest_rows(
        FIRST_S + ROW_S * np.arange(len(f0_hz)),
        name=str(find_labels(folder)),
        frames=grid.frame_count(len(audio)),
        grid=grid,
    )
    return Recording(
        audio=audio,
        stems=STEMS,
        has_stems=np.full(len(STEMS), in_parts),
        f0_hz=f0_hz[rows].astype(np.float32),
        has_pitch=np.ones((len(rows), len(STEMS)), bool),
        grid=grid,
        voices=VOICES,
    )


def read_labels(path: pathlib.Path) -> Float64[np.ndarray, "row voice"]:
    """Pitches in Hz of the four parts, 0 = silent, from MIDI numbers; row i is at 0.023 + 0.010 i
    s.
    """
    import scipy.io

    expected = f"expected a MATLAB file with {KEY}, {len(STEMS)} rows of MIDI numbers, 0 = silent"
    if not path.is_file():
        raise BadTrack(f"{path}: no such file")
    try:
        content = scipy.io.loadmat(path, variable_names=[KEY])
    except Exception as error:  # of a damaged file it raises whatever its parser stumbles over
        raise BadTrack(f"{path}: {type(error).__name__} {error}; {expected}") from None
    if KEY not in content:
        raise BadTrack(f"{path}: holds no {KEY}; {expected}")
    midi = np.asarray(content[KEY])
    if (
        midi.ndim != 2
        or midi.shape[0] != len(STEMS)
        or not midi.size
        or midi.dtype.kind not in "iuf"
    ):
        raise BadTrack(f"{path}: {KEY} is {midi.dtype} of shape {midi.shape}; {expected}")
    midi = midi.T.astype(np.float64)
    if not ((midi >= 0) & (midi <= HIGHEST_MIDI)).all():
        raise BadTrack(f"{path}: {KEY} goes from {midi.min():g} to {midi.max():g}; {expected}")
    return np.where(midi > 0, 440.0 * 2 ** ((midi - 69.0) / 12.0), 0.0)
