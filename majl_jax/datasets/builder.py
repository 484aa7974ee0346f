"""Any reader's tracks to shards: one TFDS builder for all, written whole or not at all."""

import contextlib
import io
import json
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import google_crc32c
import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core import writer as writer_lib
from tensorflow_datasets.core.utils import shard_utils

from majl_jax import atomic, formats
from majl_jax.datasets.records import (
    CONTENT,
    FORMATS,
    INDEX_FILE,
    REPORT_FILE,
    Folder,
    Layout,
    Record,
    array_record_reader,
    draft_of,
    finished_in,
    is_local,
    is_prepared,
    parse,
    parse_example,
)

SHARD_BYTES = 64 << 20
# What TFDS sorts in memory, beyond that on the disk; by default 1 GB.
SORTED_IN_MEMORY_BYTES = 64 << 20
FEWEST_SHARDS = 8
UNFINISHED_FILE = "unfinished"  # in a folder on an object store until all its files are there
NO_TRACK = ""


class _Shards(shard_utils.ShardConfig):
    """So many shards that none exceeds `max_shard_size`, and several even of a small split."""

    def get_number_shards(
        self, total_size: int, num_examples: int, uses_precise_sharding: bool = True
    ) -> int:
        del uses_precise_sharding
        return min(num_examples, max(FEWEST_SHARDS, -(-total_size // self.max_shard_size)))


class _Config(tfds.download.DownloadConfig):
    def get_shard_config(self) -> shard_utils.ShardConfig:
        return _Shards(max_shard_size=self.max_shard_size)


class _SortedWriter(writer_lib.ExampleWriter):
    """Writes the features of an example in a fixed order: the same data, the same bytes."""

    def write(self, path: epath.PathLike, examples: Iterable[tuple[Any, bytes]]) -> Any:
        return super().write(path, ((key, self._sort(payload)) for key, payload in examples))

    def _sort(self, payload: bytes) -> bytes:
        return parse_example(payload).SerializeToString(deterministic=True)


class Records(tfds.core.GeneratorBasedBuilder):
    """Records of one data set: int16 stems, time-major, with their label frames."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, layout: Layout, splits: Mapping[str, Iterable[Record]], **kwargs: Any):
        self._layout = layout
        self._splits = splits
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features: dict[str, Any] = {
            key: tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")
            for key, (shape, dtype) in self._layout.arrays().items()
        }
        features |= {
            "track": tfds.features.Text(),
            "start_sample": tfds.features.Scalar(np.int64),
            "valid_samples": tfds.features.Scalar(np.int64),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(vars(self._layout)),
        )

    def _example_writer(self) -> writer_lib.ExampleWriter:
        file_format = self.info.file_format
        assert file_format is not None
        return _SortedWriter(file_format)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {name: self._generate_examples(records) for name, records in self._splits.items()}

    def _generate_examples(self, records: Iterable[Record]) -> Iterator[tuple[str, Record]]:
        none = True
        for record in records:
            none = False
            yield _key(record), record
        if none:
            yield _key(self._stand_in()), self._stand_in()

    def _stand_in(self) -> Record:
        """The record of a split that has none, which TFDS could not write; the split is removed
        afterwards.
        """
        arrays = self._layout.arrays().items()
        zeros: Record = {key: np.zeros(shape, dtype) for key, (shape, dtype) in arrays}
        return {**zeros, "track": NO_TRACK, "start_sample": 0, "valid_samples": 0}


def _key(record: Record) -> str:
    return f"{record['track']}@{record['start_sample']:012d}"


def write_dataset(
    directory: Folder,
    splits: Mapping[str, Iterable[Record]],
    *,
    layout: Layout,
    options: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
    file_format: str = "tfrecord",
    draft: Folder | None = None,
) -> None:
    """Writes a data set from records of any origin; `directory` appears only when it is complete.

    A shard has about 64 MiB; a small split still has several, one without records is left out. What
    a killed call left behind is removed by the next one. One process writes at a time. On an object
    store, where folders cannot be renamed, `directory` is complete when its last file is there:
    index.json. FileExistsError where there is such a folder.

    Args:
        directory: the folder of the data set, also gs://bucket/folder.
        splits: for each an iterable of records.
        layout: of all records.
        options: what the data set was made with, for its index.
        report: what became of its tracks; read once all records are written.
        file_format: tfrecord or array_record.
        draft: where it is written until it is complete, by default beside `directory`. In one that
            is given, what is written in full stays for the next call with the same arguments.
    """
    target = epath.Path(directory)
    refuse(target, file_format)
    stays = draft is not None
    draft = epath.Path(draft or draft_of(target))
    finished = finished_in(draft)
    if not (stays and is_prepared(finished)):
        if target.exists():
            target.rmtree()
        draft.rmtree(missing_ok=True)
        draft.mkdir(parents=True)
        builder = Records(layout=layout, splits=splits, data_dir=os.fspath(draft))
        _write_shards(builder, draft, file_format)
        index = {
            formats.KEY: formats.DATA,
            "layout": vars(layout),
            "file_format": file_format,
            "options": dict(options or {}),
            "splits": _index(builder, finished, file_format, layout),
        }
        _write_whole(finished / REPORT_FILE, json.dumps(dict(report or {}), indent=2))
        _write_whole(finished / INDEX_FILE, json.dumps(index))
    _publish(finished, target)
    draft.rmtree(missing_ok=True)


def refuse(target: epath.Path, file_format: str) -> None:
    """Raises an error where this folder cannot be written, or not in this format."""
    if file_format not in FORMATS:
        raise ValueError(f"file_format must be one of {FORMATS}, got {file_format!r}")
    if target.exists() and not _half_published(target) and not _is_empty(target):
        state = "a prepared data set" if is_prepared(target) else "a folder"
        raise FileExistsError(f"{target} is {state} already; remove it, or choose another name")


def _write_shards(builder: Records, draft: epath.Path, file_format: str) -> None:
    """Writes shards and TFDS's own description of them."""
    tfds.disable_progress_bar()
    shuffle.MAX_MEM_BUFFER_SIZE = SORTED_IN_MEMORY_BYTES
    config = _Config(max_shard_size=SHARD_BYTES, try_download_gcs=False)
    # It speaks of downloads, of which there are none.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(
            file_format=file_format,
            download_dir=os.fspath(draft / "downloads"),
            download_config=config,
        )


def _index(
    builder: Records, folder: epath.Path, file_format: str, layout: Layout
) -> dict[str, dict[str, Any]]:
    """Where the records of each split lie; removes splits that have none."""
    infos: dict[str, Any] = dict(builder.info.splits)
    found = {
        name: _index_split(folder, [f.name for f in info.filepaths], file_format, layout)
        for name, info in infos.items()
    }
    full = {name: columns for name, columns in found.items() if columns["track"] != [NO_TRACK]}
    if not full:
        raise ValueError(f"No split of {sorted(found)} has a record")
    for name in found.keys() - full.keys():
        for shard in infos.pop(name).filepaths:
            (folder / shard.name).unlink()
    if len(infos) < len(found):
        builder.info.set_splits(tfds.core.SplitDict(list(infos.values())))
        builder.info.write_to_directory(folder)
    return full


def _write_whole(path: epath.Path, text: str) -> None:
    """A file of an object store appears whole anyway."""
    if is_local(path):
        atomic.write_text(pathlib.Path(path), text)
    else:
        path.write_text(text)


def _half_published(target: epath.Path) -> bool:
    """Whether a killed call was at work on this folder of an object store."""
    if is_local(target) or is_prepared(target):
        return False
    return (target / UNFINISHED_FILE).exists()


def _is_empty(target: epath.Path) -> bool:
    return is_local(target) and target.is_dir() and not any(target.iterdir())


def _publish(finished: epath.Path, target: epath.Path) -> None:
    """Makes the folder appear: by one rename on a disk, file by file with the index last on an
    object store.
    """
    if is_local(target):
        if target.exists():  # an empty folder
            target.rmdir()
        finished.rename(target)
        return
    target.mkdir(parents=True, exist_ok=True)
    (target / UNFINISHED_FILE).write_text("")
    for path in sorted(finished.iterdir(), key=lambda one: (one.name == INDEX_FILE, one.name)):
        if is_local(path):
            path.copy(target / path.name, overwrite=True)
            path.unlink()
        else:
            path.replace(target / path.name)
    (target / UNFINISHED_FILE).unlink()


def _index_split(
    folder: epath.Path, shards: list[str], file_format: str, layout: Layout
) -> dict[str, Any]:
    """Reads every shard once and notes where its records lie, and the checksum of them all."""
    columns: dict[str, Any] = {"shards": shards, "shard_bytes": [], CONTENT: 0}
    rows, where = [], ("track", "start_sample", "valid_samples")
    for number, name in enumerate(shards):
        path = folder / name
        columns["shard_bytes"].append(path.stat().length)
        for offset, payload in _payloads(path, file_format):
            record = parse(payload, layout)
            columns[CONTENT] = google_crc32c.extend(columns[CONTENT], payload)
            rows.append((number, offset, len(payload), *(record[key] for key in where)))
    names = ("shard", "offset", "length", *where)
    for name, column in zip(names, zip(*rows, strict=True), strict=True):
        columns[name] = list(column)
    return columns


def _payloads(path: epath.Path, file_format: str) -> Iterator[tuple[int, bytes]]:
    """Position and bytes of each record of a shard.

    TFRecord: length (uint64), its checksum (4 bytes), payload, checksum of the payload (4 bytes).
    """
    if file_format == "array_record":
        reader = array_record_reader(os.fspath(path))
        for number in range(reader.num_records()):
            yield number, reader.read([number])[0]
        return
    with path.open("rb") as file:
        while header := file.read(12):
            (length,) = struct.unpack("<Q", header[:8])
            position = file.tell()
            yield position, file.read(length)
            file.seek(4, os.SEEK_CUR)
