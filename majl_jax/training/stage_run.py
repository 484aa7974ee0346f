"""A stage while it is trained: its state, its checkpoints, its validations and when they are
due.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from majl_jax import console, parallel
from majl_jax.batch import Key, Variables
from majl_jax.training import checkpoint, parameters, preemption, prefetch, restore, run_log
from majl_jax.training import optimizer as training_optimizer
from majl_jax.training.stage import Evaluate, Previous, Stage
from majl_jax.training.step import Step, TrainState, compiled_step
from majl_jax.training.step_metrics import StepMetrics


@dataclasses.dataclass(frozen=True)
class Options:
    """How often a run logs, evaluates and saves, and what it keeps."""

    log_every_steps: int = 50
    evaluate_every_steps: int = 1000
    checkpoint_every_steps: int = 1000
    keep_last: int = 2
    """Checkpoints to resume from."""
    keep_best: int = 1
    """Checkpoints with the best scores, to hand over."""
    on_nonfinite: str = "stop"
    """What a step does whose loss, gradient, update or statistics are not finite: "stop" or
    "skip".
    """
    evaluated_with: str = ""
    """A mark of what evaluations are made with: under another one they are made again."""
    tracker: run_log.Tracker | None = None
    """Is told all that goes into metrics.jsonl, by the first process."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_steps") and value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
        if self.keep_best < 1 or self.keep_last < 1:
            raise ValueError(
                "keep_last and keep_best are at least 1: one to resume from, one to hand over"
            )
        if self.on_nonfinite not in ("stop", "skip"):
            raise ValueError(f"on_nonfinite is {self.on_nonfinite!r}; expected 'stop' or 'skip'")


@dataclasses.dataclass(frozen=True)
class Run:
    """What all stages of a run share."""

    mesh: Mesh
    log: run_log.RunLog
    preemption: preemption.Preemption
    options: Options


