"""Jukebox's VQ-VAE without its codebook: waveforms to latents and back (Dhariwal et al., arXiv 2005.00341).

A stage of the encoder shortens the sequence by a strided convolution and passes it through a stack of residual blocks with
dilations 1, 3, 9, ...; the decoder is its mirror image. Sizes and initial values are those of openai/jukebox. On a CPU the dilated
convolutions need no code of their own (jax 0.10.2, 32,768 positions of 64 channels, whatever the dilation: 10 ms of CPU time, 35 ms with
gradients); a transposed convolution by XLA takes 780 ms with gradients, `transposed_conv` 89 ms.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from majl_jax.models.frame_layers import product
from majl_jax.models.locoformer import uniform

REMATS = ("none", "full")

_Weights = tuple[tuple[Array, Array], tuple[Array, Array]]


@dataclasses.dataclass(frozen=True)
class VqVaeSizes:
    """What encoder and decoder are made of, Jukebox's level 0 by default; a ValueError where the numbers do not fit.

    `multiplier` times `width` channels and `multiplier` times `depth` blocks in a stack. Level l of Jukebox has l + 1 sections: section i
    has `downs[i]` stages, each of which shortens the sequence by `strides[i]`. Block j of the encoder's stacks has the dilation
    dilation_growth^j. `latent` channels lie between encoder and decoder and between sections, `channels` in the audio.
    """

    width: int = 32
    depth: int = 4
    multiplier: int = 2
    downs: tuple[int, ...] = (3,)
    strides: tuple[int, ...] = (2,)
    latent: int = 64
    dilation_growth: int = 3
    channels: int = 1

    def __post_init__(self) -> None:
        for name in ("width", "depth", "multiplier", "latent", "dilation_growth", "channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if len(self.downs) != len(self.strides) or not self.downs:
            raise ValueError(
                f"downs={self.downs} and strides={self.strides} must have one number per section each."
            )
        if min(self.downs) < 1:
            raise ValueError(f"downs={self.downs}: every section needs a stage.")
        if any(stride < 2 or stride % 2 for stride in self.strides):
            raise ValueError(
                f"strides={self.strides}: kernels of twice the stride divide the length by it if it is even."
            )

    @property
    def hidden(self) -> int:
        """Channels within a section, `width` times `multiplier`."""
        return self.width * self.multiplier

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of the encoder's blocks in the order of their application; the decoder has them in reverse."""
        return tuple(self.dilation_growth**j for j in range(self.depth * self.multiplier))


LEVELS = (
    VqVaeSizes(),
    VqVaeSizes(multiplier=1, downs=(3, 2), strides=(2, 2)),
    VqVaeSizes(multiplier=1, downs=(3, 2, 2), strides=(2, 2, 2)),
)
"""Jukebox's published levels, the finest first: 900,033, 241,025 and 344,705 parameters, without codebooks of 2048 vectors."""


def hop(sizes: VqVaeSizes) -> int:
    """Samples per latent: 8, 32 and 128 at the three levels."""
    samples = 1
    for downs, stride in zip(sizes.downs, sizes.strides, strict=True):
        samples *= stride**downs
    return samples


def encoder_field(sizes: VqVaeSizes, first: int = 0, last: int = 0) -> tuple[int, int]:
    """First and last sample that latents `first` to `last` depend on: -45,935 and 45,942 for latent 0 of level 0."""
    reach = sum(sizes.dilations)
    for downs, stride in reversed(list(zip(sizes.downs, sizes.strides, strict=True))):
        first, last = first - 1, last + 1  # the convolution that ends a section
        for _ in range(downs):
            first, last = first - reach, last + reach
            # Position n reads 2 s positions from n s - s / 2 on.
            first, last = first * stride - stride // 2, last * stride + stride + stride // 2 - 1
    return first, last


def decoder_field(sizes: VqVaeSizes, first: int = 0, last: int = 0) -> tuple[int, int]:
    """First and last latent that samples `first` to `last` of the decoded audio depend on."""
    reach = sum(sizes.dilations)
    first, last = first - 1, last + 1
    for downs, stride in zip(sizes.downs, sizes.strides, strict=True):
        for _ in range(downs):
            # Position n writes 2 s positions from n s - s / 2 on.
            first, last = (first - stride // 2) // stride, (last + stride // 2) // stride
            first, last = first - reach, last + reach
        first, last = first - 1, last + 1  # the convolution that begins a section
    return first, last


def context_samples(sizes: VqVaeSizes) -> int:
    """How far before or after itself a decoded sample depends on the encoded audio at most: 91,878 samples at level 0.

    A segment that starts at a multiple of the hop is therefore decoded as within the whole track but for that many samples
    at ends that are not the track's.
    """
    furthest = 0
    for sample in range(hop(sizes)):
        first, last = encoder_field(sizes, *decoder_field(sizes, sample, sample))
        furthest = max(furthest, sample - first, last - sample)
    return furthest


class Encoder(nn.Module):
    """Audio to latents before quantisation; 441,856 parameters at level 0.

    `remat` "full" computes the inside of each residual block anew in the backward pass (see `_stack_in_a_loop`): on a CPU
    a third of the memory in about the same time. `dtype` is that of the convolutions; what the residual blocks add up is float32. Initial values are
    those of PyTorch.
    """

    sizes: VqVaeSizes = VqVaeSizes()
    remat: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, audio: Float[Array, "batch time channel"]
    ) -> Float[Array, "batch frame latent"]:
        """Latents in float32, one per `hop` samples; a ValueError for a length that is no multiple of the hop."""
        sizes = self.sizes
        if audio.shape[1] % hop(sizes) or audio.shape[2] != sizes.channels:
            raise ValueError(
                f"the audio has {audio.shape[1]} samples and {audio.shape[2]} channels, expected a multiple of "
                f"{hop(sizes)} samples (pad with zeros) and channels={sizes.channels}."
            )
        hidden = audio
        for i in range(len(sizes.downs)):
            hidden = _Down(sizes, i, self.remat, self.dtype, name=f"section{i}")(hidden)
        return hidden.astype(jnp.float32)


