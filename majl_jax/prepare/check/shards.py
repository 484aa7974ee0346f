"""The shards of a prepared data set, read in the order they lie on disk, with every fault on the
way.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from majl_jax.datasets import records
from majl_jax.datasets.shards import (
    FOOTER_BYTES,
    HEADER_BYTES,
    DamagedRecordError,
    read_array_record,
    read_tfrecord,
)


class Fault(NamedTuple):
    """What is wrong with a file; the names are those of the findings in `findings`."""

    name: str
    split: str
    where: str
    what: str


def read_index(folder: epath.Path) -> records.Prepared:
    """The index of a data set, whatever state its shards are in; ValueError where it cannot be
    read.
    """
    try:
        return records.read_index(folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def read_report(folder: epath.Path) -> Mapping[str, Any]:
    """The report that was written beside the shards; empty where there is none."""
    try:
        return json.loads((folder / records.REPORT_FILE).read_text())
    except (OSError, ValueError):
        return {}


def is_consistent(split: records.Split) -> bool:
    """Whether the index of a split does not contradict itself."""
    lengths = {len(getattr(split, column)) for column in (*records.COLUMNS, "track")}
    known = (split.shard >= 0) & (split.shard < len(split.shards))
    return len(lengths) == 1 and len(split.shards) == len(split.shard_bytes) and bool(known.all())


def file_faults(prepared: records.Prepared) -> Iterator[Fault]:
    """Shards that are missing, of another size than the index says, or unknown to it; indexes that
    contradict themselves.
    """
    known = set()
    for name, split in prepared.splits.items():
        if not is_consistent(split):
            what = "columns of different lengths, or records in shards that it does not have"
            yield Fault("index", name, records.INDEX_FILE, what)
            continue
        if not len(split):
            yield Fault("empty split", name, records.INDEX_FILE, "no records")
        for number, (shard, size) in enumerate(zip(split.shards, split.shard_bytes, strict=True)):
            known.add(shard)
            path = prepared.directory / shard
            if not path.exists():
                yield Fault("missing shard", name, shard, "missing")
                continue
            if (found := path.stat().length) != size:
                what = f"{found} bytes, index.json says {size}"
                yield Fault("truncated shard", name, shard, what)
            yield from _gaps(prepared, name, number)
    for path in sorted(prepared.directory.iterdir()):
        if f".{prepared.file_format}-" in path.name and path.name not in known:
            yield Fault("unknown shard", "", path.name, "index.json does not know it")


def _gaps(prepared: records.Prepared, name: str, shard: int) -> Iterator[Fault]:
    """Records of a TFRecord shard lie close together; array_record shards are numbered."""
    split = prepared.splits[name]
    rows = _rows(split, shard)
    offsets, lengths = split.offset[rows], split.length[rows]
    if prepared.file_format == "array_record":
        close = np.array_equal(offsets, np.arange(len(rows)))
    else:
        ends = np.concatenate([[0], offsets + lengths + FOOTER_BYTES])
        starts = np.append(offsets - HEADER_BYTES, split.shard_bytes[shard])
        close = np.array_equal(ends, starts)
    if not close:
        what = (
            "its records in index.json do not fill it: some are left out, twice there or of another"
            " length"
        )
        yield Fault("index", name, split.shards[shard], what)


def _rows(split: records.Split, shard: int) -> np.ndarray:
    rows = np.flatnonzero(split.shard == shard)
    return rows[np.argsort(split.offset[rows], kind="stable")]


def read_shard(
    prepared: records.Prepared, name: str, shard: int
) -> Iterator[records.Record | Fault]:
    """Every record of a shard, checked against its checksum and the index; a fault instead of one
    that is unusable.
    """
    split = prepared.splits[name]
    path = prepared.directory / split.shards[shard]
    if not path.exists():
        return
    rows = _rows(split, shard)
    for row, payload in zip(rows, _payloads(path, prepared, split, rows), strict=True):
        where = f"{split.shards[shard]}, {split.track[row]} at {split.start_sample[row]}"
        if isinstance(payload, DamagedRecordError):
            yield Fault("damaged record", name, where, str(payload))
            continue
        try:
            record = records.parse(payload, prepared.layout)
        # Of protobuf, NumPy or the layout: whatever it is, it is damaged.
        except Exception as error:
            what = f"is no record of this layout ({type(error).__name__}: {error})"
            yield Fault("damaged record", name, where, what)
            continue
        found = (record["track"], record["start_sample"], record["valid_samples"])
        said = (split.track[row], int(split.start_sample[row]), int(split.valid_samples[row]))
        if found != said:
            yield Fault("index", name, where, f"holds (track, start, samples) {found}")
        yield record


def _payloads(
    path: epath.Path, prepared: records.Prepared, split: records.Split, rows: np.ndarray
) -> Iterator[bytes | DamagedRecordError]:
    """The payload of each record, or why it cannot be used."""
    with path.open("rb") as file:
        for row in rows:
            offset, length = int(split.offset[row]), int(split.length[row])
            try:
                if prepared.file_format == "array_record":
                    yield read_array_record(path, offset)
                else:
                    yield read_tfrecord(file, offset, length)
            except DamagedRecordError as error:
                yield error
