"""Tracks loaded by the workers of an Apache Beam pipeline, for `prepare --beam`.

Workers leave each loaded track, and beside it what became of it, in a folder that all of them see;
a runner has to carry nothing back. So any runner will do that applies a function to a list, what a
runner loses is noticed, and a broken-off run goes on where it stopped. Apache Beam is imported
inside the functions: the rest of the package does without it.
"""

import contextlib
import dataclasses
import functools
import importlib
import json
import os
import pathlib
import pickle
import platform
import shlex
import tempfile
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

from etils import epath

from majl_jax.datasets import records, track, whole_files
from majl_jax.prepare import loading
from majl_jax.prepare.selection import PrepareError, content_of

HOW_TO_INSTALL = (
    "--beam needs Apache Beam, which is not installed. In a virtual environment of its own (it "
    'needs protobuf below 7): pip install -e ".[beam]", without -c constraints.txt. Without '
    "--beam the same data set is prepared on this machine."
)
# What a worker is given at a time: few tracks, so that the work spreads, but not so many pieces
# that the job grows beyond what runners take (Dataflow: 10 MB).
PIECE_TRACKS, MOST_PIECES = 4, 4000
# Files of what became of tracks, read at a time: those of an object store answer slowly.
READERS = 16
OUTCOME = ".outcome.json"


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
    for left in where.glob("*.tmp"):  # of workers that were killed
        left.unlink(missing_ok=True)
    # Of what was skipped the files may be mended.
    found = {name: one for name, one in _outcomes(tracks, where).items() if not one.skipped}
    todo = [one for one in tracks if one.id not in found]
    there = {path.name for path in where.glob(f"*{OUTCOME}")}
    for old in (_outcome_file(where, one.id) for one in todo):
        if old.name in there:
            old.unlink()
    print(f"{len(todo)} of {len(tracks)} tracks are left to be loaded, by Beam", flush=True)
    if todo:
        load = functools.partial(load_piece, layout=layout, folder=os.fspath(where))
        try:
            _apply(load, pack(todo), options)
        except Exception as error:  # each runner has its own
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise PrepareError(
                f"the Beam runner gave up: {reason}. What is loaded stays: the same command goes on"
                " from here."
            ) from error
    found |= _outcomes(todo, where)
    if lost := [one for one in tracks if one.id not in found]:
        raise PrepareError(_why_lost(lost, len(tracks), where))
    return {one.id: found[one.id] for one in tracks}


def _why_lost(lost: Sequence[track.Track], count: int, where: epath.Path) -> str:
    what = f"Beam's workers left {len(lost)} of {count} tracks unloaded, {lost[0].id} among them"
    with contextlib.suppress(FileNotFoundError):
        told = json.loads(_outcome_file(where, lost[0].id).read_text())["skipped"]
        said = f": {told}" if told else ""
        return f"{what}: they see other files of it under --source than this process does{said}"
    return f"{what}. What is loaded stays in {where}: the same command goes on from here."


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
    size = max(PIECE_TRACKS, -(-len(tracks) // MOST_PIECES))
    starts = range(0, len(tracks), size)
    return [zlib.compress(pickle.dumps([*tracks[i : i + size]])) for i in starts]


def load_piece(piece: bytes, *, layout: records.Layout, folder: str) -> None:
    """What a worker does: loads the tracks of a piece, but for those that another one has."""
    where = epath.Path(folder)
    if records.is_local(folder) and not where.is_dir():
        raise PrepareError(
            f"{folder}, the folder of loaded tracks, is not there on {platform.node()}; all workers"
            " have to see it, so choose another --output or --work"
        )
    for one in pickle.loads(zlib.decompress(piece)):
        if _outcome(one, where) is not None:  # of a worker that died before it had done all
            continue
        content = content_of([one])  # of the files as they are before they are read
        outcome = _load(one, layout, where)
        _write(_outcome_file(where, one.id), {**dataclasses.asdict(outcome), "content": content})


def _load(one: track.Track, layout: records.Layout, where: epath.Path) -> loading.Outcome:
    if records.is_local(where):
        return loading.load_one(one, layout, pathlib.Path(where))
    with tempfile.TemporaryDirectory(prefix="majl_jax_track_") as folder:
        here = pathlib.Path(folder)
        outcome = loading.load_one(one, layout, here)
        if not outcome.skipped:
            loaded = epath.Path(loading.cached(here, one.id))
            loaded.copy(loading.cached(where, one.id), overwrite=True)
        return outcome


def _write(path: epath.Path, row: Mapping[str, Any]) -> None:
    """A file that is there whole or not at all, as those of object stores always are.

    `atomic.write_text` looks through the folder for leftovers, here for every one of its tracks.
    """
    draft = path.with_suffix(f".{uuid.uuid4().hex}.tmp") if records.is_local(path) else path
    draft.write_text(json.dumps(row))
    if draft != path:
        draft.replace(path)


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
    content, path = row.pop("content"), loading.cached(folder, one.id)
    outcome = loading.Outcome(**row)
    if content != content_of([one]):
        return None
    if outcome.skipped:
        return outcome
    if not path.exists():
        return None
    if records.is_local(path) and whole_files.read_content(pathlib.Path(path)) != content:
        return None  # a run without Beam has loaded it anew since
    return outcome


def _outcome_file(folder: epath.Path, identity: str) -> epath.Path:
    return loading.cached(folder, identity).with_suffix(OUTCOME)
