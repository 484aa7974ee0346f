"""Timbre-Trap as SS-MPE trains it: an autoencoder from harmonic CQTs to multi-pitch logits
(Cwitkowitz et al., ICASSP 2024, ISMIR 2025).
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from majl_jax.models.layers.dilated_convolution import dilated_conv3x3
from majl_jax.models.layers.frame_layers import frame_norm, product, residual_unit

BLOCKS, DILATIONS = 4, (1, 2, 3)


def embedding_bins(bins: int) -> tuple[int, ...]:
    """Bins of the five levels, f // 2 - 1 below f: 440, 219, 108, 53, 25; a ValueError where none
    are left.
    """
    sizes = [bins]
    for _ in range(BLOCKS):
        sizes.append(sizes[-1] // 2 - 1)
    if sizes[-1] < 1:
        raise ValueError(f"bins={bins} leaves {sizes} at the five levels; at least 46 are needed.")
    return tuple(sizes)


def level_channels(complexity: int) -> tuple[int, ...]:
    """Channels of the five levels, 2^(i + complexity): 8 to 128 at the published complexity of
    3.
    """
    return tuple(2 ** (i + complexity) for i in range(BLOCKS + 1))


class TimbreTrap(nn.Module):
    """Features of a harmonic CQT to logits whose sigmoid is the salience of a pitch in each bin.

    Four encoder blocks of residual units with dilations 1, 2 and 3 that halve the bins, one latent
    vector per frame, and the mirror image of the blocks. A frame sees 50 frames on either side. At
    the published size 1,303,753 parameters. `skip_connections` adds the encoder's embeddings,
    times five learnt weights, to the decoder's. `remat` computes the inside of each block anew in
    the backward pass, which saves most of the memory of training.
    """

    bins: int = 440
    harmonics: int = 6
    complexity: int = 3
    latent: int = 128
    skip_connections: bool = False
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch frame bin harmonic"],
        frame_mask: Bool[Array, "batch frame"] | None = None,
    ) -> Float[Array, "batch frame bin"]:
        """Logits in float32; frames that are False in `frame_mask` do not reach the others, as if
        the clip ended there.
        """
        if features.shape[2:] != (self.bins, self.harmonics):
            raise ValueError(
                f"the features have {features.shape[2]} bins and {features.shape[3]} harmonics, the"
                f" network bins={self.bins} and harmonics={self.harmonics}."
            )
        sizes = (embedding_bins(self.bins), level_channels(self.complexity))
        encoder = Encoder(*sizes, self.latent, self.dtype, self.remat, name="encoder")
        decoder = Decoder(*sizes, self.skip_connections, self.dtype, self.remat, name="decoder")
        latents, embeddings = encoder(features, frame_mask)
        return decoder(latents, embeddings, frame_mask)


class Encoder(nn.Module):
    """Features to a latent vector per frame, and the embeddings of the five levels."""

    bins: tuple[int, ...]
    channels: tuple[int, ...]
    latent: int
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch frame bin harmonic"],
        frame_mask: Bool[Array, "batch frame"] | None = None,
    ) -> tuple[Float[Array, "batch frame latent"], list[Float[Array, "batch frame _ _"]]]:
        """Latents in float32, and embeddings [batch, frame, bin, channel], the finest first."""
        block = nn.remat(_EncoderBlock) if self.remat else _EncoderBlock
        hidden = _masked(features.astype(self.dtype), frame_mask)
        hidden = _Conv(self.channels[0], self.dtype, name="convin")(hidden)
        embeddings = [_Norm(name="convin_norm")(hidden)]
        for i, channels in enumerate(self.channels[1:], start=1):
            layer = block(channels, self.dtype, name=f"block{i}")
            embeddings.append(layer(embeddings[-1], frame_mask))
        latents = _Collapse(self.latent, self.dtype, name="convlat")(embeddings[-1])[:, :, None]
        latents = _Norm(activate=False, name="convlat_norm")(latents.astype(jnp.float32))
        return latents[:, :, 0], embeddings


class Decoder(nn.Module):
    """Latents, and the encoder's embeddings if there are skip connections, to logits of the finest
    level's bins.
    """

    bins: tuple[int, ...]
    channels: tuple[int, ...]
    skip_connections: bool
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "batch frame latent"],
        embeddings: list[Float[Array, "batch frame _ _"]],
        frame_mask: Bool[Array, "batch frame"] | None = None,
    ) -> Float[Array, "batch frame bin"]:
        """Logits in float32."""
        block = nn.remat(_DecoderBlock) if self.remat else _DecoderBlock
        hidden = _Expand(self.bins[-1], self.channels[-1], self.dtype, name="convin")(latents)
        hidden = _Norm(name="convin_norm")(hidden)
        weights = None
        if self.skip_connections:
            weights = self.param("skip_weights", nn.initializers.ones, (BLOCKS + 1,))
            hidden = hidden + weights[BLOCKS].astype(self.dtype) * embeddings[BLOCKS]
        for level in reversed(range(BLOCKS)):
            sizes = self.bins[level], self.channels[level]
            layer = block(*sizes, self.dtype, name=f"block{BLOCKS - level}")
            hidden = layer(hidden, frame_mask)
            if weights is not None:
                hidden = hidden + weights[level].astype(self.dtype) * embeddings[level]
        logits = _Conv(1, self.dtype, name="convout")(_masked(hidden, frame_mask))
        return logits[..., 0].astype(jnp.float32)


class _EncoderBlock(nn.Module):
    """Three residual units, then a convolution over four bins with stride 2, normalisation and
    ELU.
    """

    channels: int
    dtype: Any

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch frame bin channel"],
        frame_mask: Bool[Array, "batch frame"] | None,
    ) -> Float[Array, "batch frame bin_out channel_out"]:
        for i, dilation in enumerate(DILATIONS, start=1):
            hidden = _Unit(dilation, self.dtype, name=f"unit{i}")(hidden, frame_mask)
        hidden = _Down(self.channels, self.dtype, name="down")(hidden)
        return _Norm(name="norm")(hidden)


class _DecoderBlock(nn.Module):
    """A transposed convolution over four bins with stride 2, normalisation and ELU, then three
    residual units.
    """

    bins: int
    channels: int
    dtype: Any

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch frame bin channel"],
        frame_mask: Bool[Array, "batch frame"] | None,
    ) -> Float[Array, "batch frame bin_out channel_out"]:
        hidden = _Up(self.bins, self.channels, self.dtype, name="up")(hidden)
        hidden = _Norm(name="norm")(hidden)
        for i, dilation in enumerate(DILATIONS, start=1):
            hidden = _Unit(dilation, self.dtype, name=f"unit{i}")(hidden, frame_mask)
        return hidden


class _Unit(nn.Module):
    """x + ELU(conv 1 x 1(ELU(dilated conv 3 x 3(x))))."""

    dilation: int
    dtype: Any

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "batch frame bin channel"],
        frame_mask: Bool[Array, "batch frame"] | None,
    ) -> Float[Array, "batch frame bin channel"]:
        channels = inputs.shape[-1]
        conv1 = _Weights((3, 3, channels, channels), 9 * channels, self.dtype, name="conv1")()
        conv2 = _Weights((channels, channels), channels, self.dtype, name="conv2")()
        return residual_unit(_masked(inputs, frame_mask), *conv1, *conv2, self.dilation)


class _Conv(nn.Module):
    """A 3 x 3 convolution over frames and bins with zero padding to the same size."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch frame bin channel"]
    ) -> Float[Array, "batch frame bin feature"]:
        channels = inputs.shape[-1]
        shape = (3, 3, channels, self.features)
        kernel, bias = _weights(self, shape, 9 * channels, self.dtype)
        convolved: Array = dilated_conv3x3(inputs, kernel, 1)
        return convolved + bias[None, None, None]