class Decoder(nn.Module):
    """Latents to audio, not limited to [-1, 1]; 458,177 parameters at level 0. `remat` and `dtype` as in `Encoder`."""

    sizes: VqVaeSizes = VqVaeSizes()
    remat: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, latents: Float[Array, "batch frame latent"]
    ) -> Float[Array, "batch time channel"]:
        """Audio in float32, `hop` samples per latent."""
        sizes = self.sizes
        if latents.shape[2] != sizes.latent:
            raise ValueError(f"the latents have {latents.shape[2]} channels, not {sizes.latent}.")
        hidden = latents
        for i in reversed(range(len(sizes.downs))):
            hidden = _Up(sizes, i, self.remat, self.dtype, name=f"section{i}")(hidden)
        audio = _Conv(sizes.channels, 3, _conv3, self.dtype, name="out")(hidden)
        return audio.astype(jnp.float32)


class _Down(nn.Module):
    """A section of the encoder: strided convolutions with a stack of residual blocks after each, and a last convolution."""

    sizes: VqVaeSizes
    section: int
    remat: str
    dtype: Any

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "batch time channel"]
    ) -> Float[Array, "batch frame latent"]:
        sizes, stride = self.sizes, self.sizes.strides[self.section]
        for i in range(1, sizes.downs[self.section] + 1):
            down = _Conv(sizes.hidden, 2 * stride, strided_conv, self.dtype, name=f"down{i}")
            hidden = down(hidden)
            stack = _Stack(sizes.dilations, self.remat, self.dtype, name=f"stack{i}")
            hidden = stack(hidden)
        return _Conv(sizes.latent, 3, _conv3, self.dtype, name="out")(hidden)


class _Up(nn.Module):
    """A section of the decoder: a convolution, then stacks of residual blocks with a transposed convolution after each."""

    sizes: VqVaeSizes
    section: int
    remat: str
    dtype: Any

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "batch frame latent"]
    ) -> Float[Array, "batch time latent"]:
        sizes, stride = self.sizes, self.sizes.strides[self.section]
        hidden = _Conv(sizes.hidden, 3, _conv3, self.dtype, name="in")(hidden)
        stages = sizes.downs[self.section]
        for i in range(1, stages + 1):
            stack = _Stack(sizes.dilations[::-1], self.remat, self.dtype, name=f"stack{i}")
            hidden = stack(hidden)
            features = sizes.latent if i == stages else sizes.hidden
            up = _Conv(features, 2 * stride, transposed_conv, self.dtype, name=f"up{i}")
            hidden = up(hidden)
        return hidden


class _Stack(nn.Module):
    """x + V ReLU(W * ReLU(x) + b) + c with a dilated convolution W of three taps and a matrix V, for each dilation in turn."""

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
            dilated = functools.partial(_conv3, dilation=dilation)
            hidden = _add_block(hidden, weights, dilated, self.dtype)
        return hidden


def _stack_in_a_loop(
    hidden: Array, blocks: Sequence[_Weights], dilations: tuple[int, ...], dtype: Any
) -> Array:
    """The blocks as steps of a scan that keeps the input of each and computes its inside anew in the backward pass.

    XLA's CPU compiler drops the barriers of jax.checkpoint and then merges both computations, but not across a loop. In the loop the
    dilation is a number that XLA does not know, so that the convolution is a product with three shifted copies: a switch between
    convolutions of known dilations takes eight times as long.
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
    """A residual block of `_Stack`, its convolution W by `dilated(inputs, kernel)`."""
    (kernel, bias), (matrix, offset) = jax.tree.map(lambda leaf: leaf.astype(dtype), weights)
    inner = dilated(nn.relu(hidden).astype(dtype), kernel) + bias
    outputs = product(nn.relu(inner), matrix[0]) + offset
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


class _Conv(nn.Module):
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
        return convolved + bias.astype(self.dtype)


def strided_conv(
    inputs: Float[Array, "batch position channel_in"],
    kernel: Float[Array, "tap channel_in channel_out"],
) -> Float[Array, "batch position_out channel_out"]:
    """y[n] = sum_k x[n s + k - s / 2] W[k] with 2 s taps and zeros beyond both ends; s must be even and divide the length.

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
    """x[n] W[k] is added to y[n s + k - s / 2], with 2 s taps and y s times as long as x; s must be even."""
    batch, positions, channels = inputs.shape
    stride, features = kernel.shape[0] // 2, kernel.shape[2]
    both = product(inputs, kernel.swapaxes(0, 1).reshape(channels, -1))
    # Group n of s outputs hears the first half of the taps of x[n] and the second half of those of x[n - 1].
    first, second = jnp.split(jnp.pad(both, ((0, 0), (1, 1), (0, 0))), 2, -1)
    groups = first[:, 1:] + second[:, :-1]
    outputs = groups.reshape(batch, (positions + 1) * stride, features)
    return outputs[:, stride // 2 : -(stride // 2)]


def _conv3(inputs: Array, kernel: Array, *, dilation: int = 1) -> Array:
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
