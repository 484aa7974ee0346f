"""The bins of constant-Q and variable-Q transforms: their frequencies and the lengths of their
filters, as librosa has them.
"""

import numpy as np
from jaxtyping import Float

HANN_BANDWIDTH = 1.50018310546875  # librosa's equivalent noise bandwidth of a Hann window, in bins


def equal_temperament_hz(
    fmin_hz: float | int, bins: int, bins_per_octave: int
) -> Float[np.ndarray, "bin"]:
    """f[k] = fmin 2^(k / bins_per_octave), float64."""
    return fmin_hz * 2.0 ** (np.arange(bins) / bins_per_octave)


def wavelet_lengths(
    frequencies_hz: Float[np.ndarray, "bin"],
    *,
    sample_rate_hz: float | int,
    bins_per_octave: int,
    gamma: float | int | None,
) -> Float[np.ndarray, "bin"]:
    """Samples (not whole) of the filters: sample rate / (alpha f + gamma), alpha = (r^2 - 1) /
    (r^2 + 1), r = 2^(1 / bins_per_octave).
    """
    alpha, offset = _bandwidth(bins_per_octave, gamma)
    return sample_rate_hz / (alpha * frequencies_hz + offset)


def _bandwidth(bins_per_octave: int, gamma: float | int | None) -> tuple[float, float]:
    ratio = 2.0 ** (2 / bins_per_octave)
    alpha = (ratio - 1) / (ratio + 1)
    return alpha, 24.7 * alpha / 0.108 if gamma is None else gamma
