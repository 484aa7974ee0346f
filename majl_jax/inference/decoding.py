"""Salience to pitch: one per frame, or several."""

import functools
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
    frames = len(salience)
    padded = np.pad(salience, ((0, -frames % DECODED_FRAMES), (0, 0)))
    cents = np.asarray(bin_cents, np.float32)
    decoded: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0), np.zeros(0))]
    for first in range(0, len(padded), DECODED_FRAMES):
        f0_hz, confidence = _decoder()(padded[first : first + DECODED_FRAMES], cents)
        decoded.append((np.asarray(f0_hz), np.asarray(confidence)))
    f0_hz, confidence = (np.concatenate(column)[:frames] for column in zip(*decoded, strict=True))
    return f0_hz.astype(np.float32), confidence.astype(np.float32)


@functools.cache
def _decoder() -> Any:
    from majl_jax.audio import pitch

    return jax.jit(pitch.decode_local_average)


# ---- pitches ------------------------------------------------------------------------------------


def pick_pitches(
    salience: Float[np.ndarray, "frame bin"], *, threshold: float
) -> Float[np.ndarray, "frame bin"]:
    """Keeps the salience of local maxima along the bins that reach the threshold; 0 elsewhere."""
    frames = len(salience)
    padded = np.pad(salience, ((0, -frames % DECODED_FRAMES), (0, 0)))
    pieces = [
        np.asarray(_peak_picker()(padded[first : first + DECODED_FRAMES]))
        for first in range(0, len(padded), DECODED_FRAMES)
    ]
    peaks = np.concatenate([padded[:0], *pieces])[:frames]
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
