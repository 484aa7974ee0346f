"""A band-split network applied to mixtures: its short-time Fourier transform and the level it
listens at.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from majl_jax.audio import stft
from majl_jax.batch import Variables
from majl_jax.inference.segments import SegmentModel
from majl_jax.models.band_split import BandSplitLocoformer, channel_level


@dataclasses.dataclass(frozen=True)
class Separator:
    """A network with the STFT that it listens to."""

    network: BandSplitLocoformer
    window_samples: int
    hop_samples: int
    sample_rate_hz: int

    def normalised(
        self, variables: Variables, mixture: Float[Array, "batch time channel"], *, key: Any = None
    ) -> tuple[Float[Array, "batch time source channel"], Float[Array, "batch 1 1 channel"]]:
        """Estimates for the mixture divided by its `channel_level`, and that level.

        Losses hold the estimates against references that are divided by it too (Saijo & Bando
        2025). Of the 1 + time // hop frames of the STFT the last is left out, as theirs is. key:
        of dropout; None without.
        """
        samples = mixture.shape[1]
        spectrum = stft.stft(
            jnp.moveaxis(mixture, 2, 1),
            window_samples=self.window_samples,
            hop_samples=self.hop_samples,
        )[:, :, : samples // self.hop_samples]
        level = channel_level(spectrum)
        train = key is not None
        rngs = {"dropout": key} if train else {}
        heard: Any = self.network.apply(variables, spectrum / level, train=train, rngs=rngs)
        estimates = stft.istft(
            heard,
            window_samples=self.window_samples,
            hop_samples=self.hop_samples,
            length_samples=samples,
        )
        return estimates.transpose(0, 3, 1, 2), level.transpose(0, 2, 3, 1)

    def separate(
        self, variables: Variables, mixture: Float[Array, "batch time channel"]
    ) -> Float[Array, "batch time source channel"]:
        """Estimates at the level of the mixture."""
        estimates, level = self.normalised(variables, mixture)
        return estimates * level

    def segment_model(
        self, stems: Sequence[str], *, segment_samples: int, crossfade: bool
    ) -> SegmentModel:
        """For songs of any length."""

        def apply(variables: Variables, audio: jax.Array) -> dict[str, jax.Array]:
            return {"stems": self.separate(variables, audio)}

        return SegmentModel(
            apply,
            sample_rate_hz=self.sample_rate_hz,
            segment_samples=segment_samples,
            hop_samples=self.hop_samples,
            channels=self.network.audio_channels,
            stems=tuple(stems),
            crossfade=crossfade,
        )
