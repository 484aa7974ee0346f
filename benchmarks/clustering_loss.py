"""Memory and time of the deep clustering loss and the embedding layer, whole and in chunks.

    python -m benchmarks clustering_loss
    python -m benchmarks clustering_loss --calls=0                 # the plans alone, nothing runs

Linear layer, sigmoid, loss, and the gradients of parameters and input; whole, checkpointed, and in
chunks of frames. Planned is what XLA says that a step takes beside its arguments and outputs; at
full size (24 excerpts of 10 s, as in the paper) it is compiled and never run. Times are medians at
a smaller size, all forms in turns, and their ratios to the whole form. Returns 1 where values or
gradients disagree.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import forms
from majl_jax.losses import clustering

FREQUENCIES, DIMENSIONS, SOURCES, HIDDEN = 257, 20, 2, 1000
# Examples, frames.
FULL = (24, 1251)
FORMS = {"whole": None, "checkpointed": None, "example": 1, "1/3 example": 3, "1/9 example": 9}
TOLERANCE = 1e-5


def add_options(parser: argparse.ArgumentParser) -> None:
    """The size that runs."""
    parser.add_argument("--batch", type=int, default=2, help="examples of the size that runs")
    parser.add_argument("--frames", type=int, default=315)
    parser.add_argument("--calls", type=int, default=5, help="timed steps per form, after one")


def run(options: argparse.Namespace) -> int:
    """Prints the table; the exit status."""
    planned = {form: forms.planned(gradient_of(form, FULL[1]), shapes(*FULL)) for form in FORMS}
    times, errors = {}, {}
    if options.calls:
        steps = {form: gradient_of(form, options.frames) for form in FORMS}
        arguments = data(options.batch, options.frames)
        times, errors = forms.run(steps, arguments, options.calls, exact="whole")
    found = forms.Forms(planned, times, errors, "whole")
    print("\n".join(found.lines("value, gradients")))
    worst = np.max([error for some in errors.values() for error in some], initial=0.0)
    # NaN is no agreement.
    return int(not worst <= TOLERANCE)


def gradient_of(name: str, frames: int):
    """The value and the gradients of one form: a function of `shapes`, compiled."""

    def embed(params, hidden):
        values = jax.nn.sigmoid(hidden @ params["kernel"] + params["bias"][None, None])
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


def data(batch: int, frames: int) -> tuple:
    """(params, hidden, mixture, sources) of noise."""
    rng = np.random.default_rng(0)
    params, hidden, *spectra = jax.tree.map(
        lambda x: jnp.asarray(rng.standard_normal(x.shape, np.float32)), shapes(batch, frames)
    )
    params = jax.tree.map(lambda x: x * np.float32(HIDDEN**-0.5), params)
    return params, hidden, *(jnp.abs(x) for x in spectra)
