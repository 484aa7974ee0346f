"""Losses against blank output where labels are missing: how much is heard, how it varies, and what
is surely there.

Not in SS-MPE's paper, which names the collapse to blank output as its open problem (arXiv
2506.23371).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from majl_jax import parallel
from majl_jax.audio import pitch


def activity_hinge(
    salience: Float[Array, "batch frame bin"],
    minimum_mass: Float[Array, "*item"] | float,
    frame_mask: Bool[Array, "batch frame"],
    *,
    squared: bool = True,
) -> Float[Array, "batch"]:
    """max(0, M - m)^2 (or unsquared), m = the item's mean over True frames of sum_k s_k, the
    number of active bins.

    M, the least number, is a scalar or one per item and carries no gradient; from labels, their
    mean sum over bins. 0 for items without a True frame: they say nothing, so leave them out of a
    mean (`frame_mask.any(1)`).
    """
    count = frame_mask.sum(axis=1)
    mass = jnp.where(frame_mask, salience.sum(axis=-1), 0.0).sum(axis=1) / jnp.maximum(count, 1)
    missing = jax.nn.relu(jax.lax.stop_gradient(jnp.asarray(minimum_mass)) - mass)
    return jnp.where(count > 0, missing**2 if squared else missing, 0.0)


def positive_bce(
    logits: Float[Array, "batch frame bin"],
    positives: Float[Array, "batch frame bin"] | Bool[Array, "batch frame bin"],
) -> Float[Array, "batch frame"]:
    """sum_k -y_k log s_k: what is known to sound must be heard, of the other bins nothing is said.

    For the labels of a sound that was mixed into another one, and for pseudo labels.
    """
    return jnp.sum(positives.astype(logits.dtype) * jax.nn.softplus(-logits), axis=-1)


def variance_hinge(
    salience: Float[Array, "batch frame bin"],
    frame_mask: Bool[Array, "batch frame"] | None = None,
    *,
    minimum_deviation: float,
    of: str = "bins",
    epsilon: float = 1e-4,
) -> Float[Array, ""]:
    """mean_k max(0, g - sqrt(Var(s_k) + epsilon)) over the bins, Var over the True frames of all
    items of all devices.

    The variance term of VICReg (Bardes et al. 2022, eq. 1), with Var divided by the count. Each
    device returns the global value; its gradient is that of one device in the mean over devices.

    Args:
        salience: s, 0 to 1.
        frame_mask: which frames count; None: all. 0 comes out without a True frame.
        minimum_deviation: g.
        of: "bins", or "mass": one hinge, on the frames' number of active bins sum_k s_k instead.
        epsilon: keeps the gradient finite where nothing varies.
    """
    if of not in ("bins", "mass"):
        raise ValueError(f'variance_hinge got of={of!r}; expected "bins" or "mass".')
    values = salience if of == "bins" else salience.sum(axis=-1, keepdims=True)
    mask = jnp.ones(salience.shape[:2], bool) if frame_mask is None else frame_mask
    weights = mask.astype(values.dtype)[..., None]
    # Means over devices, whose quotients are those of the whole batch.
    count, total = parallel.across((weights.sum(), (weights * values).sum(axis=(0, 1))))
    some = jnp.where(count > 0, count, 1.0)
    squared = (weights * (values - (total / some)[None, None]) ** 2).sum(axis=(0, 1))
    variance = parallel.across(squared) / some
    missing = jax.nn.relu(minimum_deviation - jnp.sqrt(variance + epsilon)).mean()
    return jnp.where(count > 0, missing, 0.0)


@dataclasses.dataclass(frozen=True)
class StrictLimits:
    """What `strict_positive_mask` asks of a bin f; levels are relative to that at f, but for the
    SNR.
    """

    minimum_salience: float = 0.6
    minimum_snr_db: float = 10.0
    """Above the mean level of the bins around f."""
    minimum_second_db: float = -10.0
    """Level at 2f."""
    minimum_third_db: float = -12.0
    """Level at 3f."""
    maximum_between_db: float = -15.0
    """Level at 1.5f."""
    neighbourhood_octaves: float = 0.5
    """How far the bins around f reach, to either side."""
    peaks_only: bool = True
    """Whether the level at f has to be a local maximum along the bins."""


STRICT = StrictLimits()


def strict_positive_mask(
    salience: Float[Array, "batch frame bin"],
    features: Float[Array, "batch frame bin harmonic"],
    *,
    harmonics: tuple[float | int, ...],
    bins_per_octave: int,
    range_db: float = 80.0,
    limits: StrictLimits = STRICT,
) -> Bool[Array, "batch frame bin"]:
    """Bins f that are almost surely a pitch, from sound alone, when all of these hold:

    - the harmonic average `salience` reaches `minimum_salience`;
    - the level at f exceeds the mean level in dB of the bins within `neighbourhood_octaves` by
      `minimum_snr_db`;
    - the levels at 2f and 3f, relative to that at f, reach `minimum_second_db` and
      `minimum_third_db`;
    - the level at 1.5f stays below `maximum_between_db`, else f may be the second partial of f/2,
      whose third that is;
    - with `peaks_only`, the level at f is a local maximum along the bins, so that the flanks of a
      partial are no pitches.

    A partial is read in its own channel, or at its nearest bin of channel 1; where that lies
    beyond the last bin nothing is known and the answer is no. Levels are those of the unnormalised
    filters, which fall with frequency. The limits follow the strict positives of repository
    ShiryuEsaki/ss-mpe-experiments; neighbourhood and local maximum are our decision. No gradient.

    Args:
        salience: in [0, 1].
        features: levels 1 + dB / range_db in [0, 1].
        harmonics: of the channels, one each; 1 must be among them.
        bins_per_octave: of the bins.
        range_db: decibels from level 0 to level 1.
        limits: the limits named above.
    """
    if 1 not in harmonics or len(harmonics) != features.shape[-1]:
        raise ValueError(
            f"strict_positive_mask got features of {features.shape[-1]} channels and harmonics"
            f" {harmonics}; expected one per channel, among them 1."
        )
    features = jax.lax.stop_gradient(features)
    first = features[..., harmonics.index(1)]
    bins = first.shape[-1]

    def relative_db(ratio: float) -> tuple[Array, np.ndarray]:
        """Level at ratio * f minus that at f, and for which bins it is known."""
        if ratio in harmonics:
            level, known = features[..., harmonics.index(ratio)], np.ones((1, 1, bins), bool)
        else:
            shift = min(round(bins_per_octave * float(np.log2(ratio))), bins)
            level = jnp.pad(first[..., shift:], ((0, 0), (0, 0), (0, shift)))
            known = np.arange(bins)[None, None] < bins - shift
        return range_db * (level - first), known

    second, third, between = (relative_db(ratio) for ratio in (2.0, 3.0, 1.5))
    around = _neighbourhood_mean(first, round(limits.neighbourhood_octaves * bins_per_octave))
    found = jax.lax.stop_gradient(salience) >= limits.minimum_salience
    found &= range_db * (first - around) >= limits.minimum_snr_db
    found &= (second[0] >= limits.minimum_second_db) & second[1]
    found &= (third[0] >= limits.minimum_third_db) & third[1]
    found &= (between[0] < limits.maximum_between_db) & between[1]
    return found & pitch.is_local_peak(first) if limits.peaks_only else found


def _neighbourhood_mean(levels: Array, radius: int) -> Array:
    """Mean over the bins k - radius to k + radius that exist."""
    window = (1,) * (levels.ndim - 1) + (2 * radius + 1,)
    padding = [(0, 0)] * (levels.ndim - 1) + [(radius, radius)]
    strides = (1,) * levels.ndim
    total = jax.lax.reduce_window(levels, 0.0, jax.lax.add, window, strides, padding)
    place = np.arange(levels.shape[-1])
    count = np.minimum(place + radius, len(place) - 1) - np.maximum(place - radius, 0) + 1
    return total / count.astype(np.float32)[None, None]
