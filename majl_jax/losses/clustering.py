"""Losses of a Chimera network: embeddings that cluster by source, and masks on the mixture's
magnitude.

Hershey et al. 2016 (arXiv 1508.04306); Luo et al. 2017 (1611.06265); Wang, Le Roux & Hershey 2018;
Bugler, Pardo & Seetharaman 2020 (2010.12650). A point is one frame and frequency of an STFT. No
loss makes the matrix of points times points: the clustering losses are functions of `Grams`, a few
numbers per example, to which any part of the frames adds.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_SMALLEST_NORM = 1e-12


class Grams(NamedTuple):
    """Sums over the points of an example, of rows V of its embedding and Y of its assignment, of
    length w each.
    """

    embedding: Float[Array, "batch dimension dimension"]
    """V^T V."""
    cross: Float[Array, "batch dimension source"]
    """V^T Y."""
    assignment: Float[Array, "batch source source"]
    """Y^T Y."""
    weight: Float[Array, "batch"]
    """sum w^2."""


def ideal_binary_assignment(
    source_magnitudes: Float[Array, "batch frame frequency source"],
) -> Float[Array, "batch frame frequency source"]:
    """1 for the loudest source of a point, 0 for the others; all 0 where two are equally loud, as
    in silence; no gradient.
    """
    loudest, second, index = _two_largest(jax.lax.stop_gradient(source_magnitudes))
    one_hot = jax.nn.one_hot(index, source_magnitudes.shape[-1])
    return one_hot * (loudest > second)[..., None]


def _two_largest(x: Float[Array, "*any item"]) -> tuple[Array, Array, Array]:
    """The largest item, the one after it (-inf for a single item) and the index of the largest,
    any of equal ones.

    One reduction, so that the three always agree: XLA may compute x anew for each reader, with
    other roundings, and then no item equals max x. What jax.lax.top_k(x, 2) says, in a tenth of
    its time on a CPU.
    """
    index = jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    lowest = jnp.full((), -jnp.inf, x.dtype)

    def combine(one: Any, other: Any) -> tuple[Array, Array, Array]:
        (first, here, second), (top, there, runner_up) = one, other
        return (
            jnp.maximum(first, top),
            jnp.where(first >= top, here, there),
            jnp.maximum(jnp.minimum(first, top), jnp.maximum(second, runner_up)),
        )

    operands = (x, index, jnp.full_like(x, -jnp.inf))
    start = (lowest, jnp.int32(x.shape[-1]), lowest)
    largest, place, second = jax.lax.reduce(operands, start, combine, (x.ndim - 1,))
    return largest, second, place


def magnitude_weights(
    mix_magnitude: Float[Array, "batch frame frequency"],
) -> Float[Array, "batch frame frequency"]:
    """w = sqrt(|X| / (sum |X| + 1e-6) F T): loud points count more, w^2 has the mean 1, or 0 in
    silence; no gradient.

    Give the excerpt as a whole, not a part of its frames: the sum runs over all F T points of the
    array.
    """
    magnitude = jax.lax.stop_gradient(mix_magnitude.astype(jnp.float32))
    points = magnitude.shape[1] * magnitude.shape[2]
    return jnp.sqrt(magnitude * points / (magnitude.sum(axis=(1, 2), keepdims=True) + 1e-6))


def grams(
    embedding: Float[Array, "batch frame frequency dimension"],
    assignment: Float[Array, "batch frame frequency source"],
    weights: Float[Array, "batch frame frequency"],
) -> Grams:
    """The sums of `Grams` in float32, of rows scaled to unit length and then by w; a row of zeros
    stays one.
    """
    v = _weighted_rows(embedding, weights)
    y = _weighted_rows(assignment, weights)
    return Grams(
        embedding=_product(v, v),
        cross=_product(v, y),
        assignment=_product(y, y),
        weight=jnp.sum(weights.astype(jnp.float32) ** 2, axis=(1, 2)),
    )


def chunked_grams(
    embed: Callable[[Float[Array, "1 chunk hidden"]], Float[Array, "1 chunk frequency dimension"]],
    hidden: Float[Array, "batch frame hidden"],
    assignment: Float[Array, "batch frame frequency source"],
    weights: Float[Array, "batch frame frequency"],
    *,
    chunk_frames: int,
) -> Grams:
    """`grams` of embed(hidden), of which only `chunk_frames` frames of one example are in memory
    at a time.

    Args:
        embed: sees each frame alone, and runs again in the backward pass; may close over
            parameters: gradients reach them and `hidden`. Call a Flax module by its `apply`.
        hidden: what is embedded.
        assignment: of each point to the sources.
        weights: of the points.
        chunk_frames: a divisor of the frames, or all of them: otherwise zeros fill up the last
            chunk, in a copy of `hidden`.
    """
    batch, frames = hidden.shape[:2]
    if chunk_frames < 1:
        raise ValueError(f"chunk_frames is {chunk_frames}; expected at least 1.")
    for name, x in (("assignment", assignment), ("weights", weights)):
        if x.shape[:2] != (batch, frames):
            raise ValueError(
                f"hidden has {batch} examples of {frames} frames, the {name} {x.shape[0]} of"
                f" {x.shape[1]}; expected the same."
            )
    count = -(-frames // chunk_frames)
    chunks = tuple(_split_frames(x, count) for x in (hidden, assignment, weights))

    def of_chunk(_, chunk):
        part, chunk_assignment, chunk_weights = (x[None] for x in chunk)
        return None, grams(embed(part), chunk_assignment, chunk_weights)

    # Inside a scan nothing can merge the two forward passes, so the barrier against it is not
    # needed.
    _, sums = jax.lax.scan(jax.checkpoint(of_chunk, prevent_cse=False), None, chunks)
    return Grams(*(x.reshape(batch, count, *x.shape[2:]).sum(axis=1) for x in sums))


def deep_clustering(grams: Grams) -> Float[Array, "batch"]:
    """(||V^T V||^2 - 2 ||V^T Y||^2 + ||Y^T Y||^2) / ((sum w^2)^2 + 1e-8), the deep clustering loss
    (2010.12650, eq. 1).

    It is ||V V^T - Y Y^T||^2 over the pairs of points, their mean if all weigh the same: in [0, 1]
    if the embedding is not negative, up to rounding of about 3e-6, and the same for any order of
    the sources and any rotation of the embedding. The paper prints it without the divisor, which
    the authors' library nussl has.
    """
    squared = (
        _sum_of_squares(grams.embedding)
        - 2.0 * _sum_of_squares(grams.cross)
        + _sum_of_squares(grams.assignment)
    )
    return squared / (grams.weight**2 + 1e-8)


def whitened_k_means(grams: Grams) -> Float[Array, "batch"]:
    """D + S - 2 tr((V^T V + I)^-1 V^T Y (Y^T Y + I)^-1 Y^T V), whitened k-means (Wang et al. 2018;
    I as in nussl).
    """
    dimensions, sources = grams.cross.shape[-2:]
    # With Cholesky factors the trace is ||L_V^-1 V^T Y L_Y^-T||^2.
    half = _lower_solve(grams.embedding, grams.cross)
    both = _lower_solve(grams.assignment, jnp.swapaxes(half, -1, -2))
    return dimensions + sources - 2.0 * _sum_of_squares(both)


def mask_inference(
    masks: Float[Array, "batch frame frequency source"],
    mix_magnitude: Float[Array, "batch frame frequency"],
    source_magnitudes: Float[Array, "batch frame frequency source"],
) -> Float[Array, "batch"]:
    """mean |M |X| - |S|| over frames, frequencies and sources (2010.12650, eq. 2, whose N does not
    count the sources).
    """
    difference = masks * mix_magnitude[..., None] - source_magnitudes
    # The gradient of jnp.abs at 0 would be 1.
    return jnp.mean(difference * jnp.sign(difference), axis=(1, 2, 3))


def _weighted_rows(rows: Array, weights: Array) -> Array:
    rows, weights = rows.astype(jnp.float32), weights.astype(jnp.float32)
    power = jnp.sum(rows**2, axis=-1)
    # A row of zeros has no direction: it gets no gradient either, where x / max(|x|, 1e-12) would
    # have one of 1e12.
    scale = jax.lax.rsqrt(jnp.maximum(power, _SMALLEST_NORM**2))
    return rows * jnp.where(power > _SMALLEST_NORM**2, weights * scale, 0.0)[..., None]


def _product(a: Array, b: Array) -> Array:
    return jnp.einsum(
        "btfi,btfj->bij",
        a,
        b,
        precision=jax.lax.Precision.HIGHEST,  # the loss is a small difference of large sums
        preferred_element_type=jnp.float32,
    )


def _split_frames(x: Array, count: int) -> Array:
    """[batch, frame, ...] to [batch x chunk, frame of the chunk, ...]: `count` chunks, filled up
    by frames of zeros.

    The order in memory stays, so that nothing is copied unless it is filled up; chunks across
    examples would be copies.
    """
    batch, frames, *rest = x.shape
    chunk = -(-frames // count)
    x = jnp.pad(x, ((0, 0), (0, count * chunk - frames), *((0, 0),) * len(rest)))
    return x.reshape(batch * count, chunk, *rest)


def _lower_solve(gram: Array, right: Array) -> Array:
    factor = jnp.linalg.cholesky(gram + jnp.eye(gram.shape[-1], dtype=gram.dtype)[None])
    return jax.lax.linalg.triangular_solve(factor, right, left_side=True, lower=True)


def _sum_of_squares(x: Array) -> Array:
    return jnp.sum(x**2, axis=(-2, -1))