class _Down(nn.Module):
    """Convolution over four bins with stride 2: y[i] = sum_k x[2 i + k] W[k], as one product of
    pairs of bins.
    """

    features: int
    dtype: Any

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch frame bin channel"]
    ) -> Float[Array, "batch frame bin_out feature"]:
        batch, frames, bins, channels = inputs.shape
        shape = (4, channels, self.features)
        kernel, bias = _weights(self, shape, 4 * channels, self.dtype)
        # Taps 0 and 1 read pair i of bins, 2 and 3 the next.
        kernel = kernel.reshape(2, 2 * channels, self.features).swapaxes(0, 1)
        kernel = kernel.reshape(2 * channels, -1)
        pairs = inputs[:, :, : bins // 2 * 2].reshape(batch, frames, bins // 2, 2 * channels)
        first, second = jnp.split(product(pairs, kernel), 2, -1)
        return first[:, :, :-1] + second[:, :, 1:] + bias[None, None, None]


class _Up(nn.Module):
    """Transposed convolution over four bins with stride 2: x[i] W[k] is added to y[2 i + k], as
    one product.

    Of an odd number of bins the last receives the bias alone.
    """

    bins: int
    features: int
    dtype: Any

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch frame bin channel"]
    ) -> Float[Array, "batch frame bin_out feature"]:
        batch, frames, bins, channels = inputs.shape
        shape = (4, channels, self.features)
        kernel, bias = _weights(self, shape, 4 * self.features, self.dtype)
        # Bins 2 i and 2 i + 1 hear taps 0 and 1 of x[i], 2 and 3 of x[i - 1].
        kernel = kernel.transpose(1, 0, 2).reshape(channels, -1)
        first, second = jnp.split(product(inputs, kernel), 2, -1)
        sides = ((0, 0), (0, 0))
        outputs = jnp.pad(first, (*sides, (0, 1), (0, 0))) + jnp.pad(
            second, (*sides, (1, 0), (0, 0))
        )
        outputs = outputs.reshape(batch, frames, 2 * bins + 2, self.features)
        outputs = jnp.pad(outputs, (*sides, (0, self.bins % 2), (0, 0)))
        return outputs + bias[None, None, None]


