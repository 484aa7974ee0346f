"""The light separator of a joint cascade, with decoupled magnitude and phase (Wei et al., DJCM,
ICASSP 2024).
"""

from typing import Any

from majl_jax.models.resunet import ResUNetDecouplePlus


class LightDecouple(ResUNetDecouplePlus):
    """Waveform to waveform: `ResUNetDecouplePlus` with one residual block per stage and frames
    that are never pooled.

    PReLU instead of LeakyReLU, maxima instead of means over pairs of frequencies. At the published
    width 20,820,708 parameters. Every frame keeps its own column through all stages, so any number
    of frames fits.
    """

    blocks: int = 1  # residual blocks per stage
    centre_stages: int = 1

    def _stages(self) -> dict[str, Any]:
        return {
            "factors": ((1, 2),) * len(self.channels),
            "pool": "maximum",
            "in_place_norm": False,
            "prelu": True,
        }
