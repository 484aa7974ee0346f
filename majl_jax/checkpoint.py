"""Orbax checkpoints: save, resume from the newest that is whole, load for use, hand parts over."""

import contextlib
import copy
import json
import math
import os
import pathlib
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN

from majl_jax import console, feed, logs, optimize, parallel

Tree = TypeVar("Tree")


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or none can be read."""


def fingerprint(tree: Any) -> dict[str, int]:
    """The CRC-32 of every leaf's bytes, by path: any single flipped bit changes it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        optimize.path_of(path): zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data)
        if np.ndim(leaf)
        else zlib.crc32(np.asarray(leaf).tobytes())
        for path, leaf in leaves
    }


def _compare(stored: Mapping[str, int], tree: Any, where: str) -> None:
    changed = [path for path, crc in fingerprint(tree).items() if stored.get(path) != crc]
    if changed:
        raise CheckpointError(
            f"{where}: {len(changed)} arrays differ from what was saved, first {changed[0]!r}"
        )


class _KeepBest:
    """Preserves the checkpoints with the highest finite scores; scores arrive after the save."""

    def __init__(self, scores: Mapping[int, float], count: int):
        self.scores, self.count = scores, count

    def should_preserve(self, checkpoints, *, context):
        del context
        ranked = _ranked(self.scores, [info.step for info in checkpoints])[: self.count]
        return [info.step in ranked for info in checkpoints]


def _ranked(scores: Mapping[int, float], steps: Sequence[int]) -> list[int]:
    """Steps with a finite score, best first, the earlier of two equal ones first."""
    scored = [s for s in steps if s in scores and math.isfinite(scores[s])]
    return sorted(scored, key=lambda s: (-scores[s], s))


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
            item_names=("params", "rest", "meta"),
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

    def save(self, state: Any, meta: Mapping[str, Any], position: feed.Position) -> None:
        """Start saving a state, and where its input stands, under its step."""
        parts = _parts(state)
        step = int(state.step)
        with self._explain(step):
            feed.save_position(self.folder, step, position)
            prints = {name: fingerprint(parallel.on_host(part)) for name, part in parts.items()}
            # A copy: it is written in the background, while its owner goes on changing it.
            meta = copy.deepcopy({**meta, "step": step, "fingerprint": prints})
            self.manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(parts["params"]),
                    rest=ocp.args.StandardSave(parts["rest"]),
                    meta=ocp.args.JsonSave(meta),
                ),
                force=True,
            )
        feed.forget_positions(self.folder, {*self.manager.all_steps(), step})

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
            good = _complete_steps(self.directory)
            if parallel.is_first_process():
                for half in self.directory.glob("*.orbax-checkpoint-tmp*"):
                    shutil.rmtree(half, ignore_errors=True)  # gives the space back
            name = "a checkpoint" if step is None else f"the checkpoint of step {step}"
            raise CheckpointError(
                f"could not save {name} in {self.directory}: {error}. "
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
        parts = _parts(state)
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, parts)
        found = self.manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(target["params"]),
                rest=ocp.args.StandardRestore(target["rest"]),
                meta=ocp.args.JsonRestore(),
            ),
        )
        meta = found["meta"]
        for name in parts:
            _compare(meta["fingerprint"][name], parallel.on_host(found[name]), name)
        rest = found["rest"]
        key = jax.random.wrap_key_data(rest["key"], impl=jax.random.key_impl(state.key))
        return type(state)(**{**rest, "params": found["params"], "key": key}), meta

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


def _parts(state: Any) -> dict[str, Any]:
    """A train state as the parts that are stored apart."""
    rest = {
        "step": state.step,
        "mutables": state.mutables,
        "opt_state": state.opt_state,
        "key": jax.random.key_data(state.key),
    }
    return {"params": state.params, "rest": rest}


def _complete_steps(directory: pathlib.Path) -> list[int]:
    """The steps that Orbax has committed (it renames a finished checkpoint to its number)."""
    if not directory.is_dir():
        return []
    return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit() and p.is_dir())


def _read_numpy(path: pathlib.Path, only: str | None = None) -> Any:
    """A stored part as NumPy arrays, on any number of devices; `only` picks one of its keys."""
    handler, folder = ocp.PyTreeCheckpointHandler(), epath.Path(path)
    shapes = handler.metadata(folder).tree
    shapes = shapes if only is None else {only: shapes[only]}
    how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
    args = ocp.args.PyTreeRestore(item=shapes, restore_args=how, partial_restore=only is not None)
    return handler.restore(folder, args=args)


def _read_meta(directory: pathlib.Path) -> dict[str, Any]:
    with _naming_damage(directory):
        return json.loads((directory / "meta" / "metadata").read_text(encoding="utf-8"))


