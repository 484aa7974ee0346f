"""Jukebox's VQ-VAE without its codebook: waveforms to latents and back (Dhariwal et al., arXiv
2005.00341).

A stage of the encoder shortens the sequence by a strided convolution and passes it through a stack
of residual blocks with dilations 1, 3, 9, ...; the decoder is its mirror image. Sizes and initial
values are those of openai/jukebox.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from majl_jax.models.layers.dilated_stack import Conv, Stack, conv3, strided_conv, transposed_conv


@dataclasses.dataclass(frozen=True)
class VqVaeSizes:
    """What encoder and decoder are made of, Jukebox's level 0 by default; a ValueError where the
    numbers do not fit.

    `multiplier` times `width` channels and `multiplier` times `depth` blocks in a stack. Level l
    of Jukebox has l + 1 sections: section i has `downs[i]` stages, each of which shortens the
    sequence by `strides[i]`. Block j of the encoder's stacks has the dilation dilation_growth^j.
    `latent` channels lie between encoder and decoder and between sections, `channels` in the
    audio.
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
                f"downs={self.downs} and strides={self.strides} must have one number per section"
                " each."
            )
        if min(self.downs) < 1:
            raise ValueError(f"downs={self.downs}: every section needs a stage.")
        if any(stride < 2 or stride % 2 for stride in self.strides):
            raise ValueError(
                f"strides={self.strides}: kernels of twice the stride divide the length by it if it"
                " is even."
            )

    @property
    def hidden(self) -> int:
        """Channels within a section, `width` times `multiplier`."""
        return self.width * self.multiplier

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of the encoder's blocks in the order of their application; the decoder has them in
        reverse.
        """
        return tuple(self.dilation_growth**j for j in range(self.depth * self.multiplier))


LEVELS = (
    VqVaeSizes(),
    VqVaeSizes(multiplier=1, downs=(3, 2), strides=(2, 2)),
    VqVaeSizes(multiplier=1, downs=(3, 2, 2), strides=(2, 2, 2)),
)
"""Jukebox's published levels, the finest first: 900,033, 241,025 and 344,705 parameters, without
codebooks of 2048 vectors.
"""


def hop(sizes: VqVaeSizes) -> int:
    """Samples per latent: 8, 32 and 128 at the three levels."""
    samples = 1
    for downs, stride in zip(sizes.downs, sizes.strides, strict=True):
        samples *= stride**downs
    return samples


def encoder_field(sizes: VqVaeSizes, first: int = 0, last: int = 0) -> tuple[int, int]:
    """First and last sample that latents `first` to `last` depend on: -45,935 and 45,942 for
    latent 0 of level 0.
    """
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
    """How far before or after itself a decoded sample depends on the encoded audio at most: 91,878
    samples at level 0.

    A segment that starts at a multiple of the hop is therefore decoded as within the whole track
    but for that many samples at ends that are not the track's.
    """
    furthest = 0
    for sample in range(hop(sizes)):
        first, last = encoder_field(sizes, *decoder_field(sizes, sample, sample))
        furthest = max(furthest, sample - first, last - sample)
    return furthest


class Encoder(nn.Module):
    """Audio to latents before quantisation; 441,856 parameters at level 0.

    `remat` "full" computes the inside of each residual block anew in the backward pass (see
    `dilated_stack`): on a CPU a third of the memory in about the same time. `dtype` is that of the
    convolutions; what the residual blocks add up is float32. Initial values are those of PyTorch.
    """

    sizes: VqVaeSizes = VqVaeSizes()
    remat: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, audio: Float[Array, "batch time channel"]
    ) -> Float[Array, "batch frame latent"]:
        """Latents in float32, one per `hop` samples; a ValueError for a length that is no multiple
        of the hop.
        """
        sizes = self.sizes
        if audio.shape[1] % hop(sizes) or audio.shape[2] != sizes.channels:
            raise ValueError(
                f"the audio has {audio.shape[1]} samples and {audio.shape[2]} channels, expected a"
                f" multiple of {hop(sizes)} samples (pad with zeros) and channels={sizes.channels}."
            )
        hidden = audio
        for i in range(len(sizes.downs)):
            hidden = _Down(sizes, i, self.remat, self.dtype, name=f"section{i}")(hidden)
        return hidden.astype(jnp.float32)


class Decoder(nn.Module):
    """Latents to audio, not limited to [-1, 1]; 458,177 parameters at level 0. `remat` and `dtype`
    as in `Encoder`.
    """

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
        audio = Conv(sizes.channels, 3, conv3, self.dtype, name="out")(hidden)
        return audio.astype(jnp.float32)


class _Down(nn.Module):
    """A section of the encoder: strided convolutions with a stack of residual blocks after each,
    and a last convolution.
    """

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
            down = Conv(sizes.hidden, 2 * stride, strided_conv, self.dtype, name=f"down{i}")
            hidden = down(hidden)
            stack = Stack(sizes.dilations, self.remat, self.dtype, name=f"stack{i}")
            hidden = stack(hidden)
        return Conv(sizes.latent, 3, conv3, self.dtype, name="out")(hidden)


class _Up(nn.Module):
    """A section of the decoder: a convolution, then stacks of residual blocks with a transposed
    convolution after each.
    """

    sizes: VqVaeSizes
    section: int
    remat: str
    dtype: Any

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "batch frame latent"]
    ) -> Float[Array, "batch time latent"]:
        sizes, stride = self.sizes, self.sizes.strides[self.section]
        hidden = Conv(sizes.hidden, 3, conv3, self.dtype, name="in")(hidden)
        stages = sizes.downs[self.section]
        for i in range(1, stages + 1):
            stack = Stack(sizes.dilations[::-1], self.remat, self.dtype, name=f"stack{i}")
            hidden = stack(hidden)
            features = sizes.latent if i == stages else sizes.hidden
            up = Conv(features, 2 * stride, transposed_conv, self.dtype, name=f"up{i}")
            hidden = up(hidden)
        return hidden
