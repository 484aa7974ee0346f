"""Losses of an auto-encoder of audio, each divided by the size that the audio itself has: one
value per item.

Dhariwal et al. 2020, Jukebox (arXiv 2005.00341); openai/jukebox, `vqvae/vqvae.py` and
`utils/audio_utils.py`. Waveforms are [batch, time, channel]; the element-wise losses also serve
latents. Spectra are those of the mean of the channels. All gradients are finite, and 0 where the
estimate is the target.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from majl_jax.audio import stft


class Resolution(NamedTuple):
    """An STFT: its window is filled up by zeros to `fft_samples`."""

    fft_samples: int
    hop_samples: int
    window_samples: int


MULTI_RESOLUTION = (
    Resolution(2048, 240, 1200),
    Resolution(1024, 120, 600),
    Resolution(512, 50, 240),
)
SINGLE_RESOLUTION = Resolution(2048, 256, 1536)  # of the bandwidth
_SMALLEST_SPECTRUM = 2e-3


class Bandwidth(NamedTuple):
    """The size of the audio that makes losses of loud and quiet music comparable, by
    `estimate_bandwidth`.
    """

    l1: float | int = 1.0
    """mean |x|."""
    l2: float | int = 1.0
    """Variance of x."""
    spectral: float | int = 1.0
    """|| |STFT(x)| ||_F of one excerpt, which grows with about the square root of its length."""


NO_BANDWIDTH = Bandwidth()


def l2(
    estimate: Float[Array, "batch *shape"],
    target: Float[Array, "batch *shape"],
    *,
    bandwidth: float | int = 1.0,
) -> Float[Array, "batch"]:
    """mean (y - x)^2 / B."""
    return jnp.mean(_difference(estimate, target) ** 2, axis=1) / bandwidth


def linf(
    estimate: Float[Array, "batch *shape"],
    target: Float[Array, "batch *shape"],
    *,
    largest: int = 2048,
    bandwidth: float | int = 1.0,
) -> Float[Array, "batch"]:
    """The mean of the `largest` largest (y - x)^2 of an item, or of all if there are fewer, / B."""
    if largest < 1:
        raise ValueError(f"largest is {largest}; expected at least 1.")
    squares = _difference(estimate, target) ** 2
    values, _ = jax.lax.top_k(squares, min(largest, squares.shape[1]))
    return jnp.mean(values, axis=1) / bandwidth


def magnitudes(
    x: Float[Array, "*batch time"], resolution: Resolution
) -> Float[Array, "*batch frame frequency"]:
    """|STFT(x)|, not normalised, with a periodic Hann window and reflect padding, as torch.stft.

    There are 1 + time // hop frames.

    Its gradient at a point of silence is 0. A ValueError if half the window is longer than the
    signal.
    """
    _check_resolution(resolution, x.shape[-1])
    fft_samples, hop, window = resolution
    half = window // 2
    padded = jnp.pad(
        x.astype(jnp.float32), [(0, 0)] * (x.ndim - 1) + [(half, half)], mode="reflect"
    )
    # Zeros behind the window instead of around it change phases only.
    frames: Array = stft.frame(padded, window, hop)
    windowed = frames * jax.lax.broadcast_to_rank(stft.hann_window(window), frames.ndim)
    spectrum = jnp.fft.rfft(windowed, n=fft_samples)
    return _root(jnp.real(spectrum) ** 2 + jnp.imag(spectrum) ** 2)


def spectral_distance(
    estimate: Float[Array, "batch time channel"],
    target: Float[Array, "batch time channel"],
    *,
    resolutions: Sequence[Resolution] = MULTI_RESOLUTION,
    bandwidth: float | int = 1.0,
) -> Float[Array, "batch"]:
    """The mean over resolutions of || |STFT(x)| - |STFT(y)| ||_F / B (2005.00341)."""
    distances = [
        _norm(
            magnitudes(jnp.mean(estimate, axis=-1), resolution)
            - magnitudes(jnp.mean(target, axis=-1), resolution)
        )
        for resolution in resolutions
    ]
    return sum(distances[1:], distances[0]) / (len(distances) * bandwidth)


def estimate_bandwidth(
    excerpts: Iterable[np.ndarray], *, resolution: Resolution = SINGLE_RESOLUTION
) -> Bandwidth:
    """The bandwidth of training data from excerpts [time, channel] of the length that is trained
    on, in float64.

    l1 and l2 are taken over all samples and channels, the spectral one is the mean over excerpts
    of the norm for the mean of the channels. The authors take every 16th excerpt up to 300 s of
    stereo.
    """
    absolute = total = squares = spectral = 0.0
    samples, lengths = 0, []
    for excerpt in excerpts:
        if np.ndim(excerpt) != 2:
            raise ValueError(f"an excerpt has shape {np.shape(excerpt)}; expected [time, channel].")
        x = np.asarray(excerpt, np.float64)
        lengths.append(len(x))
        samples += x.size
        absolute += np.abs(x).sum()
        total += x.sum()
        squares += (x**2).sum()
        spectral += _norm_of_spectrum(x.mean(axis=1), resolution)
    if len(set(lengths)) != 1:
        raise ValueError(
            f"excerpts of {sorted(set(lengths))} samples; expected at least one, and all of one"
            " length, because the spectral bandwidth depends on it."
        )
    variance = squares / samples - (total / samples) ** 2
    if not variance > 0:
        raise ValueError(
            f"{len(lengths)} excerpts are silent or constant; expected some sound, whose size"
            " losses are divided by."
        )
    return Bandwidth(absolute / samples, variance, spectral / len(lengths))


def _norm_of_spectrum(x: np.ndarray, resolution: Resolution) -> float:
    _check_resolution(resolution, len(x))
    half = resolution.window_samples // 2
    padded = np.pad(x, half, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, resolution.window_samples)
    frames = frames[:: resolution.hop_samples] * stft.hann_window(resolution.window_samples)
    return float(np.linalg.norm(np.fft.rfft(frames, n=resolution.fft_samples)))


def _difference(estimate: Array, target: Array) -> Array:
    if estimate.shape != target.shape:
        raise ValueError(
            f"the estimate has shape {estimate.shape}, the target {target.shape}; expected the"
            " same."
        )
    difference = estimate.astype(jnp.float32) - target.astype(jnp.float32)
    return difference.reshape(len(difference), -1)


def _norm(x: Array) -> Array:
    return _root(jnp.sum(x**2, axis=(-2, -1)))


def _root(power: Array) -> Array:
    # Twice where, because the infinite gradient of a root at 0 would pass through the outer one as
    # nan.
    positive = power > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, power, 1.0)), 0.0)


def _check_resolution(resolution: Resolution, time: int) -> None:
    fft_samples, hop, window = resolution
    if hop < 1 or window % 2 or fft_samples % 2 or not 2 <= window <= fft_samples:
        raise ValueError(
            f"{resolution} is no STFT; expected a hop of at least 1, an even window of at least 2"
            " and an even FFT that is not shorter."
        )
    if time <= window // 2:
        raise ValueError(
            f"an STFT got {time} samples; reflect padding of a {window}-sample window needs more"
            f" than {window // 2}. Give a longer excerpt or a smaller resolution."
        )
