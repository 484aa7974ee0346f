"""Memory and time of the deep clustering loss and the embedding layer: whole, checkpointed, and in chunks of frames.

    python benchmarks/clustering_loss.py
    python benchmarks/clustering_loss.py --calls=0                 # the plans alone, nothing runs

Linear layer, sigmoid, loss, and the gradients of parameters and input. Planned is what XLA says that a step takes beside
its arguments and outputs; at full size (24 excerpts of 10 s, as in the paper) it is compiled and never run. Times are
medians at a smaller size, all forms in turns, and their ratios to the whole form. Returns 1 where values or gradients disagree.
"""

import argparse
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from majl_jax.losses import clustering

FREQUENCIES, DIMENSIONS, SOURCES, HIDDEN = 257, 20, 2, 1000
FULL = (24, 1251)  # examples, frames
FORMS = {"whole": None, "checkpointed": None, "example": 1, "1/3 example": 3, "1/9 example": 9}
TOLERANCE = 1e-5


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=2, help="examples of the size that runs")
    parser.add_argument("--frames", type=int, default=315)
    parser.add_argument("--calls", type=int, default=5, help="timed steps per form, after one")
    options = parser.parse_args()
    planned = {name: plan(name, *FULL) / 2**20 for name in FORMS}
    times, errors = run(options) if options.calls else ({}, {})
    print(f"{'':<14}{'planned MiB':>12}{'ratio':>7}{'step ms':>9}{'ratio':>7}  value, gradients")
    for name in FORMS:
        row = f"{name:<14}{planned[name]:>12.0f}{planned[name] / planned['whole']:>7.2f}"
        if times:
            row += f"{times[name]:>9.0f}{times[name] / times['whole']:>7.2f}"
            row += "".join(f"  {error:.0e}" for error in errors[name])
        print(row, flush=True)
    return int(max((max(found) for found in errors.values()), default=0.0) > TOLERANCE)


def gradient_of(name: str, frames: int):
    """The value and the gradients of one form, compiled: a function of (params, hidden, mixture, sources)."""

    def embed(params, hidden):
        values = jax.nn.sigmoid(hidden @ params["kernel"] + params["bias"])
        return values.reshape(*hidden.shape[:2], FREQUENCIES, DIMENSIONS)

    def loss(params, hidden, mixture, sources):
        y = clustering.ideal_binary_assignment(sources)
        w = clustering.magnitude_weights(mixture)
        if parts := FORMS[name]:
            grams = clustering.chunked_grams(
                lambda part: embed(params, part), hidden, y, w, chunk_frames=-(-frames // parts)
            )
        else:
            grams = clustering.grams(embed(params, hidden), y, w)
        return clustering.deep_clustering(grams).mean()

    if name == "checkpointed":
        loss = jax.checkpoint(loss)
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


def shapes(batch: int, frames: int) -> tuple:
    """(params, hidden, mixture, sources) as shapes."""
    params = {"kernel": (HIDDEN, FREQUENCIES * DIMENSIONS), "bias": (FREQUENCIES * DIMENSIONS,)}
    points = (batch, frames, FREQUENCIES)
    sizes = (params, (batch, frames, HIDDEN), points, (*points, SOURCES))
    return jax.tree.map(
        lambda size: jax.ShapeDtypeStruct(size, jnp.float32),
        sizes,
        is_leaf=lambda x: isinstance(x, tuple) and isinstance(x[0], int),
    )


def plan(name: str, batch: int, frames: int) -> int:
    """Bytes beside arguments and outputs."""
    step = gradient_of(name, frames).lower(*shapes(batch, frames)).compile()
    analysis = step.memory_analysis()
    if analysis is None:
        raise RuntimeError(f"XLA plans no memory on {jax.default_backend()}; run on the CPU.")
    return analysis.temp_size_in_bytes


def run(options: argparse.Namespace) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Milliseconds per form, and how far value and gradients are from the whole form, as relative norms."""
    rng = np.random.default_rng(0)
    params, *data = jax.tree.map(
        lambda x: jnp.asarray(rng.standard_normal(x.shape, np.float32)),
        shapes(options.batch, options.frames),
    )
    params = jax.tree.map(lambda x: x * np.float32(HIDDEN**-0.5), params)
    data = [data[0], *(jnp.abs(x) for x in data[1:])]
    steps = {name: gradient_of(name, options.frames) for name in FORMS}
    results = {
        name: jax.tree.leaves(jax.block_until_ready(f(params, *data))) for name, f in steps.items()
    }
    times: dict[str, list[float]] = {name: [] for name in FORMS}
    for _ in range(options.calls):
        for name, step in steps.items():
            start = time.perf_counter()
            jax.block_until_ready(step(params, *data))
            times[name].append((time.perf_counter() - start) * 1e3)
    errors = {
        name: [
            float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))
            for a, b in zip(found, results["whole"], strict=True)
        ]
        for name, found in results.items()
    }
    return {name: statistics.median(values) for name, values in times.items()}, errors


if __name__ == "__main__":
    sys.exit(main())
