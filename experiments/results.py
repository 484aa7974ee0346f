"""results.jsonl: a line per row and seed, from what the runs left in their folders."""

import contextlib
import itertools
import json
import pathlib
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.experiment import Row, Table
from experiments.grid import Grid
from majl_jax import atomic, formats
from majl_jax.datasets import records

Line = dict[str, Any]
WAITING_S = 300
_LOOK_S = 0.1


def collect(grid: Grid, name: str, table: Table, *, changes: Sequence[str] = ()) -> list[Line]:
    """The lines of a table; what has not run is said and left out.

    Args:
        grid: how its runs were trained.
        name: of the table.
        table: whose lines.
        changes: options of the command by which the runs are others than the table's.
    """
    lines = []
    for row, seed in itertools.product(table.rows, grid.seeds):
        folder = grid.workdir(row.run, seed)
        if (folder / row.stage / "result.json").exists():
            keys = {"table": name, "data": grid.data.kind, "row": row.label, "seed": seed}
            lines.append({**keys, "changes": list(changes), **_found(folder, row)})
        else:
            print(f"{name}: no result of {row.label!r}, seed {seed} ({folder})", flush=True)
    return lines


def _found(folder: pathlib.Path, row: Row) -> Line:
    """What a run left of a row's stage."""
    result = formats.read(folder / row.stage / "result.json", formats.RUN, needs=("metrics",))
    manifest = formats.read(folder / "config.json", formats.RUN, needs=("config", "starts"))
    starts = manifest["starts"]
    commits = dict.fromkeys(start.get("commit") for start in starts)
    scored = formats.read_lines(folder / row.stage / "tracks.jsonl", needs=("system",))
    return {
        "run": row.run.name,
        "stage": row.stage,
        "fields": dict(row.run.fields),
        "steps": manifest["config"]["stages"][row.stage]["steps"],
        **_labelled(manifest["config"]["data"]),
        "tracks": sum(line["system"] == row.stage for line in scored),
        "contents": manifest.get("data", {}),
        "commit": ", ".join(filter(None, commits)) or None,
        "hardware": starts[-1].get("hardware"),
        "metrics": result["metrics"],
    }


def _labelled(data: Line) -> Line:
    """Minutes that are fully labelled, where they lie in one set that is still there."""
    folder = pathlib.Path(data["directory"]) / str(data.get("labelled"))
    if not records.is_prepared(folder):
        return {}
    prepared = records.open_prepared(folder)
    seconds = prepared.split("train").valid_samples.sum() / prepared.layout.sample_rate_hz
    return {"labelled_minutes": round(float(seconds) / 60, 2)}


def read(path: pathlib.Path) -> list[Line]:
    """All lines of a file; none where there is no file."""
    return list(formats.read_lines(path))


def write(path: pathlib.Path, lines: Sequence[Line]) -> None:
    """Puts lines in the place of older ones of the same table, data, changes, row and seed."""
    ours = {_key(line) for line in lines}
    with locked(path):
        kept = [line for line in read(path) if _key(line) not in ours]
        atomic.write_text(path, "".join(json.dumps(line) + "\n" for line in [*kept, *lines]))


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from a file and what is written from it, once they have ended theirs.

    TimeoutError where that takes them more than `WAITING_S`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + WAITING_S
    while True:
        try:
            lock = atomic.lock(path.with_name(f".{path.name}.lock"))
            break
        except TimeoutError:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{path}: another process has been writing it for {WAITING_S} s: wait for it"
                    " or stop it, and give the same command again"
                ) from None
        time.sleep(_LOOK_S)
    try:
        yield
    finally:
        lock.release()


def _key(line: Line) -> tuple[Any, ...]:
    return line["table"], line["data"], line["row"], line["seed"], changes(line)


def changes(line: Line) -> tuple[str, ...]:
    """The options by which a run was another than the table's; lines from before do not say."""
    return tuple(line.get("changes", ()))


def alike(lines: Sequence[Line]) -> list[list[Line]]:
    """Lines in groups that can be averaged and subtracted, the largest first: of as many tracks,
    and of data sets with the same content, as far as lines say it.
    """
    groups: list[list[Line]] = []
    for line in lines:
        fits = (group for group in groups if all(_alike(line, other) for other in group))
        group = next(fits, None)
        if group is None:
            groups.append([line])
        else:
            group.append(line)
    return sorted(groups, key=len, reverse=True)


def _alike(one: Line, other: Line) -> bool:
    ours, theirs = (line.get("contents", {}) for line in (one, other))
    pairs = [
        (ours[name][split], theirs[name][split])
        for name in ours.keys() & theirs.keys()
        for split in ours[name].keys() & theirs[name].keys()
    ]
    return one["tracks"] == other["tracks"] and all(a == b for a, b in pairs if None not in (a, b))


def short(commit: str | None) -> str:
    """Commits with seven digits each, and with their `-dirty`."""
    return re.sub(r"([0-9a-f]{7})[0-9a-f]{33,}", r"\1", str(commit))


def scores(lines: Sequence[Line], row: str, score: str) -> dict[int, float]:
    """Seed to score of one row, where it has that score."""
    found = {x["seed"]: x["metrics"].get(score) for x in lines if x["row"] == row}
    return {s: formats.score_from_json(value) for s, value in found.items() if value is not None}
