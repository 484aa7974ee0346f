"""Losses between pitch salience and pitch-bin targets, one value per frame."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
