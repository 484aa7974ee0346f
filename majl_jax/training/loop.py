"""The only training loop: a recipe's stages, each from its last checkpoint to its end."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from majl_jax import atomic, console, parallel
from majl_jax.training import checkpoint, parameters, preemption, prefetch, restore, run_log
from majl_jax.training import optimizer as training_optimizer
from majl_jax.training.stage import Stage, check_stage
from majl_jax.training.step import TrainState, make_step
from majl_jax.training.step_metrics import Readings

_AHEAD_STEPS = (
    4  # steps queued on the device: enough to keep it busy, and few batches in its memory
)


@dataclasses.dataclass(frozen=True)
class _Options:
    log_every_steps: int
    evaluate_every_steps: int
    checkpoint_every_steps: int
    keep_last: int
    keep_best: int
    on_nonfinite: str

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if name.endswith("_steps") and value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
        if self.keep_best < 1 or self.keep_last < 1:
            raise ValueError(
                "keep_last and keep_best are at least 1: one to resume from, one to hand over"
            )
        if self.on_nonfinite not in ("stop", "skip"):
            raise ValueError(f"on_nonfinite is {self.on_nonfinite!r}; expected 'stop' or 'skip'")


def fit(
    stage: Stage,
    previous: Any,
    key: Any,
    *,
    index: int,
    ticks: int,
    mesh: Mesh,
    log: run_log.RunLog,
    signals: preemption.Signals,
    options: _Options,
) -> None:
    """Train one stage from its newest checkpoint, or from its start, to its last step.

    `index` counts the stages of the run, `ticks` the steps of the stages before this one.
    """

    def evaluation_due(done: int) -> bool:
        last = done == stage.steps
        return stage.evaluate is not None and (last or done % options.evaluate_every_steps == 0)

    def save_due(done: int) -> bool:
        # Before every evaluation as well: whatever happens there, nothing is lost.
        last = done == stage.steps
        return last or done % options.checkpoint_every_steps == 0 or evaluation_due(done)

    def save() -> None:
        nonlocal saved
        if done == saved:
            return
        readings.fetch()
        log.sync()
        about = {
            "stage": stage.name,
            "stage_index": index,
            "best": stage.best,
            "average": stage.average,
        }
        saves.save(state, {**about, "carried": readings.carried()}, position)
        saved = done

    def at_plateau() -> TrainState:
        """The state with the learning rate that the validations up to here call for."""
        if stage.plateau is None or not watched:
            return state
        factor = stage.plateau.rate_factor([watched[seen] for seen in sorted(watched)])
        factor = parallel.replicate(np.float32(factor), mesh)
        return dataclasses.replace(
            state, opt_state=training_optimizer.at_plateau(state.opt_state, factor)
        )

    def evaluate() -> None:
        nonlocal state
        with signals.interruptible():
            metrics = _score(stage, stage.evaluate, {"params": state.params, **state.mutables})
        log.write(stage.name, done, "valid", metrics)
        if stage.best:
            scores[done] = metrics[stage.best]
        if stage.plateau:
            watched[done] = metrics[stage.plateau.metric]
            state = at_plateau()
        console.say(f"{stage.name} {done}/{stage.steps}  valid  {_shown(metrics)}")
        progress.restart_clock()

    with signals.interruptible():
        state, step, batches = _start(stage, previous, key, mesh)
    scores = run_log.scores(log.workdir, stage.name, stage.best) if stage.best else {}
    watched = run_log.scores(log.workdir, stage.name, stage.plateau.metric) if stage.plateau else {}
    with contextlib.ExitStack() as stack:
        folder, keep_best = log.workdir / stage.name, options.keep_best if stage.best else 0
        saves = checkpoint.Checkpoints(
            folder, keep_last=options.keep_last, keep_best=keep_best, scores=scores
        )
        stack.enter_context(saves)
        done, saved, carried = 0, -1, {}
        if (found := saves.restore(state)) is not None:
            state, meta = found
            _check_key(stage, state.key, key)
            done = saved = int(state.step)
            carried = meta["carried"]
            console.say(f"{stage.name}: going on from step {done}")
            with signals.interruptible():
                prefetch.move_input(batches, *prefetch.load_position(folder, done))
        first = done + 1
        log.begin(stage.name, done)
        for validations in (scores, watched):
            for late in [seen for seen in validations if seen > done]:
                del validations[late]
        state = at_plateau()
        readings = Readings(stage.name, skip=options.on_nonfinite == "skip", carried=carried)
        source = prefetch.ReadAhead(
            batches, mesh, start=done, stop=stage.steps, position_due=save_due
        )
        stack.callback(source.close)
        progress = stack.enter_context(console.Progress(stage.name, stage.steps, done))
        queued: deque = deque()
        several_cpus = mesh.devices.flat[0].platform == "cpu" and len(mesh.local_devices) > 1
        ahead = 0 if several_cpus else _AHEAD_STEPS  # their queued collectives can dead-lock

        if done and evaluation_due(done) and not _evaluated(log.workdir, stage.name, done):
            evaluate()  # the run before was stopped between this checkpoint and its evaluation
        while done < stage.steps:
            batch, position = source.take()
            began = time.perf_counter()
            state, reading = step(state, batch)
            done += 1
            readings.add(done, reading)
            progress.step()
            queued.append(reading)
            if len(queued) > ahead:
                jax.block_until_ready(queued.popleft())
            if done == first:
                jax.block_until_ready(reading)
                spent_s = time.perf_counter() - began
                console.say(f"{stage.name}: first step {spent_s:.1f} s, with its compilation")
                progress.restart_clock()
            if done % options.log_every_steps == 0 or done == stage.steps:
                readings.fetch()
                saves.check()
                terms = readings.means()
                log.write(stage.name, done, "train", {**terms, "steps_per_s": progress.rate()})
                progress.show(terms)
            if signals.asks_to_stop(ticks + done):
                save()
                raise preemption.Stopped
            if save_due(done):
                save()
            if evaluation_due(done):
                evaluate()


def _start(stage: Stage, previous: Any, key: Any, mesh: Mesh) -> tuple[TrainState, Callable, Any]:
    """A stage's first state, its compiled step, and its batches from their start."""
    variables = dict(stage.init(key, previous))
    if "params" not in variables:
        raise ValueError(
            f"init of stage {stage.name!r} gives {sorted(variables)}; expected 'params'"
        )
    params = variables.pop("params")
    mask = parameters.trainable_mask(params, stage.trainable)
    optimizer = parameters.only_trainable(stage.optimizer, mask)
    state = TrainState(np.int32(0), params, variables, jax.jit(optimizer.init)(params), key)
    sizes = [
        (int(np.size(x)), m)
        for x, m in zip(jax.tree.leaves(params), jax.tree.leaves(mask), strict=True)
    ]
    console.say(
        f"{stage.name}: {sum(n for n, _ in sizes):,} parameters, {sum(n * m for n, m in sizes):,} "
        f"trained, {stage.steps} steps on {mesh.devices.size} {mesh.devices.flat[0].device_kind}"
    )
    step = parallel.sharded(make_step(stage.loss, optimizer, mask), mesh)
    return parallel.replicate(state, mesh), step, stage.batches(previous)


