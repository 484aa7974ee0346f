"""Songs in arrays: what is taken for audio, and what is refused in a line."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from majl_jax.audio import files

MOST_CHANNELS = 64  # more are samples: the axes are the wrong way round
INT_SCALES = {"int16": "32768", "int32": "2147483648"}


def rate(sample_rate_hz: Any) -> int:
    """The same as an integer, if it is a sample rate."""
    low, high = files.RATES_HZ
    number = isinstance(sample_rate_hz, (int, float, np.integer, np.floating))
    if not number or not low <= sample_rate_hz <= high or sample_rate_hz != int(sample_rate_hz):
        raise ValueError(
            f"sample_rate_hz is {sample_rate_hz!r}; expected that of the audio, a whole number from"
            f" {low} to {high} Hz (it is not guessed: at a wrong one a model is of no use)"
        )
    return int(sample_rate_hz)


def checked(audio: Any, name: str) -> Float[np.ndarray, "time *channel"]:
    """The same as float32, if it is audio."""
    if isinstance(audio, Tracer):
        raise TypeError("a model is called on songs; inside of jax.jit and jax.grad: model.apply")
    if not isinstance(audio, (np.ndarray, jax.Array)):
        raise ValueError(f"{name} is a {type(audio).__name__}; expected a NumPy or JAX array")
    found = np.asarray(audio)
    if not np.issubdtype(found.dtype, np.floating):
        scale = INT_SCALES.get(found.dtype.name)
        advice = f": convert it to float32 and divide it by {scale}" if scale else ""
        raise ValueError(f"{name} is {found.dtype}; expected floats with full scale 1{advice}")
    if found.ndim not in (1, 2) or not found.size or found.shape[-1 if found.ndim == 2 else 0] == 0:
        raise ValueError(
            f"{name} has shape {found.shape}; expected [time] or [time, channel] with at least one"
            " sample (several songs: a list of arrays)"
        )
    if found.ndim == 2 and found.shape[1] > MOST_CHANNELS:
        raise ValueError(
            f"{name} has shape {found.shape}, which would be {found.shape[1]} channels; expected"
            " [time, channel]: give audio.T"
        )
    if not np.isfinite(found).all():
        sample = int(np.argmin(np.isfinite(found).reshape(len(found), -1).all(1)))
        raise ValueError(f"{name}: sample {sample} is not finite")
    return found.astype(np.float32, copy=False)


def alike(found: Iterable[Any]) -> Iterator[np.ndarray]:
    """Blocks of one song; empty ones are left out."""
    shape = None
    for number, block in enumerate(found):
        if not np.size(block):
            continue
        one = checked(block, f"block {number}")
        shape = one.shape[1:] if shape is None else shape
        if one.shape[1:] != shape:
            expected = "[time, channel]" if shape else "[time]"
            raise ValueError(
                f"block {number} has shape {one.shape}; expected {expected} as those before it"
            )
        yield one


def column(audio: np.ndarray) -> np.ndarray:
    """[time, channel], of one channel where there was no axis for it."""
    return audio[:, None] if audio.ndim == 1 else audio