class StageRun:
    """The state of a stage, and all that happens to it but the steps."""

    def __init__(
        self,
        stage: Stage,
        index: int,
        run: Run,
        state: TrainState,
        optimizer: optax.GradientTransformation,
    ):
        self.stage, self.index, self.run, self.state = stage, index, run, state
        self.done, self._saved, self._evaluated = 0, -1, False
        self.folder = run.log.workdir / stage.name
        self._optimizer = optimizer
        self._scores = self._validations(stage.best)
        self._watched = self._validations(stage.plateau.metric if stage.plateau else None)
        self._checkpoints = checkpoint.Checkpoints(
            self.folder,
            keep_last=run.options.keep_last,
            keep_best=run.options.keep_best if stage.best else 0,
            scores=self._scores,
        )
        self.metrics = self._step_metrics({})

    def __enter__(self) -> "StageRun":
        self._checkpoints.__enter__()
        return self

    def __exit__(self, *raised) -> None:
        self._checkpoints.__exit__(*raised)

    def _validations(self, metric: str | None) -> dict[int, float]:
        """{step: value} of the log, as evaluations are made now."""
        if metric is None:
            return {}
        log, found = self.run.log, {}
        for row in run_log.validations(log.workdir, self.stage.name):
            if not log.is_superseded(row):
                found[row["step"]] = math.nan if row.get(metric) is None else row[metric]
            elif self.stage.plateau:
                raise ValueError(
                    f"stage {self.stage.name!r} lowers its learning rate by its validations, which"
                    " were made with other settings: go on with those, or use another workdir"
                )
        return found

    def _step_metrics(self, carried: Mapping[str, Any]) -> StepMetrics:
        skip = self.run.options.on_nonfinite == "skip"
        return StepMetrics(self.stage.name, skip=skip, carried=carried)

    def evaluation_due(self, done: int) -> bool:
        """Whether the stage is evaluated after so many steps."""
        due = done == self.stage.steps or done % self.run.options.evaluate_every_steps == 0
        return due and self.stage.evaluate is not None

    def save_due(self, done: int) -> bool:
        """Whether the state is saved after so many steps.

        Before every evaluation as well: whatever happens there, nothing is lost.
        """
        due = done == self.stage.steps or done % self.run.options.checkpoint_every_steps == 0
        return due or self.evaluation_due(done)

    def resume(self, key: Key, batches: Iterator[Mapping[str, Any]]) -> None:
        """Go to the newest checkpoint, if there is one, the batches as well."""
        if (found := self._checkpoints.restore(self.state)) is not None:
            self.state, meta = found
            self._check_key(key)
            self.done = self._saved = int(self.state.step)
            self.metrics = self._step_metrics(meta["carried"])
            console.say(f"{self.stage.name}: going on from step {self.done}")
            if meta.get("steps", self.stage.steps) != self.stage.steps:
                self._say_steps(meta["steps"])
            with self.run.preemption.interruptible():
                position = prefetch.load_position(self.folder, self.done)
                prefetch.restore_position(batches, *position)
        self.run.log.begin(self.stage.name, self.done)
        for validations in (self._scores, self._watched):
            for late in [seen for seen in validations if seen > self.done]:
                del validations[late]
        self._lower_rate()

    def _say_steps(self, before: int) -> None:
        """What it means that the stage has another number of steps than when it was saved."""
        name, steps = self.stage.name, self.stage.steps
        console.say(f"{name}: it has {steps} steps now, before it had {before}")
        was = training_optimizer.step_metrics(self.state.opt_state).get("learning_rate")
        now = training_optimizer.rate_of_last_update(
            self._optimizer, self.state.params, self.state.opt_state
        )
        if was is not None and now is not None and not math.isclose(was, now, rel_tol=1e-5):
            console.say(
                f"{name}: its learning rate depends on their number. At step {self.done} it was"
                f" {float(was):.4g} and would have been {now:.4g}: from here on it follows the new"
                f" schedule, and this is not what {steps} steps from the start would have learned"
            )

    def _check_key(self, key: Key) -> None:
        stored = parallel.on_host(jax.random.key_data(self.state.key))
        if not np.array_equal(stored, jax.random.key_data(key)):
            raise ValueError(
                f"the checkpoint of stage {self.stage.name!r} was made with another seed: use that "
                "one to go on, or another workdir"
            )

    def save(self, position: prefetch.Position) -> None:
        """Start saving the state and where its input stands, unless that is done."""
        if self.done == self._saved:
            return
        self.metrics.fetch()
        self.run.log.sync()
        about = {
            "stage": self.stage.name,
            "stage_index": self.index,
            "steps": self.stage.steps,
            "best": self.stage.best,
            "average": self.stage.average,
            "carried": self.metrics.carried(),
        }
        self._checkpoints.save(self.state, about, position)
        self._saved = self.done

    def log_means(self, progress: console.Progress) -> None:
        """Write the means of the steps since the last line, and show them."""
        self.metrics.fetch()
        self._checkpoints.check()
        terms = self.metrics.means()
        values = {**terms, "steps_per_s": progress.rate()}
        self.run.log.write(self.stage.name, self.done, "train", values)
        progress.show(terms)

    def evaluate_missed(self) -> None:
        """Score the checkpoints that have no validation, or none as they are made now.

        The run before was stopped between a checkpoint and its evaluation, or evaluated in another
        way.
        """
        root, name = self.run.log.workdir, self.stage.name
        for step in self._checkpoints.steps():
            if not (0 < step <= self.done and self.evaluation_due(step)):
                continue
            if self._was_evaluated(step):
                continue
            if step == self.done:
                self.evaluate()
                continue
            variables, _ = restore.load_step(root, name, step)
            self._validate(step, parallel.replicate(variables, self.run.mesh))

    def _was_evaluated(self, step: int) -> bool:
        """Whether the log has a validation of this step."""
        log, name = self.run.log, self.stage.name
        rows = run_log.validations(log.workdir, name)
        found = any(row["step"] == step and not log.is_superseded(row) for row in rows)
        return parallel.first_process(lambda: found)

    def evaluate(self) -> None:
        """Score the state on the validation split, and lower the learning rate if that asks for
        it.
        """
        self._validate(self.done, {"params": self.state.params, **self.state.mutables})

    def _validate(self, step: int, variables: Variables) -> None:
        stage = self.stage
        if not self._evaluated:
            console.say(f"{stage.name}: compiling the first validation …")
            self._evaluated = True
        with self.run.preemption.interruptible():
            metrics = score(stage, stage.evaluate, variables)
        self.run.log.write(stage.name, step, "valid", metrics)
        if stage.best:
            self._scores[step] = metrics[stage.best]
        if stage.plateau:
            self._watched[step] = metrics[stage.plateau.metric]
            self._lower_rate()
        console.say(f"{stage.name} {step}/{stage.steps}  valid  {shown(metrics)}")

    def _lower_rate(self) -> None:
        """To the learning rate that the validations up to here call for."""
        if self.stage.plateau is None or not self._watched:
            return
        watched = [self._watched[seen] for seen in sorted(self._watched)]
        factor = np.float32(self.stage.plateau.rate_factor(watched))
        factor = parallel.replicate(factor, self.run.mesh)
        opt_state = training_optimizer.at_plateau(self.state.opt_state, factor)
        self.state = dataclasses.replace(self.state, opt_state=opt_state)


def start(
    stage: Stage, previous: Previous, keys: tuple[Key, Key], mesh: Mesh
) -> tuple[TrainState, optax.GradientTransformation, Step, Iterator[Mapping[str, Any]]]:
    """A stage's first state, the optimiser of what is trained, the compiled step, and the batches
    from their start.

    Its first parameters come from the first of `keys`, the run's, whatever stages came before: with
    one seed, equal networks start alike in all stages and runs, so that what they reach can be
    compared pair by pair. The second is that of its steps.
    """
    run_key, step_key = keys
    variables = dict(stage.init(jax.random.fold_in(run_key, 0), previous))
    if "params" not in variables:
        raise ValueError(
            f"init of stage {stage.name!r} gives {sorted(variables)}; expected 'params'"
        )
    params = variables.pop("params")
    mask = parameters.trainable_mask(params, stage.trainable)
    optimizer, step = compiled_step(stage, mask, mesh)
    state = TrainState(np.int32(0), params, variables, jax.jit(optimizer.init)(params), step_key)
    leaves = zip(jax.tree.leaves(params), jax.tree.leaves(mask), strict=True)
    sizes = [(int(np.size(leaf)), trained) for leaf, trained in leaves]
    console.say(
        f"{stage.name}: {sum(n for n, _ in sizes):,} parameters, {sum(n * m for n, m in sizes):,} "
        f"trained, {stage.steps} steps on {mesh.devices.size} {mesh.devices.flat[0].device_kind}"
    )
    return parallel.replicate(state, mesh), optimizer, step, stage.batches(previous)


def score(stage: Stage, evaluate: Evaluate | None, variables: Variables) -> dict[str, float]:
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


def shown(metrics: Mapping[str, float]) -> str:
    """Metrics in a line."""
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
