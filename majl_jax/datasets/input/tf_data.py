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

from majl_jax.datasets.input import schedule, stem_places
from majl_jax.datasets.input.sources import AnySource, Opened, open_sources
from majl_jax.datasets.records import open_prepared, read_records, read_tracks


class Pipeline(schedule.Position):
    """An endless stream of batches; made by `open_batches`."""

    def __init__(self, make_dataset, settings, **position: Any) -> None:
        super().__init__(settings, **position)
        self._make_dataset = make_dataset
        self._iterator = None

    def __iter__(self) -> "Pipeline":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        if self._iterator is None:
            self._iterator = self._make_dataset(self.step).as_numpy_iterator()
        batch = next(self._iterator)
        self.step += 1
        return batch

    def restore(self, state: bytes) -> None:
        """Goes to a saved position: reading starts there, nothing is skipped over."""
        super().restore(state)
        self._iterator = None


__all__ = ["Pipeline", "open_batches", "open_prepared", "read_records", "read_tracks"]


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
    prefetch_batches: int = 2,
    parallel_reads: int = 4,
) -> Pipeline:
    """Batches of random crops from prepared data sets, given as `streams.Source`s.

    batch_size: of all processes together; process i of n gets the i-th part of each batch.
    Crops start at multiples of the hop and reach into padding only where a track is shorter than
    the segment. min_valid_samples: records with less audio than this are left out.
    distinct_offsets: how many places a record is ever cut at; 0: a new one each time.
    """
    opened = open_sources(sources, min_valid_samples=min_valid_samples)
    for one in opened:
        _check(one.prepared, segment_samples)
    weights = [one.weight for one in opened]
    sizes = [len(one.records) for one in opened]
    settings = {"sizes": sizes, "weights": weights, "seed": seed, "segment": segment_samples}
    settings["stems"] = schedule.as_setting([one.stem_numbers for one in opened])
    settings["voices"] = opened[0].voices
    settings |= schedule.unusual([one.labels for one in opened], distinct_offsets)
    position = {
        "batch_size": batch_size,
        "process_index": process_index,
        "process_count": process_count,
    }

    def make_dataset(step: int):
        tf = _tensorflow()
        local = batch_size // process_count
        first = process_index * local
        locate = _locator(tf, opened, weights, seed, distinct_offsets)
        crop = _cropper(tf, opened, segment_samples, seed)
        # A step past 2**62 is never reached.
        dataset = tf.data.Dataset.range(step, 2**62 // batch_size).flat_map(
            lambda s: tf.data.Dataset.range(s * batch_size + first, s * batch_size + first + local)
        )
        dataset = dataset.interleave(
            locate,
            cycle_length=parallel_reads,
            block_length=1,
            num_parallel_calls=parallel_reads,
            deterministic=True,
        )
        dataset = dataset.map(crop, num_parallel_calls=parallel_reads, deterministic=True)
        return dataset.batch(local, drop_remainder=True).prefetch(prefetch_batches)

    return Pipeline(make_dataset, settings, **position)


def _tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it would only announce itself
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The tf.data input needs TensorFlow (`pip install tensorflow-cpu`). Without it, use "
            "majl_jax.datasets.input.memory.open_batches: same arguments, same batches, all data in "
            "memory."
        ) from error
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


