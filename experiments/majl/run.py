"""MAJL's tables on the built-in chorales, or on MIR-1K when its folder is given.

    python experiments/majl/run.py --table=main
    python experiments/majl/run.py --table=main --mir1k=/path/to/MIR-1K

Every row is trained with every seed, each run by `majl_jax.main` in a process of its own, several at a time. A killed run goes on
where it stopped. Results: results.jsonl, tables.md and figures/ beside this file.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import pathlib
import queue
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from tables import TABLES, Row, Run, Table

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FEW = "train=6,valid=6,test=37"  # chorales with all labels: few, as in the paper's problem
MANY = "train=24"  # chorales that have half of them, each


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Prepares the data and returns the config fields that name them."""
    if options.mir1k is None:
        folder = options.data / "few"
        _prepare("chorales", folder, f"--tracks={FEW}")
        _prepare("chorales_stems,chorales_pitch", folder, f"--tracks={MANY}")
        return {"data.directory": str(folder)}
    folder = options.data / "mir1k"
    names = ("mir1k_few", "mir1k_stems", "mir1k_pitch")
    _prepare(",".join(names), folder, f"--source={options.mir1k}")
    fields = dict(zip(("data.labelled", "data.stems_only", "data.pitch_only"), names, strict=True))
    return {"data.directory": str(folder), **fields, "data.target": "voice"}


def _prepare(names: str, output: pathlib.Path, option: str) -> None:
    command = [sys.executable, "-m", "majl_jax.prepare", f"--dataset={names}"]
    subprocess.run([*command, f"--output={output}", option], check=True, cwd=ROOT)


def workdir(options: argparse.Namespace, run: Run, seed: int) -> pathlib.Path:
    """Where a run leaves its checkpoints and scores."""
    data = "chorales" if options.mir1k is None else "mir1k"
    return options.workdir / data / run.name / f"seed{seed}"


def train(
    options: argparse.Namespace, run: Run, seed: int, data: dict[str, Any], core: int | None
) -> float:
    """Runs one training as a process of its own and returns its seconds (0 if it was complete)."""
    folder = workdir(options, run, seed)
    folder.mkdir(parents=True, exist_ok=True)
    if run.borrows is not None and not (folder / "teacher").exists():
        lender, stage = run.borrows
        (folder / "teacher").symlink_to(workdir(options, lender, seed) / stage)
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

    first = [run for run in runs if run.borrows is None]
    second = [run for run in runs if run.borrows is not None]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for some in (first, second):  # no lender borrows itself
            jobs = [
                pool.submit(work, run, seed) for seed, run in itertools.product(options.seeds, some)
            ]
            for job in concurrent.futures.as_completed(jobs):
                job.result()
    return seconds


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
                "data": "chorales" if options.mir1k is None else "mir1k",
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


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", default="main", help=f"one or more of {','.join(TABLES)}")
    parser.add_argument("--runs", help="only these runs of the tables, with commas")
    parser.add_argument("--mir1k", type=pathlib.Path, help="folder of MIR-1K, instead of chorales")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--config", default="configs/majl.py:experiment")
    parser.add_argument("--set", action="append", default=[], help="--set=--config.FIELD=VALUE")
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / "data" / "prepared")
    parser.add_argument("--workdir", type=pathlib.Path, default=ROOT / "runs" / "experiments")
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results.jsonl")
    options = parser.parse_args(arguments)
    options.seeds = [int(seed) for seed in options.seeds.split(",")]
    options.table = options.table.split(",")
    options.workdir, options.data = options.workdir.resolve(), options.data.resolve()
    if unknown := set(options.table) - set(TABLES):
        parser.error(f"unknown table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares, trains, collects, draws."""
    options = parse(arguments)
    data = prepare(options)
    for name in options.table:
        table = TABLES[name]
        wanted = options.runs.split(",") if options.runs else [run.name for run in table.runs()]
        train_all(options, [run for run in table.runs() if run.name in wanted], data)
        write_results(options.results, collect(options, name, table))
    import summary

    summary.write(options.results, HERE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
