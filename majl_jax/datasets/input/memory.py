"""The input from arrays in memory: the same batches as `pipeline.py` gives, without TensorFlow."""

import functools
from collections.abc import Sequence

import numpy as np

from majl_jax.datasets import records as on_disk
from majl_jax.datasets.input import schedule
from majl_jax.datasets.input.sources import AnySource, open_sources
from majl_jax.datasets.input.stem_places import place
from majl_jax.datasets.records import Record


class Memory(schedule.Position):
    """Random crops of records (or whole tracks) held in memory: an endless stream of batches.

    batch_size: of all processes together; process i of n gets the i-th part of each batch.
    group_sizes, group_weights: the records are consecutive groups, drawn in these proportions
    (default: one group).
    group_stem_numbers: per group which of its stems stands where, see `stem_places` (default: as they are).
    voices: number of places for the pitches of the mixture, see `stem_places` (default: pitches go with their stems).
    group_labels: per group whether its pitch labels count (default: all do).
    distinct_offsets: how many places a record is ever cut at; 0: a new one each time.
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        batch_size: int,
        segment_samples: int,
        hop_samples: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
        group_sizes: Sequence[int] | None = None,
        group_weights: Sequence[float] | None = None,
        group_stem_numbers: Sequence[np.ndarray | None] | None = None,
        voices: int | None = None,
        group_labels: Sequence[bool] | None = None,
        distinct_offsets: int = 0,
    ) -> None:
        sizes = [len(records)] if group_sizes is None else list(group_sizes)
        weights = [1.0] * len(sizes) if group_weights is None else list(group_weights)
        placed = list(group_stem_numbers or [None] * len(sizes))
        if (
            sum(sizes) != len(records)
            or not len(weights) == len(placed) == len(sizes)
            or not all(sizes)
        ):
            raise ValueError(
                f"groups of sizes {sizes} with weights {weights} do not fit {len(records)} "
                "records: each group needs a weight and at least one record"
            )
        if segment_samples <= 0 or segment_samples % hop_samples:
            raise ValueError(
                f"segment_samples {segment_samples} is no multiple of hop {hop_samples}"
            )
        settings = {"sizes": sizes, "weights": weights, "seed": seed, "segment": segment_samples}
        settings["stems"] = schedule.as_setting(placed)
        settings["voices"] = voices
        labels = [True] * len(sizes) if group_labels is None else list(group_labels)
        settings |= schedule.unusual(labels, distinct_offsets)
        super().__init__(
            settings,
            batch_size=batch_size,
            process_index=process_index,
            process_count=process_count,
        )
        self._records, self._seed = records, seed
        self._segment_samples, self._hop_samples = segment_samples, hop_samples
        self._batch_size, self._process_index = batch_size, process_index
        self._placed, self._voices, self._labels = placed, voices, labels
        self._offsets = distinct_offsets
        self._sizes, self._first = sizes, np.concatenate([[0], np.cumsum(sizes)])
        self._order = schedule.pattern(weights)
        self._before = schedule.taken_before(self._order, len(sizes))
        self._permutation = functools.lru_cache(maxsize=2 * len(sizes) + 2)(self._permute)

    def _permute(self, group: int, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._seed, group, epoch]).permutation(self._sizes[group])

    def record_number(self, example: int) -> int:
        """Which record the example with this global number is cut from."""
        return self._find(example)[1]

    def _find(self, example: int) -> tuple[int, int, int]:
        """Its group, the number of its record among all, and how often that was cut before."""
        round_, place = divmod(example, len(self._order))
        group = int(self._order[place])
        count = round_ * int(self._before[-1, group]) + int(self._before[place, group])
        epoch, position = divmod(count, self._sizes[group])
        return group, int(self._first[group] + self._permutation(group, epoch)[position]), epoch

    def crop(self, example: int) -> dict[str, np.ndarray]:
        """The example with this global number."""
        group, number, epoch = self._find(example)
        record, stem_numbers = self._records[number], self._placed[group]
        samples, hop = self._segment_samples, self._hop_samples
        latest = max(int(record["valid_samples"]) - samples, 0) // hop
        draw = [number, epoch % self._offsets] if self._offsets else [example]
        start = int(np.random.default_rng([self._seed, *draw]).integers(latest + 1))
        out = {
            "stems": _slice(record["stems"], start * hop, samples),
            "has_stems": np.asarray(record["has_stems"], bool),
        }
        for key in ("f0_hz", "has_pitch"):
            out[key] = _slice(record[key], start, samples // hop)
        out = place(out, stem_numbers, voices=self._voices)
        return out if self._labels[group] else {**out, "has_pitch": np.zeros_like(out["has_pitch"])}

    def __iter__(self) -> "Memory":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        first = self.step * self._batch_size + self._process_index * self.local_size
        numbers = range(first, first + self.local_size)
        crops = [self.crop(example) for example in numbers]
        self.step += 1
        batch = {key: np.stack([crop[key] for crop in crops]) for key in crops[0]}
        return {**batch, "index": np.asarray(numbers).astype(np.uint32)}


def _slice(array: np.ndarray, start: int, length: int) -> np.ndarray:
    """`length` rows from `start`; what lies beyond the end is zero."""
    piece = array[start : start + length]
    if len(piece) == length:
        return piece
    return np.concatenate([piece, np.zeros((length - len(piece), *piece.shape[1:]), piece.dtype)])


def open_batches(
    sources: Sequence[AnySource],
    *,
    batch_size: int,
    segment_samples: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    min_valid_samples: int = 0,
    distinct_offsets: int = 0,
) -> Memory:
    """Loads the sources of prepared data whole; called like `pipeline.open_batches`."""
    opened = open_sources(sources, min_valid_samples=min_valid_samples)
    groups = [
        [on_disk.read_record(one.prepared, one.split, int(number)) for number in one.records]
        for one in opened
    ]
    return Memory(
        [record for group in groups for record in group],
        batch_size=batch_size,
        segment_samples=segment_samples,
        hop_samples=opened[0].prepared.layout.hop_samples,
        seed=seed,
        process_index=process_index,
        process_count=process_count,
        group_sizes=[len(group) for group in groups],
        group_weights=[one.weight for one in opened],
        group_stem_numbers=[one.stem_numbers for one in opened],
        voices=opened[0].voices,
        group_labels=[one.labels for one in opened],
        distinct_offsets=distinct_offsets,
    )
