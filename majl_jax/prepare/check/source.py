"""A data set as it comes: every track loaded as `prepare` does, looked at, and forgotten."""

import collections
import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np
import tqdm

from majl_jax.datasets import records, track
from majl_jax.prepare import loading
from majl_jax.prepare.check import mixture, set_rules
from majl_jax.prepare.check.facts import Facts, compared_records, facts_of, merge
from majl_jax.prepare.check.findings import Checked, Finding
from majl_jax.prepare.selection import Options, list_tracks


class Source(NamedTuple):
    """A data set that is not prepared yet."""

    tracks: Sequence[track.Track]
    layout: records.Layout
    folder: str
    all_stems: bool = True  # whether none is left out, so that they add up to the set's mixture


def source_of(options: Options) -> Source:
    """The tracks that would be prepared with these options."""
    tracks, _ = list_tracks(options)
    folder = options.source or "built in"
    return Source(tracks, options.layout(), folder, all_stems=not options.leaves_stems_out())


class Looked(NamedTuple):
    """What came of one track: its facts, or why it cannot be used."""

    facts: Facts | None
    reason: str
    bytes_read: int


def check_source(name: str, source: Source, *, processes: int = 1) -> Checked:
    """Loads and looks at every track that its reader does not leave out."""
    started = time.monotonic()
    checked = Checked(name, source.folder, source.layout, from_source=True)
    used = [one for one in source.tracks if not one.left_out]
    unusable: dict[str, list[str]] = {}
    with _runner(processes) as run:
        look = functools.partial(_look, layout=source.layout, all_stems=source.all_stems)
        looked = run(look, used)
        bar = tqdm.tqdm(looked, name, len(used), unit="track", leave=False, disable=None)
        for one, (facts, reason, read) in zip(used, bar, strict=True):
            checked.bytes_read += read
            if facts is None:
                unusable.setdefault(one.split, []).append(f"{one.id} ({reason})")
            else:
                checked.add(facts)
    counts = collections.Counter(one.split for one in used)
    for split, where in unusable.items():
        what = f"{len(where)} of {counts[split]} tracks"
        checked.findings.append(Finding("unreadable track", split, what, tuple(where)))
    checked.findings += set_rules.judge(checked)
    checked.seconds = time.monotonic() - started
    return checked


@contextlib.contextmanager
def _runner(processes: int) -> Iterator[Callable[..., Any]]:
    """`map` in this process or, in the same order, over several."""
    if processes == 1:
        yield map
        return
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(processes, context, loading.start_worker) as pool:
        yield pool.map


def _look(one: track.Track, *, layout: records.Layout, all_stems: bool) -> Looked:
    """The facts of one track, or why there are none."""
    try:
        whole = loading.load_whole(one, layout)
    except track.BadTrack as error:
        return Looked(None, str(error), 0)
    pieces = list(records.cut(whole, layout))
    compared = compared_records(len(pieces), layout)
    found = [
        facts_of(piece, layout, one.split, compare_labels=number in compared)
        for number, piece in enumerate(pieces)
    ]
    facts = functools.reduce(merge, found)
    differs = ""
    if all_stems and whole["has_stems"].all() and len(layout.stems) > 1:
        differs = mixture.difference(
            one.paths,
            whole["stems"].sum(axis=1, dtype=np.int32),
            sample_rate_hz=layout.sample_rate_hz,
        )
    facts = dataclasses.replace(facts, group=one.group, mixture_file=differs)
    return Looked(facts, "", whole["stems"].nbytes)
