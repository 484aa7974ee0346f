"""The only training loop: a recipe's stages, each from its last checkpoint to its end."""

import contextlib
import json
import math
import os
import pathlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from majl_jax import atomic, console, formats, parallel
from majl_jax.batch import Key
from majl_jax.training import checkpoint, manifest, preemption, prefetch, restore, run_log
from majl_jax.training.restore import complete_steps
from majl_jax.training.stage import Evaluate, Previous, Stage, check_stage
from majl_jax.training.stage_run import Options, Run, StageRun, score, shown, start

__all__ = ["Options", "check_steps", "fit", "progress", "run"]

DEFAULTS = Options()
TRAINED = "trained_steps"  # in result.json: how many a complete stage has
# Steps queued on the device: enough to keep it busy, and few batches in its memory.
_AHEAD_STEPS = 4


def fit(
    stage: Stage, previous: Previous, key: Key, run: Run, *, index: int, steps_before: int
) -> None:
    """Train one stage from its newest checkpoint, or from its start, to its last step.

    Args:
        stage: what is trained.
        previous: what the stage before hands over.
        key: of the run; what is random in a stage's steps depends on its index as well.
        run: what it shares with the other stages.
        index: how many stages of the run come before it.
        steps_before: how many steps these have.
    """
    step_key = jax.random.fold_in(key, index)
    with run.preemption.interruptible():
        state, optimizer, step, batches = start(stage, previous, (key, step_key), run.mesh)
    with contextlib.ExitStack() as stack:
        at = stack.enter_context(StageRun(stage, index, run, state, optimizer))
        at.resume(step_key, batches)
        del state
        first, where = at.done + 1, {"start": at.done, "stop": stage.steps}
        source = stack.enter_context(
            prefetch.Prefetch(batches, run.mesh, **where, position_due=at.save_due)
        )
        progress = stack.enter_context(console.Progress(stage.name, stage.steps, at.done))
        queued, ahead = deque(), _ahead_steps(run.mesh)

        at.evaluate_missed()
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


def _choose(stage: Stage, run: Run) -> tuple[list[int], dict[str, float], list[dict[str, Any]]]:
    """The steps whose mean a stage hands over, their validation, and what was compared: the first
    that validates best.
    """
    root, name = run.log.workdir, stage.name
    tried, compared = [], []
    for steps in parallel.first_process(
        lambda: checkpoint.candidates(root, name, average=stage.average)
    ):
        if len(steps) == 1:
            number = steps[0]
            values = parallel.first_process(lambda n=number: run_log.values(root, name, n, "valid"))
        else:
            values = _score_mean(stage, run, steps, stage.evaluate)
        value = values.get(stage.best or "", math.nan)
        tried.append((value if math.isfinite(value) else -math.inf, steps, values))
        compared.append({"steps": steps, stage.best: value if math.isfinite(value) else None})
    _, steps, values = max(tried, key=lambda one: one[0])
    if len(compared) > 1:
        shown = (f"{'+'.join(map(str, c['steps']))}: {c[stage.best]}" for c in compared)
        console.say(f"{name}: {stage.best} of steps {', '.join(shown)}")
    return steps, values, compared if len(compared) > 1 else []


def _score_mean(
    stage: Stage, run: Run, steps: Sequence[int], evaluate: Evaluate | None
) -> dict[str, float]:
    """What the mean of checkpoints scores."""
    variables, _ = restore.load_mean(run.log.workdir, stage.name, steps)
    with run.preemption.interruptible():
        return score(stage, evaluate, parallel.replicate(variables, run.mesh))


def _finish(stage: Stage, run: Run) -> None:
    """Choose what the stage hands over, test it, and mark the stage complete."""
    steps, valid, candidates = _choose(stage, run)
    _write_result(stage, run, steps, valid, {"candidates": candidates} if candidates else {})


def _judge_again(stage: Stage, run: Run, result: Mapping[str, Any]) -> None:
    """Test what a complete stage has handed over in another way than it was."""
    console.say(f"{stage.name}: complete already, evaluated again with other settings")
    valid, steps = {}, result["steps"]
    validates = stage.test is None and stage.evaluate is not None
    run.log.begin(stage.name, result[TRAINED], validated=steps[:1] if validates else ())
    if validates:
        valid = _score_mean(stage, run, steps, stage.evaluate)
        run.log.write(stage.name, steps[0], "valid", valid)
    kept = {key: result[key] for key in ("candidates",) if key in result}
    _write_result(stage, run, steps, valid, kept)


def _write_result(
    stage: Stage, run: Run, steps: list[int], valid: Mapping[str, float], more: Mapping[str, Any]
) -> None:
    test, folder = {}, run.log.workdir / stage.name
    if stage.test is not None:
        run_test = stage.test
        test = _score_mean(stage, run, steps, lambda variables: run_test(variables, folder))
        run.log.write(stage.name, steps[0], "test", test)
        run.log.show_examples(stage.name, steps[0])
        run.log.sync()
    metrics = {k: formats.score_to_json(v) for k, v in (test or valid).items()}
    if parallel.is_first_process():
        about = {"metrics": metrics, "step": steps[0], "steps": steps, TRAINED: stage.steps, **more}
        if run.options.evaluated_with:
            about[run_log.EVALUATED_WITH] = run.options.evaluated_with
        text = json.dumps({formats.KEY: formats.RUN, **about}, indent=2)
        atomic.write_text(folder / "result.json", text + "\n")
    parallel.barrier("finish")


