"""Convolutions of Jukebox's VQ-VAE and its stacks of dilated residual blocks.

On a CPU the dilated convolutions need no code of their own (jax 0.10.2, 32,768 positions of 64
channels, whatever the dilation: 10 ms of CPU time, 35 ms with gradients); a transposed convolution
by XLA takes 780 ms with gradients, `transposed_conv` 89 ms.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from majl_jax.models.layers.frame_layers import product
from majl_jax.models.layers.initialisers import uniform

REMATS = ("none", "full")
_Weights = tuple[tuple[Array, Array], tuple[Array, Array]]


class Stack(nn.Module):
    """Residual blocks: x + V ReLU(W * ReLU(x) + b) + c with a dilated convolution W of three taps
    and a matrix V, for each dilation in turn.

    `remat` "full" computes the inside of each block anew in the backward pass. What the blocks add
    up is float32, their inside `dtype`.
    """

    dilations: tuple[int, ...]
    remat: str
    dtype: Any

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "batch position channel"]
    ) -> Float[Array, "batch position channel"]:
        if self.remat not in REMATS:
            raise ValueError(f"remat={self.remat!r} is not one of {', '.join(REMATS)}.")
        numbers = range(1, len(self.dilations) + 1)
        blocks = [_Block(hidden.shape[-1], name=f"block{j}")() for j in numbers]
        hidden = hidden.astype(jnp.float32)
        if self.remat == "full":
            return _stack_in_a_loop(hidden, blocks, self.dilations, self.dtype)
        for weights, dilation in zip(blocks, self.dilations, strict=True):
            dilated = functools.partial(conv3, dilation=dilation)
            hidden = _add_block(hidden, weights, dilated, self.dtype)
        return hidden


def _stack_in_a_loop(
    hidden: Array, blocks: Sequence[_Weights], dilations: tuple[int, ...], dtype: Any
) -> Array:
    """The blocks as steps of a scan that keeps the input of each and computes its inside anew in
    the backward pass.

    XLA's CPU compiler drops the barriers of jax.checkpoint and then merges both computations, but
    not across a loop. In the loop the dilation is a number that XLA does not know, so that the
    convolution is a product with three shifted copies: a switch between convolutions of known
    dilations takes eight times as long.
    """
    widest, positions = max(dilations), hidden.shape[1]

    def step(hidden: Array, block: tuple[_Weights, Array]) -> tuple[Array, None]:
        weights, dilation = block

        def dilated(inputs: Array, kernel: Array) -> Array:
            padded = jnp.pad(inputs, ((0, 0), (widest, widest), (0, 0)))
            starts = (widest - dilation, widest, widest + dilation)
            shifted = [jax.lax.dynamic_slice_in_dim(padded, at, positions, 1) for at in starts]
            return product(jnp.concatenate(shifted, -1), kernel.reshape(-1, kernel.shape[-1]))

        return _add_block(hidden, weights, dilated, dtype), None

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
    step = jax.checkpoint(step, prevent_cse=False)
    return jax.lax.scan(step, hidden, (stacked, jnp.asarray(dilations)))[0]


def _add_block(
    hidden: Array, weights: _Weights, dilated: Callable[[Array, Array], Array], dtype: Any
) -> Array:
    """A residual block of `Stack`, its convolution W by `dilated(inputs, kernel)`."""
    (kernel, bias), (matrix, offset) = jax.tree.map(lambda leaf: leaf.astype(dtype), weights)
    inner = dilated(nn.relu(hidden).astype(dtype), kernel) + bias[None, None]
    outputs = product(nn.relu(inner), matrix[0]) + offset[None, None]
    return hidden + outputs.astype(jnp.float32)


class _Block(nn.Module):
    """The parameters of a residual block: ((W, b), (V, c))."""

    channels: int

    @nn.compact
    def __call__(self) -> _Weights:
        conv1 = _ConvWeights(self.channels, 3, self.channels, name="conv1")
        conv2 = _ConvWeights(self.channels, 1, self.channels, name="conv2")
        return conv1(), conv2()


class _ConvWeights(nn.Module):
    """Kernel and bias of a convolution, uniform within 1 / sqrt(taps channels)."""

    channels: int
    taps: int
    features: int

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        return _conv_weights(self, self.channels, self.taps, self.features, self.channels)


def _conv_weights(
    module: nn.Module, channels: int, taps: int, features: int, counted: int
) -> tuple[Array, Array]:
    initial = uniform(taps * counted)
    kernel = module.param("kernel", initial, (taps, channels, features))
    return kernel, module.param("bias", initial, (features,))


class Conv(nn.Module):
    """A convolution, `convolve(inputs, kernel)`, and a bias; in `dtype`."""

    features: int
    taps: int
    convolve: Callable[[Array, Array], Array]
    dtype: Any

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch position channel"]
    ) -> Float[Array, "batch position_out feature"]:
        channels = inputs.shape[-1]
        # PyTorch counts the outputs of a transposed convolution as its inputs.
        counted = self.features if self.convolve is transposed_conv else channels
        kernel, bias = _conv_weights(self, channels, self.taps, self.features, counted)
        convolved = self.convolve(inputs.astype(self.dtype), kernel.astype(self.dtype))
        return convolved + bias[None, None].astype(self.dtype)


def strided_conv(
    inputs: Float[Array, "batch position channel_in"],
    kernel: Float[Array, "tap channel_in channel_out"],
) -> Float[Array, "batch position_out channel_out"]:
    """y[n] = sum_k x[n s + k - s / 2] W[k] with 2 s taps and zeros beyond both ends; s must be
    even and divide the length.

    As a convolution of two taps over groups of s positions.
    """
    batch, positions, channels = inputs.shape
    stride = kernel.shape[0] // 2
    beyond = (stride // 2, stride // 2)
    groups = jnp.pad(inputs, ((0, 0), beyond, (0, 0)))
    groups = groups.reshape(batch, positions // stride + 1, stride * channels)
    return _by_xla(groups, kernel.reshape(2, stride * channels, -1), 0)


def transposed_conv(
    inputs: Float[Array, "batch position channel_in"],
    kernel: Float[Array, "tap channel_in channel_out"],
) -> Float[Array, "batch position_out channel_out"]:
    """x[n] W[k] is added to y[n s + k - s / 2], with 2 s taps and y s times as long as x; s must
    be even.
    """
    batch, positions, channels = inputs.shape
    stride, features = kernel.shape[0] // 2, kernel.shape[2]
    both = product(inputs, kernel.swapaxes(0, 1).reshape(channels, -1))
    # Group n of s outputs hears the first half of the taps of x[n] and the second half of those of
    # x[n - 1].
    first, second = jnp.split(jnp.pad(both, ((0, 0), (1, 1), (0, 0))), 2, -1)
    groups = first[:, 1:] + second[:, :-1]
    outputs = groups.reshape(batch, (positions + 1) * stride, features)
    return outputs[:, stride // 2 : -(stride // 2)]


def conv3(
    inputs: Float[Array, "batch position channel_in"],
    kernel: Float[Array, "3 channel_in channel_out"],
    *,
    dilation: int = 1,
) -> Float[Array, "batch position channel_out"]:
    """y[n] = sum_k x[n + (k - 1) dilation] W[k] with three taps and zeros beyond both ends."""
    return _by_xla(inputs, kernel, dilation, dilation)


def _by_xla(inputs: Array, kernel: Array, padding: int, dilation: int = 1) -> Array:
    return jax.lax.conv_general_dilated(
        inputs,
        kernel,
        (1,),
        [(padding, padding)],
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
