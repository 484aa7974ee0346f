"""The input from arrays in memory, without TensorFlow: batches as `tf_data` gives them, drawn by
other generators.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from majl_jax.datasets import records as on_disk
from majl_jax.datasets.input import schedule
from majl_jax.datasets.input.sources import AnySource, open_sources
from majl_jax.datasets.input.stem_places import place
from majl_jax.datasets.records import Record


class Group(NamedTuple):
    """Records in memory that are drawn by one weight.

    stem_numbers: which of their stems stands where, see `stem_places`; None: as they are.
    labels: whether their pitch labels count.
    without_first: whether they have nothing of what place 0 is for.
    """

    records: Sequence[Record]
    weight: float = 1.0
    stem_numbers: np.ndarray | None = None
    labels: bool = True
    without_first: bool = False


class Memory(schedule.Position):
    """Random crops of records (or whole tracks) held in memory: an endless stream of batches.

    Args:
        groups: the records, each group drawn in proportion to its weight.
        crops: what is cut from them.
        batch_size: of all processes together; process i of n gets the i-th part of each batch.
        process_index: i.
        process_count: n.
        voices: number of places for the pitches of the mixture, see `stem_places`; None: pitches
            go with their stems.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        crops: schedule.Crops,
        *,
        batch_size: int,
        process_index: int = 0,
        process_count: int = 1,
        voices: int | None = None,
    ) -> None:
        if not all(group.records for group in groups):
            sizes = [len(group.records) for group in groups]
            raise ValueError(f"groups of sizes {sizes}: each needs at least one record")
        super().__init__(
            schedule.settings(groups, crops, voices=voices),
            batch_size=batch_size,
            process_index=process_index,
            process_count=process_count,
        )
        self._groups, self._crops, self._voices = groups, crops, voices
        self._batch_size, self._process_index = batch_size, process_index
        self._first = np.cumsum([0, *(len(group.records) for group in groups)])
        self._order = schedule.pattern([group.weight for group in groups])
        self._before = schedule.taken_before(self._order, len(groups))
        self._permutation = functools.lru_cache(maxsize=2 * len(groups) + 2)(self._permute)

    def _permute(self, group: int, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self._crops.seed, group, epoch])
        return rng.permutation(len(self._groups[group].records))

    def _find(self, example: int) -> tuple[int, int, int]:
        """The group of an example, its record's number in there, how often that was cut before."""
        round_, place = divmod(example, len(self._order))
        group = int(self._order[place])
        count = round_ * int(self._before[-1, group]) + int(self._before[place, group])
        epoch, position = divmod(count, len(self._groups[group].records))
        return group, int(self._permutation(group, epoch)[position]), epoch

    def crop(self, example: int) -> dict[str, np.ndarray]:
        """The example with this global number."""
        which, number, epoch = self._find(example)
        group, crops = self._groups[which], self._crops
        record, samples, hop = group.records[number], crops.segment_samples, crops.hop_samples
        latest = max(int(record["valid_samples"]) - samples, 0) // hop
        draw = [example]
        if crops.distinct_offsets:
            draw = [int(self._first[which]) + number, epoch % crops.distinct_offsets]
        start = int(np.random.default_rng([crops.seed, *draw]).integers(latest + 1))
        out = {
            "stems": _slice(record["stems"], start * hop, samples),
            "has_stems": np.asarray(record["has_stems"], bool),
        }
        for key in ("f0_hz", "has_pitch"):
            out[key] = _slice(record[key], start, samples // hop)
        out = place(out, group.stem_numbers, voices=self._voices, without_first=group.without_first)
        return out if group.labels else {**out, "has_pitch": np.zeros_like(out["has_pitch"])}

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
    """Loads the sources of prepared data whole; called like `tf_data.open_batches`.

    Args:
        sources: the sets, or (directory, split, weight) of each.
        batch_size: of all processes together; process i of n gets the i-th part of each batch.
        segment_samples: length of the crops.
        seed: of the order and of where crops begin.
        process_index: i.
        process_count: n.
        min_valid_samples: records with less audio than this are left out.
        distinct_offsets: how many places a record is ever cut at; 0: a new one each time.
    """
    opened = open_sources(sources, min_valid_samples=min_valid_samples)
    groups = []
    for one in opened:
        longest = one.prepared.layout.record_samples
        if segment_samples > longest:
            raise ValueError(
                f"segment_samples {segment_samples} is more than a record ({longest} samples) of"
                f" {one.prepared.directory}"
            )
        numbers = map(int, one.records)
        read = [on_disk.read_record(one.prepared, one.split, number) for number in numbers]
        flags = one.labels, one.without_first
        groups.append(Group(read, one.weight, one.stem_numbers, *flags))
    hop_samples = opened[0].prepared.layout.hop_samples
    return Memory(
        groups,
        schedule.Crops(segment_samples, hop_samples, seed, distinct_offsets),
        batch_size=batch_size,
        process_index=process_index,
        process_count=process_count,
        voices=opened[0].voices,
    )
