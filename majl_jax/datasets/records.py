"""Prepared data on disk: what a record holds, cutting recordings into records, reading them.

A prepared data set is a folder of shards (written by `builder.py`) with an `index.json` that says
where each record lies. Reading needs neither TensorFlow nor the builder.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from majl_jax.datasets.track import Recording

INDEX_FILE = "index.json"
REPORT_FILE = "report.json"
INT16_SCALE = 32768.0
FORMATS = ("tfrecord", "array_record")

# stems int16 [time, stem, channel], has_stems bool [stem], f0_hz float32 [frame, stem], has_pitch
# bool [frame, stem], track str, start_sample int, valid_samples int (the rest of `time` is padding
# of a track shorter than a record)
Record = dict[str, Any]
Folder = str | os.PathLike[str]
Source = tuple[Folder, str, float]  # folder of a prepared data set, split, weight
COLUMNS = ("shard", "offset", "length", "start_sample", "valid_samples")


@dataclasses.dataclass(frozen=True)
class Layout:
    """What all records of a data set have in common."""

    stems: tuple[str, ...]
    channels: int
    sample_rate_hz: int
    hop_samples: int
    record_samples: int

    def __post_init__(self) -> None:
        if self.record_samples <= 0 or self.record_samples % self.hop_samples:
            raise ValueError(
                f"record_samples must be a positive multiple of hop_samples ({self.hop_samples}), "
                f"got {self.record_samples}"
            )

    def arrays(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and type of each array of a record."""
        stems, frames = len(self.stems), self.record_samples // self.hop_samples
        return {
            "stems": ((self.record_samples, stems, self.channels), np.dtype(np.int16)),
            "has_stems": ((stems,), np.dtype(bool)),
            "f0_hz": ((frames, stems), np.dtype(np.float32)),
            "has_pitch": ((frames, stems), np.dtype(bool)),
        }


def to_int16(audio: np.ndarray) -> np.ndarray:
    """Float audio (full scale = 1) to int16; values beyond full scale are limited."""
    return np.clip(np.round(audio * INT16_SCALE), -32768, 32767).astype(np.int16)


def whole(recording: Recording, track: str) -> Record:
    """A whole recording as one record of its own length."""
    return {
        "stems": to_int16(recording.audio),
        "has_stems": recording.has_stems,
        "f0_hz": recording.f0_hz,
        "has_pitch": recording.has_pitch,
        "track": track,
        "start_sample": 0,
        "valid_samples": len(recording.audio),
    }


