"""What a run writes down: metrics.jsonl, TensorBoard events, and the manifest config.json."""

import contextlib
import errno
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from majl_jax import console, formats
from majl_jax.atomic import lock, no_write, write_text
from majl_jax.training import tensorboard

EVALUATED_WITH = "evaluated_with"  # of a row, what its evaluation was made with
ROW_KEYS = ("stage", "step", "kind", "time_s", EVALUATED_WITH)
SUPERSEDED = "valid_before"  # the kind of validations that were made in another way


Tracker = Callable[[str, int, str, Mapping[str, float]], object]
"""(stage, step, kind, values): what goes into metrics.jsonl, for another place as well."""
SHOWN_EXAMPLES = 4  # tracks of a stage


# ---- metrics.jsonl ------------------------------------------------------------------------------


def read_metrics(workdir: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, None for NaN; a last line cut off by a crash is left out.

    Raises formats.FormatError where another one is damaged.
    """
    path = pathlib.Path(workdir) / "metrics.jsonl"
    for row in formats.read_lines(path, needs=("stage", "step", "kind")):
        yield {k: v if k in ROW_KEYS else formats.score_from_json(v) for k, v in row.items()}


def values(workdir: str | os.PathLike, stage: str, step: int, kind: str) -> dict[str, float]:
    """{name: value} of one line; nothing if there is no such line."""
    found: dict[str, float] = {}
    for row in read_metrics(workdir):
        if (row["stage"], row["step"], row["kind"]) == (stage, step, kind):
            found = {k: math.nan if v is None else v for k, v in row.items() if k not in ROW_KEYS}
    return found


def validations(workdir: str | os.PathLike, stage: str) -> Iterator[dict[str, Any]]:
    """The rows of a stage's validations."""
    for row in read_metrics(workdir):
        if row["stage"] == stage and row["kind"] == "valid":
            yield row


def scores(workdir: str | os.PathLike, stage: str, key: str) -> dict[int, float]:
    """{step: value of `key`} of a stage's validation lines."""
    return {
        row["step"]: math.nan if row.get(key) is None else row[key]
        for row in validations(workdir, stage)
    }


def terms_that_counted(workdir: str | os.PathLike, stage: str) -> set[str] | None:
    """The terms that were ever other than 0 in a stage's training: a loss over no label is 0. None
    if there is no line.
    """
    rows = [r for r in read_metrics(workdir) if (r["stage"], r["kind"]) == (stage, "train")]
    return {k for row in rows for k, v in row.items() if k not in ROW_KEYS and v} if rows else None


class RunLog:
    """Writes metrics.jsonl and TensorBoard events, from the first process, which locks the run.

    `evaluated_with` marks its rows of validations and tests; `tracker` is told each line.
    """

    def __init__(
        self, workdir: pathlib.Path, evaluated_with: str = "", tracker: Tracker | None = None
    ):
        self.workdir, self.evaluated_with, self._tracker = workdir, evaluated_with, tracker
        self.path = workdir / "metrics.jsonl"
        self._file = self._events = self._lock = None
        if jax.process_index() == 0:
            workdir.mkdir(parents=True, exist_ok=True)
            try:
                # It ends with the process: no two runs write to one directory.
                self._lock = lock(workdir / "lock")
            except TimeoutError:
                raise RuntimeError(
                    f"another process is training in {workdir}: wait for it, stop it, or use "
                    "another workdir"
                ) from None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_) -> None:
        self._close()
        if self._lock is not None:
            self._lock.release()

    def _close(self) -> None:
        for file in (self._file, self._events):
            if file is not None:
                with contextlib.suppress(OSError):  # a full disk was reported where it was met
                    file.close()
        self._file = self._events = None

    def begin(self, stage: str, step: int, *, validated: Sequence[int] | None = None) -> None:
        """Forget what a killed run wrote about this stage after `step`, where this one goes on.

        Validations that were made in another way stay, as another kind of row; of those alone that
        are made anew, where `validated` names the steps.
        """
        if jax.process_index() != 0:
            return
        self._close()
        rows = [
            row
            for row in read_metrics(self.workdir)
            if row["stage"] != stage or (row["step"] <= step and row["kind"] != "test")
        ]
        for row in rows:
            anew = row["stage"] == stage and (validated is None or row["step"] in validated)
            if anew and self.is_superseded(row):
                row["kind"] = SUPERSEDED
        write_text(self.path, "".join(json.dumps(_to_json(row)) + "\n" for row in rows))
        try:
            self._file = self.path.open("ab", buffering=0)  # a line is written in one call, whole
            self._events = tensorboard.Events(self.workdir / "tensorboard" / stage, step)
            manifest = self.workdir / "config.json"
            if manifest.is_file():
                said = formats.read(manifest, formats.RUN)
                self._events.config(said.get("config") or {})
        except OSError as error:
            raise no_write(self.path, error) from error

    def is_superseded(self, row: Mapping[str, Any]) -> bool:
        """Whether this is a validation that was made in another way."""
        return row["kind"] == "valid" and row.get(EVALUATED_WITH, "") != self.evaluated_with

    def write(self, stage: str, step: int, kind: str, values: Mapping[str, float]) -> None:
        """One line and one set of events; NaN becomes null, what is infinite "inf" or "-inf"."""
        if self._file is None:
            return
        row = {"stage": stage, "step": step, "kind": kind, "time_s": round(time.time(), 3)}
        if self.evaluated_with and kind != "train":
            row[EVALUATED_WITH] = self.evaluated_with
        row |= _to_json(values)
        try:
            line = json.dumps(row).encode() + b"\n"
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._events is not None:
                self._events.scalars(kind, step, values)
        except OSError as error:
            raise no_write(self.path, error) from error
        self._track(stage, step, kind, values)

    def _track(self, stage: str, step: int, kind: str, values: Mapping[str, float]) -> None:
        if self._tracker is None:
            return
        try:
            self._tracker(stage, step, kind, values)
        except Exception as error:  # of somebody else's network, perhaps: no reason to stop
            console.say(f"the tracker failed and is left out from now on: {error!r}")
            self._tracker = None

    def show_examples(self, stage: str, step: int) -> None:
        """Sound and pictures of a stage's first examples, as its test wrote them, as events."""
        if self._events is None:
            return
        tracks = sorted(p for p in (self.workdir / stage / "examples").glob("*") if p.is_dir())
        for folder in tracks[:SHOWN_EXAMPLES]:
            for path in sorted(folder.iterdir()):
                try:
                    self._events.file(f"{folder.name}/{path.stem}", step, path)
                except OSError as error:
                    raise no_write(self.path, error) from error

    def sync(self) -> None:
        """Force what was written to disk: called before a checkpoint that builds on it."""
        if self._file is not None:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise no_write(self.path, error) from error


def _to_json(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: formats.score_to_json(v) if isinstance(v, float) else v for k, v in row.items()}
