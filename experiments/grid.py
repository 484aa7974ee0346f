"""Tables of experiments: the runs they need, each trained by `majl_jax.main`, and what came out as results.jsonl.

Every row is trained with every seed, each run in a process of its own, several at a time. A killed run goes on where it stopped.
"""

import argparse
import concurrent.futures
import dataclasses
import itertools
import json
import os
import pathlib
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: the stages of a config with some fields changed.

    `borrows` is a stage of another run that serves as this one's stage of that name, with all before it, or as its first where it
    has none of that name, so that only the others train. Stages at the same place of their runs start from the same parameters
    and see the same batches.
    """

    name: str
    stages: tuple[str, ...]
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    borrows: "tuple[Run, str] | None" = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a table: what a stage of a run scores on the test split."""

    label: str
    run: Run
    stage: str
    x: float | None = None  # where it stands on the figure's axis, if that is a scale
    curve: str = ""  # which points of the figure are joined


@dataclasses.dataclass(frozen=True)
class Table:
    """A question, what the paper says about it, and the rows that answer it."""

    title: str
    claim: str
    rows: tuple[Row, ...]
    x_label: str = ""
    base: int = -1  # the row that the others are compared with

    def runs(self) -> Iterator[Run]:
        """The runs it needs, a borrowed one before its borrower, each once."""
        seen = set()
        for row in self.rows:
            for run in _with_lenders(row.run):
                if run.name not in seen:
                    seen.add(run.name)
                    yield run


def _with_lenders(run: Run) -> Iterator[Run]:
    if run.borrows is not None:
        yield from _with_lenders(run.borrows[0])
    yield run


def borrowed(run: Run) -> dict[str, tuple[Run, str]]:
    """The stages that a run does not train itself, and whose they are."""
    if run.borrows is None:
        return {}
    lender, stage = run.borrows
    if stage not in run.stages:
        return {run.stages[0]: (lender, stage)}
    return {name: (lender, name) for name in run.stages[: run.stages.index(stage) + 1]}


def workdir(options: argparse.Namespace, run: Run, seed: int) -> pathlib.Path:
    """Where a run leaves its checkpoints and scores."""
    return options.workdir / options.on / run.name / f"seed{seed}"


def train(
    options: argparse.Namespace, run: Run, seed: int, data: dict[str, Any], core: int | None
) -> float:
    """Runs one training as a process of its own and returns its seconds (0 if it was complete)."""
    folder = workdir(options, run, seed)
    folder.mkdir(parents=True, exist_ok=True)
    for stage, (lender, lent) in borrowed(run).items():
        if not (folder / stage).exists():
            (folder / stage).symlink_to(workdir(options, lender, seed) / lent)
    if all((folder / stage / "result.json").exists() for stage in run.stages):
        return 0.0
    fields = {**data, **run.fields, "run": run.stages, "seed": seed}
    command = [sys.executable, "-m", "majl_jax.main", f"--config={options.config}"]
    command += [f"--config.{name}={value}" for name, value in fields.items()] + options.set
    started = time.monotonic()
    cache = {"JAX_COMPILATION_CACHE_DIR": str(options.workdir / "compiled")}
    with (folder / "console.log").open("a") as log:
        done = subprocess.run(
            [*command, f"--workdir={folder}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **cache},
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{folder}: exit status {done.returncode}; see {folder}/console.log")
    return time.monotonic() - started


def train_all(
    options: argparse.Namespace, runs: Sequence[Run], data: dict[str, Any]
) -> dict[tuple[str, int], float]:
    """Trains every run with every seed, `--jobs` at a time, each on one core if there are several jobs.

    Two steps on a core each take less time together than two, one after the other, on both.
    """
    seconds: dict[tuple[str, int], float] = {}
    cores: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    available = sorted(os.sched_getaffinity(0))
    for job in range(options.jobs):
        cores.put(available[job % len(available)] if options.jobs > 1 else None)

    def work(run: Run, seed: int) -> None:
        core = cores.get()
        try:
            seconds[run.name, seed] = train(options, run, seed, data, core)
            print(f"{run.name}, seed {seed}: {seconds[run.name, seed]:.0f} s", flush=True)
        finally:
            cores.put(core)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for some in _in_turn(runs):
            jobs = [
                pool.submit(work, run, seed) for seed, run in itertools.product(options.seeds, some)
            ]
            for job in concurrent.futures.as_completed(jobs):
                job.result()
    return seconds


def _in_turn(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """The runs that borrow from no other, those that borrow from them, and so on."""
    depths = {run.name: len(list(_with_lenders(run))) for run in runs}
    for depth in sorted(set(depths.values())):
        yield [run for run in runs if depths[run.name] == depth]


def collect(options: argparse.Namespace, name: str, table: Table) -> list[dict[str, Any]]:
    """A line of results per row and seed, from what the runs left; what has not run is said and left out."""
    lines = []
    for row, seed in itertools.product(table.rows, options.seeds):
        folder = workdir(options, row.run, seed)
        if not (folder / row.stage / "result.json").exists():
            print(f"{name}: no result of {row.label!r}, seed {seed} ({folder})", flush=True)
            continue
        result = json.loads((folder / row.stage / "result.json").read_text())
        manifest = json.loads((folder / "config.json").read_text())
        start = manifest["starts"][-1]
        steps = manifest["config"]["stages"][row.stage]["steps"]
        lines.append(
            {
                "table": name,
                "data": options.on,
                "row": row.label,
                "seed": seed,
                "run": row.run.name,
                "stage": row.stage,
                "fields": dict(row.run.fields),
                "steps": steps,
                "tracks": _tracks(folder / row.stage, row),
                "commit": start.get("commit"),
                "hardware": start.get("hardware"),
                "metrics": result["metrics"],
            }
        )
    return lines


def _tracks(folder: pathlib.Path, row: Row) -> int:
    lines = (folder / "tracks.jsonl").read_text().splitlines()
    return sum(json.loads(line)["system"] == row.stage for line in lines)


def write_results(path: pathlib.Path, lines: Sequence[dict[str, Any]]) -> None:
    """Puts lines in the place of older ones of the same table, data and seed."""
    ours = {(line["table"], line["data"], line["row"], line["seed"]) for line in lines}
    old = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    kept = [x for x in old if (x["table"], x["data"], x["row"], x["seed"]) not in ours]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*kept, *lines]))


