"""Pitch units, pitch-bin targets and decoding. Cents are relative to 10 Hz; 0 Hz is unvoiced."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer

REFERENCE_HZ = 10.0
CREPE_BIN_CENTS = (1997.3794084376191 + 20.0 * np.arange(360)).astype(np.float64)
"""CREPE's 360 bin centres, 31.70 to 2005.5 Hz in steps of 20 cents (Kim et al. 2018, sec. 2.1)."""


def hz_to_cents(f0_hz: Float[ArrayLike, "*any"]) -> Float[Array, "*any"]:
    """c = 1200 log2(f / 10 Hz); unvoiced (f <= 0) gives 0."""
    f0_hz = jnp.asarray(f0_hz)
    voiced = f0_hz > 0
    ratio = jnp.where(voiced, f0_hz, REFERENCE_HZ) / REFERENCE_HZ
    return 1200.0 * jnp.log2(ratio)


def cents_to_hz(cents: Float[ArrayLike, "*any"]) -> Float[Array, "*any"]:
    """f = 10 Hz * 2^(c / 1200); 0 cents, the mark of an unvoiced frame, gives 0 Hz."""
    cents = jnp.asarray(cents)
    return jnp.where(cents != 0, REFERENCE_HZ * jnp.exp2(cents / 1200.0), 0.0)


def one_hot_targets(
    f0_hz: Float[ArrayLike, "*any"], bin_cents: Float[ArrayLike, "bin"]
) -> Float[Array, "*any bin"]:
    """1 at the bin nearest to the pitch; no bin for unvoiced or for a pitch outside the bins.

    Outside means more than half a bin beyond the first or last centre.
    """
    relative = _cents_from_pitch_to_bins(f0_hz, bin_cents)
    nearest = jnp.argmin(jnp.abs(relative), axis=-1)
    half_bin = float(np.max(np.diff(bin_cents))) / 2
    inside = jnp.min(jnp.abs(relative), axis=-1) <= half_bin * (1 + 1e-4)
    labelled = inside & (jnp.asarray(f0_hz) > 0)
    return jax.nn.one_hot(nearest, relative.shape[-1]) * labelled[..., None]


def gaussian_targets(
    f0_hz: Float[ArrayLike, "*any"],
    bin_cents: Float[ArrayLike, "bin"],
    *,
    width_cents: float = 25.0,
) -> Float[Array, "*any bin"]:
    """y_i = exp(-(c_i - c)^2 / (2 width^2)), zero for unvoiced (Kim et al. 2018, eq. 3)."""
    relative = _cents_from_pitch_to_bins(f0_hz, bin_cents)
    blurred = jnp.exp(-0.5 * (relative / width_cents) ** 2)
    return blurred * (jnp.asarray(f0_hz) > 0)[..., None]


def decode_local_average(
    salience: Float[ArrayLike, "*any bin"],
    bin_cents: Float[ArrayLike, "bin"],
    *,
    radius_bins: int = 4,
) -> tuple[Float[Array, "*any"], Float[Array, "*any"]]:
    """Pitch and confidence: salience-weighted mean of the cents around the strongest bin.

    c = sum_i y_i c_i / sum_i y_i over |i - argmax y| <= radius_bins; confidence = max y
    (Kim et al. 2018, sec. 2.1, and the authors' code). Always returns a pitch: the caller compares
    the confidence with a threshold. Salience must not be negative.
    """
    salience = jnp.asarray(salience)
    bin_cents = jnp.asarray(bin_cents, salience.dtype)
    peak = jnp.argmax(salience, axis=-1, keepdims=True)
    peak_cents = bin_cents[peak]
    index = jax.lax.broadcast_to_rank(jnp.arange(salience.shape[-1]), salience.ndim)
    near = jnp.abs(index - peak) <= radius_bins
    weights = jnp.where(near, salience, 0.0)
    # Averaging distances to the peak, not absolute cents, keeps float32 exact to 1e-5 cents.
    total = jnp.sum(weights, axis=-1)
    distance = jax.lax.broadcast_to_rank(bin_cents, salience.ndim) - peak_cents
    offset = jnp.sum(weights * distance, axis=-1) / jnp.where(total > 0, total, 1.0)
    return cents_to_hz(peak_cents[..., 0] + offset), jnp.max(salience, axis=-1)


