"""A prepared data set, read once from beginning to end by several threads."""

import functools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures

import numpy as np
import tqdm
from etils import epath

from majl_jax.datasets import records
from majl_jax.prepare.check import set_rules, shards
from majl_jax.prepare.check.facts import Facts, compared_records, facts_of, merge
from majl_jax.prepare.check.findings import Checked, Finding
from majl_jax.prepare.check.shards import Fault


def holds_shards(place: epath.Path) -> bool:
    """Whether a folder is a prepared set, whole or in parts."""
    if not place.is_dir():
        return False
    names = [path.name for path in place.iterdir()]
    has_shards = any(f".{kind}-" in name for kind in records.FORMATS for name in names)
    return records.INDEX_FILE in names or has_shards


def check_prepared(place: epath.Path, *, threads: int = 1) -> Checked:
    """Reads every record of a prepared set once."""
    started = time.monotonic()
    checked = Checked(place.name, os.fspath(place))
    try:
        prepared = shards.read_index(place)
    except (OSError, ValueError) as error:
        checked.findings.append(Finding("no index", "", str(error)))
        return checked
    checked.layout, checked.options = prepared.layout, prepared.options
    checked.report = shards.read_report(place)
    faults = list(shards.file_faults(prepared))
    records.parse_example(b"")  # imports what it needs before there are threads
    jobs = [
        (split, shard)
        for split, columns in prepared.splits.items()
        if shards.is_consistent(columns)
        for shard in range(len(columns.shards))
    ]
    compared = {split: _middle_records(prepared, split) for split, _ in jobs}
    look = functools.partial(_look_at_shard, prepared, compared)
    with futures.ThreadPoolExecutor(threads) as pool:
        looked = pool.map(look, jobs)
        bar = tqdm.tqdm(looked, checked.name, len(jobs), unit="shard", leave=False, disable=None)
        for found, damaged, read in bar:
            for one in found:
                checked.add(one)
            faults += damaged
            checked.bytes_read += read
    checked.findings += _as_findings(faults)
    checked.findings += set_rules.judge(checked)
    checked.seconds = time.monotonic() - started
    return checked


def _middle_records(prepared: records.Prepared, split: str) -> set[tuple[str, int]]:
    """Of each track the records in its middle: (track, start)."""
    columns = prepared.splits[split]
    order = records.in_order(columns)
    tracks = np.asarray(columns.track)[order]
    _, first, counts = np.unique(tracks, return_index=True, return_counts=True)
    chosen = [
        order[start + place]
        for start, count in zip(first.tolist(), counts.tolist(), strict=True)
        for place in compared_records(count, prepared.layout)
    ]
    return {(columns.track[row], int(columns.start_sample[row])) for row in chosen}


def _look_at_shard(
    prepared: records.Prepared,
    compared: Mapping[str, set[tuple[str, int]]],
    job: tuple[str, int],
) -> tuple[list[Facts], list[Fault], int]:
    """The facts of the tracks of one shard, its faults, and how many bytes it has."""
    split, shard = job
    merged: dict[str, Facts] = {}
    faults, read = [], 0
    for record in shards.read_shard(prepared, split, shard):
        if isinstance(record, Fault):
            faults.append(record)
            continue
        identity = record["track"]
        facts = facts_of(
            record,
            prepared.layout,
            split,
            compare_labels=(identity, record["start_sample"]) in compared[split],
        )
        old = merged.get(identity)
        merged[identity] = facts if old is None else merge(old, facts)
        read += record["stems"].nbytes
    return list(merged.values()), faults, read


def _as_findings(faults: Sequence[Fault]) -> Iterator[Finding]:
    """One finding for all faults of a kind in a split."""
    for name, split in dict.fromkeys((fault.name, fault.split) for fault in faults):
        where = [
            f"{fault.where} ({fault.what})"
            for fault in faults
            if (fault.name, fault.split) == (name, split)
        ]
        yield Finding(name, split, f"{len(where)} in all", tuple(where))
