"""The doctor: looks at data sets, prepared or as they come, before anything is trained on them."""

import pathlib
import time
from collections.abc import Mapping, Sequence

from etils import epath

from majl_jax.datasets import readers, records
from majl_jax.prepare.check import between
from majl_jax.prepare.check.prepared import check_prepared, holds_shards
from majl_jax.prepare.check.report import Report
from majl_jax.prepare.check.source import Source, check_source, source_of
from majl_jax.prepare.selection import Options

__all__ = ["Report", "Source", "check", "command", "find_prepared"]
DEEPEST = 3  # folders below the given one


def command(
    output: records.Folder,
    wanted: Sequence[Options],
    *,
    processes: int,
    report: pathlib.Path | None = None,
) -> int:
    """Prints what is wrong with the wanted data sets, or with all below `output`; returns 1 if
    there is an error.

    A wanted set that is prepared below `output` is looked at there; another one as its reader
    finds it. report: a file for the same as JSON.
    """
    folder, places, sources = epath.Path(output), [], {}
    for options in wanted:
        place = folder / options.dataset
        lacks_source = readers.READERS[options.dataset].needs_source and options.source is None
        if holds_shards(place):
            places.append(place)
        elif lacks_source:
            records.open_prepared(place, how=readers.how_to_prepare(place))  # which says how
        else:
            sources[options.dataset] = source_of(options)
    if not wanted:
        places = find_prepared(folder)
    found = check(places, sources, processes=processes)
    print(found)
    if report is not None:
        report.write_text(found.to_json())
    return int(found.failed)


def check(
    places: Sequence[epath.Path],
    sources: Mapping[str, Source] | None = None,
    *,
    processes: int = 1,
) -> Report:
    """Looks at prepared sets and at sources, each by itself, and at those of one folder side by
    side.

    `processes` load sources at the same time; as many threads read shards. In memory are a record
    per thread and, of each track, sums and fingerprints: about 0.4 MB per hour of each signal.
    """
    started = time.monotonic()
    found = [check_prepared(place, threads=processes) for place in places]
    folders = [place.parent for place in places]
    for name, source in (sources or {}).items():
        found.append(check_source(name, source, processes=processes))
        folders.append(folders[0] if folders else epath.Path())
    for folder in dict.fromkeys(folders):
        siblings = [one for one, its in zip(found, folders, strict=True) if its == folder]
        for rule in (between.repeated, between.other_layouts):
            for number, finding in rule(siblings):
                siblings[number].findings.append(finding)
    return Report(found, time.monotonic() - started)


def find_prepared(folder: epath.Path) -> list[epath.Path]:
    """The prepared sets, whole or in parts: this folder, or those below it; FileNotFoundError if
    there are none.
    """
    found, level = [], [folder]
    for _ in range(DEEPEST + 1):
        found += [place for place in level if holds_shards(place)]
        level = [
            child
            for place in level
            if place.is_dir() and place not in found
            for child in sorted(place.iterdir())
            if child.is_dir() and not child.name.startswith(".")
        ]
    if not found:
        raise FileNotFoundError(
            f"There is no prepared data set in {folder}: name one with --dataset (and its"
            " --source), or another --output"
        )
    return sorted(found)