def _locator(
    tf, opened: Sequence[Opened], weights: Sequence[float], seed: int, distinct_offsets: int
):
    """A function: example number to a data set of one (example, seed of its crop, source, valid samples, bytes)."""
    order = schedule.pattern(weights)
    before = schedule.taken_before(order, len(opened))
    paths, shard_bytes, rows, sizes = [], [], [], []
    for one in opened:
        prepared, split, numbers = one.prepared, one.prepared.split(one.split), one.records
        columns = [split.shard + len(paths), split.offset, split.length, split.valid_samples]
        rows.append(np.stack(columns, axis=1)[numbers])
        sizes.append(len(numbers))
        paths += [str(prepared.directory / shard) for shard in split.shards]
        shard_bytes += split.shard_bytes
    first_row = np.concatenate([[0], np.cumsum(sizes)])
    with tf.device("cpu"):
        paths, shard_bytes = tf.constant(paths), tf.constant(shard_bytes, tf.int64)
        rows, sizes = tf.constant(np.concatenate(rows)), tf.constant(sizes, tf.int64)
        first_row, order, before = (tf.constant(a, tf.int64) for a in (first_row, order, before))

    def locate(example):
        length = tf.size(order, tf.int64)
        place = example % length
        source = order[place]
        count = (example // length) * before[-1, source] + before[place, source]
        size = sizes[source]
        shuffle_seed = tf.stack([seed * 4096 + source, count // size])
        number = tf.random.experimental.index_shuffle(count % size, shuffle_seed, size - 1)
        row = rows[first_row[source] + number]
        draw = example
        if distinct_offsets:
            draw = (first_row[source] + number) * distinct_offsets
            draw += (count // size) % distinct_offsets
        # A file of one record of `row[2]` bytes between a header and a footer: a read at a place.
        record = tf.data.FixedLengthRecordDataset(
            paths[row[0]],
            record_bytes=row[2],
            header_bytes=row[1],
            footer_bytes=shard_bytes[row[0]] - row[1] - row[2],
        )
        return record.map(lambda payload: (example, draw, source, row[3], payload))

    return locate


def _cropper(tf, opened: Sequence[Opened], segment_samples: int, seed: int):
    """A function from what `_locator` gives to one example."""
    layout = opened[0].prepared.layout
    hop, frames = layout.hop_samples, segment_samples // layout.hop_samples
    lengths = {"stems": segment_samples, "has_stems": None, "f0_hz": frames, "has_pitch": frames}
    features = {key: tf.io.FixedLenFeature([], tf.string) for key in lengths}
    place = _placer(tf, opened)
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


def _placer(tf, opened: Sequence[Opened]):
    """`stem_places.place` in TensorFlow, as a function of the source's number and its arrays."""
    place_stems, stems = _stem_placer(tf, opened)
    place_labels, voices = _label_placer(tf, opened, stems)
    axes = {
        "stems": (1, stems),
        "has_stems": (0, stems),
        "f0_hz": (1, voices),
        "has_pitch": (1, voices),
    }

    def place(source, arrays):
        placed = {**place_stems(source, arrays), **place_labels(source, arrays)}
        out = {}
        for key, array in placed.items():  # their numbers are known when the graph is made
            axis, count = axes[key]
            shape = array.shape.as_list()
            shape[axis] = count
            out[key] = tf.ensure_shape(array, shape)
        return out

    return place


def _stem_placer(tf, opened: Sequence[Opened]):
    """A function that puts the stems in their places, and the number of places."""
    counts = [len(one.prepared.layout.stems) for one in opened]
    if all(one.stem_numbers is None for one in opened):
        return lambda source, arrays: {key: arrays[key] for key in ("stems", "has_stems")}, counts[
            0
        ]
    by_name = _by_name(tf, opened, counts)
    places = by_name.shape[1]
    with tf.device("cpu"):
        as_they_are = tf.constant([stem_places.first(count, places) for count in counts], tf.int64)

    def place(source, arrays):
        known, numbers = arrays["has_stems"], by_name[source]
        audio_numbers = tf.where(tf.reduce_any(known > 0), numbers, as_they_are[source])
        silence = tf.zeros_like(arrays["stems"][:, :1])
        return {
            "stems": tf.gather(tf.concat([arrays["stems"], silence], 1), audio_numbers, axis=1),
            "has_stems": tf.gather(tf.concat([known, [tf.reduce_min(known)]], 0), numbers),
        }

    return place, places


def _label_placer(tf, opened: Sequence[Opened], stems: int):
    """A function that puts the pitches in their places, and the number of places."""
    voices = opened[0].voices
    counts = [one.prepared.layout.pitch_voices for one in opened]
    if voices is not None:
        with tf.device("cpu"):
            rows = tf.constant([stem_places.first(count, voices) for count in counts], tf.int64)
    elif all(one.stem_numbers is None for one in opened):
        return lambda source, arrays: {key: arrays[key] for key in ("f0_hz", "has_pitch")}, counts[
            0
        ]
    else:
        rows = _by_name(tf, opened, counts)

    def place(source, arrays):
        f0_hz, has_pitch = arrays["f0_hz"], arrays["has_pitch"]
        empty = tf.zeros_like(has_pitch[:, :1])
        if voices is not None:
            empty = tf.reduce_min(has_pitch, axis=1, keepdims=True)
        silence = tf.zeros_like(f0_hz[:, :1])
        return {
            "f0_hz": tf.gather(tf.concat([f0_hz, silence], 1), rows[source], axis=1),
            "has_pitch": tf.gather(tf.concat([has_pitch, empty], 1), rows[source], axis=1),
        }

    return place, stems if voices is None else voices


def _by_name(tf, opened: Sequence[Opened], counts: Sequence[int]):
    """Which stem of each source stands in each place."""
    rows = [
        np.arange(count) if one.stem_numbers is None else one.stem_numbers
        for count, one in zip(counts, opened, strict=True)
    ]
    with tf.device("cpu"):
        return tf.constant(np.stack(rows), tf.int64)
