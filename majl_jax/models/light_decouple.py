"""The light separator of a joint cascade, with decoupled magnitude and phase (Wei et al., DJCM, ICASSP 2024)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from majl_jax.models.layers.decouple import MAPS, separate_by_maps
from majl_jax.models.resunet import PUBLISHED_CHANNELS, ResidualUNet, check_mono, check_sizes


class LightDecouple(nn.Module):
    """Waveform to waveform: `ResUNetDecouplePlus` with one residual block per stage and frames that are never pooled.

    PReLU instead of LeakyReLU, maxima instead of means over pairs of frequencies. At the published width 20,820,708
    parameters. Every frame keeps its own column through all stages, so any number of frames fits. Statistics are those of all
    devices of the axis `statistics_axis`, if given.
    """

    channels: tuple[int, ...] = PUBLISHED_CHANNELS
    blocks: int = 1  # residual blocks per stage
    centre_stages: int = 1
    audio_channels: int = 1
    sources: int = 1
    window_samples: int = 2048
    hop_samples: int = 320
    norm_momentum: float = 0.99
    statistics_axis: str | None = None
    dtype: Any = jnp.float32
    remat: bool = False

    def __call__(
        self, mixture: Float[Array, "batch time"], *, train: bool = False
    ) -> Float[Array, "batch time"]:
        """The estimated target at the mixture's scale and length; `time` is a multiple of the hop."""
        check_mono(self, mixture.shape[1])
        return self.separate_channels(mixture[..., None], train=train)[:, :, 0, 0]

    @nn.compact
    def separate_channels(
        self, mixture: Float[Array, "batch time channel"], *, train: bool = False
    ) -> Float[Array, "batch time source channel"]:
        """All sources of mixtures with `audio_channels` channels, of any length above half a window."""
        check_sizes(self, mixture.shape[2])
        network = ResidualUNet(
            channels=self.channels,
            factors=((1, 2),) * len(self.channels),
            blocks=self.blocks,
            centre_stages=self.centre_stages,
            maps=self.sources * self.audio_channels * MAPS,
            pool="maximum",
            in_place_norm=False,
            prelu=True,
            norm_momentum=self.norm_momentum,
            statistics_axis=self.statistics_axis,
            dtype=self.dtype,
            remat=self.remat,
            train=train,
            name="network",
        )
        return separate_by_maps(
            mixture,
            network,
            sources=self.sources,
            window_samples=self.window_samples,
            hop_samples=self.hop_samples,
        )
