"""`stem_places` in TensorFlow: the stems and pitches of a crop, put in their places."""

from collections.abc import Sequence

import numpy as np

from majl_jax.datasets.input import stem_places
from majl_jax.datasets.input.sources import Opened


def placer(tf, opened: Sequence[Opened]):
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
        all_known = tf.constant([int(one.without_first) for one in opened], tf.uint8)

    def place(source, arrays):
        known = tf.maximum(arrays["has_stems"], all_known[source])
        numbers = by_name[source]
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

    width = stems if voices is None else voices
    numbers = np.array(rows)
    for number, (one, count) in enumerate(zip(opened, counts, strict=True)):
        if one.without_first:  # its own pitches do not count
            numbers[number] = count
    with tf.device("cpu"):
        silent_first = [[[int(one.without_first)] + [0] * (width - 1)] for one in opened]
        silent_first = tf.constant(silent_first, tf.uint8)
        rows = tf.constant(numbers, tf.int64)

    def place(source, arrays):
        f0_hz, has_pitch = arrays["f0_hz"], arrays["has_pitch"]
        empty = tf.zeros_like(has_pitch[:, :1])
        if voices is not None:
            empty = tf.reduce_min(has_pitch, axis=1, keepdims=True)
        silence = tf.zeros_like(f0_hz[:, :1])
        places = tf.gather(tf.concat([has_pitch, empty], 1), rows[source], axis=1)
        return {
            "f0_hz": tf.gather(tf.concat([f0_hz, silence], 1), rows[source], axis=1),
            "has_pitch": tf.maximum(places, silent_first[source]),
        }

    return place, width


def _by_name(tf, opened: Sequence[Opened], counts: Sequence[int]):
    """Which stem of each source stands in each place."""
    rows = [
        np.arange(count) if one.stem_numbers is None else one.stem_numbers
        for count, one in zip(counts, opened, strict=True)
    ]
    with tf.device("cpu"):
        return tf.constant(np.stack(rows), tf.int64)
