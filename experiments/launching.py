"""The runs of tables as jobs of a cluster, by submitit (the extra `cluster`).

A job is one training. One whose time is up, or that is preempted, saves and is queued again; it
goes on where it stopped.
"""

import dataclasses
import importlib
import itertools
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.experiment import Run
from experiments.grid import Grid, in_turn

LAUNCHERS = ("local", "slurm", "debug")
"""This machine, several trainings at a time; Slurm; submitit in this process, one by one."""
# Slurm's signal is for submitit, which asks for SIGTERM then.
_DEAF = ("sh", "-c", 'trap "" USR2; exec "$@"', "sh")
SAVING_S = 600
_LOOK_S = 0.1
_children: list[subprocess.Popen] = []


@dataclasses.dataclass(frozen=True)
class Training:
    """A run with one seed, as a job that can be stopped and queued again."""

    grid: Grid
    run: Run
    seed: int

    def __call__(self) -> float:
        """Trains it; its seconds, 0 if it was complete."""
        return self.grid.train(self.run, self.seed, None, call=_call)

    def checkpoint(self) -> Any:
        """What submitit calls when the job's time is up: the training saves, then goes on in a new
        job.
        """
        for child in _children:
            child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + SAVING_S
        while any(map(_runs, _children)) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        for child in filter(_runs, _children):
            child.kill()  # it would keep its folder locked; what it saved before is whole
        return _submitit().helpers.DelayedSubmission(self)


def _runs(child: subprocess.Popen) -> bool:
    """Whether it has not ended. Popen's own `wait` and `poll` know nothing in a handler that
    interrupts `wait`, which holds their lock.
    """
    try:
        return not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # somebody has waited for it
        return False


def _call(command: Sequence[str], **options: Any) -> int:
    """The exit status of a command that this job can ask to save."""
    child = subprocess.Popen([*_DEAF, *command], **options)
    _children.append(child)
    try:
        return child.wait()
    finally:
        _children.remove(child)


def train_all(
    grid: Grid, runs: Sequence[Run], *, launcher: str, parameters: Mapping[str, Any]
) -> None:
    """Trains every run with every seed as a job each, those that lend to others first.

    RuntimeError at the end where jobs failed; the others are done.

    Args:
        grid: how they are trained.
        runs: of a table.
        launcher: "slurm", "debug", or "local", submitit's own processes on this machine.
        parameters: of submitit, as timeout_min, gpus_per_node, slurm_partition.
    """
    executor = _submitit().AutoExecutor(folder=grid.folder / "jobs" / "%j", cluster=launcher)
    executor.update_parameters(name="majl_jax", **parameters)
    for some in in_turn(runs):
        pairs = itertools.product(some, grid.seeds)
        trainings = [Training(grid, *pair) for pair in pairs if grid.missing(*pair)]
        if not trainings:
            continue
        with executor.batch():
            jobs = [executor.submit(training) for training in trainings]
        failed = []
        for training, job in zip(trainings, jobs, strict=True):
            name = f"{training.run.name}, seed {training.seed}"
            try:
                print(f"{name}: {job.result():.0f} s (job {job.job_id})", flush=True)
            except Exception as error:  # whatever a job ended with
                failed.append(f"{name} (job {job.job_id}): {_reason(error)}")
        if failed:
            raise RuntimeError(f"{len(failed)} of {len(jobs)} jobs failed: {'; '.join(failed)}")


def _reason(error: Exception) -> str:
    """The line of a job's traceback that says why; what there is without one."""
    lines = str(error).strip().splitlines() or [repr(error)]
    return next((line for line in reversed(lines) if re.match(r"[\w.]*Error: ", line)), lines[0])


def _submitit() -> Any:
    try:
        return importlib.import_module("submitit")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "--launcher=slurm needs submitit, which is not installed: pip install submitit (or "
            '"majl_jax[cluster]")'
        ) from error
