"""TF-Locoformer: attention with local modelling by convolution, along frequency and along time
(Saijo et al., IWAENC 2024).

As the released code computes it (merlresearch/tf-locoformer): without the factor 1/2 of the
paper's two feed-forward networks.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from majl_jax.models.layers.attention import (
    attend,
    attend_with_dropout,
    implementation_for,
    rotate,
)
from majl_jax.models.layers.initialisers import affine, uniform
from majl_jax.models.layers.sequence_convolution import convolve

ORDERS = {"ft": ("frequency", "time"), "tf": ("time", "frequency")}
POSITIONS = ("nope", "rope")
REMATS = ("none", "full", "dots")
_EPSILON = 1e-5
_SMALLEST_POWER = 1e-24  # the square root has no slope at 0
_CONVOLVED = "convolved"


@dataclasses.dataclass(frozen=True)
class LocoformerSizes:
    """What a block is made of; all blocks of a network are alike. A ValueError where the numbers
    do not fit.

    `dropout` acts on hidden and on outgoing values of the feed-forward networks and on those of
    the attention in training; `attention_dropout` on probabilities, which the released code drops
    as well: 0 here, since fused attention has none and the other way keeps all logits. `pos_enc`
    is "nope", no positions, or "rope", rotary ones. `attention` is "xla", "cudnn" or "auto".
    `dtype` is that of matrix products; the residual stream, the norms and the softmax are float32.
    """

    features: int = 128
    attention_features: int = 128
    heads: int = 8
    norm_groups: int = 8
    hidden: int = 192
    kernel_size: int = 8
    order: str = "ft"
    pos_enc: str = "nope"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    attention: str = "auto"
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        for name in ("features", "attention_features", "heads", "norm_groups", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name, known in (("order", ORDERS), ("pos_enc", POSITIONS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is not one of {', '.join(known)}."
                )
        if self.kernel_size < 1:
            raise ValueError(f"kernel_size must be at least 1, got {self.kernel_size}.")
        if self.features % self.norm_groups:
            raise ValueError(
                f"features={self.features} cannot be split into norm_groups={self.norm_groups}"
                " equal groups."
            )
        if self.attention_features % self.heads:
            raise ValueError(
                f"attention_features={self.attention_features} is no multiple of"
                f" heads={self.heads}."
            )
        if self.pos_enc == "rope" and self.attention_features // self.heads % 2:
            raise ValueError(
                "rotary positions turn pairs of features:"
                f" attention_features={self.attention_features} over heads={self.heads} is odd."
            )


class TFLocoformerBlock(nn.Module):
    """A path along the bands of each frame and one along the frames of each band, in the `order`
    of the sizes.
    """

    sizes: LocoformerSizes
    deterministic: bool = True

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "batch frame band feature"]
    ) -> Float[Array, "batch frame band feature"]:
        """Of the same shape, in float32; any number of frames and bands."""
        for axis in ORDERS[self.sizes.order]:
            path = LocoformerBlock(self.sizes, self.deterministic, name=f"{axis}_path")
            if axis == "time":
                hidden = hidden.swapaxes(1, 2)
            sequences = hidden.reshape(-1, *hidden.shape[2:])
            hidden = path(sequences).reshape(hidden.shape)
            if axis == "time":
                hidden = hidden.swapaxes(1, 2)
        return hidden


class LocoformerBlock(nn.Module):
    """x + F(N(x)), x + A(N(x)), x + F(N(x)) in turn, with N `RMSGroupNorm`, F `ConvSwiGLU` and A
    `SelfAttention`, each its own.
    """

    sizes: LocoformerSizes
    deterministic: bool = True

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "sequence position feature"]
    ) -> Float[Array, "sequence position feature"]:
        """Of the same shape, in float32."""
        hidden = hidden.astype(jnp.float32)
        for name, kind in (
            ("ffn_before", ConvSwiGLU),
            ("attention", SelfAttention),
            ("ffn_after", ConvSwiGLU),
        ):
            normed = RMSGroupNorm(self.sizes.norm_groups, name=f"{name}_norm")(hidden)
            outputs = kind(self.sizes, self.deterministic, name=name)(normed)
            hidden = hidden + outputs.astype(jnp.float32)
        return hidden


class RMSGroupNorm(nn.Module):
    """y = x / (sqrt(mean of x^2 over the group) + 1e-5) * scale for `groups` groups of features;
    in float32.
    """

    groups: int

    @nn.compact
    def __call__(self, inputs: Float[Array, "*any feature"]) -> Float[Array, "*any feature"]:
        """Of the same shape; the gradient is finite at 0."""
        scale = self.param("scale", nn.initializers.ones, inputs.shape[-1:])
        return _group_normed(inputs, scale, self.groups)


# Their insides are computed anew in the backward pass: a scan over layers would keep each array of
# them.
@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=2)
def _group_normed(inputs: Array, scale: Array, groups: int) -> Array:
    grouped = inputs.astype(jnp.float32).reshape(*inputs.shape[:-1], groups, -1)
    power = jnp.mean(grouped**2, -1, keepdims=True)
    level = jnp.sqrt(jnp.maximum(power, _SMALLEST_POWER)) + _EPSILON
    scale = jax.lax.broadcast_to_rank(scale, inputs.ndim)
    return (grouped / level).reshape(inputs.shape) * scale


@functools.partial(jax.checkpoint, prevent_cse=False)
def _gated(convolved: Array, bias: Array) -> Array:
    value, gate = jnp.split(convolved + bias[None, None], 2, -1)
    return value * nn.silu(gate)


class ConvSwiGLU(nn.Module):
    """V * (a silu(g)) + c with [a, g] = W * x + b: two convolutions over positions, the hidden
    values reach past both ends.

    W and x give kernel_size - 1 more positions than x has, V and those as many as x. The released
    code writes V as a transposed convolution and cuts the ends off, which is the same with the
    taps of V in reverse.
    """

    sizes: LocoformerSizes
    deterministic: bool = True

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "sequence position feature"]
    ) -> Float[Array, "sequence position feature"]:
        """Of the same shape, in `dtype`."""
        size, dtype, features = self.sizes.kernel_size, self.sizes.dtype, inputs.shape[-1]
        channels = (features, 2 * self.sizes.hidden)
        kernel, bias = affine(self, "in", (size, *channels), size * features, dtype)
        convolved: Array = convolve(inputs.astype(dtype), kernel, size - 1)
        hidden = _dropped(self, _gated(checkpoint_name(convolved, _CONVOLVED), bias))
        # PyTorch counts the outputs of a transposed convolution as its inputs.
        channels = (self.sizes.hidden, features)
        kernel, bias = affine(self, "out", (size, *channels), size * features, dtype)
        outputs: Array = convolve(hidden, kernel, 0)
        return _dropped(self, checkpoint_name(outputs, _CONVOLVED) + bias[None, None])


class SelfAttention(nn.Module):
    """Multi-head self-attention without biases, over all positions."""

    sizes: LocoformerSizes
    deterministic: bool = True

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "sequence position feature"]
    ) -> Float[Array, "sequence position feature"]:
        """Of the same shape, in `dtype`."""
        sizes = self.sizes
        features, width = inputs.shape[-1], sizes.attention_features
        shape = (features, 3 * width)
        kernel = self.param("in_kernel", uniform(features), shape).astype(sizes.dtype)
        both = inputs.astype(sizes.dtype) @ kernel
        heads = both.reshape(*inputs.shape[:2], 3, sizes.heads, width // sizes.heads)
        query, key, value = (heads[:, :, i] for i in range(3))
        if sizes.pos_enc == "rope":
            query, key = rotate(query), rotate(key)
        if sizes.attention_dropout > 0 and not self.deterministic:
            random_key = self.make_rng("dropout")
            attended = attend_with_dropout(query, key, value, sizes.attention_dropout, random_key)
        else:
            implementation = implementation_for(sizes.attention, sizes.dtype, query.shape[-1])
            attended = attend(query, key, value, implementation)
        kernel = self.param("out_kernel", uniform(width), (width, features)).astype(sizes.dtype)
        return _dropped(self, attended.reshape(*inputs.shape[:2], width) @ kernel)


def rematerialised(module: Any, remat: str) -> Any:
    """The module class, computed anew in the backward pass: "full", or "dots" all but its matrix
    products and convolutions.

    ("none" is the class itself.) For use inside a scan over layers. A ValueError for another word.
    """
    if remat not in REMATS:
        raise ValueError(f"remat={remat!r} is not one of {', '.join(REMATS)}.")
    if remat == "none":
        return module
    policies = jax.checkpoint_policies
    policy = None
    if remat == "dots":
        policy = policies.save_from_both_policies(
            policies.dots_with_no_batch_dims_saveable,
            policies.save_only_these_names(_CONVOLVED),
        )
    return nn.remat(module, prevent_cse=False, policy=policy)


def _dropped(module: Any, hidden: Array) -> Array:
    if module.deterministic or module.sizes.dropout == 0:
        return hidden
    return nn.Dropout(module.sizes.dropout, deterministic=False)(hidden)
