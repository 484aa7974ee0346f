"""Training runs that are killed at random moments, some inside a save, end in the same parameters.

    python -m benchmarks kills --recipe=majl --kills=100

The `smoke` run of a recipe, on data that is made here, gets SIGKILL: one half of the times at any
moment, the other half while a checkpoint is being written. The same command goes on with it, until
it is complete; then its parameters, of every stage, and its log lines are held against those of a
run that nothing has disturbed, bit for bit, and another run begins. Printed are the counts; the
exit code is 1 if a run ended in others.
"""

import argparse
import collections
import contextlib
import multiprocessing
import os
import pathlib
import signal
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

RECIPES = ("majl", "ss_mpe", "transfer", "mixit", "jukebox")
PRELOADED = ("majl_jax.main", "tensorflow", "orbax.checkpoint", "librosa", "mir_eval")
NOT_COMPARED = ("time_s", "steps_per_s")
LONGEST_SLEEP_S = 0.02  # between the begin of a save and the kill


class Runs:
    """Runs of one command in workdirs of a folder, with one store of compiled programs: that of the
    environment, if it has one.
    """

    def __init__(self, recipe: str, folder: pathlib.Path) -> None:
        import made_music
        import smoke_runs

        self.folder = folder
        data = smoke_runs.SETS.get(recipe, made_music.prepare)(folder / "data")
        self._flags = [
            f"--config={ROOT}/configs/{recipe}.py:smoke",
            f"--config.data.directory={data}",
        ]
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        # Each run is a process of its own, forked from one that has imported all and done nothing:
        # imports are 5 s, a third of a run.
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload([*PRELOADED, f"majl_jax.recipes.{recipe}"])

    def start(self, workdir: pathlib.Path) -> BaseProcess:
        """The command, begun; what it says is added to a file beside the workdir."""
        arguments = [*self._flags, f"--workdir={workdir}"]
        process = self._processes.Process(target=command, args=(workdir, arguments))
        process.start()
        return process

    def finish(self, workdir: pathlib.Path) -> float:
        """The command to its end, undisturbed; the seconds it took."""
        began = time.monotonic()
        process = self.start(workdir)
        process.join()
        if process.exitcode:
            raise SystemExit(said(workdir))
        return time.monotonic() - began


def command(workdir: pathlib.Path, arguments: list[str]) -> None:
    """`python -m majl_jax.main`, its output added to a file."""
    from majl_jax import main

    with workdir.with_suffix(".log").open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    sys.argv[1:] = arguments
    sys.exit(main.main())


def said(workdir: pathlib.Path) -> str:
    """The last lines of a run."""
    lines = workdir.with_suffix(".log").read_text(errors="replace").splitlines()
    return "\n".join([f"{workdir.name} failed:", *lines[-20:]])


def unfinished(workdir: pathlib.Path) -> set[tuple[pathlib.Path, int]]:
    """The checkpoints that are being written, or were when the process ended."""
    found = set()
    for path in workdir.glob("*/checkpoints/*.orbax-checkpoint-tmp*"):
        with contextlib.suppress(FileNotFoundError):
            found.add((path, path.stat().st_ino))
    return found


def kill(
    process: BaseProcess,
    workdir: pathlib.Path,
    rng: np.random.Generator,
    run_s: float,
) -> bool:
    """Kills a run at its moment, unless it ends before; whether it was inside a save."""
    there, skipped, seen = unfinished(workdir), int(rng.integers(3)), set()
    ends = time.monotonic() + rng.uniform(0.0, run_s)
    anywhere = rng.random() < 0.5
    while process.is_alive():
        seen |= unfinished(workdir) - there
        if anywhere and time.monotonic() > ends:
            break
        if not anywhere and len(seen) > skipped:
            time.sleep(rng.uniform(0.0, LONGEST_SLEEP_S))
            break
        time.sleep(0.004)
    process.kill()
    process.join()
    return bool(unfinished(workdir) - there)


def left(workdir: pathlib.Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The variables of every stage at its last step, and the log without what differs anyway."""
    from majl_jax.training import restore, run_log

    stages = sorted(path.parent.name for path in workdir.glob("*/checkpoints"))
    variables = {stage: restore.load_variables(workdir, stage, "last")[0] for stage in stages}
    rows = [
        {key: value for key, value in row.items() if key not in NOT_COMPARED}
        for row in run_log.read_metrics(workdir)
    ]
    return variables, rows


def differences(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """What two complete runs have not in common, in words."""
    import jax

    (left_variables, left_rows), (right_variables, right_rows) = left(one), left(other)
    if jax.tree.structure(left_variables) != jax.tree.structure(right_variables):
        return ["other stages or parameters"]
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(left_variables),
        jax.tree.leaves(right_variables),
        strict=True,
    )
    found = [
        jax.tree_util.keystr(path)
        for (path, leaf), wanted in pairs
        if leaf.dtype != wanted.dtype or leaf.tobytes() != wanted.tobytes()
    ]
    return found + ["log lines"] * (left_rows != right_rows)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which runs, and how often they are killed."""
    parser.add_argument("--recipe", choices=RECIPES, default="majl")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")


def run(options: argparse.Namespace) -> int:
    """Prints the counts; 1 if a run that was killed ended in other parameters."""
    rng, counts = np.random.default_rng(options.seed), collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        runs = Runs(options.recipe, folder)
        whole = folder / "whole"
        runs.finish(whole)
        # Again, for the time it takes with compiled programs.
        run_s = runs.finish(folder / "again")
        bad = [f"undisturbed: {one}" for one in differences(whole, folder / "again")]
        began = time.monotonic()
        while counts["kills"] < options.kills:
            workdir = folder / f"killed{counts['runs']}"
            process = runs.start(workdir)
            inside = kill(process, workdir, rng, run_s)
            if process.exitcode == -signal.SIGKILL:
                counts["kills"] += 1
                counts["inside"] += inside
                if counts["kills"] < options.kills:
                    continue
                runs.finish(workdir)
            elif process.exitcode:
                raise SystemExit(said(workdir))
            bad += [f"{workdir.name}: {one}" for one in differences(whole, workdir)]
            counts["runs"] += 1
            print(f"{dict(counts)}, {len(bad)} differences", flush=True)
        spent_s = time.monotonic() - began
    print(
        f"{options.recipe}: {counts['kills']} kills, {counts['inside']} of them inside a"
        f" save, of {counts['runs']} runs; {len(bad)} differences to a run that nothing disturbed."
        f" {run_s:.0f} s a run, {spent_s / max(counts['kills'], 1):.0f} s a kill"
    )
    print(*bad, sep="\n", end="\n" * bool(bad))
    return 1 if bad else 0
