"""The input from shards on disk (tf.data): random crops in a seeded order, batched and prefetched.

tf.data moves bytes only. Each example is found by its global number (see `schedule.py`): one read
at the record's place in its shard, one crop of its bytes; on local disks of the crop alone, once
the record was seen whole (`local_crops.py`). So every process reads only its own
examples, the processes' batches put together are the batch of a single process, and the position is
the step.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from majl_jax.datasets.input import schedule, tf_crops
from majl_jax.datasets.input.local_crops import LocalCrops
from majl_jax.datasets.input.sources import AnySource, Opened, open_sources
from majl_jax.datasets.records import read_record
from majl_jax.datasets.shards import is_local

# Batches that are made ahead, and records that are read at the same time.
PREFETCH_BATCHES, PARALLEL_READS = 2, 4


class Pipeline(schedule.Position):
    """An endless stream of batches; made by `open_batches`."""

    def __init__(
        self,
        opened: Sequence[Opened],
        crops: schedule.Crops,
        *,
        batch_size: int,
        process_index: int,
        process_count: int,
    ) -> None:
        super().__init__(
            schedule.settings(opened, crops, voices=opened[0].voices),
            batch_size=batch_size,
            process_index=process_index,
            process_count=process_count,
        )
        self._opened, self._crops = opened, crops
        self._batch_size, self._process_index = batch_size, process_index
        self._iterator, self._local = None, None
        if all(is_local(one.prepared.directory) for one in opened):
            self._local = LocalCrops(
                opened, segment_samples=crops.segment_samples, hop_samples=crops.hop_samples
            )

    def __iter__(self) -> "Pipeline":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        if self._iterator is None:
            self._iterator = self._dataset(self.step).as_numpy_iterator()
        try:
            batch = next(self._iterator)
        except Exception:  # of TensorFlow, which names no record
            self._iterator = None
            self._refuse_damaged()
            raise
        self.step += 1
        return batch

    def restore(self, state: bytes) -> None:
        """Goes to a saved position: reading starts there, nothing is skipped over."""
        super().restore(state)
        self._iterator = None

    def _refuse_damaged(self) -> None:
        """Reads the records of the next batch one by one; an error where one is damaged."""
        tf = _tensorflow()
        find = tf_crops.finder(tf, self._opened, self._crops)
        first = self.step * self._batch_size + self._process_index * self.local_size
        for example in range(first, first + self.local_size):
            _, source, number, _ = find(tf.constant(example, tf.int64))
            one = self._opened[int(source)]
            read_record(one.prepared, one.split, int(one.records[int(number)]))

    def _dataset(self, step: int):
        """The batches from this step on, as a tf.data.Dataset."""
        tf = _tensorflow()
        batch_size, local = self._batch_size, self.local_size
        first = self._process_index * local
        # A step past 2**62 is never reached.
        dataset = tf.data.Dataset.range(step, 2**62 // batch_size).flat_map(
            lambda s: tf.data.Dataset.range(s * batch_size + first, s * batch_size + first + local)
        )
        how = {"num_parallel_calls": PARALLEL_READS, "deterministic": True}
        if self._local is not None:
            read = tf_crops.local_cropper(tf, self._opened, self._crops, self._local)
            dataset = dataset.map(read, **how)
        else:
            read = tf_crops.locator(tf, self._opened, self._crops)
            dataset = dataset.interleave(read, cycle_length=PARALLEL_READS, block_length=1, **how)
            dataset = dataset.map(tf_crops.cropper(tf, self._opened, self._crops), **how)
        options = tf.data.Options()
        # There is nothing left to tune, and to end its thread takes seconds.
        options.autotune.enabled = False
        dataset = dataset.batch(local, drop_remainder=True).prefetch(PREFETCH_BATCHES)
        return dataset.with_options(options)


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
) -> Pipeline:
    """Batches of random crops from prepared data sets.

    Crops start at multiples of the hop and reach into padding only where a track is shorter than
    the segment.

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
    for one in opened:
        _check(one.prepared, segment_samples)
    hop_samples = opened[0].prepared.layout.hop_samples
    return Pipeline(
        opened,
        schedule.Crops(segment_samples, hop_samples, seed, distinct_offsets),
        batch_size=batch_size,
        process_index=process_index,
        process_count=process_count,
    )


def _tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it would only announce itself
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # the accelerator is JAX's alone
    return tf


def _check(prepared: Any, segment_samples: int) -> None:
    layout = prepared.layout
    if prepared.file_format != "tfrecord":
        raise ValueError(
            f"{prepared.directory} is in {prepared.file_format} format, tf.data reads tfrecord: "
            "prepare it with "
            "--file_format=tfrecord, or use memory.open_batches"
        )
    if segment_samples % layout.hop_samples or not 0 < segment_samples <= layout.record_samples:
        raise ValueError(
            f"segment_samples {segment_samples} must be a multiple of the hop "
            f"({layout.hop_samples}) and at most one "
            f"record ({layout.record_samples} samples) of {prepared.directory}"
        )
