"""Initial values as PyTorch draws them."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array


def uniform(fan_in: int) -> nn.initializers.Initializer:
    """Uniform within 1 / sqrt(fan_in), as PyTorch starts kernels and biases."""

    def draw(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -1.0, 1.0) / math.sqrt(fan_in)

    return draw


def affine(
    module: nn.Module, name: str, shape: tuple[int, ...], fan_in: int, dtype: Any
) -> tuple[Array, Array]:
    """The parameters `<name>_kernel` of this shape and `<name>_bias` of its last axis, in
    `dtype`.

    Args:
        module: gets them.
        name: what theirs begin with.
        shape: of the kernel.
        fan_in: that of `uniform`, which both start from.
        dtype: of what is returned; the module keeps float32.
    """
    kernel = module.param(f"{name}_kernel", uniform(fan_in), shape)
    bias = module.param(f"{name}_bias", uniform(fan_in), shape[-1:])
    return kernel.astype(dtype), bias.astype(dtype)