def _check_key(stage: Stage, stored: Any, key: Any) -> None:
    if not np.array_equal(parallel.on_host(jax.random.key_data(stored)), jax.random.key_data(key)):
        raise ValueError(
            f"the checkpoint of stage {stage.name!r} was made with another seed: use that one to "
            "go on, or another workdir"
        )


def _evaluated(workdir: pathlib.Path, stage: str, step: int) -> bool:
    rows = run_log.read_metrics(workdir)
    found = any((r["stage"], r["step"], r["kind"]) == (stage, step, "valid") for r in rows)
    return parallel.first_process(lambda: found)


def _shown(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def _score(stage: Stage, evaluate: Callable | None, variables: Any) -> dict[str, float]:
    """Call an evaluation in the first process, on its first device, and check what it returns."""

    def call() -> dict[str, float]:
        metrics = evaluate(parallel.on_one_device(variables)) if evaluate else {}
        return {name: float(value) for name, value in metrics.items()}

    metrics = parallel.first_process(call)
    if evaluate is stage.evaluate:
        lowered_by = stage.plateau.metric if stage.plateau else None
        for what, metric in (("picks its best", stage.best), ("lowers its rate", lowered_by)):
            if metric is not None and metric not in metrics:
                raise ValueError(
                    f"stage {stage.name!r} {what} by {metric!r}, but its evaluate gives "
                    f"{sorted(metrics)}"
                )
    return metrics


def _choose(
    stage: Stage, mesh: Mesh, log: run_log.RunLog, signals: preemption.Signals
) -> tuple[list[int], dict[str, float], list[dict[str, Any]]]:
    """The steps whose mean a stage hands over, their validation, and what was compared: the first that validates best."""
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
                values = _score(stage, stage.evaluate, parallel.replicate(variables, mesh))
        value = values.get(stage.best or "", math.nan)
        tried.append((value if math.isfinite(value) else -math.inf, steps, values))
        compared.append({"steps": steps, stage.best: value if math.isfinite(value) else None})
    _, steps, values = max(tried, key=lambda one: one[0])
    if len(compared) > 1:
        shown = (f"{'+'.join(map(str, c['steps']))}: {c[stage.best]}" for c in compared)
        console.say(f"{name}: {stage.best} of steps {', '.join(shown)}")
    return steps, values, compared if len(compared) > 1 else []


def _finish(stage: Stage, mesh: Mesh, log: run_log.RunLog, signals: preemption.Signals) -> None:
    """Choose what the stage hands over, test it, and mark the stage complete."""
    steps, valid, candidates = _choose(stage, mesh, log, signals)
    step, test = steps[0], {}
    if stage.test is not None:
        variables, _ = restore.load_mean(log.workdir, stage.name, steps)
        run_test, folder = stage.test, log.workdir / stage.name
        with signals.interruptible():
            test = _score(stage, lambda v: run_test(v, folder), parallel.replicate(variables, mesh))
        log.write(stage.name, step, "test", test)
        log.sync()
    metrics = {k: v if math.isfinite(v) else None for k, v in (test or valid).items()}
    if parallel.is_first_process():
        about = {"metrics": metrics, "step": step, "steps": steps}
        text = json.dumps(about | ({"candidates": candidates} if candidates else {}), indent=2)
        atomic.write_text(log.workdir / stage.name / "result.json", text + "\n")
    parallel.barrier("finish")


def _result(workdir: pathlib.Path, stage: str) -> tuple[dict[str, float], list[int]] | None:
    """The metrics of a complete stage and the steps whose mean it hands over; None if it is not complete."""
    path = workdir / stage / "result.json"
    if not path.exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    metrics = {k: math.nan if v is None else v for k, v in result["metrics"].items()}
    return metrics, result.get("steps", [result["step"]])


def run(
    stages: Sequence[Stage],
    workdir: str | os.PathLike,
    key: Any,
    *,
    log_every_steps: int = 50,
    evaluate_every_steps: int = 1000,
    checkpoint_every_steps: int = 1000,
    keep_last: int = 2,
    keep_best: int = 1,
    on_nonfinite: str = "stop",
    devices: Sequence[Any] | None = None,
) -> dict[str, dict[str, float]]:
    """Train every stage that is not complete yet and return {stage: {metric: value}}.

    The same call on the same workdir goes on where the last one ended. After SIGTERM the state is
    saved and SystemExit(0) raised.
    """
    options = _Options(
        log_every_steps,
        evaluate_every_steps,
        checkpoint_every_steps,
        keep_last,
        keep_best,
        on_nonfinite,
    )
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        raise ValueError(f"stages need different names, got {names}")
    for stage in stages:
        check_stage(stage)
        if stage.average > max(1, keep_best if stage.best else 1):
            raise ValueError(
                f"stage {stage.name!r} averages its {stage.average} best checkpoints, but keeps {keep_best if stage.best else 1}: "
                "raise config.train.keep_best, and let the stage choose its best"
            )
    root, mesh = pathlib.Path(workdir).resolve(), parallel.mesh(devices)
    results: dict[str, dict[str, float]] = {}
    previous, ticks = None, 0
    with run_log.RunLog(root) as log, preemption.Signals() as signals:
        try:
            for index, stage in enumerate(stages):
                if _result(root, stage.name) is None:
                    fit(
                        stage,
                        previous,
                        jax.random.fold_in(key, index),
                        index=index,
                        ticks=ticks,
                        mesh=mesh,
                        log=log,
                        signals=signals,
                        options=options,
                    )
                    _finish(stage, mesh, log, signals)
                else:
                    console.say(f"{stage.name}: complete already")
                metrics, steps = _result(root, stage.name) or ({}, [0])
                previous, _ = restore.load_mean(root, stage.name, steps)
                results[stage.name] = metrics
                ticks += stage.steps
                console.say(f"{stage.name}: done at step {steps[0]}  {_shown(metrics)}")
        except preemption.Stopped:
            console.say(
                f"stopped; everything is saved in {root}: run the same command again to go on"
            )
            raise SystemExit(signals.exit_code()) from None
    return results
