"""Which example and which frame counts how much: masked means, and the trust in pseudo labels."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from majl_jax import parallel


def masked_mean(
    values: Float[Array, "*shape"], weights: Float[Array, "*shape"] | Bool[Array, "*shape"]
) -> Float[Array, ""]:
    """sum(w v) / sum(w) over the examples of all devices; 0 where no example counts.

    Each device returns its part times the number of devices, so that the mean over devices, which
    the training step takes of losses and gradients, is the global masked mean even if one device's
    share has fewer labels.
    """
    weights = weights.astype(jnp.float32)
    count = parallel.across(weights.sum())
    return jnp.where(weights > 0, values * weights, 0.0).sum() / jnp.maximum(count, 1e-6)


def weighted_sum(
    terms: Mapping[str, Float[Array, ""]], weights: Mapping[str, float]
) -> Float[Array, ""]:
    """sum_i w_i L_i; a term without a weight, or a weight without a term, is an error."""
    if terms.keys() != weights.keys():
        raise ValueError(
            f"config.weights names {sorted(weights)}, the loss has the terms {sorted(terms)}: every"
            " term needs a weight of its name (0 switches it off), and every weight a term"
        )
    return jnp.sum(jnp.stack([weights[name] * value for name, value in terms.items()]))
