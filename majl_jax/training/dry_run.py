"""A stage's loss and its step on shapes alone: what is wrong with it comes out before training."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from majl_jax import parallel
from majl_jax.training import parameters
from majl_jax.training.stage import Init, Stage
from majl_jax.training.step import TrainState, compiled_step

Shapes = dict[str, jax.ShapeDtypeStruct]


def batch_shapes(
    *,
    examples: int,
    segment_samples: int,
    hop_samples: int,
    stems: int,
    voices: int,
    channels: int = 1,
) -> Shapes:
    """The shapes and types of a batch (batch.py) of segments.

    Args:
        examples: their number on one device.
        segment_samples: samples of a segment, whole hops.
        hop_samples: samples from a label frame to the next.
        stems: places of the stem axis.
        voices: places of the voice axis.
        channels: audio channels.
    """
    frames = segment_samples // hop_samples
    shapes = {
        "stems": ((segment_samples, stems, channels), jnp.int16),
        "has_stems": ((stems,), jnp.bool_),
        "f0_hz": ((frames, voices), jnp.float32),
        "has_pitch": ((frames, voices), jnp.bool_),
        "index": ((), jnp.uint32),
    }
    return {k: jax.ShapeDtypeStruct((examples, *s), dtype) for k, (s, dtype) in shapes.items()}


def trace_init(stage: Stage) -> None:
    """Trace the first variables of a stage, as if none had gone before: what it starts from does
    not fit its network.

    Raises whatever `stage.init` raises.
    """
    jax.eval_shape(lambda key: stage.init(key, None), jax.random.key(0))


def trace_loss(
    stage: Stage,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    *,
    init: Init | None = None,
) -> None:
    """Trace the loss of a stage on a batch of shapes, as one device runs it: no memory, no
    compilation.

    init: what gives the variables in place of `stage.init`, where that reads files. Raises
    whatever the loss raises.
    """
    params, mutables = _variables(stage.init if init is None else init)
    jax.eval_shape(parallel.alone(stage.loss), params, mutables, batch, jax.random.key(0))


def abstract_step(
    stage: Stage, batch: Mapping[str, jax.ShapeDtypeStruct], mesh: Mesh
) -> tuple[Callable, TrainState, Shapes]:
    """The step of a stage by `jax.jit`, and the shapes of the state and the batch it is traced on;
    they take no memory.

    The devices of the mesh need not be there: those of another platform can be lowered for, and
    those of a topology compiled for.

    Args:
        stage: without a stage before it.
        batch: the shapes of a batch of all devices together.
        mesh: what it runs on.
    """
    params, mutables = _variables(stage.init)
    mask = parameters.trainable_mask(params, stage.trainable)
    optimizer, step = compiled_step(stage, mask, mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    count = jax.ShapeDtypeStruct((), jnp.int32)
    state = TrainState(count, params, mutables, jax.eval_shape(optimizer.init, params), key)

    def placed(tree: Any, *axes: str) -> Any:
        where = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree
        )

    return step, placed(state), placed(dict(batch), parallel.AXIS)


def _variables(init: Init) -> tuple[Any, Any]:
    """The shapes of a stage's parameters, and of what it has besides."""
    variables = dict(jax.eval_shape(lambda key: init(key, None), jax.random.key(0)))
    return variables.pop("params"), variables
