"""Networks by name: separators (waveform to waveform) and pitch estimators (waveform to
salience).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from majl_jax.audio.pitch import CREPE_BIN_CENTS
from majl_jax.models.band_split import BandSplitLocoformer
from majl_jax.models.crepe import Crepe
from majl_jax.models.harmof0 import HARMOF0_BIN_CENTS, HarmoF0
from majl_jax.models.light_decouple import LightDecouple
from majl_jax.models.resunet import ResUNetDecouplePlus
from majl_jax.models.unet import UNet
from majl_jax.models.vqvae import VqVaeSizes
from majl_jax.models.waveform_separators import (
    ChimeraSeparator,
    LocoformerSeparator,
    VqVaeSeparator,
)

SEPARATORS = ("unet", "resunet", "light", "chimera", "locoformer", "vqvae")
PITCH_ESTIMATORS = ("crepe", "harmof0")


def separator(name: str, fields: Mapping[str, Any], *, hop_samples: int) -> nn.Module:
    """A separator [batch, time] -> [batch, time]; `fields` are its constructor's, `dtype` as
    text.
    """
    arguments = {**_arguments(fields), "hop_samples": hop_samples}
    match name:
        case "unet":
            return UNet(**arguments)
        case "resunet":
            return ResUNetDecouplePlus(**arguments)
        case "light":
            return LightDecouple(**arguments)
        case "chimera":
            return ChimeraSeparator(**arguments)
        case "locoformer":
            stft = {key: arguments.pop(key) for key in ("window_samples", "hop_samples")}
            outputs = arguments.pop("outputs", 1)
            network = BandSplitLocoformer(sources=outputs, audio_channels=1, **arguments)
            return LocoformerSeparator(network, **stft)
        case "vqvae":
            del arguments["hop_samples"]
            others = {key: arguments.pop(key) for key in ("remat", "dtype")}
            return VqVaeSeparator(VqVaeSizes(**arguments), **others)
    raise ValueError(f"config.separator is {name!r}; expected {', '.join(SEPARATORS)}")


def pitch_estimator(
    name: str, fields: Mapping[str, Any], *, hop_samples: int
) -> tuple[nn.Module, np.ndarray]:
    """A pitch estimator [batch, time] -> [batch, frame, bin], and its bins' centres in cents above
    10 Hz.
    """
    arguments = {**_arguments(fields), "hop_samples": hop_samples}
    match name:
        case "crepe":
            arguments["capacity"] = arguments.pop("multiplier", 0) or arguments["capacity"]
            return Crepe(**arguments), CREPE_BIN_CENTS
        case "harmof0":
            return HarmoF0(**arguments), HARMOF0_BIN_CENTS
    raise ValueError(f"config.pitch is {name!r}; expected {', '.join(PITCH_ESTIMATORS)}")


def _arguments(fields: Mapping[str, Any]) -> dict[str, Any]:
    found = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in fields.items()}
    return {**found, "dtype": jnp.dtype(found["dtype"])} if "dtype" in found else found