def _cents_from_pitch_to_bins(f0_hz, bin_cents):
    cents = hz_to_cents(f0_hz)[..., None]
    return jax.lax.broadcast_to_rank(jnp.asarray(bin_cents, cents.dtype), cents.ndim) - cents


_RADIUS_WIDTHS = 4  # the blur ends here, in widths
_EDGE_BINS = 1e-4  # float32 logarithms of a pitch on the first or last centre miss it by less


def nearest_bins(
    f0_hz: Float[Array, "*any"], *, fmin_hz: float, bins: int, bins_per_octave: int
) -> Integer[Array, "*any"]:
    """The bin nearest to a pitch in Hz, half-way ones to the lower; -1 for none (0 Hz) and outside
    the outermost centres.
    """
    voiced = f0_hz > 0
    place = bins_per_octave * jnp.log2(jnp.where(voiced, f0_hz, fmin_hz) / fmin_hz)
    inside = voiced & (place >= -_EDGE_BINS) & (place <= bins - 1 + _EDGE_BINS)
    nearest = jnp.clip(jnp.ceil(place - 0.5), 0, bins - 1).astype(jnp.int32)
    return jnp.where(inside, nearest, -1)


def multi_pitch_targets(
    f0_hz: Float[Array, "batch frame voice"],
    *,
    fmin_hz: float = 27.5,
    bins: int = 440,
    bins_per_octave: int = 60,
    width_bins: float = 1.0,
) -> Float[Array, "batch frame bin"]:
    """min(1, (g * a) / n): 1 at the bins of the pitches, a Gaussian of `width_bins` around them,
    in [0, 1].

    a is 1 at every pitch's nearest bin, g the blur of `blur_bins`, and n, per item, the smallest
    blurred value at a pitch, which is 1 unless every pitch of the item has a neighbour. The
    targets of Timbre-Trap (Cwitkowitz et al. 2024; repository sony/timbre-trap,
    `PitchDataset.py`), which SS-MPE shares.

    Args:
        f0_hz: pitches, 0 = no pitch; those beyond the outermost bin centres are dropped.
        fmin_hz: centre of bin 0.
        bins: their number.
        bins_per_octave: how many of them make an octave.
        width_bins: standard deviation of the Gaussian; 0: no blur.
    """
    index = nearest_bins(f0_hz, fmin_hz=fmin_hz, bins=bins, bins_per_octave=bins_per_octave)
    active = (index[..., None] == jnp.arange(bins)[None, None, None]).any(axis=-2)
    pitches = active.astype(jnp.float32)
    if width_bins == 0:
        return pitches
    blurred: Array = blur_bins(pitches, width_bins=width_bins)
    smallest = jnp.where(active, blurred, jnp.inf).min(axis=(1, 2), keepdims=True)
    return jnp.minimum(blurred / jnp.where(jnp.isfinite(smallest), smallest, 1.0), 1.0)


def blur_bins(x: Float[Array, "*any bin"], *, width_bins: float) -> Float[Array, "*any bin"]:
    """sum_d exp(-d^2 / (2 width^2)) x[k - d] over |d| <= 4 width, zeros outside; a lone 1 keeps
    its height.
    """
    if width_bins <= 0:
        raise ValueError(f"blur_bins needs a width_bins above 0, got {width_bins}.")
    radius, bins = int(_RADIUS_WIDTHS * width_bins + 0.5), x.shape[-1]
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(radius, radius)])
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / width_bins) ** 2)
    total = jnp.zeros_like(x)
    for start, weight in enumerate(weights.tolist()):
        total = total + weight * jax.lax.slice_in_dim(padded, start, start + bins, axis=-1)
    return total


def is_local_peak(
    salience: Float[Array, "*any bin"], *, outside: float = 0.0
) -> Bool[Array, "*any bin"]:
    """Where a bin is greater than both its neighbours; beyond the ends lies `outside`, so a
    plateau has no peak.
    """
    padded = jnp.pad(salience, [(0, 0)] * (salience.ndim - 1) + [(1, 1)], constant_values=outside)
    return (salience > padded[..., :-2]) & (salience > padded[..., 2:])


def local_peaks(salience: Float[Array, "*any bin"]) -> Float[Array, "*any bin"]:
    """The salience at its strict local maxima along the bins, 0 elsewhere; end bins count as
    maxima if above 0.
    """
    return jnp.where(is_local_peak(salience), salience, 0.0)
