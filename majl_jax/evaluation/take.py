"""A track as it is judged: float audio, and the labels of one stem."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Take:
    """One track as the judge hears it: float audio and the labels of the judged stem."""

    name: str
    mixture: Float[np.ndarray, "time channel"]
    truth: Float[np.ndarray, "time channel"]
    has_truth: bool
    f0_hz: Float[np.ndarray, "frame"]
    has_pitch: np.ndarray
    sample_rate_hz: int
    hop_samples: int


def take_from_record(
    record: Mapping[str, Any], *, target: int, channels: int, sample_rate_hz: int, hop_samples: int
) -> Take:
    """Reads a whole-track record (batch.py's keys without the batch axis, and `track`, its name).

    Args:
        record: the record.
        target: number of the judged stem.
        channels: how many are wanted; others are averaged and repeated.
        sample_rate_hz: of the audio.
        hop_samples: samples from a label frame to the next.
    """
    stems = np.asarray(record["stems"], np.float32) / 32768.0
    if stems.shape[2] != channels:
        stems = np.repeat(stems.mean(2, keepdims=True), channels, axis=2)
    name = record["track"]
    return Take(
        name=name.decode("utf-8") if isinstance(name, bytes) else str(name),
        mixture=stems.sum(1),
        truth=stems[:, target],
        has_truth=bool(record["has_stems"][target]),
        f0_hz=np.asarray(record["f0_hz"][:, target], np.float32),
        has_pitch=np.asarray(record["has_pitch"][:, target], bool),
        sample_rate_hz=sample_rate_hz,
        hop_samples=hop_samples,
    )
