"""Vector quantiser whose codebook follows the latents by moving averages, as pure functions on
arrays.

Van den Oord et al. 2017 (arXiv 1711.00937, sec. 3 and appendix A.1); restarts of rare codes:
Dhariwal et al. 2020, Jukebox (2005.00341; openai/jukebox, `vqvae/bottleneck.py`). Latents are
channel last, a token is one row of them. All numbers are float32, whatever the latents are. A
training step is, in this order:

    rows = random_rows(latents, key, size=codes, axis=axis)      # serve the first step and the
                                                                 restarts
    codebook = initialize(codebook, rows)                        # changes an empty codebook only
    quantized = quantize(codebook, latents)                      # for the decoder and the
                                                                 commitment loss
    new = update(codebook, latents, quantized.codes, rows, axis=axis)

A codebook that is frozen is one that is not updated. `axis` names the devices that share a batch
split over its first axis; then every device gets the same new codebook, that of the whole batch.
No array has tokens times codes elements.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32, Key

_TILE_NOISE = 0.01  # the norm of the noise, about, that tells repeated rows apart
_ENTROPY_FLOOR = 1e-8


class Codebook(NamedTuple):
    """Rows, and the moving averages that they are the quotient of; no gradient reaches any of
    it.
    """

    vectors: Float[Array, "code dimension"]
    sums: Float[Array, "code dimension"]
    """Moving average of the sum of the latents that take a code in one step."""
    counts: Float[Array, "code"]
    """Moving average of the number of latents that take a code in one step."""
    initialized: Bool[Array, ""]


class Quantized(NamedTuple):
    """What `quantize` makes of latents [batch, *shape, dimension]."""

    rows: Float[Array, "batch *shape dimension"]
    """The codebook's rows, without a gradient."""
    straight_through: Float[Array, "batch *shape dimension"]
    """The same values but for rounding; their gradient is that of the latents."""
    codes: Int32[Array, "batch *shape"]
    squared_distances: Float[Array, "batch *shape"]
    commitment: Float[Array, "batch"]
    """mean (h - sg(q))^2 of an item."""


def empty(codes: int, dimension: int) -> Codebook:
    """A codebook of zeros that waits for `initialize`."""
    zeros = jnp.zeros((codes, dimension), jnp.float32)
    return Codebook(zeros, zeros, zeros[:, 0], jnp.array(False))


def restore(
    vectors: Float[Array, "code dimension"], *, tokens_per_item: int, items: int = 1
) -> Codebook:
    """The codebook of published rows, each with the moving averages of a code that u tokens take
    in a step.

    u = tokens_per_item items / codes, as if all codes were taken equally often. The authors count
    one item for each process (openai/jukebox, `restore_k`); `items` = the whole batch is what the
    counts would settle at.
    """
    if tokens_per_item < 1 or items < 1:
        raise ValueError(
            f"tokens_per_item is {tokens_per_item} and items is {items}; expected at least 1 of"
            " both."
        )
    vectors = vectors.astype(jnp.float32)
    usage = tokens_per_item * items / len(vectors)
    counts = jnp.full(len(vectors), usage, jnp.float32)
    return Codebook(vectors, usage * vectors, counts, jnp.array(True))


