"""A stage's training step: compiled, and so many of them timed."""

import dataclasses
import itertools
import resource
import statistics
import time
from typing import Any

import jax
import numpy as np

from benchmarks.harness import measuring
from majl_jax import parallel
from majl_jax.training import stage_run
from majl_jax.training.dry_run import Shapes
from majl_jax.training.stage import Stage


def timed(stage: Stage, steps: int) -> dict[str, Any]:
    """batch, compile_s and planned_mib of the step on all devices; if steps are wanted, step_ms,
    the median after the first, and peak_mib, of the accelerator or else the process.
    """
    mesh, key = parallel.mesh(), jax.random.key(0)
    state, _, step, batches = stage_run.start(stage, None, (key, key), mesh)
    first: Any = next(batches)
    batch, times_s = parallel.split(first, mesh), []
    began = time.perf_counter()
    jitted: Any = step
    compiled = jitted.lower(state, batch).compile()
    found = {"batch": len(first["index"]), "compile_s": time.perf_counter() - began}
    found["planned_mib"] = measuring.planned_mib(compiled)
    for _ in range(1 + steps if steps else 0):
        began = time.perf_counter()
        state, reading = compiled(state, batch)
        jax.block_until_ready((state, reading))
        times_s.append(time.perf_counter() - began)
        batch = parallel.split(next(batches), mesh)
    if times_s:
        found["step_ms"] = 1e3 * statistics.median(times_s[1:])
        of_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found["peak_mib"] = measuring.device_peak_mib() or of_process
    return found


def on_noise(stage: Stage, shapes: Shapes) -> Stage:
    """The stage with one batch of noise of these shapes, again and again."""
    rng, batch = np.random.default_rng(0), {}
    for name, one in shapes.items():
        if one.dtype == np.int16:
            batch[name] = rng.integers(-9999, 9999, one.shape, np.int16)
        else:
            batch[name] = np.ones(one.shape, one.dtype)
    batch["index"] = np.arange(len(batch["index"]), dtype=batch["index"].dtype)
    return dataclasses.replace(stage, batches=lambda previous: itertools.repeat(batch))
