"""Finding and loading the checkpoints of a run, without a training state."""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from majl_jax import formats
from majl_jax.training import run_log
from majl_jax.training.parameters import fingerprint


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or none can be read."""


def compare(stored: Mapping[str, int], tree: Any, where: str) -> None:
    changed = [path for path, crc in fingerprint(tree).items() if stored.get(path) != crc]
    if changed:
        raise CheckpointError(
            f"{where}: {len(changed)} arrays differ from what was saved, first {changed[0]!r}"
        )


def ranked(scores: Mapping[int, float], steps: Sequence[int]) -> list[int]:
    """Steps with a finite score, best first, the earlier of two equal ones first."""
    scored = [s for s in steps if s in scores and math.isfinite(scores[s])]
    return sorted(scored, key=lambda s: (-scores[s], s))


def complete_steps(directory: pathlib.Path) -> list[int]:
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


def read_meta(directory: pathlib.Path) -> dict[str, Any]:
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
        if steps := complete_steps(folder):
            found[read_meta(folder / str(steps[-1]))["stage_index"]] = folder.parent.name
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
    steps = complete_steps(directory)
    if not steps:
        stages = sorted(p.parent.name for p in root.glob("*/checkpoints"))
        raise CheckpointError(f"no checkpoint of stage {stage!r} in {root}; stages there: {stages}")
    key = read_meta(directory / str(steps[-1])).get("best") if which == "best" else None
    best_first = ranked(run_log.scores(root, stage, key), steps) if key else []
    return best_first[0] if best_first else steps[-1]


def load_variables(
    workdir: str | os.PathLike, stage: str | None = None, which: str = "best"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Model variables (NumPy) and meta of a checkpoint: the last stage's best unless told.

    "best" is what a complete stage hands over, which may be the mean of several. Of a stage that
    is not complete, or has no metric to choose by, it is the checkpoint of `choose_step`.
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
    """The steps whose mean a complete stage hands over, as its result.json says; otherwise the
    best one.
    """
    folder = pathlib.Path(workdir) / stage
    path = folder / "result.json"
    steps = formats.read(path, formats.RUN).get("steps", []) if path.exists() else []
    if steps and set(steps) <= set(complete_steps(folder / "checkpoints")):
        return steps
    return [choose_step(workdir, stage, "best")]


def load_mean(
    workdir: str | os.PathLike, stage: str, steps: Sequence[int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The mean of the parameters and of the statistics of checkpoints; what is no float, and the
    meta, are the first one's.
    """
    variables, meta = load_step(workdir, stage, steps[0])
    others = [load_step(workdir, stage, step)[0] for step in steps[1:]]

    def mean(leaf: np.ndarray, *more: np.ndarray) -> np.ndarray:
        if not jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating):
            return leaf
        total = sum((x.astype(np.float64) for x in more), leaf.astype(np.float64))
        return np.asarray(total / len(steps), leaf.dtype)

    return jax.tree.map(mean, variables, *others) if others else variables, meta


def load_step(
    workdir: str | os.PathLike, stage: str, step: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Model variables (NumPy) and the meta of one checkpoint, whose `rest` is not needed."""
    directory = pathlib.Path(workdir).resolve() / stage / "checkpoints" / str(step)
    meta = read_meta(directory)
    prints = meta["fingerprint"]
    with _naming_damage(directory):
        params = _read_numpy(directory / "params")
        compare(prints["params"], params, "params")
        mutables = {}
        if "mutables" in prints:
            mutables = _read_numpy(directory / "mutables")
            compare(prints["mutables"], mutables, "mutables")
        elif any(path.startswith("mutables/") for path in prints["rest"]):
            # As checkpoints had them before.
            found = _read_numpy(directory / "rest", only="mutables")
            compare(prints["rest"], found, "rest")
            mutables = found["mutables"]
    return {"params": params, **mutables}, meta
