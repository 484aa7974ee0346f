"""Time and memory of MixIT's search over all 2^N assignments: by the Gram matrix against making every sum of outputs.

    python benchmarks/mixit_loss.py
    python benchmarks/mixit_loss.py --calls=0                 # the plans alone, nothing runs

The loss and its gradient for the estimates. Planned is what XLA says that a step takes beside its arguments and outputs; at full
size (16 stereo mixtures of 6 s at 44.1 kHz, as in the paper) it is compiled and never run. Times are medians at a smaller
size, all forms in turns. Ratios are to the Gram form. Returns 1 where a search finds another loss or gradient.
"""

import argparse
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from majl_jax.losses import mixit

FULL = (16, 6 * 44100)  # examples, samples
OUTPUTS = {8: 8820, 12: 1764}  # and the samples of an example of the size that runs
FORMS = ("gram", "every sum", "one by one", "least squares")
TOLERANCE = 1e-4


def main() -> int:
    """Prints a table for each number of outputs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=2, help="examples of the size that runs")
    parser.add_argument("--calls", type=int, default=5, help="timed steps per form, after one")
    options = parser.parse_args()
    worst = 0.0
    for outputs, samples in OUTPUTS.items():
        planned = {form: plan(form, outputs, *FULL) / 2**20 for form in FORMS}
        times, errors = {}, {}
        if options.calls:
            times, errors = run(outputs, options.batch, samples, options.calls)
        print(f"{outputs} outputs, {options.batch} x {samples} samples in time", flush=True)
        print(f"{'':<14}{'planned MiB':>12}{'ratio':>8}{'step ms':>9}{'ratio':>7}  loss, gradient")
        for form in FORMS:
            row = f"{form:<14}{planned[form]:>12.0f}{planned[form] / planned['gram']:>8.2f}"
            if times:
                row += f"{times[form]:>9.1f}{times[form] / times['gram']:>7.2f}"
                row += "".join(f"  {error:.0e}" for error in errors[form])
            print(row, flush=True)
        # Least squares may choose otherwise.
        searches = [max(found) for form, found in errors.items() if form != "least squares"]
        worst = max([worst, *searches])
    return int(worst > TOLERANCE)


def gradient_of(form: str):
    """The value and gradient of one form, compiled: a function of (estimates, mixtures)."""

    def loss(estimates, mixtures):
        if form in ("gram", "least squares"):
            assignment = "exhaustive" if form == "gram" else "least_squares"
            return mixit.mixit(estimates, mixtures, assignment=assignment)[0].mean()
        if form == "every sum":
            return of_choices(estimates, mixtures, choices(estimates)).min(axis=1).mean()
        fixed = jax.lax.stop_gradient((estimates, mixtures))
        losses = jax.lax.map(
            lambda choice: of_choices(*fixed, choice[None])[:, 0], choices(estimates)
        )
        chosen = choices(estimates)[jnp.argmin(losses, axis=0)]
        return mixit.thresholded_neg_snr(mixit.assigned_sums(estimates, chosen), mixtures).mean()

    return jax.jit(jax.value_and_grad(loss))


def choices(estimates) -> jax.Array:
    """The mixture of each output, [choice, output]."""
    outputs = estimates.shape[2]
    return (jnp.arange(2**outputs)[:, None] >> jnp.arange(outputs)) & 1


def of_choices(estimates, mixtures, chosen):
    """The losses [batch, choice], from the sums [batch, time, choice, mixture, channel]."""
    to_mixture = jax.nn.one_hot(chosen, 2)
    precision = jax.lax.Precision.HIGHEST
    sums = jnp.einsum("btnc,knm->btkmc", estimates, to_mixture, precision=precision)
    references = jnp.broadcast_to(mixtures[:, :, None], sums.shape)
    return mixit.thresholded_neg_snr(sums, references).mean(axis=(2, 3))


def shapes(outputs: int, batch: int, samples: int) -> tuple:
    """(estimates, mixtures) as shapes."""
    sizes = (batch, samples, outputs, 2), (batch, samples, 2, 2)
    return tuple(jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes)


def plan(form: str, outputs: int, batch: int, samples: int) -> int:
    """Bytes beside arguments and outputs."""
    step = gradient_of(form).lower(*shapes(outputs, batch, samples)).compile()
    analysis = step.memory_analysis()
    if analysis is None:
        raise RuntimeError(f"XLA plans no memory on {jax.default_backend()}; run on the CPU.")
    return analysis.temp_size_in_bytes


def run(outputs: int, batch: int, samples: int, calls: int) -> tuple[dict, dict]:
    """Milliseconds per form, and how far value and gradient are from every sum's, as relative norms."""
    rng = np.random.default_rng(0)
    sources = rng.standard_normal((batch, samples, outputs, 2), np.float32)
    sides = rng.integers(0, 2, (batch, outputs))
    mixtures = mixit.assigned_sums(jnp.asarray(sources), jnp.asarray(sides))
    leak = 0.3 * rng.standard_normal((outputs, outputs)).astype(np.float32)
    estimates = jnp.asarray(sources + np.einsum("btnc,nl->btlc", sources, leak))
    steps = {form: gradient_of(form) for form in FORMS}
    results = {f: jax.block_until_ready(step(estimates, mixtures)) for f, step in steps.items()}
    times: dict[str, list[float]] = {form: [] for form in FORMS}
    for _ in range(calls):
        for form, step in steps.items():
            start = time.perf_counter()
            jax.block_until_ready(step(estimates, mixtures))
            times[form].append((time.perf_counter() - start) * 1e3)
    errors = {
        form: [
            float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))
            for a, b in zip(found, results["every sum"], strict=True)
        ]
        for form, found in results.items()
    }
    return {form: statistics.median(found) for form, found in times.items()}, errors


if __name__ == "__main__":
    sys.exit(main())
