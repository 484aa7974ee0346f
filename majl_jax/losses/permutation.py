"""Losses when nothing says which estimate is which source."""

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

_MOST_SOURCES = 6  # 720 orders


def permutation_invariant(
    loss: Callable[[Float[Array, "batch *rest source"]], Float[Array, "batch"]],
    targets: Float[Array, "batch *rest source"],
) -> tuple[Float[Array, "batch"], Int[Array, "batch source"]]:
    """min_p loss(targets[..., p]) of each example and the order p that has it (Kolbaek et al. 2017, utterance level).

    One order for a whole example: p[i] is the source that estimate i is held against. The orders are tried one after the
    other without keeping anything for the backward pass; the gradient is that of the best. All S! are tried: a ValueError
    above 6 sources.
    """
    sources = targets.shape[-1]
    if sources > _MOST_SOURCES:
        raise ValueError(
            f"{sources} sources have {math.factorial(sources)} orders; expected at most {_MOST_SOURCES} sources."
        )
    orders = jnp.asarray(np.array(list(itertools.permutations(range(sources))), np.int32))
    losses = jax.lax.map(lambda order: loss(jnp.take(targets, order, axis=-1)), orders)
    best = orders[jnp.argmin(jax.lax.stop_gradient(losses), axis=0)]
    index = best.reshape(len(best), *(1,) * (targets.ndim - 2), sources)
    return loss(jnp.take_along_axis(targets, index, axis=-1)), best
