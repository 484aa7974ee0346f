"""Several pitches at a time on a grid of pitch bins: targets for training, and the peaks of a salience.

Bin k is centred at fmin_hz * 2^(k / bins_per_octave).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

_RADIUS_WIDTHS = 4  # the blur ends here, in widths
_EDGE_BINS = 1e-4  # float32 logarithms of a pitch on the first or last centre miss it by less


def nearest_bins(
    f0_hz: Float[Array, "*any"], *, fmin_hz: float, bins: int, bins_per_octave: int
) -> Integer[Array, "*any"]:
    """The bin nearest to a pitch in Hz, half-way ones to the lower; -1 for none (0 Hz) and outside the outermost centres."""
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
    """min(1, (g * a) / n): 1 at the bins of the pitches, a Gaussian of `width_bins` around them, in [0, 1].

    a is 1 at every pitch's nearest bin, g the blur of `blur_bins`, and n, per item, the smallest blurred value at a pitch,
    which is 1 unless every pitch of the item has a neighbour. 0 Hz is no pitch; pitches beyond the outermost bin centres
    are dropped. `width_bins` 0: no blur. The targets of Timbre-Trap (Cwitkowitz et al. 2024; repository
    sony/timbre-trap, `PitchDataset.py`), which SS-MPE shares.
    """
    index = nearest_bins(f0_hz, fmin_hz=fmin_hz, bins=bins, bins_per_octave=bins_per_octave)
    active = (index[..., None] == jnp.arange(bins)).any(axis=-2)
    pitches = active.astype(jnp.float32)
    if width_bins == 0:
        return pitches
    blurred: Array = blur_bins(pitches, width_bins=width_bins)
    smallest = jnp.where(active, blurred, jnp.inf).min(axis=(1, 2), keepdims=True)
    return jnp.minimum(blurred / jnp.where(jnp.isfinite(smallest), smallest, 1.0), 1.0)


def blur_bins(x: Float[Array, "*any bin"], *, width_bins: float) -> Float[Array, "*any bin"]:
    """sum_d exp(-d^2 / (2 width^2)) x[k - d] over |d| <= 4 width, zeros outside; a lone 1 keeps its height."""
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
    """Where a bin is greater than both its neighbours; beyond the ends lies `outside`, so a plateau has no peak."""
    padded = jnp.pad(salience, [(0, 0)] * (salience.ndim - 1) + [(1, 1)], constant_values=outside)
    return (salience > padded[..., :-2]) & (salience > padded[..., 2:])


def local_peaks(salience: Float[Array, "*any bin"]) -> Float[Array, "*any bin"]:
    """The salience at its strict local maxima along the bins, 0 elsewhere; end bins count as maxima if above 0."""
    return jnp.where(is_local_peak(salience), salience, 0.0)
