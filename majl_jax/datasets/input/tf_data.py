"""The input from shards on disk (tf.data): random crops in a seeded order, batched and prefetched.

tf.data moves bytes only. Each example is found by its global number (see `schedule.py`): one read
at the record's place in its shard, one crop of its bytes. So every process reads only its own
examples, the processes' batches put together are the batch of a single process, and the position is
the step.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from majl_jax.datasets.input import schedule, tf_places
from majl_jax.datasets.input.sources import AnySource, Opened, open_sources
from majl_jax.datasets.records import read_record
from majl_jax.datasets.shards import FOOTER_BYTES, HEADER_BYTES

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
        self._iterator = None

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
        find = _finder(tf, self._opened, self._crops)
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
        dataset = dataset.interleave(
            _locator(tf, self._opened, self._crops),
            cycle_length=PARALLEL_READS,
            block_length=1,
            num_parallel_calls=PARALLEL_READS,
            deterministic=True,
        )
        dataset = dataset.map(
            _cropper(tf, self._opened, self._crops),
            num_parallel_calls=PARALLEL_READS,
            deterministic=True,
        )
        return dataset.batch(local, drop_remainder=True).prefetch(PREFETCH_BATCHES)


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


def _locator(tf, opened: Sequence[Opened], crops: schedule.Crops):
    """A function: example number to a data set of one (example, seed of its crop, source, valid
    samples, bytes).
    """
    find = _finder(tf, opened, crops)
    paths = [
        str(one.prepared.directory / shard)
        for one in opened
        for shard in one.prepared.split(one.split).shards
    ]
    with tf.device("cpu"):
        paths = tf.constant(paths)

    def locate(example):
        draw, source, _, (shard, offset, length, valid_samples) = find(example)
        # TensorFlow looks at the checksums of the length and of the payload.
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=paths[shard][None],
            compression_type="",
            buffer_size=HEADER_BYTES + length + FOOTER_BYTES,
            byte_offsets=(offset - HEADER_BYTES)[None],
        )
        shards = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
        return shards.take(1).map(lambda payload: (example, draw, source, valid_samples, payload))

    return locate


def _finder(tf, opened: Sequence[Opened], crops: schedule.Crops):
    """A function: example number to (seed of its crop, source, number of its record there, (number
    of its shard among those of all sources, offset, length, valid samples)).
    """
    seed, distinct_offsets = crops.seed, crops.distinct_offsets
    order = schedule.pattern([one.weight for one in opened])
    before = schedule.taken_before(order, len(opened))
    rows, sizes, shards = [], [], 0
    for one in opened:
        split, numbers = one.prepared.split(one.split), one.records
        columns = [split.shard + shards, split.offset, split.length, split.valid_samples]
        rows.append(np.stack(columns, axis=1)[numbers])
        sizes.append(len(numbers))
        shards += len(split.shards)
    first_row = np.concatenate([[0], np.cumsum(sizes)])
    with tf.device("cpu"):
        rows, sizes = tf.constant(np.concatenate(rows)), tf.constant(sizes, tf.int64)
        first_row, order, before = (tf.constant(a, tf.int64) for a in (first_row, order, before))

    def find(example):
        length = tf.size(order, tf.int64)
        place = example % length
        source = order[place]
        count = (example // length) * before[-1, source] + before[place, source]
        size = sizes[source]
        shuffle_seed = tf.stack([seed * 4096 + source, count // size])
        number = tf.random.experimental.index_shuffle(count % size, shuffle_seed, size - 1)
        draw = example
        if distinct_offsets:
            draw = (first_row[source] + number) * distinct_offsets
            draw += (count // size) % distinct_offsets
        return draw, source, number, tf.unstack(rows[first_row[source] + number])

    return find


def _cropper(tf, opened: Sequence[Opened], crops: schedule.Crops):
    """A function from what `_locator` gives to one example."""
    layout = opened[0].prepared.layout
    seed, segment_samples, hop = crops.seed, crops.segment_samples, crops.hop_samples
    frames = segment_samples // hop
    lengths = {"stems": segment_samples, "has_stems": None, "f0_hz": frames, "has_pitch": frames}
    features = {key: tf.io.FixedLenFeature([], tf.string) for key in lengths}
    place = tf_places.placer(tf, opened)
    layouts = [one.prepared.layout for one in opened]
    with tf.device("cpu"):
        labels_count = tf.constant([one.labels for one in opened])
        stem_counts = tf.constant([len(one.stems) for one in layouts], tf.int64)
        voice_counts = tf.constant([one.pitch_voices for one in layouts], tf.int64)

    def crop(example, draw, source, valid_samples, payload):
        parsed = tf.io.parse_single_example(payload, features)
        latest = tf.maximum(valid_samples - segment_samples, 0) // hop
        start = tf.random.stateless_uniform(
            [], tf.stack([tf.constant(seed, tf.int64), draw]), 0, latest + 1, tf.int64
        )
        out, stems, voices = {}, stem_counts[source], voice_counts[source]
        shapes = {"stems": [stems, layout.channels], "has_stems": [stems]}
        for key, (_, dtype) in layout.arrays().items():
            data, length = parsed[key], lengths[key]
            shape = shapes.get(key, [voices])
            if length is not None:
                row_bytes = tf.reduce_prod(shape) * dtype.itemsize
                begin = start * (hop if key == "stems" else 1) * row_bytes
                data = tf.strings.substr(data, begin, length * row_bytes)
                shape = [length, *shape]
            kind = tf.uint8 if dtype.kind == "b" else tf.as_dtype(dtype)
            out[key] = tf.reshape(tf.io.decode_raw(data, kind), shape)
        out = place(source, out)
        for key in ("has_stems", "has_pitch"):
            out[key] = tf.cast(out[key], tf.bool)
        out["has_pitch"] &= labels_count[source]
        return {**out, "index": tf.cast(example % 2**32, tf.uint32)}

    return crop