def parser(
    description: str, *, config: str, folder: pathlib.Path, on: str = "built-in"
) -> argparse.ArgumentParser:
    """The options that all experiments have; results go to `folder`, and say that the data were `on`."""
    parsed = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parsed.add_argument("--table", required=True, help="one or more, with commas")
    parsed.add_argument("--runs", help="only these runs of the tables, with commas")
    parsed.add_argument("--seeds", default="0,1,2")
    parsed.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parsed.add_argument("--config", default=config)
    parsed.add_argument("--set", action="append", default=[], help="--set=--config.FIELD=VALUE")
    parsed.add_argument("--data", type=pathlib.Path, default=ROOT / "data" / "prepared")
    parsed.add_argument("--workdir", type=pathlib.Path, default=ROOT / "runs" / "experiments")
    parsed.add_argument("--results", type=pathlib.Path, default=folder / "results.jsonl")
    parsed.set_defaults(on=on)
    return parsed


def parse(
    parsed: argparse.ArgumentParser, tables: Mapping[str, Table], arguments: Sequence[str] | None
) -> argparse.Namespace:
    """The command line, its lists split and its folders absolute."""
    options = parsed.parse_args(arguments)
    options.seeds = [int(seed) for seed in options.seeds.split(",")]
    options.table = options.table.split(",")
    options.workdir, options.data = options.workdir.resolve(), options.data.resolve()
    if unknown := set(options.table) - set(tables):
        parsed.error(f"unknown table {', '.join(sorted(unknown))}; there are {', '.join(tables)}")
    return options


def prepare(names: str, output: pathlib.Path, *more: str) -> None:
    """Prepares data sets, those that are not yet."""
    command = [sys.executable, "-m", "majl_jax.prepare", f"--dataset={names}"]
    subprocess.run([*command, f"--output={output}", *more], check=True, cwd=ROOT)


def run_tables(
    options: argparse.Namespace,
    tables: Mapping[str, Table],
    data: dict[str, Any],
    summarize: Callable[[pathlib.Path], None],
) -> None:
    """Trains what the wanted tables need, collects after each table, and draws."""
    for name in options.table:
        table = tables[name]
        wanted = options.runs.split(",") if options.runs else [run.name for run in table.runs()]
        train_all(options, [run for run in table.runs() if run.name in wanted], data)
        write_results(options.results, collect(options, name, table))
        summarize(options.results)
