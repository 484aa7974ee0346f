"""`urmp`, `urmp_mixes`: URMP, 44 pieces for two to five instruments, each recorded alone (Li et
al. 2019).

Split of MT3 (data/splits/urmp.txt): nine pieces are valid, 35 train, none test. SS-MPE picks its
checkpoint by the nine and reports on them as well. `urmp_t1` and `urmp_t2` are `urmp_mixes` with
one half of train each.
"""

import functools
import pathlib
import re

import numpy as np
from jaxtyping import Float64

from majl_jax.datasets import source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.splits import SPLITS_FOLDER, read_split
from majl_jax.datasets.track import BadTrack, Recording, Track, nearest_rows, stack

STEMS = ("part_1", "part_2", "part_3", "part_4", "part_5")
VOICES = 0  # voice i is the pitch of stem i
MIXTURE = ("mixture",)
MIXTURE_VOICES = len(STEMS)
VIEWS = ("stems", "mixture")
HALVES = ("", "T1", "T2")
SPLIT_LIST = SPLITS_FOLDER / "urmp.txt"
HIGHEST_HZ = 5000.0
MEAN_S = 110.0
COPY = source_files.Copy(
    "URMP",
    "NN_Piece_INS1_INS2/{AuMix_NN_Piece_INS1_INS2.wav, AuSep_1_INS1_NN_Piece.wav,"
    " F0s_1_INS1_NN_Piece.txt, ...}, or these folders in Dataset/",
)
NOT_LISTED = "its number is not in data/splits/urmp.txt"


def tracks(
    source: str | None, *, grid: Grid, seed: int = 0, view: str = "stems", half: str = ""
) -> list[Track]:
    """The pieces below `source`.

    Args:
        source: the folder of URMP.
        grid: of audio and labels.
        seed: does not matter.
        view: "stems", up to five parts with their pitches; "mixture", the data set's own mixture
            with all pitches.
        half: of train, "T1" or "T2"; "" is all.
    """
    del seed
    if view not in VIEWS or half not in HALVES:
        raise ValueError(
            f"expected a view of {VIEWS} and a half of {HALVES}; got {view!r}, {half!r}"
        )
    root = COPY.root(source)
    folders = find_pieces(root) or find_pieces(root / "Dataset")
    if not folders:
        raise COPY.nothing(root)
    splits = {number: (split, which) for number, split, which in read_split(SPLIT_LIST)}
    out = []
    for folder in folders:
        number, piece = folder.name.split("_")[:2]
        split, which = splits.get(number, ("train", ""))
        left_out = NOT_LISTED if number not in splits else ""
        if split == "train" and half and which != half and not left_out:
            left_out = f"a train piece that is not in {half}"
        out.append(
            Track(
                id=folder.name,
                split=split,
                group=piece,
                paths=tuple(sorted(folder.glob("[AF][u0]*_*"))),
                seconds=MEAN_S,
                load=functools.partial(load, folder, view=view, grid=grid),
                left_out=left_out,
            )
        )
    return out


def find_pieces(root: pathlib.Path) -> list[pathlib.Path]:
    """The folders of pieces in a folder, NN_Piece_INS1_INS2."""
    if not root.is_dir():
        return []
    return sorted(
        path for path in root.iterdir() if path.is_dir() and re.match(r"\d\d_[^_]+_", path.name)
    )


def load(folder: pathlib.Path, *, view: str = "stems", grid: Grid) -> Recording:
    """One piece; parts that it does not have are silent, which is known."""
    instruments = folder.name.split("_")[2:]
    numbers = range(1, len(instruments) + 1)
    if not 2 <= len(instruments) <= len(STEMS):
        raise BadTrack(
            f"{folder}: {len(instruments)} instruments in its name, expected 2 to {len(STEMS)}"
            " after NN_Piece_"
        )
    curves = [find_one(folder, f"F0s_{number}_*.txt") for number in numbers]
    if view == "stems":
        sounds = [find_one(folder, f"AuSep_{number}_*.wav") for number in numbers]
    else:
        sounds = [find_one(folder, "AuMix_*.wav")]
    given = [source_files.read_audio(path, grid=grid) for path in sounds]
    if view == "stems":
        silence = np.zeros((max(map(len, given)), grid.channels), np.float32)
        given += [silence] * (len(STEMS) - len(given))
    audio = stack(given, grid=grid)
    frames = grid.frame_count(len(audio))
    f0_hz = np.zeros((frames, len(STEMS)), np.float32)
    for voice, path in enumerate(curves):
        rows = read_curve(path)
        f0_hz[:, voice] = rows[
            nearest_rows(
                rows[:, 0],
                name=str(path),
                frames=frames,
                grid=grid,
            ),
            1,
        ]
    return Recording(
        audio=audio,
        stems=STEMS if view == "stems" else MIXTURE,
        has_stems=np.full(len(given), view == "stems"),
        f0_hz=f0_hz,
        has_pitch=np.ones(f0_hz.shape, bool),
        grid=grid,
        voices=VOICES if view == "stems" else MIXTURE_VOICES,
    )


def find_one(folder: pathlib.Path, pattern: str) -> pathlib.Path:
    """The only file of the folder with such a name."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise BadTrack(f"{folder}/{pattern}: expected one such file, found {names}")
    return found[0]


def read_curve(path: pathlib.Path) -> Float64[np.ndarray, "row 2"]:
    """Rows (time_s, f0_hz) of an F0s file; 0 = silent."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        rows = np.loadtxt(lines, ndmin=2) if lines else np.zeros((0, 2))
    except ValueError as error:
        raise BadTrack(f"{path}: {error}; expected time_s f0_hz in each line") from None
    if rows.shape[1] != 2 or not len(rows):
        raise BadTrack(
            f"{path}: {rows.shape[0]} lines of {rows.shape[1]} numbers; expected time_s f0_hz in"
            " each"
        )
    wrong = ~((rows[:, 1] >= 0) & (rows[:, 1] < HIGHEST_HZ) & np.isfinite(rows[:, 0]))
    wrong[1:] |= ~(np.diff(rows[:, 0]) > 0)
    if wrong.any():
        number = int(np.argmax(wrong))
        raise BadTrack(
            f"{path}, line {number + 1}: time {rows[number, 0]:g} s, {rows[number, 1]:g} Hz;"
            f" expected rising times and 0 to {HIGHEST_HZ:g} Hz"
        )
    return rows
