"""Libraries compared: a process for each, the same weights and input, parity before any time.

The first case writes its weights and results into a folder; every other one loads the weights, and
is timed only when its results agree. Processes run in turns, each pinned to `--cores` cores; a
library is imported in the process that times it and nowhere else.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.harness import measuring, report

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Case:
    """A way to compute it: library, type of numbers, and what is computed anew going back."""

    library: str
    dtype: str = "float32"
    remat: Any = False


@dataclasses.dataclass
class Subject:
    """A case that is ready to be timed.

    Args:
        results: arrays that have to agree with the first case's.
        calls: what is timed, by what it is.
        compile_s: seconds of compiling, where there are any.
        planned_mib: what XLA plans for a step.
        parameters: number of numbers that are learnt.
        device_mib: peak memory of an accelerator, in the place of the process's.
    """

    results: dict[str, Any]
    calls: Mapping[str, measuring.Call]
    compile_s: float = 0.0
    planned_mib: float | None = None
    parameters: int | None = None
    device_mib: Callable[[], float | None] = lambda: None


Worker = Callable[[argparse.Namespace, Case, pathlib.Path], Subject]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Cases, and what computes them.

    Args:
        cases: by name; the first writes the weights, and the others' results are held against its.
        workers: by library, from the command line, the case and the folder of the weights.
        tolerance: largest disagreement in float32, by result.
        reference: the case that ratios are to.
        turns: processes per case, by default.
        calls: timed calls per process, by default.
    """

    cases: Mapping[str, Case]
    workers: Mapping[str, Worker]
    tolerance: Mapping[str, float]
    reference: str = "torch"
    turns: int = 1
    calls: int = 3


def add_options(parser: argparse.ArgumentParser, comparison: Comparison) -> None:
    """Those that all comparisons have."""
    names = ", ".join(f"{number} {name}" for number, name in enumerate(comparison.cases))
    numbers = ",".join(map(str, range(len(comparison.cases))))
    parser.add_argument("--cases", default=numbers, help=f"numbers beside 0: {names}")
    parser.add_argument(
        "--turns", type=int, default=comparison.turns, help="processes per case, in turns"
    )
    parser.add_argument(
        "--calls", type=int, default=comparison.calls, help="timed calls per process, after one"
    )
    parser.add_argument(
        "--torch_compile", action="store_true", help="PyTorch's models by torch.compile"
    )
    parser.add_argument(
        "--tolerance", type=float, default=1.0, help="factor of the disagreement that is allowed"
    )
    add_child_options(parser, cores=1)


def add_child_options(parser: argparse.ArgumentParser, *, cores: int) -> None:
    """Those of benchmarks that measure in processes of their own."""
    parser.add_argument(
        "--cores", type=int, default=cores, help="that a process is pinned to; 0: all there are"
    )
    parser.add_argument("--json", type=pathlib.Path, help="file to which a line per table is added")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)


def run(comparison: Comparison, options: argparse.Namespace, **changed: Any) -> int:
    """Compares and prints the table; in a child process, measures one case.

    Args:
        comparison: cases and workers.
        options: the command line.
        changed: options that this table has in the place of the command line's.

    Returns:
        The exit status, 1 where results in float32 disagree.
    """
    vars(options).update(changed)
    if options.child:
        case = comparison.cases[options.child]
        subject = comparison.workers[case.library](options, case, options.folder)
        write_report(options, _measured(comparison, options, subject))
        return 0
    chosen = sorted({0, *map(int, options.cases.split(","))})
    names = [list(comparison.cases)[number] for number in chosen]
    found: dict[str, list[report.Report]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(options.turns):
            for case in names:
                found[case].append(child(options, pathlib.Path(name), case, **changed))
    reference = comparison.reference if comparison.reference in names else names[0]
    medians = report.medians(found, reference)
    print("\n".join(report.lines(medians, comparison.tolerance)), flush=True)
    if options.json:
        report.add_json(options.json, options, medians)
    return 0 if all(one["agrees"] for one in medians.values()) else 1


def run_each(
    comparison: Comparison, options: argparse.Namespace, option: str, values: Mapping[str, str]
) -> int:
    """Compares once for each value of an option, a heading before it; the exit status."""
    status = 0
    for value, heading in values.items():
        if not options.child:
            print(f"---- {heading}", flush=True)
        status |= run(comparison, options, **{option: value})
    return status


def child(
    options: argparse.Namespace, folder: pathlib.Path, case: str, **changed: Any
) -> dict[str, Any]:
    """What a process of its own reports of a case.

    Raises:
        SystemExit: it failed.
    """
    everywhere = os.sched_getaffinity(0)
    # A process starts where the thread stands that starts it.
    os.sched_setaffinity(0, sorted(everywhere)[: options.cores or None])
    try:
        done = subprocess.run(
            [*command(options, case, **changed), f"--folder={folder}"], check=False, cwd=ROOT
        )
    finally:
        os.sched_setaffinity(0, everywhere)
    if done.returncode:
        raise SystemExit(
            f"{case}: exit status {done.returncode}; what PyTorch computes needs "
            "`pip install torch==2.13.0`"
        )
    return json.loads((folder / "report.json").read_text())


def command(options: argparse.Namespace, case: str, **changed: Any) -> list[str]:
    """What starts a process for a case, but for its folder."""
    started = [sys.executable, "-m", "benchmarks", *options.command]
    return [*started, *(f"--{k}={value}" for k, value in changed.items()), f"--child={case}"]


def write_report(options: argparse.Namespace, found: Mapping[str, Any]) -> None:
    """What a child process hands to the one that started it."""
    (options.folder / "report.json").write_text(json.dumps(found))


def _measured(
    comparison: Comparison, options: argparse.Namespace, subject: Subject
) -> report.Report:
    """Compares the results, then times what agrees."""
    case, path = comparison.cases[options.child], options.folder / "results.npz"
    results = {name: np.asarray(subject.results.pop(name)) for name in [*subject.results]}
    errors: dict[str, float] = {}
    if options.child == next(iter(comparison.cases)):
        np.savez(path, **results)
    else:
        with np.load(path) as first:
            errors = {
                name: measuring.disagreement(results[name], first[name])
                for name in comparison.tolerance
            }
    del results
    exact = case.dtype == "float32"
    factor = getattr(options, "tolerance", 1.0)
    allowed = {name: factor * error for name, error in comparison.tolerance.items()}
    agrees = not exact or all(error < allowed[name] for name, error in errors.items())
    calls = subject.calls if agrees else {}
    timings = {kind: measuring.measure(call, options.calls) for kind, call in calls.items()}
    peak_mib = subject.device_mib()
    if peak_mib is not None and timings:
        timings[next(reversed(timings))]["mib"] = peak_mib
    return {
        "agrees": agrees,
        "errors": errors,
        "timings": timings,
        "compile_s": subject.compile_s,
        "planned_mib": subject.planned_mib,
        "parameters": subject.parameters,
        "cores": len(os.sched_getaffinity(0)),
    }