def cut(track: Record, layout: Layout) -> Iterator[Record]:
    """Cuts a whole track into records of equal length; the last one ends where the track ends.

    So the last record overlaps the one before, and only a track shorter than a record is padded
    (with zeros that are no label).
    """
    samples, hop_samples = len(track["stems"]), layout.hop_samples
    frames = -(-samples // hop_samples)
    frames_per_record = layout.record_samples // hop_samples
    starts = list(range(0, max(frames - frames_per_record, 0), frames_per_record))
    starts.append(max(frames - frames_per_record, 0))
    for start in starts:
        record = {"track": track["track"], "start_sample": start * hop_samples}
        for key, (shape, dtype) in layout.arrays().items():
            if key == "has_stems":
                record[key] = np.asarray(track[key], dtype)
                continue
            first = start * (hop_samples if key == "stems" else 1)
            piece = np.asarray(track[key][first : first + shape[0]], dtype)
            if piece.shape[1:] != shape[1:]:
                raise ValueError(
                    f"{key} of track {track['track']} has shape {track[key].shape}, expected "
                    f"{('any', *shape[1:])}"
                )
            record[key] = np.zeros(shape, dtype)
            record[key][: len(piece)] = piece
        record["valid_samples"] = min(samples - record["start_sample"], layout.record_samples)
        yield record


def join(records: list[Record], layout: Layout) -> Record:
    """The inverse of `cut`: the records of one track, in order, to the whole track."""
    samples = max(record["start_sample"] + record["valid_samples"] for record in records)
    frames = samples // layout.hop_samples
    out = dict(records[0], start_sample=0, valid_samples=samples)
    for key, (shape, dtype) in layout.arrays().items():
        if key == "has_stems":
            continue
        step = 1 if key == "stems" else layout.hop_samples
        length = samples if key == "stems" else frames
        out[key] = np.zeros((length, *shape[1:]), dtype)
        for record in records:
            start = record["start_sample"] // step
            out[key][start : start + shape[0]] = record[key][: length - start]
    return out


@dataclasses.dataclass(frozen=True)
class Split:
    """Where the records of one split lie: one entry per record in every list."""

    shards: tuple[str, ...]  # file names
    shard_bytes: tuple[int, ...]
    shard: np.ndarray
    offset: (
        np.ndarray
    )  # byte offset of the payload (tfrecord) or number in the shard (array_record)
    length: np.ndarray  # bytes of the payload
    track: tuple[str, ...]
    start_sample: np.ndarray
    valid_samples: np.ndarray

    def __len__(self) -> int:
        return len(self.track)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An open data set: its layout, its options and its splits."""

    directory: epath.Path
    layout: Layout
    file_format: str
    options: Mapping[str, Any]  # what it was made with
    splits: Mapping[str, Split]

    def split(self, name: str) -> Split:
        """The named split, or an error that lists the ones there are."""
        if name not in self.splits:
            raise KeyError(f"{self.directory} has no split {name!r}; it has {sorted(self.splits)}")
        return self.splits[name]

    def shard_path(self, split: str, shard: int) -> epath.Path:
        """Path of a shard of a split."""
        return self.directory / self.split(split).shards[shard]


def how_to_prepare(directory: Folder) -> str:
    """The command that makes the data set in this folder."""
    path = epath.Path(directory)
    return f"python -m majl_jax.prepare --dataset={path.name} --output={path.parent}"


def is_prepared(directory: Folder) -> bool:
    """Whether a complete data set lies in the folder."""
    return (epath.Path(directory) / INDEX_FILE).exists()


def open_prepared(directory: Folder) -> Prepared:
    """Reads the index of a prepared data set and checks that every shard is there, in full."""
    folder = epath.Path(directory)
    if not is_prepared(folder):
        state = "has no index.json" if folder.exists() else "does not exist"
        raise FileNotFoundError(
            f"No prepared data set in {directory} (the folder {state}). Make it with:\n"
            f"  {how_to_prepare(directory)}"
        )
    index = json.loads((folder / INDEX_FILE).read_text())
    layout = Layout(**{**index["layout"], "stems": tuple(index["layout"]["stems"])})
    splits = {}
    for name, columns in index["splits"].items():
        splits[name] = Split(
            shards=tuple(columns["shards"]),
            shard_bytes=tuple(columns["shard_bytes"]),
            track=tuple(columns["track"]),
            **{column: np.asarray(columns[column], np.int64) for column in COLUMNS},
        )
    prepared = Prepared(folder, layout, index["file_format"], index["options"], splits)
    for split in splits.values():
        for shard, size in zip(split.shards, split.shard_bytes, strict=True):
            path = folder / shard
            found = path.stat().length if path.exists() else None
            if found != size:
                state = "is missing" if found is None else f"has {found} bytes, expected {size}"
                raise FileNotFoundError(
                    f"Shard {path} {state}. Remove the folder {directory} and make it again with:\n"
                    f"  {how_to_prepare(directory)}"
                )
    return prepared


def read_record(prepared: Prepared, split: str, number: int) -> Record:
    """One record by its number, read from disk."""
    where = prepared.split(split)
    path = prepared.shard_path(split, int(where.shard[number]))
    offset, length = int(where.offset[number]), int(where.length[number])
    if prepared.file_format == "array_record":
        payload = array_record_reader(str(path)).read([offset])[0]
    else:
        with path.open("rb") as file:
            file.seek(offset)
            payload = file.read(length)
    return parse(payload, prepared.layout)


def parse_example(payload: bytes) -> Any:
    """The protocol buffer of a record."""
    from tensorflow_datasets.proto import tf_example_pb2  # needs protobuf, not TensorFlow

    return getattr(tf_example_pb2, "Example").FromString(payload)  # noqa: B009  made at import time


def parse(payload: bytes, layout: Layout) -> Record:
    """A serialised tf.train.Example to a record."""
    feature = parse_example(payload).features.feature
    record: Record = {
        key: np.frombuffer(feature[key].bytes_list.value[0], dtype).reshape(shape)
        for key, (shape, dtype) in layout.arrays().items()
    }
    record["track"] = feature["track"].bytes_list.value[0].decode()
    for key in ("start_sample", "valid_samples"):
        record[key] = int(feature[key].int64_list.value[0])
    return record


def in_order(split: Split) -> np.ndarray:
    """Numbers of the records, sorted by track and then by time."""
    return np.lexsort((split.start_sample, np.unique(split.track, return_inverse=True)[1]))


def read_records(directory: Folder, split: str) -> Iterator[Record]:
    """All records of a split, track by track and in time order."""
    prepared = open_prepared(directory)
    for number in in_order(prepared.split(split)):
        yield read_record(prepared, split, int(number))


def read_tracks(directory: Folder, split: str) -> Iterator[Record]:
    """All tracks of a split, whole: `stems` and labels have the length of the track."""
    prepared = open_prepared(directory)
    where = prepared.split(split)
    numbers = in_order(where)
    tracks = np.asarray(where.track)[numbers]
    breaks = np.flatnonzero(tracks[1:] != tracks[:-1]) + 1
    for group in np.split(numbers, breaks):
        yield join([read_record(prepared, split, int(n)) for n in group], prepared.layout)


@functools.lru_cache(maxsize=64)
def array_record_reader(path: str) -> Any:
    """The open shard of an array_record data set."""
    import importlib

    module = importlib.import_module("array_record.python.array_record_module")
    return module.ArrayRecordReader(path)


def open_sources(
    sources: Sequence[Source], *, min_valid_samples: int = 0
) -> list[tuple[Prepared, str, np.ndarray]]:
    """Opens the (directory, split, weight) of one stream: (data set, split, record numbers).

    Records with fewer valid samples than `min_valid_samples` are left out.
    """
    if not sources:
        raise ValueError("sources is empty; expected (directory, split, weight) at least once")
    opened = []
    for directory, split, _ in sources:
        prepared = open_prepared(directory)
        numbers = np.flatnonzero(prepared.split(split).valid_samples >= max(min_valid_samples, 1))
        if not len(numbers):
            raise ValueError(
                f"Split {split!r} of {directory} has no record with {min_valid_samples} valid "
                "samples"
            )
        opened.append((prepared, split, numbers))
    first = opened[0][0].layout
    for prepared, _, _ in opened[1:]:
        for name in ("stems", "channels", "sample_rate_hz", "hop_samples"):
            if getattr(prepared.layout, name) != getattr(first, name):
                raise ValueError(
                    f"{prepared.directory} cannot be mixed with {opened[0][0].directory}: {name} "
                    "is "
                    f"{getattr(prepared.layout, name)} there, {getattr(first, name)} here"
                )
    return opened
