"""Pitch units, pitch-bin targets and decoding. Cents are relative to 10 Hz; 0 Hz is unvoiced."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

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
    near = jnp.abs(jnp.arange(salience.shape[-1]) - peak) <= radius_bins
    weights = jnp.where(near, salience, 0.0)
    # Averaging distances to the peak, not absolute cents, keeps float32 exact to 1e-5 cents.
    total = jnp.sum(weights, axis=-1)
    offset = jnp.sum(weights * (bin_cents - peak_cents), axis=-1) / jnp.where(total > 0, total, 1.0)
    return cents_to_hz(peak_cents[..., 0] + offset), jnp.max(salience, axis=-1)


def _cents_from_pitch_to_bins(f0_hz, bin_cents):
    cents = hz_to_cents(f0_hz)
    return jnp.asarray(bin_cents, cents.dtype) - cents[..., None]
