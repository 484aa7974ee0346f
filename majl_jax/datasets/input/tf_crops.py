"""The functions of the tf.data graph: an example's number to its record, and that to its crop."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from majl_jax.datasets.input import schedule, tf_places
from majl_jax.datasets.input.local_crops import KEYS, LocalCrops
from majl_jax.datasets.input.sources import Opened
from majl_jax.datasets.shards import FOOTER_BYTES, HEADER_BYTES


def locator(tf, opened: Sequence[Opened], crops: schedule.Crops):
    """A function: example number to a data set of one (example, seed of its crop, source, valid
    samples, bytes).
    """
    find = finder(tf, opened, crops)
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


def finder(tf, opened: Sequence[Opened], crops: schedule.Crops):
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


def cropper(tf, opened: Sequence[Opened], crops: schedule.Crops):
    """A function from what `locator` gives to one example."""
    arrays = opened[0].prepared.layout.arrays()
    dtypes = {key: dtype for key, (_, dtype) in arrays.items()}
    segment_samples, hop = crops.segment_samples, crops.hop_samples
    frames = segment_samples // hop
    lengths = {"stems": segment_samples, "has_stems": None, "f0_hz": frames, "has_pitch": frames}
    features = {key: tf.io.FixedLenFeature([], tf.string) for key in lengths}
    shapes, finish = _shapes(tf, opened, crops), _finisher(tf, opened)
    draw_start = _start(tf, crops)

    def crop(example, draw, source, valid_samples, payload):
        parsed = tf.io.parse_single_example(payload, features)
        start, out = draw_start(draw, valid_samples), {}
        for key, shape in shapes(source).items():
            data, length, dtype = parsed[key], lengths[key], dtypes[key]
            if length is not None:
                row_bytes = tf.reduce_prod(shape[1:]) * dtype.itemsize
                begin = start * (hop if key == "stems" else 1) * row_bytes
                data = tf.strings.substr(data, begin, length * row_bytes)
            kind = tf.uint8 if dtype.kind == "b" else tf.as_dtype(dtype)
            out[key] = tf.reshape(tf.io.decode_raw(data, kind), shape)
        return finish(example, source, out)

    return crop


def local_cropper(tf, opened: Sequence[Opened], crops: schedule.Crops, local: LocalCrops):
    """A function from an example's number to the example, whose bytes `local` reads."""
    find, shapes = finder(tf, opened, crops), _shapes(tf, opened, crops)
    finish, draw_start = _finisher(tf, opened), _start(tf, crops)
    kinds = [tf.int16, tf.uint8, tf.float32, tf.uint8]  # of KEYS

    def read(*place):
        return local.read(*map(int, place))

    def crop(example):
        draw, source, number, (_, _, _, valid_samples) = find(example)
        start = draw_start(draw, valid_samples)
        arrays = tf.numpy_function(read, (source, number, start), kinds)
        flat: dict[str, Any] = dict(zip(KEYS, arrays, strict=True))
        out = {key: tf.reshape(flat[key], shape) for key, shape in shapes(source).items()}
        return finish(example, source, out)

    return crop


def _start(tf, crops: schedule.Crops):
    """A function from the seed of a crop and the valid samples of its record to its first label
    frame.
    """

    def draw_start(draw, valid_samples):
        latest = tf.maximum(valid_samples - crops.segment_samples, 0) // crops.hop_samples
        seed = tf.stack([tf.constant(crops.seed, tf.int64), draw])
        return tf.random.stateless_uniform([], seed, 0, latest + 1, tf.int64)

    return draw_start


def _shapes(tf, opened: Sequence[Opened], crops: schedule.Crops):
    """A function from the number of a source to the shapes of its crops."""
    channels, frames = (
        opened[0].prepared.layout.channels,
        crops.segment_samples // crops.hop_samples,
    )
    layouts = [one.prepared.layout for one in opened]
    with tf.device("cpu"):
        stem_counts = tf.constant([len(one.stems) for one in layouts], tf.int64)
        voice_counts = tf.constant([one.pitch_voices for one in layouts], tf.int64)

    def shapes(source):
        stems, voices = stem_counts[source], voice_counts[source]
        return {
            "stems": [crops.segment_samples, stems, channels],
            "has_stems": [stems],
            "f0_hz": [frames, voices],
            "has_pitch": [frames, voices],
        }

    return shapes


def _finisher(tf, opened: Sequence[Opened]):
    """A function that makes an example of its number, its source's number and the crop's arrays."""
    place = tf_places.placer(tf, opened)
    with tf.device("cpu"):
        labels_count = tf.constant([one.labels for one in opened])

    def finish(example, source, arrays):
        out = place(source, arrays)
        for key in ("has_stems", "has_pitch"):
            out[key] = tf.cast(out[key], tf.bool)
        out["has_pitch"] &= labels_count[source]
        return {**out, "index": tf.cast(example % 2**32, tf.uint32)}

    return finish
