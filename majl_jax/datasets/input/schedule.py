"""Which example comes when, whatever the number of processes: functions of its number.

Example g belongs to step g // batch_size. Sources follow a fixed pattern that has their weights;
within a source every epoch is a permutation. So the position of an input is one number, the step,
whatever was prefetched.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence, Sized
from typing import Any, Protocol, runtime_checkable

import numpy as np

PATTERN_LENGTH = 1000


@dataclasses.dataclass(frozen=True)
class Crops:
    """Which crops a stream draws from its records; ValueError where the numbers do not fit.

    Args:
        segment_samples: length of a crop, a multiple of the hop.
        hop_samples: between label frames; crops begin at multiples of it.
        seed: of what is drawn.
        distinct_offsets: how many places a record is ever cut at; 0: a new one each time.
    """

    segment_samples: int
    hop_samples: int
    seed: int
    distinct_offsets: int = 0

    def __post_init__(self) -> None:
        if self.segment_samples <= 0 or self.segment_samples % self.hop_samples:
            raise ValueError(
                f"segment_samples {self.segment_samples} is no multiple of hop {self.hop_samples}"
            )
        if self.distinct_offsets < 0:
            raise ValueError(
                f"distinct_offsets is {self.distinct_offsets}; expected 0 (all) or more"
            )


@runtime_checkable
class Group(Protocol):
    """Records of a stream that are drawn by one weight."""

    @property
    def records(self) -> Sized: ...

    @property
    def weight(self) -> float: ...

    @property
    def stem_numbers(self) -> np.ndarray | None: ...

    @property
    def labels(self) -> bool: ...

    @property
    def without_first(self) -> bool: ...


@runtime_checkable
class Batches(Protocol):
    """An endless stream of batches (`majl_jax/batch.py`) with an exact, restorable position."""

    @property
    def step(self) -> int: ...

    def __iter__(self) -> "Batches": ...

    def __next__(self) -> dict[str, np.ndarray]: ...

    def save(self) -> bytes: ...

    def restore(self, state: bytes) -> None: ...


def pattern(weights: Sequence[float]) -> np.ndarray:
    """The repeating order of sources, [position]: each evenly spread, with its share."""
    shares = np.asarray(weights, np.float64)
    if not len(shares) or not np.all(np.isfinite(shares)) or np.any(shares < 0) or not shares.any():
        raise ValueError(f"weights must be zero or more, and one of them above zero; got {weights}")
    shares = shares / shares.sum()
    if len(shares) == 1:
        return np.zeros(1, np.int64)
    credit = np.zeros(len(shares))
    order = np.empty(PATTERN_LENGTH, np.int64)
    for position in range(PATTERN_LENGTH):
        credit += shares
        order[position] = np.argmax(credit)
        credit[order[position]] -= 1.0
    for number in np.flatnonzero(shares):
        if number not in order:
            raise ValueError(
                f"source {number} has {shares[number]:.3g} of the examples by its weight, too few"
                f" to be drawn: expected a share of 1 / {PATTERN_LENGTH} or more"
            )
    return order


def taken_before(order: np.ndarray, sources: int) -> np.ndarray:
    """How often each source occurs before each position, [position + 1, source]."""
    one_hot = order[:, None] == np.arange(sources)
    return np.concatenate([np.zeros((1, sources), np.int64), np.cumsum(one_hot, axis=0)])


def settings(groups: Sequence[Group], crops: Crops, *, voices: int | None) -> dict[str, Any]:
    """What two streams must have in common for a position of one to be one of the other."""
    labels = [group.labels for group in groups]
    numbers = [group.stem_numbers for group in groups]
    as_lists = [None if one is None else one.tolist() for one in numbers]
    found: dict[str, Any] = {
        "sizes": [len(group.records) for group in groups],
        "weights": [group.weight for group in groups],
        "seed": crops.seed,
        "segment": crops.segment_samples,
        "stems": as_lists if any(one is not None for one in as_lists) else None,
        "voices": voices,
    }
    # What only some streams have.
    if not all(labels):
        found["labels"] = labels
    if any(group.without_first for group in groups):
        found["without_first"] = [group.without_first for group in groups]
    if crops.distinct_offsets:
        found["offsets"] = crops.distinct_offsets
    return found


class Position:
    """The step of an input, with the settings that must agree when it is restored."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        batch_size: int,
        process_index: int,
        process_count: int,
    ) -> None:
        if not 0 <= process_index < process_count:
            raise ValueError(f"process_index {process_index} is not in 0..{process_count - 1}")
        if batch_size <= 0 or batch_size % process_count:
            raise ValueError(
                f"batch_size {batch_size} (of all processes together) must be a positive multiple "
                "of "
                f"process_count {process_count}"
            )
        self.step = 0
        self.local_size = batch_size // process_count
        self.settings = json.loads(json.dumps({**settings, "batch_size": batch_size}))

    def save(self) -> bytes:
        """The position as bytes: what has been handed out, not what has been prefetched."""
        return json.dumps({"step": self.step, "settings": self.settings}).encode()

    def restore(self, state: bytes) -> None:
        """Goes to a saved position; refuses one of other data or settings."""
        saved = json.loads(state)
        for name in sorted(self.settings.keys() | saved["settings"].keys()):
            was, now = saved["settings"].get(name), self.settings.get(name)
            if was != now:
                raise ValueError(
                    f"The saved input position belongs to other data: {name} was {was}, is {now} "
                    "now. "
                    "Use the same data and settings, or start in a new workdir."
                )
        self.step = int(saved["step"])