def _result(workdir: pathlib.Path, stage: str) -> dict[str, Any] | None:
    """What a complete stage has written about itself; None if it is not complete."""
    path = workdir / stage / "result.json"
    if not path.exists():
        return None
    result = formats.read(path, formats.RUN, needs=("metrics", "steps"))
    scores = {k: formats.score_from_json(v) for k, v in result["metrics"].items()}
    result["metrics"] = {k: math.nan if v is None else v for k, v in scores.items()}
    # One from before this was noted has its last checkpoint.
    last = restore.complete_steps(workdir / stage / "checkpoints")[-1:] or result["steps"]
    return {TRAINED: last[0], **result}


def check_steps(stages: Sequence[Stage], workdir: str | os.PathLike) -> None:
    """Raise ValueError where a stage has trained more steps than are wanted, or is to go on though
    one after it has learned from it.
    """
    for index, stage in enumerate(stages):
        _trained(stage, pathlib.Path(workdir), stages[index + 1 :])


def _trained(
    stage: Stage, root: pathlib.Path, later: Sequence[Stage]
) -> tuple[dict[str, Any] | None, int]:
    """The result of a stage, None if it is not complete, and how many steps it has trained."""
    name = stage.name
    result = _result(root, name)
    trained = result[TRAINED] if result else max([0, *complete_steps(root / name / "checkpoints")])
    if trained > stage.steps:
        raise ValueError(
            f"stage {name!r} has trained {trained} steps already, and {stage.steps} are wanted: ask"
            f" for {trained} or more, or use another workdir"
        )
    if result is None or trained == stage.steps:
        return result, trained
    if (root / name).is_symlink():
        raise ValueError(
            f"stage {name!r} is complete with {trained} steps, {stage.steps} are wanted, but it is"
            f" that of {(root / name).resolve().parent}: ask for {trained} steps, or remove the"
            f" link {root / name} to train it in this run"
        )
    if begun := [str(root / one.name) for one in later if manifest.has_begun(root, one.name)]:
        raise ValueError(
            f"stage {name!r} is complete with {trained} steps, {stage.steps} are wanted, but what"
            f" came after it has learned from it: ask for {trained} to go on with that, or remove"
            f" {', '.join(begun)} to train it again"
        )
    return result, trained


def progress(stage: Stage, workdir: str | os.PathLike) -> str:
    """In words how far a stage is: to be trained, begun, or complete."""
    result, trained = _trained(stage, pathlib.Path(workdir), ())
    if result is not None:
        return "complete" if trained == stage.steps else f"complete with {trained}, goes on"
    return f"goes on from step {trained}" if trained else "to be trained"


def _complete(stage: Stage, run: Run, later: Sequence[Stage]) -> dict[str, Any] | None:
    """The result of a stage that has learned what it is to learn; None where there is more."""
    root, name = run.log.workdir, stage.name
    result, trained = _trained(stage, root, later)
    if result is None or trained == stage.steps:
        return result
    console.say(f"{name}: complete with {trained} steps, goes on to {stage.steps}")
    if parallel.is_first_process():
        (root / name / "result.json").unlink()
    return None


def run(
    stages: Sequence[Stage],
    workdir: str | os.PathLike,
    key: Key,
    options: Options = DEFAULTS,
    *,
    devices: Sequence[Any] | None = None,
    begin: Callable[[], object] = lambda: None,
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
        begin: is called once the run is locked, and what its stages have trained is not in the way.
    """
    _check_stages(stages, options)
    root, mesh = pathlib.Path(workdir).resolve(), parallel.mesh(devices)
    results: dict[str, dict[str, float]] = {}
    previous, steps_before = None, 0
    opened = run_log.RunLog(root, options.evaluated_with, options.tracker)
    with opened as log, preemption.Preemption() as signals:
        shared = Run(mesh, log, signals, options)
        check_steps(stages, root)
        begin()
        try:
            for index, stage in enumerate(stages):
                result = _complete(stage, shared, stages[index + 1 :])
                if result is None:
                    fit(stage, previous, key, shared, index=index, steps_before=steps_before)
                    _finish(stage, shared)
                elif result.get(run_log.EVALUATED_WITH, "") == options.evaluated_with:
                    console.say(f"{stage.name}: complete already")
                elif (root / stage.name).is_symlink():
                    lender = (root / stage.name).resolve().parent
                    console.say(
                        f"{stage.name}: complete already, evaluated with the settings of {lender},"
                        " whose it is"
                    )
                else:
                    _judge_again(stage, shared, result)
                result = _result(root, stage.name) or {"metrics": {}, "steps": [0]}
                metrics, steps = result["metrics"], result["steps"]
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
