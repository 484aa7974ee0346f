"""Constant-Q and variable-Q transform, equal to those of librosa, in JAX: batched, compiled, differentiable.

Octave by octave from the top (Schörkhuber & Klapuri 2010): spectra of frames times the spectra of the filters, then the
signal at half the rate. librosa decimates with soxr, whose 2:1 resampler is a symmetric filter; it is read from impulses.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from majl_jax.audio.stft import frame

HANN_BANDWIDTH = 1.50018310546875  # librosa's equivalent noise bandwidth of a Hann window, in bins
SPARSITY = 0.01  # share of a filter's summed spectral magnitude that librosa leaves out
DECIMATION_BLOCK = 256  # samples that are decimated together
FILTER_REACH = 128  # soxr HQ: half the length of a decimation filter, in output samples


def cqt(
    audio: Float[Array, "batch time"],
    *,
    sample_rate_hz: float | int,
    hop_samples: int,
    fmin_hz: float | int,
    bins: int,
    bins_per_octave: int = 12,
) -> Complex[Array, "batch frame bin"]:
    """Constant-Q transform as librosa.cqt with its defaults, bin k at fmin 2^(k / bins_per_octave); see `vqt`."""
    return vqt(
        audio,
        sample_rate_hz=sample_rate_hz,
        hop_samples=hop_samples,
        fmin_hz=fmin_hz,
        bins=bins,
        bins_per_octave=bins_per_octave,
        gamma=0.0,
    )


def vqt(
    audio: Float[Array, "batch time"],
    *,
    sample_rate_hz: float | int,
    hop_samples: int,
    fmin_hz: float | int,
    bins: int,
    bins_per_octave: int = 12,
    gamma: float | int | None = None,
) -> Complex[Array, "batch frame bin"]:
    """Variable-Q transform as librosa.vqt with its defaults: bandwidth alpha f + gamma Hz (None: 24.7 alpha / 0.108).

    1 + time // hop_samples frames, frame t centred at t * hop_samples, zeros outside. Where librosa first decimates by 4 or
    more (few octaves, all far below the Nyquist frequency), its own resampler bends the first samples, ours does not.
    """
    frequencies = equal_temperament_hz(fmin_hz, bins, bins_per_octave)
    sizes = {"bins_per_octave": bins_per_octave, "gamma": gamma}
    highest = _highest_hz(frequencies, **sizes)
    if highest > sample_rate_hz / 2:
        raise ValueError(
            f"the top filter reaches {highest:.1f} Hz, above half the sample rate "
            f"({sample_rate_hz / 2:.1f} Hz). Ask for fewer bins or a lower fmin_hz."
        )
    octaves = -(-bins // bins_per_octave)
    twos = (hop_samples & -hop_samples).bit_length() - 1
    halvings = math.ceil(math.log2(sample_rate_hz / 2 / highest)) - 2
    factor = 2 ** max(0, min(halvings, twos - octaves + 1))
    signal, rate, hop = decimate(audio, factor), sample_rate_hz / factor, hop_samples // factor
    full_rate, parts = rate, []
    for octave in range(octaves):
        stop = bins - octave * bins_per_octave
        part = frequencies[max(0, stop - bins_per_octave) : stop]
        low, basis, fft_samples = _spectral_filters(tuple(part), rate, bins_per_octave, gamma)
        padded = jnp.pad(signal, ((0, 0), (fft_samples // 2,) * 2))
        spectrum = jnp.fft.rfft(frame(padded, fft_samples, hop))[..., low : low + len(basis)]
        basis = basis * np.float32(np.sqrt(full_rate / rate))
        parts.append(jnp.matmul(spectrum, basis, precision=jax.lax.Precision.HIGHEST))
        if hop % 2 == 0 and octave + 1 < octaves:
            signal, rate, hop = decimate(signal, 2), rate / 2, hop // 2
    frames = min(part.shape[1] for part in parts)
    found = jnp.concatenate([part[:, :frames] for part in reversed(parts)], axis=-1)
    lengths = wavelet_lengths(frequencies, sample_rate_hz=full_rate, **sizes)
    return found / np.sqrt(lengths).astype(np.float32)


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
    """Samples (not whole) of the filters: sample rate / (alpha f + gamma), alpha = (r^2 - 1) / (r^2 + 1), r = 2^(1 / bins_per_octave)."""
    alpha, offset = _bandwidth(bins_per_octave, gamma)
    return sample_rate_hz / (alpha * frequencies_hz + offset)


def decimate(signal: Float[Array, "batch time"], factor: int) -> Float[Array, "batch decimated"]:
    """Every factor-th sample behind the filter of soxr HQ, times sqrt(factor); ceil(time / factor) samples."""
    if factor == 1:
        return signal
    taps = _decimation_filter(factor)
    # A matrix product of long frames, each of which gives many samples: an FFT would lose a digit.
    width = DECIMATION_BLOCK * factor + len(taps) - 1
    matrix = np.zeros((width, DECIMATION_BLOCK), np.float32)
    for sample in range(DECIMATION_BLOCK):
        matrix[sample * factor : sample * factor + len(taps), sample] = taps
    half, count = len(taps) // 2, -(-signal.shape[1] // factor)
    blocks = -(-count // DECIMATION_BLOCK)
    missing = (blocks - 1) * DECIMATION_BLOCK * factor + width - half - signal.shape[1]
    padded = jnp.pad(signal, ((0, 0), (half, missing)))
    frames: Array = frame(padded, width, DECIMATION_BLOCK * factor)
    found = jnp.matmul(frames, matrix, precision=jax.lax.Precision.HIGHEST)
    return found.reshape(len(signal), -1)[:, :count]


@functools.lru_cache(maxsize=8)
def _decimation_filter(factor: int) -> np.ndarray:
    """Taps -half..half with sum sqrt(factor), from soxr's answers to impulses at all places modulo the factor."""
    import soxr

    half = FILTER_REACH * factor
    length = 16 * half
    taps = np.zeros(2 * half + 1)
    for place in range(length // 2, length // 2 + factor):
        impulse = np.zeros(length, np.float32)
        impulse[place] = 1.0
        answer = soxr.resample(impulse, factor, 1, quality="soxr_hq")
        offset = factor * np.arange(len(answer)) - place
        near = np.abs(offset) <= half
        taps[offset[near] + half] = answer[near]
    taps += taps[::-1]
    return taps / taps.sum() * np.sqrt(factor)


@functools.lru_cache(maxsize=64)
def _spectral_filters(
    frequencies_hz: tuple[float, ...],
    rate_hz: float,
    bins_per_octave: int,
    gamma: float | int | None,
) -> tuple[int, np.ndarray, int]:
    """(first FFT bin, complex64 [FFT bin, filter] where any filter is not 0, FFT size) of one octave."""
    frequencies = np.array(frequencies_hz)
    lengths = wavelet_lengths(
        frequencies, sample_rate_hz=rate_hz, bins_per_octave=bins_per_octave, gamma=gamma
    )
    size = 2 ** math.ceil(math.log2(lengths.max()))
    filters = np.zeros((len(lengths), size), np.complex128)
    for row, length, frequency in zip(filters, lengths, frequencies, strict=True):
        place = np.arange(-length // 2, length // 2)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(len(place)) / len(place))
        start = (size - len(place)) // 2
        wave = window * np.exp(2j * np.pi * frequency / rate_hz * place)
        row[start : start + len(place)] = wave / window.sum() * length / size
    spectra = np.fft.fft(filters)[:, : size // 2 + 1]
    sizes = np.abs(spectra)
    ascending = np.sort(sizes, axis=1)
    share = np.cumsum(ascending, axis=1) / ascending.sum(1, keepdims=True)
    floor = np.take_along_axis(ascending, np.argmin(share < SPARSITY, axis=1)[:, None], 1)
    spectra = np.where(sizes >= floor, spectra, 0)
    used = np.flatnonzero(spectra.any(0))
    low, high = int(used[0]), int(used[-1]) + 1
    return low, np.ascontiguousarray(spectra[:, low:high].T, np.complex64), size


def _bandwidth(bins_per_octave: int, gamma: float | int | None) -> tuple[float, float]:
    ratio = 2.0 ** (2 / bins_per_octave)
    alpha = (ratio - 1) / (ratio + 1)
    return alpha, 24.7 * alpha / 0.108 if gamma is None else gamma


def _highest_hz(frequencies_hz, *, bins_per_octave: int, gamma: float | int | None) -> float:
    alpha, offset = _bandwidth(bins_per_octave, gamma)
    return float(frequencies_hz[-1] * (1 + 0.5 * HANN_BANDWIDTH * alpha) + 0.5 * offset)