class _Collapse(nn.Module):
    """A convolution over all bins, to one vector per frame."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch frame bin channel"]
    ) -> Float[Array, "batch frame feature"]:
        batch, frames, bins, channels = inputs.shape
        shape = (bins, channels, self.features)
        kernel, bias = _weights(self, shape, bins * channels, self.dtype)
        collapsed = inputs.reshape(batch, frames, -1) @ kernel.reshape(-1, self.features)
        return collapsed + bias[None, None]


class _Expand(nn.Module):
    """The transpose of `_Collapse`, from one vector per frame to all bins."""

    bins: int
    features: int
    dtype: Any

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch frame channel"]
    ) -> Float[Array, "batch frame bin feature"]:
        shape = (inputs.shape[-1], self.bins, self.features)
        kernel, bias = _weights(self, shape, self.bins * self.features, self.dtype)
        outputs = inputs.astype(self.dtype) @ kernel.reshape(shape[0], -1)
        outputs = outputs.reshape(*inputs.shape[:2], self.bins, self.features)
        return outputs + bias[None, None, None]


class _Norm(nn.Module):
    """Normalisation of each frame over its bins and channels, with a scale and an offset for each;
    ELU.
    """

    activate: bool = True

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch frame bin channel"]
    ) -> Float[Array, "batch frame bin channel"]:
        shape = inputs.shape[2:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        return frame_norm(inputs, scale, bias, self.activate)


class _Weights(nn.Module):
    """Kernel and bias alone."""

    shape: tuple[int, ...]
    fan_in: int
    dtype: Any

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        return _weights(self, self.shape, self.fan_in, self.dtype)


def _weights(
    module: nn.Module, shape: tuple[int, ...], fan_in: int, dtype: Any
) -> tuple[Array, Array]:
    """Kernel and bias, both uniform within 1 / sqrt(fan_in) as PyTorch starts them; of a
    transposed convolution fan_in counts the outputs.
    """

    def uniform(key: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0) / math.sqrt(fan_in)

    kernel = module.param("kernel", uniform, shape)
    return kernel.astype(dtype), module.param("bias", uniform, shape[-1:]).astype(dtype)


def _masked(hidden: Array, frame_mask: Array | None) -> Array:
    """Zero in frames that do not count, as the zero padding of a convolution past the end of a
    clip.
    """
    return hidden if frame_mask is None else jnp.where(frame_mask[..., None, None], hidden, 0)
