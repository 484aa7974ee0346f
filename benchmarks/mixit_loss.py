"""Time and memory of MixIT's search over all 2^N assignments: Gram matrix against every sum.

    python -m benchmarks mixit_loss
    python -m benchmarks mixit_loss --calls=0                 # the plans alone, nothing runs

The loss and its gradient for the estimates. Planned is what XLA says that a step takes beside its
arguments and outputs; at full size (16 stereo mixtures of 6 s at 44.1 kHz, as in the paper) it is
compiled and never run. Times are medians at a smaller size, all forms in turns. Ratios are to the
Gram form. Returns 1 where a search finds another loss or gradient.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import forms
from majl_jax.losses import mixit

# Examples, samples.
FULL = (16, 6 * 44100)
# And the samples of an example of the size that runs.
OUTPUTS = {8: 8820, 12: 1764}
FORMS = ("gram", "every sum", "one by one", "least squares")
TOLERANCE = 1e-4


def add_options(parser: argparse.ArgumentParser) -> None:
    """The size that runs."""
    parser.add_argument("--batch", type=int, default=2, help="examples of the size that runs")
    parser.add_argument("--calls", type=int, default=5, help="timed steps per form, after one")


def run(options: argparse.Namespace) -> int:
    """Prints a table for each number of outputs; the exit status."""
    worst = 0.0
    steps = {form: gradient_of(form) for form in FORMS}
    for outputs, samples in OUTPUTS.items():
        planned = {
            form: forms.planned(step, shapes(outputs, *FULL)) for form, step in steps.items()
        }
        times, errors = {}, {}
        if options.calls:
            arguments = data(outputs, options.batch, samples)
            times, errors = forms.run(steps, arguments, options.calls, exact="every sum")
        print(f"{outputs} outputs, {options.batch} x {samples} samples in time", flush=True)
        print("\n".join(forms.Forms(planned, times, errors, "gram").lines("loss, gradient")))
        # Least squares may choose otherwise.
        searches = [found for form, found in errors.items() if form != "least squares"]
        worst = np.max([error for found in searches for error in found], initial=worst)
    # NaN is no agreement.
    return int(not worst <= TOLERANCE)


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
    return (jnp.arange(2**outputs)[:, None] >> jnp.arange(outputs)[None]) & 1


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


def data(outputs: int, batch: int, samples: int) -> tuple[jax.Array, jax.Array]:
    """(estimates, mixtures) of noise, the estimates with a leak of one into the other."""
    rng = np.random.default_rng(0)
    sources = rng.standard_normal((batch, samples, outputs, 2), np.float32)
    sides = rng.integers(0, 2, (batch, outputs))
    mixtures = mixit.assigned_sums(jnp.asarray(sources), jnp.asarray(sides))
    leak = 0.3 * rng.standard_normal((outputs, outputs)).astype(np.float32)
    return jnp.asarray(sources + np.einsum("btnc,nl->btlc", sources, leak)), mixtures
