"""Any reader's tracks to shards: one TFDS builder for all, written whole or not at all."""

import contextlib
import io
import json
import os
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import writer as writer_lib
from tensorflow_datasets.core.utils import shard_utils

from majl_jax.datasets.records import (
    FORMATS,
    INDEX_FILE,
    REPORT_FILE,
    Folder,
    Layout,
    Record,
    array_record_reader,
    is_prepared,
    parse,
    parse_example,
)

SHARD_BYTES = 64 << 20
FEWEST_SHARDS = 8


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
        for record in records:
            yield f"{record['track']}@{record['start_sample']:012d}", record


def write_dataset(
    directory: Folder,
    splits: Mapping[str, Iterable[Record]],
    *,
    layout: Layout,
    options: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
    file_format: str = "tfrecord",
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a data set from records of any origin; `directory` appears only when it is complete.

    A shard has at most about `shard_bytes`; a small split still has several. What a killed call
    left behind is removed by the next one. One process writes at a time.
    """
    target = epath.Path(directory)
    if file_format not in FORMATS:
        raise ValueError(f"file_format must be one of {FORMATS}, got {file_format!r}")
    if target.exists():
        state = "a prepared data set" if is_prepared(target) else "a folder"
        raise FileExistsError(f"{target} is {state} already; remove it, or choose another name")
    draft = target.parent / f".{target.name}.partial"
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(parents=True)
    builder = Records(layout=layout, splits=splits, data_dir=os.fspath(draft))
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(
        io.StringIO()
    ):  # it speaks of downloads, of which there are none
        builder.download_and_prepare(
            file_format=file_format,
            download_dir=os.fspath(draft / "downloads"),
            download_config=_Config(max_shard_size=shard_bytes, try_download_gcs=False),
        )
    finished = epath.Path(builder.data_dir)
    index = {
        "layout": vars(layout),
        "file_format": file_format,
        "options": dict(options or {}),
        "splits": {
            name: _index_split(finished, [f.name for f in info.filepaths], file_format, layout)
            for name, info in builder.info.splits.items()
        },
    }
    (finished / REPORT_FILE).write_text(json.dumps(dict(report or {}), indent=2))
    (finished / INDEX_FILE).write_text(json.dumps(index))
    finished.rename(target)
    shutil.rmtree(draft)


def _index_split(
    folder: epath.Path, shards: list[str], file_format: str, layout: Layout
) -> dict[str, list]:
    """Reads every shard once and notes where its records lie."""
    columns: dict[str, list] = {"shards": shards, "shard_bytes": []}
    rows, where = [], ("track", "start_sample", "valid_samples")
    for number, name in enumerate(shards):
        path = folder / name
        columns["shard_bytes"].append(path.stat().length)
        for offset, payload in _payloads(path, file_format):
            record = parse(payload, layout)
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
