"""Batches on their way into the loop: prefetched, placed, and where a checkpoint stands in them."""

import contextlib
import json
import pathlib
import queue
import shutil
import threading
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from majl_jax import atomic, console, parallel
from majl_jax.batch import Batch

_PREFETCHED_BATCHES = 2
_POSITION_EVERY_BATCHES = 16  # how many batches a run stopped between checkpoints reads again
# (what `batches.save()` gave, or None for the start of the input; batches taken since then)
Position = tuple[bytes | None, int]


class Prefetch:
    """Reads this process's batches in a thread, places them on the devices, knows their positions.

    The input is asked for its position where `position_due(batches taken)` says so, and every few
    batches besides.
    """

    def __init__(
        self,
        batches: Iterator[Mapping[str, Any]],
        on: Mesh,
        *,
        start: int,
        stop: int,
        position_due: Callable[[int], bool],
    ):
        self._batches, self._mesh, self._due = batches, on, position_due
        self._queue: queue.Queue = queue.Queue(_PREFETCHED_BATCHES)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(start, stop), daemon=True)
        self._thread.start()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *_) -> None:
        """Stop reading."""
        self._closed.set()
        self._thread.join(timeout=30)

    def _read(self, start: int, stop: int) -> None:
        try:
            save: Callable[[], bytes] | None = getattr(self._batches, "save", None)
            position, taken_since = (None, start) if save is None else (save(), 0)
            for taken in range(start + 1, stop + 1):
                batch = parallel.split(next(self._batches), self._mesh)
                taken_since += 1
                due = self._due(taken) or taken_since >= _POSITION_EVERY_BATCHES
                if save is not None and due:
                    position, taken_since = save(), 0
                if not self._put((batch, (position, taken_since))):
                    return
        except StopIteration:
            self._put(
                ValueError(
                    f"the input ended before batch {stop}: its iterator has to repeat for ever"
                )
            )
        except BaseException as error:  # raised again where the batch is taken
            self._put(error)

    def _put(self, item: Any) -> bool:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.1)
                return True
        return False

    def take(self) -> tuple[Batch, Position]:
        """The next batch, and the position of the input behind it."""
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item


def restore_position(batches: Any, position: bytes | None, taken_since: int) -> None:
    """Bring fresh batches to a position that `Prefetch` gave."""
    if position is not None:
        batches.restore(position)
    for _ in range(taken_since):
        next(batches)


def _position_file(folder: pathlib.Path, step: int) -> pathlib.Path:
    name = f"{jax.process_index()}-of-{jax.process_count()}"
    return folder / "input" / str(step) / name


def save_position(folder: pathlib.Path, step: int, position: Position) -> None:
    """Write this process's position beside a stage's checkpoints, before the step is committed."""
    data, taken_since = position
    crc = zlib.crc32(data or b"")
    header = {"known": data is not None, "taken_since": taken_since, "crc": crc}
    file = _position_file(folder, step)
    atomic.write_bytes(file, json.dumps(header).encode() + b"\n" + (data or b""))


def load_position(folder: pathlib.Path, step: int) -> Position:
    """This process's position at a step.

    Without a whole one from this number of processes it is the start of the input and the number of
    steps: the batches are read again, which is slow but exact.
    """
    file = _position_file(folder, step)
    try:
        head, data = file.read_bytes().split(b"\n", 1)
        header = json.loads(head)
        if zlib.crc32(data) != header["crc"]:
            raise ValueError("its checksum is wrong")
    except (OSError, ValueError, KeyError) as error:
        console.say(f"no input position in {file} ({error}): reading {step} batches again")
        return None, step
    return (data if header["known"] else None), header["taken_since"]


def forget_positions(folder: pathlib.Path, kept: Collection[int]) -> None:
    """Remove the positions of steps that have no checkpoint any more."""
    if parallel.is_first_process():
        for old in (folder / "input").iterdir():
            if not (old.name.isdigit() and int(old.name) in kept):
                shutil.rmtree(old, ignore_errors=True)
