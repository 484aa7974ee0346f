"""The only training loop: a recipe's stages, each from its last checkpoint to its end."""

import contextlib
import json
import math
import os
import pathlib
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from majl_jax import atomic, console, formats, parallel
from majl_jax.batch import Key
from majl_jax.training import checkpoint, preemption, prefetch, restore, run_log
from majl_jax.training.stage import Previous, Stage, check_stage
from majl_jax.training.stage_run import Options, Run, StageRun, score, shown, start

__all__ = ["Options", "fit", "run"]

DEFAULTS = Options()
# Steps queued on the device: enough to keep it busy, and few batches in its memory.
_AHEAD_STEPS = 4


def fit(
    stage: Stage, previous: Previous, key: Key, run: Run, *, index: int, steps_before: int
) -> None:
    """Train one stage from its newest checkpoint, or from its start, to its last step.

    Args:
        stage: what is trained.
        previous: what the stage before hands over.
        key: of all its randomness.
        run: what it shares with the other stages.
        index: how many stages of the run come before it.
        steps_before: how many steps these have.
    """
    with run.preemption.interruptible():
        state, step, batches = start(stage, previous, key, run.mesh)
    with contextlib.ExitStack() as stack:
        at = stack.enter_context(StageRun(stage, index, run, state))
        at.resume(key, batches)
        del state
        first, where = at.done + 1, {"start": at.done, "stop": stage.steps}
        source = stack.enter_context(
            prefetch.Prefetch(batches, run.mesh, **where, position_due=at.save_due)
        )
        progress = stack.enter_context(console.Progress(stage.name, stage.steps, at.done))
        queued, ahead = deque(), _ahead_steps(run.mesh)

        if at.done and at.evaluation_due(at.done) and not at.was_evaluated():
            # The run before was stopped between this checkpoint and its evaluation.
            at.evaluate()
            progress.restart_clock()
        while at.done < stage.steps:
            batch, position = source.take()
            if at.done + 1 == first:
                console.say(f"{stage.name}: compiling the training step …")
            began = time.perf_counter()
            at.state, metrics = step(at.state, batch)
            at.done += 1
            at.metrics.add(at.done, metrics)
            progress.step()
            queued.append(metrics)
            if len(queued) > ahead:
                jax.block_until_ready(queued.popleft())
            if at.done == first:
                jax.block_until_ready(metrics)
                spent_s = time.perf_counter() - began
                console.say(f"{stage.name}: first step {spent_s:.1f} s, with its compilation")
                progress.restart_clock()
            if at.done % run.options.log_every_steps == 0 or at.done == stage.steps:
                at.log_means(progress)
            if run.preemption.reached(steps_before + at.done):
                at.save(position)
                raise preemption.Preempted
            if at.save_due(at.done):
                at.save(position)
            if at.evaluation_due(at.done):
                at.evaluate()
                progress.restart_clock()


def _ahead_steps(mesh: Mesh) -> int:
    """How many steps may wait on the device: none on several CPUs, whose queued collectives can
    dead-lock.
    """
    several_cpus = mesh.devices.flat[0].platform == "cpu" and len(mesh.local_devices) > 1
    return 0 if several_cpus else _AHEAD_STEPS


def _choose(
    stage: Stage, mesh: Mesh, log: run_log.RunLog, signals: preemption.Preemption
) -> tuple[list[int], dict[str, float], list[dict[str, Any]]]:
    """The steps whose mean a stage hands over, their validation, and what was compared: the first
    that validates best.
    """
    root, name = log.workdir, stage.name
    tried, compared = [], []
    for steps in parallel.first_process(
        lambda: checkpoint.candidates(root, name, average=stage.average)
    ):
        if len(steps) == 1:
            number = steps[0]
            values = parallel.first_process(lambda n=number: run_log.values(root, name, n, "valid"))
        else:
            variables, _ = restore.load_mean(root, name, steps)
            with signals.interruptible():
                values = score(stage, stage.evaluate, parallel.replicate(variables, mesh))
        value = values.get(stage.best or "", math.nan)
        tried.append((value if math.isfinite(value) else -math.inf, steps, values))
        compared.append({"steps": steps, stage.best: value if math.isfinite(value) else None})
    _, steps, values = max(tried, key=lambda one: one[0])
    if len(compared) > 1:
        shown = (f"{'+'.join(map(str, c['steps']))}: {c[stage.best]}" for c in compared)
        console.say(f"{name}: {stage.best} of steps {', '.join(shown)}")
    return steps, values, compared if len(compared) > 1 else []


