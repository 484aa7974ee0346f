"""Prepared data on disk: opening it, reading records and whole tracks.

A prepared data set is a folder of shards (written by `builder.py`) with an `index.json` that says
where each record lies. Reading needs neither TensorFlow nor the builder.
"""

import dataclasses
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from concurrent import futures
from typing import Any

import numpy as np
from etils import epath

from majl_jax import formats
from majl_jax.datasets.cutting import Layout, Record, cut, join, whole
from majl_jax.datasets.shards import (
    LOCAL_FORMAT,
    DamagedRecordError,
    array_record_reader,
    is_local,
    read_payload,
)

__all__ = [
    "LOCAL_FORMAT",
    "DamagedRecordError",
    "Layout",
    "Record",
    "array_record_reader",
    "cut",
    "is_local",
    "join",
    "whole",
]

INDEX_FILE = "index.json"
REPORT_FILE = "report.json"
FORMATS = ("tfrecord", "array_record")
THREADS = 16

SHARED_FLAGS = (
    "sample_rate_hz",
    "hop_samples",
    "record_seconds",
    "tracks",
    "seed",
    "file_format",
    "drop_silence",
    "stems",
    "octave",
    "margin_s",
    "names",
)
"""Flags of majl_jax.prepare that decide what is in all data sets of a command."""
_CONTENT_FLAGS = ("source", "channels", *SHARED_FLAGS)

Folder = str | os.PathLike[str]
CONTENT = "crc32c"  # in the index of a split, beside its columns
COLUMNS = ("shard", "offset", "length", "start_sample", "valid_samples")


@dataclasses.dataclass(frozen=True)
class Split:
    """Where the records of one split lie: one entry per record in every list."""

    shards: tuple[str, ...]  # file names
    shard_bytes: tuple[int, ...]
    shard: np.ndarray
    # Byte offset of the payload (tfrecord) or number in the shard (array_record)
    offset: np.ndarray
    length: np.ndarray  # bytes of the payload
    track: tuple[str, ...]
    start_sample: np.ndarray
    valid_samples: np.ndarray
    # CRC-32C of all payloads in the order of the columns; None in an index from before it was noted
    content: int | None = None

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


def draft_of(directory: Folder) -> epath.Path:
    """Where a data set is written until it is complete."""
    target = epath.Path(directory)
    return target.parent / f".{target.name}.partial"


def finished_in(draft: Folder) -> epath.Path:
    """The folder in a draft that becomes the data set; its name and version are TFDS's."""
    return epath.Path(draft) / "records" / "1.0.0"


def prepare_command(directory: Folder, *flags: str) -> str:
    """The command that makes the data set in this folder, as far as its name and `flags` say.

    Which flags a data set needs is known to `readers.how_to_prepare`.
    """
    path = epath.Path(directory)
    said = " ".join([f"--dataset={path.name}", *flags, f"--output={path.parent}"])
    return f"python -m majl_jax.prepare {said}"


def how_to_mend(prepared: Prepared, how: str | None = None) -> str:
    """What to do about a data set whose files are damaged, with the command that makes it.

    how: that command, where the index does not know what the set was made with.
    """
    folder, options = prepared.directory, prepared.options
    if "teacher" in options:
        return f"Remove the folder {folder}: the training command has its teacher label it again"
    if "dataset" in options:
        how = prepare_command(folder, *_flags(options))
    how = how or prepare_command(folder)
    return f"Remove the folder {folder} and make it again with:\n  {how}"


def _flags(options: Mapping[str, Any]) -> Iterator[str]:
    """What a set was made with, as flags of the command that makes it."""
    for name in _CONTENT_FLAGS:
        match options.get(name):
            case None | "" | False:
                continue
            case True:
                yield f"--{name}"
            case Mapping() as limits:
                yield f"--{name}=" + ",".join(f"{split}={n}" for split, n in limits.items())
            case value:
                yield f"--{name}={shlex.quote(str(value))}"


def is_prepared(directory: Folder) -> bool:
    """Whether a complete data set lies in the folder."""
    return (epath.Path(directory) / INDEX_FILE).exists()


