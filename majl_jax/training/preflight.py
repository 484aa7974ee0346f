"""What can be known of a training before it begins: a batch read, the step compiled, its memory as
XLA plans it, and the disk that its checkpoints take. Nothing is written.
"""

import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from majl_jax import parallel
from majl_jax.batch import Key
from majl_jax.training import loop, restore
from majl_jax.training.stage import Stage
from majl_jax.training.stage_run import Options, start
from majl_jax.training.step import TrainState


class PreflightError(RuntimeError):
    """The training would fail: memory or disk is not enough."""


def check(
    stages: Sequence[Stage],
    workdir: str | os.PathLike,
    key: Key,
    options: Options,
    *,
    devices: Sequence[Any] | None = None,
) -> Iterator[str]:
    """Yields in lines what was found, of the first stage, be it complete or not; of later ones only
    the steps, for they need what it hands over.

    Raises what its first batch, the loss or the compiler raise, and PreflightError where memory or
    disk is too small.

    Args:
        stages: of the run.
        workdir: its folder, which need not be there.
        key: of its randomness.
        options: how many checkpoints it keeps.
        devices: what it runs on; None: all there are.
    """
    root, mesh = pathlib.Path(workdir).resolve(), parallel.mesh(devices)
    for stage in stages:
        yield f"stage {stage.name}: {stage.steps} steps, {loop.progress(stage, root)}"
    stage = stages[0]
    state, _, step, batches = start(stage, None, (key, jax.random.fold_in(key, 0)), mesh)
    jitted: Any = step
    batch = next(batches)
    shapes = ", ".join(f"{k} {v.dtype}{list(np.shape(v))}" for k, v in sorted(batch.items()))
    placed = parallel.split(batch, mesh)
    yield f"{stage.name}: a batch of this process: {shapes}; {_devices(mesh)}"
    yield _memory(stage, jitted.lower(state, placed).compile(), mesh)
    yield _disk(stages, root, state, options)


def _devices(mesh: Mesh) -> str:
    count, kind = mesh.devices.size, mesh.devices.flat[0].device_kind
    return f"over {count} {kind}" if count > 1 else f"on one {kind}"


def _memory(stage: Stage, compiled: Any, mesh: Mesh) -> str:
    """The memory of a device while a step runs: what goes in, what comes out in other places, and
    what XLA needs in between.
    """
    planned = compiled.memory_analysis()
    if planned is None:
        return f"{stage.name}: the step compiles; XLA does not say how much memory it needs here"
    parts = {
        "state and batch": planned.argument_size_in_bytes,
        "results": planned.output_size_in_bytes - planned.alias_size_in_bytes,
        "in between": planned.temp_size_in_bytes,
        "program": planned.generated_code_size_in_bytes,
    }
    need, there = sum(parts.values()), _bytes_of_device(mesh)
    said = ", ".join(f"{name} {_size(size)}" for name, size in parts.items() if size > 0)
    text = f"{stage.name}: memory of each device, as XLA plans the step: {_size(need)} ({said})"
    if there is None:
        return text
    if need > there:
        raise PreflightError(
            f"{text}, but a device has {_size(there)}: use a smaller batch_size, or bfloat16"
        )
    return f"{text}, of {_size(there)}"


def _bytes_of_device(mesh: Mesh) -> int | None:
    """How much memory a device may use; of a CPU its share of the machine's."""
    local = mesh.local_devices
    stats: Mapping[str, int] = local[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    if local[0].platform != "cpu" or not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(local)


def _disk(stages: Sequence[Stage], root: pathlib.Path, state: TrainState, options: Options) -> str:
    """Checkpoints are a state each; while one is written, one more than is kept."""
    leaves = jax.tree.leaves((state.params, state.mutables, state.opt_state))
    each = sum(leaf.nbytes for leaf in leaves)
    kept = {s.name: options.keep_last + options.keep_best * bool(s.best) for s in stages}
    there = {name: len(restore.complete_steps(root / name / "checkpoints")) for name in kept}
    more = sum(max(0, kept[name] - there[name]) for name in kept) + 1
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    text = (
        f"disk: checkpoints of about {_size(each)}, of which {sum(kept.values())} are kept;"
        f" {_size(more * each)} more than there are, {_size(free)} are free in {place}"
    )
    if more * each > free:
        raise PreflightError(f"{text}: make room, or lower train.keep_last and keep_best")
    return text


def _size(count: float | int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