@contextlib.contextmanager
def _naming_damage(directory: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a damaged file makes Orbax raise
        raise CheckpointError(
            f"the checkpoint {directory} is damaged ({type(error).__name__}: {error}). Remove "
            f"it and {directory.parents[1] / 'result.json'} if there is one, and run the training "
            "command again to make it anew from the one before"
        ) from error


def _newest_stage(workdir: pathlib.Path) -> str:
    """The last stage of a run that has a checkpoint."""
    found = {}
    for folder in sorted(workdir.glob("*/checkpoints")):
        if steps := _complete_steps(folder):
            found[_read_meta(folder / str(steps[-1]))["stage_index"]] = folder.parent.name
    if not found:
        raise CheckpointError(
            f"{workdir} holds no checkpoint: expected {workdir}/<stage>/checkpoints/<step>. "
            "Give the folder that was --workdir in training"
        )
    return found[max(found)]


def choose_step(workdir: str | os.PathLike, stage: str, which: str) -> int:
    """The step of a stage's last checkpoint, or of its best: the highest finite `Stage.best`."""
    if which not in ("best", "last"):
        raise ValueError(f"which is {which!r}; expected 'best' or 'last'")
    root = pathlib.Path(workdir)
    directory = root / stage / "checkpoints"
    steps = _complete_steps(directory)
    if not steps:
        stages = sorted(p.parent.name for p in root.glob("*/checkpoints"))
        raise CheckpointError(f"no checkpoint of stage {stage!r} in {root}; stages there: {stages}")
    key = _read_meta(directory / str(steps[-1])).get("best") if which == "best" else None
    ranked = _ranked(logs.scores(root, stage, key), steps) if key else []
    return ranked[0] if ranked else steps[-1]


def load_variables(
    workdir: str | os.PathLike, stage: str | None = None, which: str = "best"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Model variables (NumPy) and meta of a checkpoint: the last stage's best unless told.

    "best" is the last one if the stage names no metric to choose by, or no value was finite; the
    mean of the best if the stage has an `average` above 1.
    """
    root = pathlib.Path(workdir).resolve()
    if not root.is_dir():
        raise CheckpointError(
            f"there is no run directory {root}: give the --workdir of a training run"
        )
    stage = _newest_stage(root) if stage is None else stage
    if which == "best":
        return load_mean(root, stage, best_steps(root, stage))
    return load_step(root, stage, choose_step(root, stage, which))


def best_steps(workdir: str | os.PathLike, stage: str) -> list[int]:
    """The steps whose mean the stage hands over, best first: one, or the `average` of the stage."""
    directory = pathlib.Path(workdir) / stage / "checkpoints"
    best = choose_step(workdir, stage, "best")
    meta = _read_meta(directory / str(best))
    scores = logs.scores(pathlib.Path(workdir), stage, meta["best"]) if meta["best"] else {}
    ranked = _ranked(scores, _complete_steps(directory))
    return ranked[: meta.get("average", 1)] or [best]


def load_mean(
    workdir: str | os.PathLike, stage: str, steps: Sequence[int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The mean of the parameters of checkpoints, the other variables and the meta of the first."""
    variables, meta = load_step(workdir, stage, steps[0])
    others = [load_step(workdir, stage, step)[0]["params"] for step in steps[1:]]

    def mean(leaf: np.ndarray, *more: np.ndarray) -> np.ndarray:
        total = sum((x.astype(np.float64) for x in more), leaf.astype(np.float64))
        return np.asarray(total / len(steps), leaf.dtype)

    if others:
        variables["params"] = jax.tree.map(mean, variables["params"], *others)
    return variables, meta


def load_step(
    workdir: str | os.PathLike, stage: str, step: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Model variables (NumPy) and the meta of one checkpoint."""
    directory = pathlib.Path(workdir).resolve() / stage / "checkpoints" / str(step)
    meta = _read_meta(directory)
    with _naming_damage(directory):
        params = _read_numpy(directory / "params")
        mutables = _read_numpy(directory / "rest", only="mutables")
        _compare(meta["fingerprint"]["params"], params, "params")
        _compare(meta["fingerprint"]["rest"], mutables, "rest")
    return {"params": params, **mutables["mutables"]}, meta


def hand_over(
    target: Tree, source: Mapping[str, Any], rules: Sequence[tuple[str, str | None]]
) -> Tree:
    """Fill `target` leaf by leaf from `source` by rules (pattern of a target path, source path).

    The first matching rule decides: the source path may use groups of the pattern, e.g.
    ("params/encoder/(.*)", r"params/body/\\1"); None instead of it keeps the fresh value. Every
    leaf needs a rule, every rule a leaf, every source path an array of the same shape; anything
    else is an error.
    """
    stored = {optimize.path_of(p): v for p, v in jax.tree_util.tree_leaves_with_path(source)}
    unused = {pattern for pattern, _ in rules}

    def fill(key_path, leaf):
        path = optimize.path_of(key_path)
        for pattern, replacement in rules:
            match = re.fullmatch(pattern, path)
            if match is None:
                continue
            unused.discard(pattern)
            if replacement is None:
                return leaf
            name = match.expand(replacement)
            if name not in stored:
                raise ValueError(
                    f"hand-over: {path!r} should come from {name!r}, which the source does not "
                    f"have; it has {sorted(stored)[:20]}"
                )
            if np.shape(stored[name]) != np.shape(leaf):
                raise ValueError(
                    f"hand-over: {path!r} has shape {np.shape(leaf)}, but {name!r} in the source "
                    f"has {np.shape(stored[name])}"
                )
            return np.asarray(stored[name], dtype=leaf.dtype)
        raise ValueError(f"hand-over: no rule fills {path!r}; add one (None keeps the fresh value)")

    filled = jax.tree_util.tree_map_with_path(fill, target)
    if unused:
        raise ValueError(f"hand-over: rules that match nothing: {sorted(unused)}")
    return filled