def _finish(stage: Stage, mesh: Mesh, log: run_log.RunLog, signals: preemption.Preemption) -> None:
    """Choose what the stage hands over, test it, and mark the stage complete."""
    steps, valid, candidates = _choose(stage, mesh, log, signals)
    step, test = steps[0], {}
    if stage.test is not None:
        variables, _ = restore.load_mean(log.workdir, stage.name, steps)
        run_test, folder = stage.test, log.workdir / stage.name
        with signals.interruptible():
            test = score(stage, lambda v: run_test(v, folder), parallel.replicate(variables, mesh))
        log.write(stage.name, step, "test", test)
        log.sync()
    metrics = {k: formats.score_to_json(v) for k, v in (test or valid).items()}
    if parallel.is_first_process():
        about = {formats.KEY: formats.RUN, "metrics": metrics, "step": step, "steps": steps}
        text = json.dumps(about | ({"candidates": candidates} if candidates else {}), indent=2)
        atomic.write_text(log.workdir / stage.name / "result.json", text + "\n")
    parallel.barrier("finish")


def _result(workdir: pathlib.Path, stage: str) -> tuple[dict[str, float], list[int]] | None:
    """The metrics of a complete stage and the steps whose mean it hands over; None if it is not
    complete.
    """
    path = workdir / stage / "result.json"
    if not path.exists():
        return None
    result = formats.read(path, formats.RUN, needs=("metrics", "steps"))
    scores = {k: formats.score_from_json(v) for k, v in result["metrics"].items()}
    metrics = {k: math.nan if v is None else v for k, v in scores.items()}
    return metrics, result["steps"]


def run(
    stages: Sequence[Stage],
    workdir: str | os.PathLike,
    key: Key,
    options: Options = DEFAULTS,
    *,
    devices: Sequence[Any] | None = None,
) -> dict[str, dict[str, float]]:
    """Train every stage that is not complete yet and return {stage: {metric: value}}.

    The same call on the same workdir goes on where the last one ended. After SIGTERM the state is
    saved and SystemExit(0) raised.

    Args:
        stages: what is trained, in this order.
        workdir: folder of the run.
        key: of all its randomness.
        options: how often it logs, evaluates and saves.
        devices: what it runs on; None: all there are.
    """
    _check_stages(stages, options)
    root, mesh = pathlib.Path(workdir).resolve(), parallel.mesh(devices)
    results: dict[str, dict[str, float]] = {}
    previous, steps_before = None, 0
    with run_log.RunLog(root) as log, preemption.Preemption() as signals:
        shared = Run(mesh, log, signals, options)
        try:
            for index, stage in enumerate(stages):
                if _result(root, stage.name) is None:
                    stage_key = jax.random.fold_in(key, index)
                    fit(stage, previous, stage_key, shared, index=index, steps_before=steps_before)
                    _finish(stage, mesh, log, signals)
                else:
                    console.say(f"{stage.name}: complete already")
                metrics, steps = _result(root, stage.name) or ({}, [0])
                previous, _ = restore.load_mean(root, stage.name, steps)
                results[stage.name] = metrics
                steps_before += stage.steps
                console.say(f"{stage.name}: done at step {steps[0]}  {shown(metrics)}")
        except preemption.Preempted:
            console.say(
                f"stopped; everything is saved in {root}: run the same command again to go on"
            )
            raise SystemExit(signals.exit_code()) from None
    return results


def _check_stages(stages: Sequence[Stage], options: Options) -> None:
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        raise ValueError(f"stages need different names, got {names}")
    for stage in stages:
        check_stage(stage)
        kept = options.keep_best if stage.best else 1
        if stage.average > max(1, kept):
            raise ValueError(
                f"stage {stage.name!r} averages its {stage.average} best checkpoints, but keeps"
                f" {kept}: raise keep_best, and let the stage choose its best"
            )