def nearest_codes(
    latents: Float[Array, "*shape dimension"],
    vectors: Float[Array, "code dimension"],
    *,
    block_tokens: int = 16384,
) -> tuple[Int32[Array, "*shape"], Float[Array, "*shape"]]:
    """(argmin_k ||h - e_k||^2, the first of equal ones, and that squared distance), without a
    gradient.

    Distances to all codes exist for `block_tokens` tokens at a time. Choose a divisor of the
    tokens: otherwise the last block is filled up, in a copy of the latents.
    """
    _check_dimension(latents, vectors)
    if block_tokens < 1:
        raise ValueError(f"block_tokens is {block_tokens}; expected at least 1.")
    vectors = jax.lax.stop_gradient(vectors).astype(jnp.float32)
    rows = _tokens(latents)
    half_norms = 0.5 * jnp.sum(vectors**2, axis=1)[None]

    def of_block(block: Array) -> Array:
        # Half the squared distance but for ||h||^2, which is the same for all codes. Lower
        # precision turns near ties.
        products = jnp.matmul(block, vectors.T, precision=jax.lax.Precision.HIGHEST)
        return jnp.argmin(half_norms - products, axis=1).astype(jnp.int32)

    tokens = len(rows)
    block = min(block_tokens, tokens)
    count = -(-tokens // block)
    blocks = jnp.pad(rows, ((0, count * block - tokens), (0, 0)))
    codes = jax.lax.map(of_block, blocks.reshape(count, block, -1)).reshape(-1)[:tokens]
    distances = jnp.sum((rows - vectors[codes]) ** 2, axis=1)
    return codes.reshape(latents.shape[:-1]), distances.reshape(latents.shape[:-1])


def look_up(
    vectors: Float[Array, "code dimension"], codes: Int[Array, "*shape"]
) -> Float[Array, "*shape dimension"]:
    """The rows of the codes, to decode them; codes lie in 0 to the number of rows - 1."""
    return vectors.astype(jnp.float32)[codes]


def quantize(
    codebook: Codebook,
    latents: Float[Array, "batch *shape dimension"],
    *,
    block_tokens: int = 16384,
) -> Quantized:
    """The nearest row q of every latent h, h + sg(q - h) and the commitment loss ||sg(q) - h||^2
    (1711.00937, eq. 3).

    The commitment loss is a mean over tokens and dimensions, as in openai/jukebox; the mean over
    items is left to do.
    """
    codes, distances = nearest_codes(latents, codebook.vectors, block_tokens=block_tokens)
    latents = latents.astype(jnp.float32)
    rows = jax.lax.stop_gradient(look_up(codebook.vectors, codes))
    straight_through = latents + jax.lax.stop_gradient(rows - latents)
    commitment = jnp.mean((rows - latents) ** 2, axis=tuple(range(1, latents.ndim)))
    return Quantized(rows, straight_through, codes, distances, commitment)


def random_rows(
    latents: Float[Array, "batch *shape dimension"],
    key: Key[Array, ""],
    *,
    size: int,
    axis: str | None = None,
) -> Float[Array, "{size} dimension"]:
    """`size` different tokens of the whole batch, the same on every device that has the same key.

    All devices draw the same numbers of tokens of the whole batch; each gives those it holds, and
    their sum is what one device with the whole batch would draw. (The authors draw from the first
    device's share and broadcast.) If the batch has fewer tokens, it is repeated as often as
    needed; all rows get normal noise of deviation 0.01 / sqrt(dimension).
    """
    rows = _tokens(latents)
    local, dimension = rows.shape
    total = local * _devices(axis)
    choice_key, noise_key = jax.random.split(key)
    repeats = -(-size // total)
    index = jax.random.choice(choice_key, repeats * total, (size,), replace=False) % total
    if axis is None:
        drawn = rows[index]
    else:
        here = index - jax.lax.axis_index(axis) * local
        held = (here >= 0) & (here < local)
        own = rows[jnp.clip(here, 0, local - 1)]
        drawn = jax.lax.psum(jnp.where(held[:, None], own, 0.0), axis)
    if repeats == 1:
        return drawn
    return drawn + _TILE_NOISE / dimension**0.5 * jax.random.normal(noise_key, drawn.shape)


def initialize(codebook: Codebook, candidates: Float[Array, "code dimension"]) -> Codebook:
    """The candidates as rows that were taken once each, if the codebook is empty; otherwise the
    codebook itself.
    """
    first = Codebook(candidates, candidates, jnp.ones_like(codebook.counts), jnp.array(True))
    return jax.tree.map(lambda old, new: jnp.where(codebook.initialized, old, new), codebook, first)


def update(
    codebook: Codebook,
    latents: Float[Array, "batch *shape dimension"],
    codes: Int[Array, "batch *shape"],
    candidates: Float[Array, "code dimension"],
    *,
    decay: float | int = 0.99,
    threshold: float | int = 1.0,
    axis: str | None = None,
) -> Codebook:
    """One step of the moving averages, with n_i latents h that take the code i in the whole batch:

    N_i = decay N_i + (1 - decay) n_i, m_i = decay m_i + (1 - decay) sum h, e_i = m_i / N_i
    (1711.00937, A.1). A code with N_i < `threshold` is rare and becomes its candidate instead
    (openai/jukebox); N_i and m_i stay, so that this happens in every step until it is taken often
    enough.

    Args:
        codebook: e, m and N before the step.
        latents: h.
        codes: the code that each latent takes.
        candidates: a row for each code, from `random_rows`.
        decay: of the averages.
        threshold: latents per step.
        axis: name of the devices that share the batch; None: there is one.
    """
    size = len(codebook.counts)
    rows = _tokens(latents)
    sums = jax.ops.segment_sum(rows, codes.reshape(-1), num_segments=size)
    sums = decay * codebook.sums + (1.0 - decay) * _over_devices(sums, axis)
    counts = decay * codebook.counts + (1.0 - decay) * usage_counts(codes, size=size, axis=axis)
    used = (counts >= threshold)[:, None]
    means = sums / jnp.where(used, counts[:, None], 1.0)
    vectors = jnp.where(used, means, jax.lax.stop_gradient(candidates))
    return Codebook(vectors, sums, counts, jnp.array(True))


def usage_counts(
    codes: Int[Array, "*shape"], *, size: int, axis: str | None = None
) -> Float[Array, "{size}"]:
    """How many tokens of the whole batch take each of `size` codes."""
    flat = codes.reshape(-1)
    counts = jax.ops.segment_sum(jnp.ones(flat.shape, jnp.float32), flat, num_segments=size)
    return _over_devices(counts, axis)


def perplexity(counts: Float[Array, "code"]) -> Float[Array, ""]:
    """exp(-sum p log(p + 1e-8)), p the share of a code: K if K codes are taken equally often and
    no other is.
    """
    shares = counts / jnp.maximum(jnp.sum(counts), 1.0)
    return jnp.exp(-jnp.sum(shares * jnp.log(shares + _ENTROPY_FLOOR)))


def readings(
    before: Codebook,
    after: Codebook,
    latents: Float[Array, "batch *shape dimension"],
    quantized: Quantized,
    *,
    threshold: float | int = 1.0,
    axis: str | None = None,
) -> dict[str, Float[Array, ""]]:
    """The health of a codebook in a step over the whole batch; give the same codebook twice where
    it is frozen.

    `usage` and `used_now`: codes with a moving average and with a count of this batch from
    `threshold` on; `perplexity` and `entropy` (its logarithm) of this batch; `change`: root mean
    square of the rows' change; `fit`: mean squared distance to the nearest row;
    `latent_deviation`: standard deviation of the latents; `restarted`: share of the codes that
    became a candidate. A perplexity that falls to a few codes is the collapse to look for.

    Args:
        before: the codebook that the step starts from.
        after: what `update` made of it.
        latents: of this device.
        quantized: what `quantize` made of them.
        threshold: latents per step, that of `update`.
        axis: name of the devices that share the batch; None: there is one.
    """
    counts = usage_counts(quantized.codes, size=len(after.counts), axis=axis)
    step = after.vectors - before.vectors
    restarted = (after.counts < threshold) & jnp.any(step != 0.0, axis=1)
    rows = _tokens(latents)
    mean = _mean_over_devices(jnp.mean(rows), axis)
    spread = perplexity(counts)
    return {
        "usage": jnp.sum(after.counts >= threshold).astype(jnp.float32),
        "used_now": jnp.sum(counts >= threshold).astype(jnp.float32),
        "perplexity": spread,
        "entropy": jnp.log(spread),
        "change": jnp.sqrt(jnp.mean(step**2)),
        "fit": _mean_over_devices(jnp.mean(quantized.squared_distances), axis),
        "latent_deviation": jnp.sqrt(_mean_over_devices(jnp.mean((rows - mean) ** 2), axis)),
        "restarted": jnp.mean(restarted.astype(jnp.float32)),
    }


def _tokens(latents: Array) -> Array:
    rows = jax.lax.stop_gradient(latents).astype(jnp.float32)
    return rows.reshape(-1, latents.shape[-1])


def _check_dimension(latents: Array, vectors: Array) -> None:
    if latents.shape[-1] != vectors.shape[-1]:
        raise ValueError(
            f"latents {latents.shape} have the dimension {latents.shape[-1]}, the codebook"
            f" {vectors.shape} has {vectors.shape[-1]}; expected the same. Latents are channel"
            " last."
        )
    if latents.size == 0:
        raise ValueError(f"latents {latents.shape} have no tokens; expected at least one.")


def _devices(axis: str | None) -> int:
    return 1 if axis is None else jax.lax.axis_size(axis)


def _over_devices(x: Array, axis: str | None) -> Array:
    return x if axis is None else jax.lax.psum(x, axis)


def _mean_over_devices(x: Array, axis: str | None) -> Array:
    return x if axis is None else jax.lax.pmean(x, axis)
