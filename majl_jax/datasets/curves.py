"""Annotated pitch curves (time, frequency) onto the frame grid."""

import pathlib

import numpy as np
from jaxtyping import Bool, Float32, Float64

from majl_jax.datasets.grid import Grid
from majl_jax.datasets.track import BadTrack

ANNOTATION_HOP_S = 256 / 44100
REACH_S = 0.51 * ANNOTATION_HOP_S  # half a hop; the times are rounded, by up to 0.004 of a hop
HIGHEST_HZ = 5000.0


def read_annotation(path: pathlib.Path) -> Float64[np.ndarray, "row 2"]:
    """Rows (time_s, f0_hz) of an annotation; a third column, which some lines have, is not used."""
    rows = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            time_s, f0_hz = (float(cell) for cell in line.split(",")[:2])
        except ValueError:
            raise BadTrack(
                f"{path}, line {number}: {line.strip()[:40]!r}; expected time_s,f0_hz"
            ) from None
        if not (0 <= time_s < np.inf and 0 <= f0_hz < HIGHEST_HZ):
            raise BadTrack(
                f"{path}, line {number}: {line.strip()[:40]!r} is out of range, expected a time "
                f"from 0 s and 0 to {HIGHEST_HZ:g} Hz"
            )
        if rows and time_s <= rows[-1][0]:
            raise BadTrack(
                f"{path}, line {number}: its time {time_s} s is not after the line before"
            )
        rows.append((time_s, f0_hz))
    if not rows:
        raise BadTrack(f"{path}: has no lines, expected time_s,f0_hz in each")
    return np.asarray(rows)


def on_frames(
    rows: Float64[np.ndarray, "row 2"], *, voiced_only: bool, frames: int, grid: Grid
) -> tuple[Float32[np.ndarray, " frame"], Bool[np.ndarray, " frame"]]:
    """Frame labels (f0 in Hz with 0 = unvoiced, is it a label): the row nearest to k hop / rate.

    A frame with no row within half an annotation hop is unvoiced if the rows are the voiced ones
    only, and without a label otherwise.
    """
    times_s = grid.frame_times_s(frames)
    after = np.clip(np.searchsorted(rows[:, 0], times_s), 1, max(len(rows) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(rows) - 1)
    closer = np.abs(rows[after, 0] - times_s) < np.abs(rows[before, 0] - times_s)
    nearest = np.where(closer, after, before)
    near = np.abs(rows[nearest, 0] - times_s) <= REACH_S
    f0_hz = np.where(near, rows[nearest, 1], 0.0).astype(np.float32)
    return f0_hz, near | voiced_only
