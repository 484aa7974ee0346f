"""Loads tracks, and cuts them into records; several processes load into a work folder, one file per track."""

import dataclasses
import os
import pathlib
import threading
import urllib.parse
import warnings
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from majl_jax.audio import mixing
from majl_jax.datasets import records, track


def load_all(
    tracks: Sequence[track.Track], layout: records.Layout, work: pathlib.Path, *, processes: int
) -> dict[str, str]:
    """Loads every track into the work folder; returns why which track was skipped."""
    import multiprocessing

    import tqdm

    todo = [one for one in tracks if not cached(work, one.id).exists()]
    skipped: dict[str, str] = {}
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
                if reason := job.result():
                    skipped[jobs[job].id] = reason
                    bar.set_postfix(skipped=len(skipped))
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return dict(sorted(skipped.items()))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a track: why it was skipped, if so, and how many of its records are silent and left out."""

    track: str
    skipped: str = ""
    silent_records: int = 0


def load_whole(one: track.Track, layout: records.Layout) -> records.Record:
    """A whole track as one record of its own length; `BadTrack` says why it cannot be used, whatever is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            recording = one.load()
        track.check(recording)
        found = (recording.stems, recording.grid, recording.f0_hz.shape[1])
        expected = (layout.stems, layout.grid, layout.pitch_voices)
        if found != expected:
            raise track.BadTrack(f"has (stems, grid, voices) {found}, expected {expected}")
        return records.whole(recording, one.id)
    except MemoryError:
        raise
    except Exception as error:  # one bad track must not stop the others
        known = isinstance(error, ValueError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        raise track.BadTrack(reason) from error


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


def load_and_cut(
    one: track.Track, layout: records.Layout, *, drop_silence: bool
) -> Iterator[records.Record | Outcome]:
    """The records of a track, last its outcome; of a bad track that alone."""
    try:
        whole = load_whole(one, layout)
    except track.BadTrack as error:
        yield Outcome(one.id, skipped=str(error))
    else:
        yield from cut(whole, layout, drop_silence=drop_silence)


def load_one(one: track.Track, layout: records.Layout, work: pathlib.Path) -> str:
    """Loads one track into the work folder; returns an empty text, or why it cannot be used."""
    try:
        whole = load_whole(one, layout)
    except track.BadTrack as error:
        return str(error)
    final = cached(work, one.id)
    draft = final.with_suffix(f".{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            np.savez(file, **whole)
        draft.replace(final)
    finally:
        draft.unlink(missing_ok=True)
    return ""


def cached_track(work: pathlib.Path, identity: str) -> records.Record:
    """A loaded track, from the work folder."""
    with np.load(cached(work, identity)) as arrays:
        return {**{key: arrays[key] for key in arrays.files}, "track": identity}


def cached(work: pathlib.Path, identity: str) -> pathlib.Path:
    """The file of a loaded track."""
    return work / (urllib.parse.quote(identity, safe="") + ".npz")


def start_worker() -> None:
    """Ends this worker when the main process is gone, even by kill -9; leaves Ctrl-C to that one."""
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
    """Holds a lock on the work folder, where the system has such locks."""

    def __init__(self, work: pathlib.Path) -> None:
        self._path = work / "lock"

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        try:
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except OSError:
            self._file.close()
            raise BlockingIOError(
                f"Another `prepare` is at work in {self._path.parent}; wait for it"
            ) from None

    def __exit__(self, *_: Any) -> None:
        self._file.close()
