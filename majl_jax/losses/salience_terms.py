"""Losses of SS-MPE on the logits z of pitch bins, s = sigmoid(z): one value per frame, summed over
bins.

Cwitkowitz & Duan, arXiv 2402.15569 and 2506.23371; repository cwitkowitz/ss-mpe,
`ss_mpe/objectives`. The authors take the mean over frames and items, or `gated_mean`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from majl_jax.audio import pitch
from majl_jax.losses import weighting

_SMALL = 1.1920929e-07  # the authors' divisor floor: the spacing of float32 at 1
_ROUNDING = 1e-5  # so near to 1 a target is one


def bce(
    logits: Float[Array, "batch frame bin"], targets: Float[Array, "batch frame bin"]
) -> Float[Array, "batch frame"]:
    """sum_k -(y_k log s_k + (1 - y_k) log(1 - s_k)) for targets y in [0, 1]; its gradient for y is
    -z.
    """
    return jnp.sum(_binary_cross_entropy(logits, targets), axis=-1)


def positive_weighted_bce(
    logits: Float[Array, "batch frame bin"], targets: Float[Array, "batch frame bin"]
) -> Float[Array, "batch frame"]:
    """`bce` in which bins with y = 1 count sum_k (1 - y_k) / sum_k y_k times, the frame's ratio of
    negatives to positives.
    """
    ratio = (1.0 - targets).sum(-1, keepdims=True) / (targets.sum(-1, keepdims=True) + _SMALL)
    # Not y = 1: compiled with what makes the targets, a pitch may come out a rounding away from it.
    weights = jnp.where((targets > 1.0 - _ROUNDING) & (ratio > 0.0), ratio, 1.0)
    return jnp.sum(weights * _binary_cross_entropy(logits, targets), axis=-1)


def energy(
    logits: Float[Array, "batch frame bin"], salience: Float[Array, "batch frame bin"]
) -> Float[Array, "batch frame"]:
    """`bce` against a salience computed from the sound, the harmonic average of the CQT in [0,
    1].
    """
    return bce(logits, salience)


def support(
    logits: Float[Array, "batch frame bin"], level: Float[Array, "batch frame bin"]
) -> Float[Array, "batch frame"]:
    """sum_k -(1 - x_k) log(1 - s_k): no pitch where the first harmonic's level x in [0, 1] is
    low.
    """
    return jnp.sum((1.0 - level) * jax.nn.softplus(logits), axis=-1)


def harmonic(
    logits: Float[Array, "batch frame bin"], salience: Float[Array, "batch frame bin"]
) -> Float[Array, "batch frame"]:
    """sum_k -x_k log s_k: a pitch where the harmonic average x in [0, 1] is high."""
    return jnp.sum(salience * jax.nn.softplus(-logits), axis=-1)


def sparsity(logits: Float[Array, "batch frame bin"]) -> Float[Array, "batch frame"]:
    """sum_k s_k, the L1 norm of the salience."""
    return jnp.sum(jax.nn.sigmoid(logits), axis=-1)


def entropy(logits: Float[Array, "batch frame bin"]) -> Float[Array, "batch frame"]:
    """sum_k -s_k log s_k, with the gradient of both factors."""
    return jnp.sum(jax.nn.sigmoid(logits) * jax.nn.softplus(-logits), axis=-1)


def content(
    logits: Float[Array, "batch frame bin"], *, peaks: int = 1, width_bins: float = 1.0
) -> Float[Array, "batch frame"]:
    """sum_k -y_k log s_k: the frame's `peaks` highest local maxima should be pitches.

    y is 1 at those maxima, blurred by a Gaussian of `width_bins` bins (0: not), at most 1, and
    carries no gradient. A frame with fewer maxima, as a constant one, has fewer targets.
    """
    if not 1 <= peaks <= logits.shape[-1]:
        raise ValueError(f"content got peaks={peaks}; expected 1 to {logits.shape[-1]}, the bins.")
    fixed = jax.lax.stop_gradient(logits)
    heights = jnp.where(pitch.is_local_peak(fixed, outside=-jnp.inf), fixed, -jnp.inf)
    highest, index = jax.lax.top_k(heights, peaks)
    bins = jnp.arange(logits.shape[-1])[None, None, None]
    chosen = (index[..., None] == bins) & (highest > -jnp.inf)[..., None]
    targets = chosen.any(axis=-2).astype(logits.dtype)
    if width_bins:
        targets = jnp.minimum(pitch.blur_bins(targets, width_bins=width_bins), 1.0)
    return harmonic(logits, targets)


def contrastive(
    logits: Float[Array, "batch frame bin"], *, temperature: float = 0.1
) -> Float[Array, "batch frame"]:
    """-log(exp(a_ii / tau) / sum_j exp(a_ij / tau)), a_ij the cosine between items i and j of the
    salience in one frame.

    0 for a batch of one. Silent frames still stand among the others: a gate acts on the mean only,
    as in the authors' code.
    """
    salience = jax.nn.sigmoid(logits)
    power = jnp.sum(salience**2, axis=-1, keepdims=True)
    unit = salience / jnp.sqrt(jnp.maximum(power, _SMALL**2))
    cosine = jnp.einsum("ifk,jfk->fij", unit, unit, precision=jax.lax.Precision.HIGHEST)
    of_itself = jnp.diagonal(jax.nn.log_softmax(cosine / temperature), axis1=-2, axis2=-1)
    return -of_itself.T


def gated_mean(
    values: Float[Array, "batch frame"], frame_mask: Bool[Array, "batch frame"]
) -> Float[Array, ""]:
    """The mean over each item's True frames, then over the items that have any; 0 where none has.

    With frame_mask = (rms >= 0.01) this is the authors' gate.
    """
    count = frame_mask.sum(axis=1)
    of_item = jnp.where(frame_mask, values, 0.0).sum(axis=1) / jnp.maximum(count, 1)
    return weighting.masked_mean(of_item, count > 0)


def _binary_cross_entropy(logits: Array, targets: Array) -> Array:
    # Not from max(z, 0) and |z|, whose automatic gradient at z = 0 would be wrong.
    return jax.nn.softplus(logits) - targets * logits


def weighted_bce(
    logits: Float[Array, "*any frame bin"],
    targets: Float[Array, "*any frame bin"],
    *,
    positive_weight: float = 10.0,
) -> Float[Array, "*any frame"]:
    """mean_i -(a y_i log p_i + (1 - y_i) log(1 - p_i)), p = sigmoid(logits), a = positive_weight.

    The pitch loss of DJCM (Wei et al. 2024, arXiv 2401.03856; code `src/loss.py`, alpha = 10,
    gamma = 0), computed from logits so that it stays finite for any of them.
    """
    positive = targets * jax.nn.softplus(-logits)
    negative = (1.0 - targets) * jax.nn.softplus(logits)
    return jnp.mean(positive_weight * positive + negative, axis=-1)
