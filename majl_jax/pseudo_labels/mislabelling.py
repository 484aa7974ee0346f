"""Pitch labels made wrong on purpose, to see what a student makes of them."""

import zlib

import numpy as np
from jaxtyping import Float, UInt8

RIGHT, OCTAVE, ANY_PITCH = 0, 1, 2  # what `mislabel_pitch` did to a frame
OCTAVE_RANGE_HZ = (40.0, 1900.0)
ANY_PITCH_RANGE_HZ = (55.0, 1200.0)
LEAST_ERROR_CENTS = 100.0


def mislabel_pitch(
    f0_hz: Float[np.ndarray, "frame"],
    *,
    share: float,
    seed: int,
    track: str,
    stretch_frames: int,
) -> tuple[Float[np.ndarray, "frame"], UInt8[np.ndarray, "frame"]]:
    """Pitch labels with errors, and what was done to each frame: RIGHT, OCTAVE or ANY_PITCH.

    Errors come in runs: every stretch of voiced frames (f0_hz > 0) is cut into near-equal
    stretches of at most `stretch_frames`, and each of these becomes wrong with probability
    `share`. Half of the errors are octaves, up or down, whichever stays in OCTAVE_RANGE_HZ; the
    others one pitch for the whole stretch, uniform in log-frequency within ANY_PITCH_RANGE_HZ and
    at least LEAST_ERROR_CENTS from what any of its frames had. Depends on seed and track name
    only, and what is wrong at a small share is wrong in the same way at a larger one.

    Args:
        f0_hz: labels, 0 = unvoiced.
        share: of the voiced frames, from 0 to 1.
        seed: of the errors.
        track: its name.
        stretch_frames: the longest stretch that is made wrong as one.
    """
    wrong, kinds = f0_hz.copy(), np.zeros(len(f0_hz), np.uint8)
    stretches = _stretches(f0_hz > 0, stretch_frames)
    rng = np.random.default_rng([seed, zlib.crc32(track.encode())])
    draws = rng.random((len(stretches), 4))  # all of them, so that no draw depends on the share
    for frames, (hit, kind, way, place) in zip(stretches, draws, strict=True):
        if hit >= share:
            continue
        truth = f0_hz[frames].astype(np.float64)
        other = None if kind < 0.5 else _any_pitch(truth, place)
        kinds[frames] = OCTAVE if other is None else ANY_PITCH
        wrong[frames] = _octave_away(truth, 2.0 if way < 0.5 else 0.5) if other is None else other
    return wrong, kinds


def _stretches(voiced: np.ndarray, longest: int) -> list[np.ndarray]:
    """Frame numbers of every run of voiced frames, in pieces of at most `longest` frames."""
    frames = np.flatnonzero(voiced)
    runs = np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1) if len(frames) else []
    return [piece for run in runs for piece in np.array_split(run, -(-len(run) // longest))]


def _octave_away(f0_hz: np.ndarray, ratio: float) -> np.ndarray:
    """A stretch an octave off by `ratio`, or the other way where that leaves the range."""

    def inside(hz: np.ndarray) -> np.ndarray:
        return (hz >= OCTAVE_RANGE_HZ[0]) & (hz <= OCTAVE_RANGE_HZ[1])

    if not inside(f0_hz * ratio).all():
        ratio = 1.0 / ratio
    return np.where(inside(f0_hz * ratio), f0_hz * ratio, f0_hz / ratio)


def _any_pitch(f0_hz: np.ndarray, place: float) -> float | None:
    """The pitch at `place` (0..1) among those far enough from the whole stretch; None if there is
    none.
    """
    low, high = (1200.0 * np.log2(hz) for hz in ANY_PITCH_RANGE_HZ)
    cents = np.arange(low, high + 1.0)
    far = np.ones(len(cents), bool)
    for truth in np.unique(1200.0 * np.log2(f0_hz)):
        far &= np.abs(cents - truth) >= LEAST_ERROR_CENTS
    left = cents[far]
    return float(2.0 ** (left[int(place * len(left))] / 1200.0)) if len(left) else None
