"""Orbax checkpoints: save, resume from the newest that is whole, load for use, hand parts over."""

import contextlib
import copy
import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN

from majl_jax import atomic, console, parallel
from majl_jax.training import prefetch, run_log
from majl_jax.training.parameters import Tree, fingerprint
from majl_jax.training.restore import (
    CheckpointError,
    choose_step,
    compare,
    complete_steps,
    ranked,
    read_meta,
)


class _KeepBest:
    """Preserves the checkpoints with the highest finite scores; scores arrive after the save."""

    def __init__(self, scores: Mapping[int, float], count: int):
        self.scores, self.count = scores, count

    def should_preserve(self, checkpoints, *, context):
        del context
        best = ranked(self.scores, [info.step for info in checkpoints])[: self.count]
        return [info.step in best for info in checkpoints]


class Checkpoints:
    """The checkpoints of one stage in `folder`/checkpoints, its input positions in `folder`/input.

    `scores` maps steps to the value of `Stage.best`; its owner adds to it while training goes on.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        keep_last: int,
        keep_best: int = 0,
        scores: Mapping[int, float] | None = None,
    ):
        if keep_last < 1:
            raise ValueError(f"keep_last is {keep_last}; a run needs at least 1 to resume from")
        self.folder = folder
        self.directory = folder / "checkpoints"
        best = _KeepBest({} if scores is None else scores, keep_best)
        self.manager = ocp.CheckpointManager(
            self.directory,
            item_names=("params", "mutables", "rest", "meta"),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy([LatestN(keep_last), best]),
                cleanup_tmp_directories=True,
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, value, trace) -> None:
        try:
            self.wait()
        except CheckpointError:
            if kind is None or not issubclass(kind, Exception):
                raise  # not where it would hide another error
        finally:
            with contextlib.suppress(Exception):
                self.manager.close()

    def steps(self) -> list[int]:
        """The steps that have a complete checkpoint, in order."""
        return sorted(self.manager.all_steps())

    def save(self, state: Any, meta: Mapping[str, Any], position: prefetch.Position) -> None:
        """Start saving a state, and where its input stands, under its step."""
        parts = _parts(state)
        step = int(state.step)
        with self._explain(step):
            prefetch.save_position(self.folder, step, position)
            prints = {name: fingerprint(parallel.on_host(part)) for name, part in parts.items()}
            # A copy: it is written in the background, while its owner goes on changing it.
            meta = copy.deepcopy({**meta, "step": step, "fingerprint": prints})
            self.manager.save(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(part) for name, part in parts.items()},
                    meta=ocp.args.JsonSave(meta),
                ),
                force=True,
            )
        prefetch.forget_positions(self.folder, {*self.manager.all_steps(), step})

    def check(self) -> None:
        """Raise if a save in the background has failed."""
        with self._explain(None):
            self.manager.check_for_errors()

    def wait(self) -> None:
        """Wait for the save in the background, and raise if it failed."""
        with self._explain(None):
            self.manager.wait_until_finished()

    @contextlib.contextmanager
    def _explain(self, step: int | None) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            good = complete_steps(self.directory)
            if parallel.is_first_process():
                for half in self.directory.glob("*.orbax-checkpoint-tmp*"):
                    shutil.rmtree(half, ignore_errors=True)  # gives the space back
            name = "a checkpoint" if step is None else f"the checkpoint of step {step}"
            raise CheckpointError(
                f"could not save {name} in {self.directory}: {_reason(error)}. "
                + (f"Step {good[-1]} is whole. " if good else "There is no earlier one. ")
                + "Check the space and the rights there, then run the same command again."
            ) from error

    def restore(self, state: Tree) -> tuple[Tree, dict[str, Any]] | None:
        """The newest whole checkpoint, placed like `state`, and its meta; None if there is none."""
        damaged: list[tuple[int, str]] = []
        for step in reversed(self.steps()):
            try:
                found, problem = self._restore_step(step, state), ""
            except Exception as error:  # whatever a damaged file makes Orbax raise
                found, problem = None, f"{type(error).__name__}: {str(error).strip()[:300]}"
            if not parallel.any_process(found is None):
                self._set_aside(damaged)
                return found
            damaged.append((step, problem or "damaged for another process"))
        if damaged:
            raise CheckpointError(
                f"none of the checkpoints in {self.directory} can be restored into this model:\n"
                + "\n".join(f"  step {step}: {problem}" for step, problem in damaged)
                + "\nIf the model changed, use another workdir; to start again, remove "
                + str(self.folder)
            )
        return None

    def _restore_step(self, step: int, state: Any) -> tuple[Any, dict[str, Any]]:
        # Checkpoints of before have the mutables in the rest.
        apart = "mutables" in read_meta(self.directory / str(step))["fingerprint"]
        parts = _parts(state, apart=apart)
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, parts)
        found = self.manager.restore(
            step,
            args=ocp.args.Composite(
                **{name: ocp.args.StandardRestore(part) for name, part in target.items()},
                meta=ocp.args.JsonRestore(),
            ),
        )
        meta = found["meta"]
        for name in parts:
            compare(meta["fingerprint"][name], parallel.on_host(found[name]), name)
        rest = {**found["rest"], **{name: found[name] for name in parts if name != "rest"}}
        key = jax.random.wrap_key_data(rest["key"], impl=jax.random.key_impl(state.key))
        return type(state)(**{**rest, "key": key}), meta

    def _set_aside(self, damaged: Sequence[tuple[int, str]]) -> None:
        for step, problem in damaged:
            aside = self.folder / f"damaged-{step}"
            console.say(f"the checkpoint of step {step} is damaged ({problem}): moved to {aside}")
            if parallel.is_first_process():
                shutil.rmtree(aside, ignore_errors=True)
                (self.directory / str(step)).rename(aside)
        if damaged:
            parallel.barrier("set_aside")
            self.manager.reload()


def _reason(error: Exception) -> str:
    """Why a save failed: of what TensorStore says at length, the system's own reason."""
    if isinstance(error, OSError) and error.errno:
        return atomic.reason(error.errno)
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return atomic.reason(int(found[1])) if found else str(error)


def _parts(state: Any, *, apart: bool = True) -> dict[str, Any]:
    """A train state as the parts that are stored apart: a model can be applied without `rest`."""
    rest = {
        "step": state.step,
        "opt_state": state.opt_state,
        "key": jax.random.key_data(state.key),
    }
    # Orbax stores no part without arrays.
    if apart and jax.tree.leaves(state.mutables):
        return {"params": state.params, "mutables": state.mutables, "rest": rest}
    return {"params": state.params, "rest": {**rest, "mutables": state.mutables}}


def candidates(workdir: str | os.PathLike, stage: str, *, average: int = 1) -> list[list[int]]:
    """The steps whose mean a stage may hand over: the best checkpoint, and with `average` > 1 the
    last, and so many best ones.
    """
    root, best = pathlib.Path(workdir), choose_step(workdir, stage, "best")
    directory = root / stage / "checkpoints"
    metric, steps = read_meta(directory / str(best)).get("best"), complete_steps(directory)
    if average == 1 or not metric:
        return [[best]]
    found = [[best], [steps[-1]], ranked(run_log.scores(root, stage, metric), steps)[:average]]
    return [one for number, one in enumerate(found) if one and one not in found[:number]]
