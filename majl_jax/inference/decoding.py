"""Salience to pitch: one per frame, or several."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

DECODED_FRAMES = 1024  # per call of the compiled decoder, whatever the length of the track
Pitch = tuple[np.ndarray, np.ndarray]
"""f0_hz [frame], always a guess, and confidence [frame], which decides about voicing."""


def decode_pitch(
    salience: Float[np.ndarray, "frame bin"], bin_cents: Float[np.ndarray, "bin"]
) -> Pitch:
    """Returns f0_hz [frame] and confidence [frame] by the local average of audio.pitch."""
    if not len(salience):
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    cents = np.asarray(bin_cents, np.float32)
    found = [_decoder()(piece, cents) for piece in _pieces(salience)]
    f0_hz, confidence = (
        _joined([column[number] for column in found], len(salience)) for number in range(2)
    )
    return f0_hz.astype(np.float32), confidence.astype(np.float32)


def _pieces(salience: np.ndarray) -> Iterator[np.ndarray]:
    """Stretches of DECODED_FRAMES frames, the last one filled up with zeros; one program for
    all.
    """
    padded = np.pad(salience, ((0, -len(salience) % DECODED_FRAMES), (0, 0)))
    for first in range(0, len(padded), DECODED_FRAMES):
        yield padded[first : first + DECODED_FRAMES]


def _joined(pieces: Sequence[Any], frames: int) -> np.ndarray:
    """The first `frames` frames of what was made of `_pieces`."""
    return np.concatenate([np.asarray(piece) for piece in pieces])[:frames]


@functools.cache
def _decoder() -> Any:
    from majl_jax.audio import pitch

    return jax.jit(pitch.decode_local_average)


# ---- pitches ------------------------------------------------------------------------------------


def pick_pitches(
    salience: Float[np.ndarray, "frame bin"], *, threshold: float
) -> Float[np.ndarray, "frame bin"]:
    """Keeps the salience of local maxima along the bins that reach the threshold; 0 elsewhere."""
    if not len(salience):
        return np.zeros(salience.shape, np.float32)
    peaks = _joined([_peak_picker()(piece) for piece in _pieces(salience)], len(salience))
    return np.where(peaks >= threshold, peaks, 0.0).astype(np.float32)


@functools.cache
def _peak_picker() -> Any:
    from majl_jax.audio import pitch

    return jax.jit(pitch.local_peaks)


def pitches_hz(
    picked: Float[np.ndarray, "frame bin"], bin_hz: Float[np.ndarray, "bin"]
) -> list[np.ndarray]:
    """Returns the centres of the picked bins, an array of Hz per frame, without interpolation."""
    centres = np.asarray(bin_hz, np.float64)
    return [centres[row > 0] for row in picked]
