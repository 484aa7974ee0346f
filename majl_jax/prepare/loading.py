"""Loads tracks, and cuts them into records; several processes load into a work folder, one file
per track.
"""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
import threading
import urllib.parse
import uuid
import warnings
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any, TypeVar

import numpy as np
from etils import epath

from majl_jax import atomic
from majl_jax.audio import int16, mixing
from majl_jax.audio.faults import AudioFileWarning
from majl_jax.datasets import records, track, whole_files
from majl_jax.prepare.selection import content_of

PathT = TypeVar("PathT", pathlib.Path, epath.Path)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a track: why it was skipped, if so, and how many of its records are silent
    and left out.
    """

    track: str
    skipped: str = ""
    silent_records: int = 0
    # What was said of its files, though they could be read.
    remarks: Sequence[str] = ()


def load_all(
    tracks: Sequence[track.Track], layout: records.Layout, work: pathlib.Path, *, processes: int
) -> dict[str, "Outcome"]:
    """Loads every track into the work folder; returns what became of each."""
    import multiprocessing

    import tqdm

    todo = [one for one in tracks if not _is_loaded(work, one)]
    waiting, skipped = {one.id for one in todo}, 0
    outcomes = {
        one.id: Outcome(one.id, remarks=whole_files.read_remarks(cached(work, one.id)))
        for one in tracks
        if one.id not in waiting
    }
    bar = tqdm.tqdm(
        total=len(tracks), initial=len(tracks) - len(todo), unit="track", mininterval=0.5
    )
    context = multiprocessing.get_context("spawn")
    pool = futures.ProcessPoolExecutor(
        min(processes, max(len(todo), 1)), context, initializer=start_worker
    )
    with bar, pool:
        jobs = {pool.submit(load_one, one, layout, work): one for one in todo}
        try:
            for job in futures.as_completed(jobs):
                outcomes[jobs[job].id] = outcome = job.result()
                if outcome.skipped:
                    skipped += 1
                    bar.set_postfix(skipped=skipped)
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return dict(sorted(outcomes.items()))


def load_whole(one: track.Track, layout: records.Layout) -> records.Record:
    """A whole track as one record of its own length; `BadTrack` says why it cannot be used,
    whatever is wrong.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return records.whole(_load_checked(one, layout), one.id)


def _load_checked(one: track.Track, layout: records.Layout) -> track.Recording:
    with _faults_named():
        recording = one.load()
        track.check(recording)
        _check_layout(recording, layout)
        return recording


@contextlib.contextmanager
def _faults_named() -> Iterator[None]:
    """Makes any error a `BadTrack`: one bad track must not stop the others."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        known = isinstance(error, ValueError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        raise track.BadTrack(track.printable(reason)) from error


def _check_layout(recording: track.Recording, layout: records.Layout) -> None:
    found = (recording.stems, recording.grid, recording.f0_hz.shape[1])
    expected = (layout.stems, layout.grid, layout.pitch_voices)
    if found != expected:
        raise track.BadTrack(f"has (stems, grid, voices) {found}, expected {expected}")


def cut(
    whole: records.Record, layout: records.Layout, *, drop_silence: bool
) -> Iterator[records.Record | Outcome]:
    """The records of a whole track, without silent ones if that is wanted; last its outcome."""
    silent = 0
    for record in records.cut(whole, layout):
        mixture = record["stems"][: record["valid_samples"]].sum(axis=1, dtype=np.int32)
        if drop_silence and mixing.mostly_silent(mixture):
            silent += 1
        else:
            yield record
    yield Outcome(whole["track"], silent_records=silent)


def load_one(one: track.Track, layout: records.Layout, work: pathlib.Path) -> Outcome:
    """Loads one track into the work folder; returns what became of it."""
    final = cached(work, one.id)
    draft = final.with_suffix(f".{uuid.uuid4().hex}.tmp")  # workers may be of several machines
    try:
        _write_whole(one, layout, draft)
        draft.replace(final)
    except track.BadTrack as error:
        return Outcome(one.id, skipped=str(error))
    finally:
        draft.unlink(missing_ok=True)
    return Outcome(one.id, remarks=whole_files.read_remarks(final))


def _write_whole(one: track.Track, layout: records.Layout, path: pathlib.Path) -> None:
    """Writes one track as a file; `BadTrack` where it cannot be used."""
    content = content_of([one])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def remarks() -> list[str]:
            told = [str(w.message) for w in caught if issubclass(w.category, AudioFileWarning)]
            told += recording.remarks
            return [track.printable(text) for text in dict.fromkeys(told)]

        if one.streamed is None:
            recording = _load_checked(one, layout)
            whole = records.whole(recording, one.id)
            whole_files.write(path, whole, [whole["stems"]], remarks=remarks, content=content)
            return
        with _faults_named():
            samples, peak, blocks = one.streamed.measure()
            recording = one.streamed.labels(samples)
            _check_layout(recording, layout)
        whole = {**records.whole(recording, one.id), "valid_samples": samples}
        gain = max(1.0, peak)
        stems = (int16.from_float(block / gain) for block in blocks())
        whole_files.write(path, whole, stems, remarks=remarks, content=content)


def _is_loaded(work: pathlib.Path, one: track.Track) -> bool:
    """Whether a track lies in the work folder, loaded from its files as they are now."""
    path = cached(work, one.id)
    return path.exists() and whole_files.read_content(path) == content_of([one])


def cached_track(work: pathlib.Path, identity: str) -> records.Record:
    """A loaded track, from the work folder."""
    return whole_files.read(cached(work, identity), identity)


@contextlib.contextmanager
def at_hand(folder: epath.Path, identity: str, *, here: pathlib.Path) -> Iterator[records.Record]:
    """A loaded track; one on an object store is copied for the while, to a local folder."""
    if records.is_local(folder):
        yield cached_track(pathlib.Path(folder), identity)
        return
    with tempfile.TemporaryDirectory(dir=here) as copies:
        copy = cached(pathlib.Path(copies), identity)
        cached(folder, identity).copy(copy)
        yield cached_track(pathlib.Path(copies), identity)


def cached(work: PathT, identity: str) -> PathT:
    """The file of a loaded track."""
    return work / (urllib.parse.quote(identity, safe="") + ".npz")


def start_worker() -> None:
    """Ends this worker when the main process is gone, even by kill -9; leaves Ctrl-C to that
    one.
    """
    import multiprocessing
    import signal
    from multiprocessing import connection

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Lock:
    """Holds a lock, a file, on a folder."""

    def __init__(self, path: pathlib.Path, folder: records.Folder) -> None:
        self._path, self._folder = path, folder

    def __enter__(self) -> None:
        try:
            self._lock = atomic.lock(self._path)
        except TimeoutError:
            raise BlockingIOError(
                f"Another `prepare` is at work in {self._folder}; wait for it"
            ) from None

    def __exit__(self, *_: Any) -> None:
        self._lock.release()
