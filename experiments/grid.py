"""The runs of tables, each trained by `majl_jax.main` with every seed, in a process of its own.

Several train at a time. A killed run goes on where it stopped, a complete one is left alone.
"""

import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
import queue
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from experiments.experiment import Data, DataSet, Run

ROOT = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Grid:
    """How runs are trained, and where.

    Args:
        config: configs/NAME.py:PRESET.
        data: what they are trained on.
        folder: of all runs.
        compiled: folder of compiled programs that all processes share, unless
            JAX_COMPILATION_CACHE_DIR names another.
        seeds: every run is trained with each.
        jobs: trainings at a time.
        changes: options `--config.FIELD=VALUE` for every run.
    """

    config: str
    data: Data
    folder: pathlib.Path
    compiled: pathlib.Path
    seeds: tuple[int, ...]
    jobs: int = 2
    changes: tuple[str, ...] = ()

    def workdir(self, run: Run, seed: int) -> pathlib.Path:
        """Where a run leaves its checkpoints and scores."""
        return self.folder / run.name / f"seed{seed}"

    def command(self, run: Run, seed: int) -> list[str]:
        """The training of a run, as a command."""
        folders = {one.name: str(self.workdir(one, seed)) for one in run.after}
        words = {**self.data.words, **folders}
        told = {k: v.format_map(words) if isinstance(v, str) else v for k, v in run.fields.items()}
        fields = {**self.data.fields, **told, "run": run.stages, "seed": seed}
        config = run.config or self.config
        command = [sys.executable, "-m", "majl_jax.main", f"--config={config}"]
        command += [f"--config.{name}={value}" for name, value in fields.items()]
        return [*command, *self.changes, f"--workdir={self.workdir(run, seed)}"]

    def awaited(self, run: Run, seed: int) -> list[str]:
        """The runs without which this one cannot begin, and that are not complete."""
        needed = {(one, stage) for one in run.after for stage in one.stages}
        needed |= set(run.borrowed().values())
        lacking = {
            one.name
            for one, stage in needed
            if not (self.workdir(one, seed) / stage / "result.json").exists()
        }
        return sorted(lacking)

    def missing(self, run: Run, seed: int) -> list[str]:
        """The stages that a run has not ended, its borrowed ones not counted."""
        folder, borrowed = self.workdir(run, seed), run.borrowed()
        return [
            stage
            for stage in run.stages
            if stage not in borrowed and not (folder / stage / "result.json").exists()
        ]

    def train(
        self,
        run: Run,
        seed: int,
        core: int | None,
        *,
        call: Callable[..., int] = subprocess.call,
    ) -> float:
        """Runs one training as a process of its own; its seconds, 0 if it was complete.

        Args:
            run: what is trained.
            seed: of it.
            core: that it runs on; None: on all.
            call: runs the command, as `subprocess.call` does.

        Raises:
            RuntimeError: it failed, or was stopped before its end; its last words are in
              console.log of its folder. Or a run that it goes on from is not complete.
        """
        folder = self.workdir(run, seed)
        if awaited := self.awaited(run, seed):
            raise RuntimeError(
                f"{run.name}, seed {seed} goes on from {', '.join(awaited)}, not complete yet:"
                f" --runs={','.join((*awaited, run.name))} trains them one after the other"
            )
        folder.mkdir(parents=True, exist_ok=True)
        for stage, (lender, lent) in run.borrowed().items():
            if not (folder / stage).exists():
                (folder / stage).symlink_to(self.workdir(lender, seed) / lent)
        if all((folder / stage / "result.json").exists() for stage in run.stages):
            return 0.0
        started = time.monotonic()
        if core is not None and hasattr(os, "sched_setaffinity"):
            # A process starts where the thread stands that starts it.
            os.sched_setaffinity(0, {core})
        with (folder / "console.log").open("a") as log:
            status = call(
                self.command(run, seed),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={
                    "JAX_COMPILATION_CACHE_DIR": str(self.compiled),
                    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # as in the Makefile
                    **os.environ,
                },
            )
        if status:
            raise RuntimeError(f"{folder}: exit status {status}; see {folder}/console.log")
        if left := self.missing(run, seed):
            raise RuntimeError(
                f"{folder}: stopped without a result of {', '.join(left)}, the same command goes"
                f" on; see {folder}/console.log"
            )
        return time.monotonic() - started

    def train_all(self, runs: Sequence[Run]) -> None:
        """Trains every run with every seed, each on one core if there are several jobs.

        Two steps on a core each take less time together than two, one after the other, on both.
        """
        cores: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        # Linux tells which cores are ours.
        affinity = getattr(os, "sched_getaffinity", lambda process: range(os.cpu_count() or 1))
        available = sorted(affinity(0))
        for job in range(self.jobs):
            cores.put(available[job % len(available)] if self.jobs > 1 else None)

        def work(run: Run, seed: int) -> None:
            core = cores.get()
            try:
                seconds = self.train(run, seed, core)
                print(f"{run.name}, seed {seed}: {seconds:.0f} s", flush=True)
            finally:
                cores.put(core)

        failed: dict[tuple[str, int], str] = {}
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            for some in in_turn(runs):
                # What a run borrows has to be there; what it goes on from `train` looks at.
                jobs = {
                    pool.submit(work, run, seed): (run.name, seed)
                    for seed, run in itertools.product(self.seeds, some)
                    if not any((one.name, seed) in failed for one in run.with_lenders())
                }
                for job in concurrent.futures.as_completed(jobs):
                    try:
                        job.result()
                    except RuntimeError as error:  # the others go on
                        print(f"failed: {error}", flush=True)
                        failed[jobs[job]] = str(error)
        if failed:
            first = next(iter(failed.values()))
            count = len(failed)
            raise RuntimeError(first if count == 1 else f"{count} runs failed, the first: {first}")

    def plan(self, runs: Iterable[Run]) -> Iterator[str]:
        """What training would do: a line per run and seed, and the command where it has to run."""
        for run, seed in itertools.product(runs, self.seeds):
            missing = self.missing(run, seed)
            if not missing:
                yield f"{run.name}, seed {seed}: complete"
                continue
            begun = (self.workdir(run, seed) / "config.json").exists()
            how = "goes on" if begun else "not begun"
            yield f"{run.name}, seed {seed}: {how}, without a result of {', '.join(missing)}"
            yield f"  {shlex.join(self.command(run, seed))}"


def in_turn(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """The runs that borrow from no other, those that borrow from them, and so on."""
    depths = {run.name: len(list(run.with_lenders())) for run in runs}
    for depth in sorted(set(depths.values())):
        yield [run for run in runs if depths[run.name] == depth]


def prepare(sets: Iterable[DataSet]) -> None:
    """Prepares data sets, those that are not yet."""
    for one in sets:
        command = [sys.executable, "-m", "majl_jax.prepare", *one.arguments()]
        if status := subprocess.run(command, check=False, cwd=ROOT).returncode:
            raise RuntimeError(
                f"{', '.join(one.names)}: preparing failed (exit status {status}); why stands above"
            )


def plan_data(sets: Iterable[DataSet]) -> Iterator[str]:
    """The data sets that are there, and the commands of those that are not."""
    for one in sets:
        there = {name: (one.folder / name).exists() for name in one.names}
        for name, found in there.items():
            yield f"data {one.folder / name}: {'there' if found else 'missing'}"
        if not all(there.values()):
            command = [sys.executable, "-m", "majl_jax.prepare", *one.arguments()]
            yield f"  {shlex.join(command)}"
