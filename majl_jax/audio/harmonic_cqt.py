"""Harmonic variable-Q spectrum with ERB-like bandwidths, its decibels and weighted harmonic
average, in front of multi-pitch networks.

The transform is that of Cwitkowitz & Duan (arXiv 2506.23371; cwitkowitz/lhvqt, branch refresh):
for every harmonic h a bank of complex windowed sinusoids at h f_min 2^(k / bins_per_octave), not
normalised, correlated with the zero-padded audio.

Why it is fast: a filter of L taps at f only hears f ± c / L. So the whole excerpt is resampled
once per band by cutting its spectrum off, to a rate at which a hop still is a whole number of
samples, and the same windowed sinusoids, sampled at that rate, are correlated with far fewer taps:
one small matrix product per band. Filters that several harmonics share count once.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from majl_jax.audio.cqt import equal_temperament_hz, wavelet_lengths
from majl_jax.audio.stft import frame

POWER_FLOOR = 1e-10
# Beyond this many 1 / L a Hann window's side lobes are 20 lg(pi 117^3) = 134 dB down. With 64 (118
# dB) features near the floor of 80 dB differ by 8e-4 from the direct method's, with 117 by 1.3e-4,
# for a third more products.
SIDE_LOBES = 117.0
METHODS = ("direct", "fast")


@dataclasses.dataclass(frozen=True)
class HarmonicCqt:
    """Magnitudes of a variable-Q transform (bandwidth alpha f + 24.7 Hz alpha / 0.108) at
    multiples of the same frequencies.

    aliased: keep the filters above the Nyquist frequency, which hear its mirror image; otherwise
    their bins are 0. method: "direct" correlates at the full rate, "fast" at a reduced rate per
    band (module docstring).
    """

    sample_rate_hz: int = 22050
    hop_samples: int = 256
    fmin_hz: float | int = 27.5
    bins: int = 440
    bins_per_octave: int = 60
    harmonics: tuple[float | int, ...] = (0.5, 1, 2, 3, 4, 5)
    aliased: bool = True
    method: str = "fast"

    def __post_init__(self):
        object.__setattr__(self, "harmonics", tuple(self.harmonics))
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; expected one of {METHODS}.")
        sizes = ("sample_rate_hz", "hop_samples", "fmin_hz", "bins", "bins_per_octave")
        for name in sizes:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        if not self.harmonics or min(self.harmonics) <= 0:
            raise ValueError(f"harmonics must be positive numbers, got {self.harmonics}.")

    @property
    def frequencies_hz(self) -> Float[np.ndarray, "harmonic bin"]:
        """f[h, k] = h f_min 2^(k / bins_per_octave), float64."""
        lowest = equal_temperament_hz(self.fmin_hz, self.bins, self.bins_per_octave)
        return np.asarray(self.harmonics, np.float64)[:, None] * lowest

    def magnitudes(
        self, audio: Float[Array, "batch time"]
    ) -> Float[Array, "batch frame bin harmonic"]:
        """|sum_n x[n + t hop] g[n]|, not normalised.

        A sine of amplitude 1 gives about half the taps of its filter.

        1 + time // hop_samples frames, frame t centred at sample t * hop_samples; zeros outside of
        the audio.
        """
        bands, index = _bands(self)
        batch, time = audio.shape
        hop, frames = self.hop_samples, 1 + time // self.hop_samples
        reach = 1 + max(max(len(band.kernel), -band.start // band.rate) for band in bands)
        hops = _fft_size(frames + 2 * reach)
        # Zeros by concatenation: XLA would fuse a pad into the framing and branch at every sample.
        before, after = (
            jnp.zeros((batch, n), audio.dtype) for n in (reach * hop, (hops - reach) * hop - time)
        )
        padded = jnp.concatenate([before, audio, after], axis=1)
        signals, parts = {hop: padded}, []
        spectrum = jnp.fft.rfft(padded)
        for rate, start, kernel in bands:
            if rate not in signals:
                low = spectrum[:, : rate * hops // 2 + 1]
                signals[rate] = jnp.fft.irfft(low, n=rate * hops)
            first, width = reach * rate + start, kernel.shape[0]
            steps = signals[rate][:, first : first + (frames - 1 + width) * rate]
            steps = steps.reshape(batch, frames - 1 + width, rate)[..., : kernel.shape[1]]
            response = jax.lax.conv_general_dilated(
                steps,
                jnp.asarray(kernel),
                window_strides=(1,),
                padding="VALID",
                dimension_numbers=("NWC", "WIO", "NWC"),
                precision=jax.lax.Precision.HIGHEST,
            )
            real, imaginary = jnp.split(response, 2, axis=-1)
            parts.append(_root(real**2 + imaginary**2))
        found: Array = _spread(jnp.concatenate(parts, axis=-1), self)
        found = found.reshape(batch, frames, *index.shape)
        if self.aliased:
            return found
        below_nyquist = self.sample_rate_hz >= 2 * self.frequencies_hz.T
        return found * below_nyquist[None, None]


def _fft_size(samples: int) -> int:
    """The next number of `samples` or more with a fast Fourier transform, 2^n times 1, 3, 5, 9 or
    15.
    """
    odd = (1, 3, 5, 9, 15)
    return min(m * 2 ** max(0, math.ceil(math.log2(samples / m))) for m in odd)


class _Band(NamedTuple):
    """Filters that are correlated together: kernel [hop, sample in it, real parts then imaginary
    parts].

    Cut into hops, the correlation at a stride is a convolution without one, and so is its
    gradient.
    """

    rate: int  # samples per hop
    start: int  # place of the first tap, from the centre of a frame, in samples of that rate
    kernel: np.ndarray


class _Filters(NamedTuple):
    """Windowed sinusoids w_L[n - start] exp(2 pi i f (n - start + phase) / sample rate), arrays
    [filter].
    """

    frequency_hz: np.ndarray
    taps: np.ndarray
    start: np.ndarray  # first tap, from the centre of a frame, in samples
    phase: np.ndarray

    def sampled(self, n: Float[np.ndarray, "tap"], sample_rate_hz: float | int) -> np.ndarray:
        """complex128 [tap, filter] at the places n (samples, not only whole ones) from the centre
        of a frame.
        """
        place = n[:, None] - self.start
        window = 0.5 - 0.5 * np.cos(2 * np.pi * place / self.taps)
        window *= (place >= 0) & (place <= self.taps)
        cycles = self.frequency_hz / sample_rate_hz * (place + self.phase)
        return window * np.exp(2j * np.pi * cycles)


def _filters(transform: HarmonicCqt, frequencies_hz: np.ndarray) -> _Filters:
    lengths = wavelet_lengths(
        frequencies_hz,
        sample_rate_hz=transform.sample_rate_hz,
        bins_per_octave=transform.bins_per_octave,
        gamma=None,
    )
    phase = np.floor(-lengths / 2)
    taps = np.floor(lengths / 2) - phase
    # Each filter in the middle of the longest of its harmonic, and that centred on the frame, both
    # rounded down: so the banks of different harmonics can lie a sample apart.
    longest = np.ceil(lengths.max())
    start = (longest - taps) // 2 - longest // 2
    return _Filters(frequencies_hz, taps, start, phase)


@functools.lru_cache(maxsize=8)
def _bands(transform: HarmonicCqt) -> tuple[tuple[_Band, ...], np.ndarray]:
    """The bands, and for [bin, harmonic] the place of its filter when their filters are joined
    up.
    """
    banks = [_filters(transform, frequencies) for frequencies in transform.frequencies_hz]
    table = np.concatenate([np.stack(bank, 1) for bank in banks])
    rounded = np.round(np.concatenate([np.log2(table[:, :1]), table[:, 1:]], 1), 9)
    _, kept, index = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    filters = _Filters(*table[kept].T)
    rates = _rates(transform, filters)
    sizes = np.ceil(np.log2(filters.taps * rates / transform.hop_samples))
    bands, order = [], []
    for rate, size in sorted(set(zip(rates.tolist(), sizes.tolist(), strict=True))):
        members = np.flatnonzero((rates == rate) & (sizes == size))
        order.append(members)
        bands.append(_band(transform, _Filters(*(a[members] for a in filters)), rate))
    places = np.argsort(np.concatenate(order))[index.reshape(-1)]
    return tuple(bands), places.reshape(len(banks), -1).T


def _rates(transform: HarmonicCqt, filters: _Filters) -> np.ndarray:
    """Samples per hop that a filter needs: the full rate, or 2^a and 3 * 2^a above twice its
    highest frequency.
    """
    hop = transform.hop_samples
    if transform.method == "direct":
        return np.full(len(filters.taps), hop)
    cycles_per_sample = filters.frequency_hz / transform.sample_rate_hz + SIDE_LOBES / filters.taps
    options = [factor << i for i in range(hop.bit_length()) for factor in (1, 3)]
    options = np.array(sorted({hop, *(n for n in options if n < hop)}))
    place = np.searchsorted(options, 2 * hop * cycles_per_sample)
    return options[np.minimum(place, len(options) - 1)]


def _band(transform: HarmonicCqt, filters: _Filters, rate: int) -> _Band:
    step = transform.hop_samples / rate
    first = int(np.floor(filters.start.min() / step))
    last = int(np.ceil((filters.start + filters.taps).max() / step))
    kernel = filters.sampled(np.arange(first, last + 1) * step, transform.sample_rate_hz)
    kernel = np.concatenate([np.real(kernel), np.imag(kernel)], 1).astype(np.float32)
    width = -(-len(kernel) // rate)
    if width > 1:
        kernel = np.pad(kernel, ((0, width * rate - len(kernel)), (0, 0)))
    return _Band(rate, first, kernel.reshape(width, -1, kernel.shape[1]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _spread(found, transform):
    return found[..., _bands(transform)[1].reshape(-1)]


def _spread_backward(transform, _, cotangent):
    # The automatic transpose is a scatter; a filter is read by few harmonics, so that many gathers
    # do.
    index = _bands(transform)[1].reshape(-1)
    order = np.argsort(index, kind="stable")
    start, counts = np.unique(index[order], return_index=True, return_counts=True)[1:]
    total = cotangent[..., order[start]]
    for turn in range(1, counts.max()):
        readers = order[np.minimum(start + turn, len(order) - 1)]
        total += cotangent[..., readers] * (counts > turn)[None, None]
    return (total,)


_spread.defvjp(lambda found, transform: (_spread(found, transform), None), _spread_backward)


def _root(power: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """sqrt with gradient 0 at 0."""
    positive = power > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, power, 1.0)), 0.0)


def unit_decibels(
    magnitudes: Float[Array, "batch *any"],
    *,
    range_db: float = 80.0,
    reference: Float[Array, "batch"] | None = None,
) -> Float[Array, "batch *any"]:
    """1 + max(10 lg(max(|X|^2, 1e-10) / max(r^2, 1e-10)), -range_db) / range_db: the loudest is 1,
    the floor 0.

    r is the largest magnitude of the item, a constant for the gradient, or what is given. An item
    with r^2 <= 1e-10 counts as silence: all 0.
    """
    if reference is None:
        reference = jax.lax.stop_gradient(magnitudes.max(tuple(range(1, magnitudes.ndim))))
    peak = (reference**2).reshape(-1, *[1] * (magnitudes.ndim - 1))
    level = jnp.log10(jnp.maximum(magnitudes**2, POWER_FLOOR))
    level_db = 10.0 * (level - jnp.log10(jnp.maximum(peak, POWER_FLOOR)))
    return jnp.where(peak > POWER_FLOOR, 1.0 + jnp.maximum(level_db, -range_db) / range_db, 0.0)


def harmonic_power(
    features: Float[Array, "batch frame bin harmonic"],
    *,
    harmonics: tuple[float | int, ...],
    range_db: float = 80.0,
) -> Float[Array, "batch frame bin"]:
    """P[k] = sum_h (w_h A_h[k])^2, w_h proportional to 1 / h^2 with sum 1, and 0 for a
    sub-harmonic (h < 1).

    A_h = 10^(range_db (feature - 1) / 20) is the amplitude behind a feature of `unit_decibels`, 0
    where that is 0.
    """
    if features.shape[-1] != len(harmonics):
        raise ValueError(
            f"features have {features.shape[-1]} harmonics (last axis of {features.shape}), "
            f"but harmonics names {len(harmonics)}: {harmonics}."
        )
    order = np.asarray(harmonics, np.float64)
    weights = np.where(order >= 1, 1 / order**2, 0.0)
    if not weights.any():
        raise ValueError(f"harmonics are {harmonics}; at least one must be 1 or more.")
    weights = (weights / weights.sum()).astype(np.float32)[None, None, None]
    power = 10.0 ** (range_db / 10.0 * (features - 1.0))
    return jnp.sum(jnp.where(features > 0, power, 0.0) * weights**2, axis=-1)


def harmonic_average(
    features: Float[Array, "batch frame bin harmonic"],
    *,
    harmonics: tuple[float | int, ...],
    range_db: float = 80.0,
) -> Float[Array, "batch frame bin"]:
    """`unit_decibels` of the root of `harmonic_power`, the target of the energy loss (arXiv
    2506.23371); its maximum is 1.
    """
    power: Array = harmonic_power(features, harmonics=harmonics, range_db=range_db)
    return unit_decibels(_root(power), range_db=range_db)


def frame_rms(
    audio: Float[Array, "batch time"], *, frame_samples: int = 2048, hop_samples: int
) -> Float[Array, "batch frame"]:
    """Root mean square of 1 + time // hop_samples frames, frame t centred at t * hop_samples,
    zeros outside.
    """
    zeros = jnp.zeros((len(audio), frame_samples // 2), audio.dtype)
    padded = jnp.concatenate([zeros, audio, zeros], axis=1)
    frames: Array = frame(padded, frame_samples, hop_samples)
    return _root(jnp.mean(frames**2, axis=-1))
