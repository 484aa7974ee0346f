"""Crops of records on local disks: a record is read whole and held against its checksum at its
first use; later ones read the bytes of the crop alone.
"""

import io
import pathlib
from collections.abc import Sequence

import numpy as np

from majl_jax.datasets.input.sources import Opened
from majl_jax.datasets.shards import read_tfrecord

KEYS = ("stems", "has_stems", "f0_hz", "has_pitch")
ALIGNED_BYTES = 64  # where an array begins, TensorFlow takes it without a copy


class LocalCrops:
    """Reads crops from the TFRecord shards of the sources of a stream, by many threads at once."""

    def __init__(self, opened: Sequence[Opened], *, segment_samples: int, hop_samples: int) -> None:
        self._sources = [_Source(one, segment_samples, hop_samples) for one in opened]

    def read(self, source: int, number: int, start: int) -> tuple[np.ndarray, ...]:
        """The arrays of `KEYS`, flat: `segment_samples` from label frame `start` on of the record
        with this number among those of the source that take part.

        What was read before by its checksum is not looked at again: a disk that changes under a
        run is not noticed.
        """
        one = self._sources[source]
        row, path = int(one.records[number]), one.path(number)
        if one.begins[row, 0] < 0:
            with path.open("rb") as file:
                payload = read_tfrecord(file, int(one.offset[row]), int(one.length[row]))
            found = places(payload)
            one.begins[row] = [found[key][0] for key in KEYS]
            whole = memoryview(payload)
            return tuple(
                _view(whole[begin : begin + size], dtype)
                for begin, size, dtype in one.pieces(row, start)
            )
        with path.open("rb", buffering=0) as file:
            return tuple(
                _read(file, int(one.offset[row]) + begin, size, dtype)
                for begin, size, dtype in one.pieces(row, start)
            )


class _Source:
    """Where the arrays of a source's records lie; begins is -1 until a record was read."""

    def __init__(self, opened: Opened, segment_samples: int, hop_samples: int) -> None:
        split, layout = opened.prepared.split(opened.split), opened.prepared.layout
        self.records, self.offset, self.length = opened.records, split.offset, split.length
        self._shard = split.shard
        self._paths = [pathlib.Path(opened.prepared.directory) / name for name in split.shards]
        self.begins = np.full((len(split.offset), len(KEYS)), -1, np.int64)
        shapes = layout.arrays()
        # Of each array: bytes of a row, rows of a crop, rows that a label frame is long.
        frames, stems = segment_samples // hop_samples, len(layout.stems)
        rows = [
            (stems * layout.channels, segment_samples, hop_samples),
            (1, stems, 0),
            (layout.pitch_voices, frames, 1),
            (layout.pitch_voices, frames, 1),
        ]
        self._rows = [
            (width * shapes[key][1].itemsize, count, step, shapes[key][1])
            for key, (width, count, step) in zip(KEYS, rows, strict=True)
        ]

    def path(self, number: int) -> pathlib.Path:
        """Of the shard that a record lies in."""
        return self._paths[self._shard[self.records[number]]]

    def pieces(self, row: int, start: int) -> list[tuple[int, int, np.dtype]]:
        """(first byte in the payload, bytes, type) of the crop of each array."""
        return [
            (int(begin) + start * step * width, count * width, dtype)
            for begin, (width, count, step, dtype) in zip(self.begins[row], self._rows, strict=True)
        ]


def _view(data: memoryview, dtype: np.dtype) -> np.ndarray:
    out = _aligned(len(data))
    out[:] = np.frombuffer(data, np.uint8)
    return out.view(np.uint8 if dtype.kind == "b" else dtype)


def _read(file: io.FileIO, begin: int, size: int, dtype: np.dtype) -> np.ndarray:
    """`size` bytes of an open file."""
    out, got = _aligned(size), 0
    file.seek(begin)
    while got < size:
        more = file.readinto(out.data[got:])
        if not more:
            raise EOFError("the shard was cut while it was in use")
        got += more
    return out.view(np.uint8 if dtype.kind == "b" else dtype)


def _aligned(size: int) -> np.ndarray:
    room = np.empty(size + ALIGNED_BYTES, np.uint8)
    first = -room.ctypes.data % ALIGNED_BYTES
    return room[first : first + size]


# ---- where the arrays lie in a record ------------------------------------------------------------


def places(payload: bytes | memoryview) -> dict[str, tuple[int, int]]:
    """{feature: (first byte, bytes)} of the features of a serialised tf.train.Example that hold one
    string of bytes.

    Example {Features features = 1}, Features {map<string, Feature> feature = 1}, Feature {BytesList
    bytes_list = 1}, BytesList {repeated bytes value = 1}: each is a tag (field << 3 | 2), a length
    and what it holds; https://protobuf.dev/programming-guides/encoding.
    """
    found = {}
    at, end = _inside(payload, 0)
    while at < end:
        entry, entry_end = _inside(payload, at)
        key, key_end = _inside(payload, entry)
        feature, _ = _inside(payload, key_end)
        # Lists of numbers are fields 2 and 3.
        if payload[feature] >> 3 == 1:
            listed, _ = _inside(payload, feature)
            first, last = _inside(payload, listed)
            found[bytes(payload[key:key_end]).decode()] = (first, last - first)
        at = entry_end
    return found


def _inside(payload: bytes | memoryview, at: int) -> tuple[int, int]:
    """Begin and end of what the field at this byte holds."""
    length, shift, at = 0, 0, at + 1
    while True:
        byte = payload[at]
        length |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            return at, at + length
