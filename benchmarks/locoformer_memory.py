"""Memory of a step of the band-split TF-Locoformer as XLA plans it, and times of fewer layers.

    python -m benchmarks locoformer_memory --sources=12
    python -m benchmarks locoformer_memory --sources=12 --calls=0    # the plans alone, nothing runs

Sizes, types and rematerialisations: the temporary memory of 6 s (516 frames) and beside it that of
arguments and results, and the time of 2 layers and 1.5 s. Ratios are to the same size in float32
without rematerialisation.
"""

import argparse
import itertools
from typing import Any

from benchmarks import locoformer
from benchmarks.harness import measuring

FULL_FRAMES = 516


def add_options(parser: argparse.ArgumentParser) -> None:
    """The sizes of what is timed."""
    parser.add_argument("--preset", default="small,medium,large", help="one or more")
    for name, size in locoformer.SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--calls", type=int, default=3, help="timed steps, after one; 0: none")


def run(options: argparse.Namespace) -> int:
    """Prints a row per size, type and rematerialisation; the exit status."""
    print(f"batch {options.batch}, {options.sources} outputs, planned for {FULL_FRAMES} frames")
    heads = ["temporary MiB", "ratio", "in and out"]
    if options.calls:
        print(f"times of layers {options.layers}, frames {options.frames}")
        heads += ["step s", "ratio", "CPU s", "ratio"]
    print(" " * 34 + "".join(f"{head:>14}" for head in heads), flush=True)
    for preset in options.preset.split(","):
        base: list[float] = []
        for dtype, remat in itertools.product(("float32", "bfloat16"), ("none", "dots", "full")):
            ends_mib, found = measure(options, preset, dtype, remat)
            base = base or found
            ratios = [mine / first for mine, first in zip(found, base, strict=True)]
            row = f"{found[0]:>14.0f}{ratios[0]:>14.2f}{ends_mib:>14.0f}"
            for mine, ratio in zip(found[1:], ratios[1:], strict=True):
                row += f"{mine:>14.2f}{ratio:>14.2f}"
            print(f"{preset + ', ' + dtype + ', remat ' + remat:<34}{row}", flush=True)
    return 0


def measure(
    options: argparse.Namespace, preset: str, dtype: str, remat: str
) -> tuple[float, list[float]]:
    """MiB of arguments and results; temporary MiB and, if they are wanted, seconds and CPU's."""
    import jax
    import jax.numpy as jnp

    from majl_jax.models.band_split import PRESETS, BandSplitLocoformer

    fields = PRESETS[preset] | {"dtype": jnp.dtype(dtype), "remat": remat}
    planned = compiled_step(BandSplitLocoformer(options.sources, **fields), options.batch)
    memory = planned.memory_analysis()
    ends_mib = (memory.argument_size_in_bytes + memory.output_size_in_bytes) / 2**20
    found = [measuring.planned_mib(planned)]
    if options.calls:
        model = BandSplitLocoformer(options.sources, **fields | {"layers": options.layers})
        step = compiled_step(model, options.batch, options.frames)
        spectrum = jnp.asarray(locoformer.data(options))
        variables = jax.jit(model.init)(jax.random.key(0), spectrum)
        calls = {"step": lambda: jax.block_until_ready(step(variables, spectrum))}
        times = measuring.in_turns(calls, options.calls)["step"]
        found += [times["ms"] / 1e3, times["cpu_ms"] / 1e3]
    return ends_mib, found


def compiled_step(model: Any, batch: int, frames: int = FULL_FRAMES) -> Any:
    """The gradient of a network as a program."""
    import jax
    import jax.numpy as jnp

    spectrum = jax.ShapeDtypeStruct((batch, 2, frames, 1025), jnp.complex64)
    variables = jax.eval_shape(model.init, jax.random.key(0), spectrum)
    return measuring.compiled(locoformer.gradient(model), variables, spectrum)[0]