def open_prepared(directory: Folder, *, how: str | None = None) -> Prepared:
    """Reads the index of a prepared data set and checks that every shard is there, in full.

    how: the command that makes it, for the FileNotFoundError where it is not (in full) there.
    """
    how = how or prepare_command(directory)
    folder = epath.Path(directory)
    if not is_prepared(folder):
        state = "has no index.json" if folder.exists() else "does not exist"
        raise FileNotFoundError(
            f"No prepared data set in {directory} (the folder {state}). Make it with:\n  {how}"
        )
    prepared = read_index(folder)
    if prepared.file_format == "array_record" and not is_local(folder):
        raise ValueError(f"{folder}: {LOCAL_FORMAT}")
    # tensorflow_datasets changes `import` for all threads while it is imported: not beside Orbax's
    # writers.
    parse_example(b"")
    _check_shards(prepared, how)
    return prepared


def read_index(folder: epath.Path) -> Prepared:
    """A prepared data set as its index says it is, without a look at its shards."""
    needs = ("layout", "file_format", "options", "splits")
    index = formats.read(folder / INDEX_FILE, formats.DATA, needs=needs)
    layout = Layout(**{**index["layout"], "stems": tuple(index["layout"]["stems"])})
    splits = {}
    for name, columns in index["splits"].items():
        splits[name] = Split(
            shards=tuple(columns["shards"]),
            shard_bytes=tuple(columns["shard_bytes"]),
            track=tuple(columns["track"]),
            content=columns.get(CONTENT),
            **{column: np.asarray(columns[column], np.int64) for column in COLUMNS},
        )
    return Prepared(folder, layout, index["file_format"], index["options"], splits)


def _check_shards(prepared: Prepared, how: str) -> None:
    """Raises FileNotFoundError where a shard is missing or cut off."""
    folder, sizes = prepared.directory, {}
    for split in prepared.splits.values():
        sizes |= dict(zip(split.shards, split.shard_bytes, strict=True))
    with futures.ThreadPoolExecutor(THREADS) as pool:  # an object store takes its time for each
        found = pool.map(_size_bytes, [folder / shard for shard in sizes])
    for (shard, expected), size in zip(sizes.items(), found, strict=True):
        if size != expected:
            state = "is missing" if size is None else f"has {size} bytes, expected {expected}"
            mend = how_to_mend(prepared, how)
            raise FileNotFoundError(f"Shard {folder / shard} {state}. {mend}")


def _size_bytes(path: epath.Path) -> int | None:
    try:
        return path.stat().length
    except FileNotFoundError:
        return None


def read_record(prepared: Prepared, split: str, number: int) -> Record:
    """One record by its number, read from disk; DamagedRecordError where that is not what was
    written.
    """
    where = prepared.split(split)
    path = prepared.shard_path(split, int(where.shard[number]))
    place = int(where.offset[number]), int(where.length[number])
    try:
        return parse(read_payload(path, prepared.file_format, *place), prepared.layout)
    except OSError:
        raise
    except Exception as error:  # of protobuf, NumPy or the layout
        raise DamagedRecordError(
            f"{path}: the record of {where.track[number]} at sample {where.start_sample[number]}"
            f" is damaged ({str(error) or type(error).__name__}). {how_to_mend(prepared)}"
        ) from error


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


def words(field: Any) -> Iterator[str]:
    """What stands in the texts of a config's fields, names of data sets among it."""
    match field:
        case str():
            yield from re.findall(r"[\w./-]+", field)
        case dict():
            yield from words(list(field.values()))
        case list() | tuple():
            for one in field:
                yield from words(one)


def contents(directory: Folder, names: Iterable[str]) -> dict[str, dict[str, int | None]]:
    """{name: {split: checksum of its content}} of the prepared data sets of these names in a
    folder; None where the index does not know it.
    """
    folders = {name: epath.Path(directory) / name for name in sorted(set(names))}
    return {
        name: {split: one.content for split, one in read_index(folder).splits.items()}
        for name, folder in folders.items()
        if is_prepared(folder)
    }


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
