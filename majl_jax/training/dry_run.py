"""A stage's loss traced on shapes alone: what is wrong with it comes out before training."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from majl_jax import parallel
from majl_jax.training.stage import Init, Stage

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
    make = stage.init if init is None else init
    variables = dict(jax.eval_shape(lambda key: make(key, None), jax.random.key(0)))
    params = variables.pop("params")
    jax.eval_shape(parallel.alone(stage.loss), params, variables, batch, jax.random.key(0))
