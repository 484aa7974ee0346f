"""Tracks loaded by the workers of an Apache Beam pipeline, for `prepare --beam`.

Workers leave each loaded track, and beside it what became of it, in a folder that all of them see;
a runner has to carry nothing back. So any runner will do that applies a function to a list, what a
runner loses is noticed, and a broken-off run goes on where it stopped. Apache Beam is imported
inside the functions: the rest of the package does without it.
"""

import dataclasses
import functools
import importlib
import json
import os
import pathlib
import pickle
import shlex
import tempfile
import zlib
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

from etils import epath

from majl_jax.datasets import records, track
from majl_jax.prepare import loading
from majl_jax.prepare.selection import PrepareError, content_of

HOW_TO_INSTALL = (
    "--beam needs Apache Beam, which is not installed. In a virtual environment of its own (it "
    'needs protobuf below 7): pip install -e ".[beam]", without -c constraints.txt. Without '
    "--beam the same data set is prepared on this machine."
)
# What a worker is given at a time: packed, since runners limit the size of the job that they are
# sent, and few, so that the work spreads.
TRACKS_PER_CHUNK = 4
# Files of what became of tracks, read at a time: those of an object store answer slowly.
READERS = 16


def apache_beam() -> Any:
    """The package; an ImportError that says how to install it where it is missing."""
    try:
        return importlib.import_module("apache_beam")
    except ImportError as error:
        raise ImportError(HOW_TO_INSTALL) from error


def pipeline_options(text: str) -> Any:
    """The options of a pipeline as on a command line, such as "--runner=DirectRunner"."""
    return apache_beam().options.pipeline_options.PipelineOptions(shlex.split(text))


def load_all(
    tracks: Sequence[track.Track],
    layout: records.Layout,
    folder: records.Folder,
    *,
    options: Any,
) -> dict[str, loading.Outcome]:
    """Loads every track that is not loaded yet; returns what became of each.

    PrepareError where the runner did not load all of them; those it did stay for the next call.

    Args:
        tracks: of the data set, whose files all workers see.
        layout: of its records.
        folder: for the loaded tracks, also gs://bucket/folder; seen by all workers.
        options: of the pipeline, as `pipeline_options` gives them.
    """
    where = epath.Path(folder)
    where.mkdir(parents=True, exist_ok=True)
    done = _outcomes(tracks, where)
    todo = [one for one in tracks if one.id not in done or done[one.id].skipped]
    for one in todo:
        _outcome_file(where, one.id).unlink(missing_ok=True)
    print(f"{len(todo)} of {len(tracks)} tracks are left to be loaded, by Beam", flush=True)
    if todo:
        load = functools.partial(load_chunk, layout=layout, folder=os.fspath(where))
        _apply(load, pack(todo), options)
    found = done | _outcomes(todo, where)
    if lost := [one.id for one in tracks if one.id not in found]:
        raise PrepareError(
            f"Beam's workers left {len(lost)} of {len(tracks)} tracks unloaded, {lost[0]} among"
            f" them. {where} has to be a folder that all of them see; where it is, the same"
            " command goes on from here."
        )
    return {one.id: found[one.id] for one in tracks}


def _apply(function: Callable[[bytes], None], pieces: Sequence[bytes], options: Any) -> None:
    beam = apache_beam()
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | "Pieces" >> beam.Create(pieces)
            | "Spread" >> beam.Reshuffle()
            | "Load" >> beam.Map(function)
        )


def pack(tracks: Sequence[track.Track]) -> list[bytes]:
    """The tracks in small compressed pieces; no coder of Beam's has to know what a track is."""
    starts = range(0, len(tracks), TRACKS_PER_CHUNK)
    return [zlib.compress(pickle.dumps([*tracks[i : i + TRACKS_PER_CHUNK]])) for i in starts]


def load_chunk(chunk: bytes, *, layout: records.Layout, folder: str) -> None:
    """What a worker does: loads the tracks of a piece, but for those that another one has."""
    where = epath.Path(folder)
    for one in pickle.loads(zlib.decompress(chunk)):
        if _outcome(one, where) is not None:  # of a worker that died before it had done all
            continue
        if records.is_local(folder):
            outcome = loading.load_one(one, layout, pathlib.Path(folder))
        else:
            with tempfile.TemporaryDirectory(prefix="majl_jax_track_") as here:
                outcome = loading.load_one(one, layout, pathlib.Path(here))
                if not outcome.skipped:
                    loaded = loading.cached(epath.Path(here), one.id)
                    loaded.copy(loading.cached(where, one.id), overwrite=True)
        row = {**dataclasses.asdict(outcome), "content": content_of([one])}
        records.write_whole(_outcome_file(where, one.id), json.dumps(row))


def _outcomes(tracks: Sequence[track.Track], folder: epath.Path) -> dict[str, loading.Outcome]:
    with futures.ThreadPoolExecutor(READERS) as pool:
        found = pool.map(functools.partial(_outcome, folder=folder), tracks)
        return {one.track: one for one in found if one is not None}


def _outcome(one: track.Track, folder: epath.Path) -> loading.Outcome | None:
    """What became of a track whose files are as they were then; None where nothing did yet."""
    try:
        row = json.loads(_outcome_file(folder, one.id).read_text())
    except FileNotFoundError:
        return None
    content = row.pop("content")
    outcome = loading.Outcome(**row)
    there = outcome.skipped or loading.cached(folder, one.id).exists()
    return outcome if there and content == content_of([one]) else None


def _outcome_file(folder: epath.Path, identity: str) -> epath.Path:
    return loading.cached(folder, identity).with_suffix(".json")
