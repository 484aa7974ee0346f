"""The separators of the other papers as parts of a cascade: mixture in, target out, gradients
through.

Each adds to a network what it lacks for that: a short-time Fourier transform, a level, or its
decoder. Variables have the names of the network itself, so that what it learnt elsewhere fits.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from majl_jax.audio.stft import istft, magnitude, stft
from majl_jax.models.band_split import BandSplitLocoformer, channel_level
from majl_jax.models.chimera import Chimera
from majl_jax.models.vqvae import Decoder, Encoder, VqVaeSizes, hop


class ChimeraSeparator(nn.Module):
    """s_hat = iSTFT(m(|X| / sum w) X), m the mask of a `Chimera` of one source (Luo et al., ICASSP
    2017), X the STFT of the mixture with the Hann window w.

    Spectra divided by the sum of their window are as loud as in the recipe of deep clustering,
    which may have trained the network before; its embedding is left out. Fields are Chimera's and
    the STFT's.
    """

    window_samples: int = 512
    hop_samples: int = 128
    units: int = 500
    layers: int = 4
    dropout: float = 0.3
    norm: str = "batch"
    statistics_axis: str | None = None
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.network = Chimera(
            self.window_samples // 2 + 1,
            self.units,
            self.layers,
            self.dropout,
            embedding=None,
            sources=1,
            norm=self.norm,
            statistics_axis=self.statistics_axis,
            dtype=self.dtype,
        )
        nn.share_scope(self, self.network)

    def __call__(
        self, mixture: Float[Array, "batch time"], *, train: bool = False
    ) -> Float[Array, "batch time"]:
        """The estimated target; `time` is frames * hop."""
        sizes = {"window_samples": self.window_samples, "hop_samples": self.hop_samples}
        spectrum = stft(mixture, **sizes)[:, :-1]  # as many frames as there are hops
        heard = magnitude(spectrum) / (self.window_samples / 2)
        masks: Any = self.network(heard, train=train).masks
        return istft(masks[..., 0] * spectrum, **sizes, length_samples=mixture.shape[1])


class LocoformerSeparator(nn.Module):
    """The output of a `BandSplitLocoformer`, which hears the mixture at one level (Saijo and Bando
    2025): s_hat = l iSTFT(f(X / l)), l its `channel_level`.

    Of a network of N outputs, as MixIT learns them, it is sum_n a_n s_hat_n with shares a_n that
    are learnt from 1/2 on: MixIT's outputs sum to the mixture, and a source may lie in several.
    `network` holds the fields of BandSplitLocoformer; `statistics_axis` has no meaning here, its
    norms are those of an example.
    """

    network: BandSplitLocoformer
    window_samples: int = 1024
    hop_samples: int = 320
    statistics_axis: str | None = None

    def setup(self) -> None:
        nn.share_scope(self, self.network)
        count = self.network.sources
        one = count == 1
        half = nn.initializers.constant(0.5)
        self.shares = jnp.ones(1) if one else self.param("shares", half, (count,))

    def __call__(
        self, mixture: Float[Array, "batch time"], *, train: bool = False
    ) -> Float[Array, "batch time"]:
        """The estimated target; `time` is frames * hop."""
        sizes = {"window_samples": self.window_samples, "hop_samples": self.hop_samples}
        spectrum = stft(mixture, **sizes)[:, None, :-1]
        level = channel_level(spectrum)
        outputs = self.network(spectrum / level, train=train)[:, :, 0]
        found = jnp.einsum("n,bntf->btf", self.shares, outputs)
        return level[:, 0, 0] * istft(found, **sizes, length_samples=mixture.shape[1])


class VqVaeSeparator(nn.Module):
    """s_hat = D(E(x)): an encoder that finds a stem's latents in the mixture, and that stem's
    decoder (arXiv 2111.14200), without the codebook in between, which has no gradient.

    Latents are `hop` samples apart, by which the segment has to be divisible.
    """

    sizes: VqVaeSizes = VqVaeSizes()
    remat: str = "none"
    statistics_axis: str | None = None
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.encoder = Encoder(self.sizes, self.remat, self.dtype)
        self.decoder = Decoder(self.sizes, self.remat, self.dtype)

    def __call__(
        self, mixture: Float[Array, "batch time"], *, train: bool = False
    ) -> Float[Array, "batch time"]:
        """The estimated target."""
        del train
        if mixture.shape[1] % hop(self.sizes):
            raise ValueError(
                f"the VQ-VAE has a latent every {hop(self.sizes)} samples, and the segment"
                f" {mixture.shape[1]} samples; expected a multiple of it"
            )
        return self.decoder(self.encoder(mixture[..., None]))[..., 0]
