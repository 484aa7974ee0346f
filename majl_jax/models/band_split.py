"""Band-split TF-Locoformer, which masks the spectrogram of a mixture (Saijo and Bando, WASPAA
2025, arXiv 2505.07631).

Repositories b-sigpro/mixit-mss, merlresearch/tf-locoformer. Bands of equal width share one stacked
array per parameter and one product, whose first axis is the band.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from majl_jax.models.layers.initialisers import uniform
from majl_jax.models.locoformer import LocoformerSizes, TFLocoformerBlock, rematerialised

BANDS_44_1_KHZ = (2,) * 24 + (4,) * 12 + (12,) * 8 + (24,) * 8 + (48,) * 8 + (128, 129)
"""Widths in bins of the 62 bands of a window of 2048 samples at 44.1 kHz (Lu et al., BS-RoFormer,
arXiv 2309.02612).
"""

PRESETS: dict[str, dict[str, int]] = {
    "small": {
        "layers": 4,
        "features": 96,
        "attention_features": 96,
        "heads": 4,
        "norm_groups": 4,
        "hidden": 128,
    },
    "medium": {
        "layers": 6,
        "features": 128,
        "attention_features": 128,
        "heads": 8,
        "norm_groups": 8,
        "hidden": 192,
    },
    "large": {
        "layers": 9,
        "features": 192,
        "attention_features": 192,
        "heads": 8,
        "norm_groups": 8,
        "hidden": 256,
    },
}
"""Fields of `BandSplitLocoformer` for the sizes of the paper: `BandSplitLocoformer(sources=12,
**PRESETS["medium"])`.
"""

TANH_ORDERS = ("after_second", "after_first")
_EPSILON = 1e-5
_WIDER = 4  # hidden features of a band's decoder per feature
_COMPLEX, _GATED = 2, 2
_SMALLEST_POWER = 1e-15


class BandGroup(NamedTuple):
    """Neighbouring bands of equal width."""

    first_bin: int
    bands: int
    width: int  # in bins

    @property
    def bins(self) -> slice:
        """Where they lie in a spectrum."""
        return slice(self.first_bin, self.first_bin + self.bands * self.width)


def band_groups(bands: Sequence[int]) -> tuple[BandGroup, ...]:
    """Runs of equal widths, from the lowest bin up; a ValueError for no bands or a width below
    1.
    """
    if not bands or min(bands) < 1:
        raise ValueError(f"bands are widths of at least one bin, got {tuple(bands)}.")
    groups, start = [], 0
    for width, run in itertools.groupby(bands):
        groups.append(BandGroup(start, len(list(run)), width))
        start += groups[-1].bands * width
    return tuple(groups)


def channel_level(
    spectrum: Complex[Array, "*batch frame frequency"],
) -> Float[Array, "*batch 1 1"]:
    """s = sqrt(mean over frames and frequencies of max(|X|^2, 1e-15)), by which mixture and
    references are divided.

    Of each channel by itself; estimates times s are at the scale of the mixture again.
    """
    power = jnp.real(spectrum) ** 2 + jnp.imag(spectrum) ** 2
    return jnp.sqrt(jnp.mean(jnp.maximum(power, _SMALLEST_POWER), (-2, -1), keepdims=True))


class BandSplitLocoformer(nn.Module):
    """A mixture's spectrogram to one masked spectrogram per source; the short-time Fourier
    transform stays outside.

    Band by band to `features` channels, `layers` TF-Locoformer blocks, band by band to complex
    masks. `bands` are widths in bins from the lowest up. `decoder_tanh` is "after_second" linear
    layer of the decoder, as in the paper's repository, or "after_first", as in
    merlresearch/tf-locoformer. `remat` is "none"; "full", everything is computed anew in the
    backward pass; or "dots", all but matrix products and convolutions. The other fields are those
    of `LocoformerSizes`. The published networks have 29,544,552 (small), 52,721,960 (medium) or
    117,018,152 (large) parameters for four stereo sources; see `PRESETS`.
    """

    sources: int = 4
    audio_channels: int = 2
    bands: tuple[int, ...] = BANDS_44_1_KHZ
    layers: int = 6
    features: int = 128
    attention_features: int = 128
    heads: int = 8
    norm_groups: int = 8
    hidden: int = 192
    kernel_size: int = 8
    order: str = "ft"
    pos_enc: str = "nope"
    decoder_tanh: str = "after_second"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    attention: str = "auto"
    remat: str = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, spectrum: Complex[Array, "batch channel frame frequency"], *, train: bool = False
    ) -> Complex[Array, "batch source channel frame frequency"]:
        """Estimates of any number of frames; in training a dropout above 0 needs the key
        "dropout".
        """
        groups = self._checked(spectrum.shape)
        names = (field.name for field in dataclasses.fields(LocoformerSizes))
        sizes = LocoformerSizes(**{name: getattr(self, name) for name in names})
        encoder = rematerialised(BandEncoder, self.remat)
        hidden = encoder(groups, self.features, self.dtype, name="encoder")(spectrum)
        stack = nn.scan(
            rematerialised(_Layer, self.remat),
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=self.layers,
        )
        hidden, _ = stack(sizes, not train, name="layers")(hidden, None)
        decoder = rematerialised(BandDecoder, self.remat)
        return decoder(groups, self.sources, self.decoder_tanh, self.dtype, name="decoder")(
            hidden, spectrum
        )

    def _checked(self, shape: tuple[int, ...]) -> tuple[BandGroup, ...]:
        if self.decoder_tanh not in TANH_ORDERS:
            raise ValueError(
                f"decoder_tanh={self.decoder_tanh!r} is not one of {', '.join(TANH_ORDERS)}."
            )
        groups = band_groups(self.bands)
        if shape[1] != self.audio_channels or shape[3] != sum(self.bands):
            raise ValueError(
                f"the spectrogram has {shape[1]} channels and {shape[3]} frequency bins, the"
                f" network audio_channels={self.audio_channels} and bands of {sum(self.bands)} bins"
                " in all."
            )
        return groups


class BandEncoder(nn.Module):
    """Real and imaginary parts of a band, normalised over frames and all values of the band, times
    a matrix.
    """

    groups: tuple[BandGroup, ...]
    features: int
    dtype: Any

    @nn.compact
    def __call__(
        self, spectrum: Complex[Array, "batch channel frame frequency"]
    ) -> Float[Array, "batch frame band feature"]:
        """In float32."""
        parts = jnp.concatenate([jnp.real(spectrum), jnp.imag(spectrum)], 1).transpose(0, 2, 3, 1)
        batch, frames = parts.shape[:2]
        embedded = []
        for i, group in enumerate(self.groups):
            values = parts[:, :, group.bins].reshape(batch, frames, group.bands, -1)
            normed = _BandNorm(name=f"group{i}_norm")(values.transpose(2, 0, 1, 3))
            dense = _BandDense((self.features,), self.dtype, name=f"group{i}")
            embedded.append(dense(normed).astype(jnp.float32))
        return jnp.concatenate(embedded).transpose(1, 2, 0, 3)


class BandDecoder(nn.Module):
    """Of each band three dense layers with one tanh among them and a gated linear unit: complex
    masks, times the mixture.
    """

    groups: tuple[BandGroup, ...]
    sources: int
    tanh: str
    dtype: Any

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch frame band feature"],
        spectrum: Complex[Array, "batch channel frame frequency"],
    ) -> Complex[Array, "batch source channel frame frequency"]:
        """Estimates in complex64."""
        hidden = hidden.transpose(2, 0, 1, 3)
        wide, channels, estimates, done = _WIDER * hidden.shape[-1], spectrum.shape[1], [], 0
        for i, group in enumerate(self.groups):

            def dense(name: str, *shape: int, i: int = i) -> _BandDense:
                return _BandDense(shape, self.dtype, name=f"group{i}_{name}")

            part = _BandNorm(name=f"group{i}_norm")(hidden[done : done + group.bands])
            done += group.bands
            part = dense("first", wide)(part)
            part = jnp.tanh(part) if self.tanh == "after_first" else part
            part = dense("second", wide)(part)
            part = jnp.tanh(part) if self.tanh == "after_second" else part
            shape = _GATED, _COMPLEX, self.sources, channels, group.width
            mask = dense("mask", *shape)(part).astype(jnp.float32)
            mask = mask[:, :, :, 0] * nn.sigmoid(mask[:, :, :, 1])
            # [band, batch, frame, part, source, channel, bin] -> [part, batch, source, channel,
            # frame, frequency]
            mask = mask.transpose(3, 1, 4, 5, 2, 0, 6)
            real, imaginary = mask.reshape(*mask.shape[:5], -1)
            estimates.append(jax.lax.complex(real, imaginary) * spectrum[:, None, :, :, group.bins])
        return jnp.concatenate(estimates, -1)


class _Layer(nn.Module):
    """A block as the body of a scan."""

    sizes: LocoformerSizes
    deterministic: bool

    @nn.compact
    def __call__(self, hidden: Array, _: None) -> tuple[Array, None]:
        block = TFLocoformerBlock(self.sizes, self.deterministic, name="block")
        return block(hidden), None


class _BandNorm(nn.Module):
    """y = (x - mean) / sqrt(variance + 1e-5) * scale + bias over frames and features of each band;
    in float32.
    """

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "band batch frame feature"]
    ) -> Float[Array, "band batch frame feature"]:
        shape = inputs.shape[0], inputs.shape[-1]
        scale = self.param("scale", nn.initializers.ones, shape)[:, None, None]
        bias = self.param("bias", nn.initializers.zeros, shape)[:, None, None]
        inputs = inputs.astype(jnp.float32)
        centred = inputs - inputs.mean((2, 3), keepdims=True)
        variance = jnp.mean(centred**2, (2, 3), keepdims=True)
        return centred * jax.lax.rsqrt(variance + _EPSILON) * scale + bias


class _BandDense(nn.Module):
    """A matrix and a bias of each band; `shape` are the axes of the outputs, `kernel` is [band,
    feature, *shape].
    """

    shape: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "band batch frame feature"]
    ) -> Float[Array, "band batch frame *out"]:
        bands, batch, frames, features = inputs.shape
        start = uniform(features)
        kernel = self.param("kernel", start, (bands, features, *self.shape))
        bias = self.param("bias", start, (bands, *self.shape))
        kernel, bias = (x.astype(self.dtype) for x in (kernel, bias))
        rows = inputs.astype(self.dtype).reshape(bands, batch * frames, features)
        outputs = rows @ kernel.reshape(bands, features, -1)
        return (outputs + bias.reshape(bands, 1, -1)).reshape(bands, batch, frames, *self.shape)


def select_outputs(params: Mapping[str, Any], heads: Sequence[int]) -> dict[str, Any]:
    """Parameters of the same network with the outputs `heads` alone, in this order; nothing is
    drawn anew.

    Slices the kernel and bias of the last layer of each band's decoder. A ValueError for an output
    that does not exist, is named twice, or for parameters without such layers.
    """
    decoder = dict(params.get("decoder", {}))
    layers = [name for name in decoder if name.endswith("_mask")]
    if not layers:
        raise ValueError(
            "the parameters of BandSplitLocoformer have a decoder with masks, got"
            f" {sorted(params)}."
        )
    for name in layers:
        kernel, bias = decoder[name]["kernel"], decoder[name]["bias"]
        sources = kernel.shape[-3]
        if not heads or len(set(heads)) < len(heads) or not set(heads) <= set(range(sources)):
            raise ValueError(
                f"heads must be different outputs from 0 to {sources - 1}, got {list(heads)}."
            )
        chosen = np.asarray(heads)
        decoder[name] = {"kernel": kernel[..., chosen, :, :], "bias": bias[..., chosen, :, :]}
    return {**params, "decoder": decoder}
