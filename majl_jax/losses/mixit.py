"""Mixture-invariant training (MixIT) and the thresholded SNR, in dB.

A network that hears the sum of two mixtures x_0, x_1 gives N outputs e_n; every output is put to
one of the two, and the sums are held against the mixtures (Wisdom et al., NeurIPS 2020). As
pre-training for music separation: Saijo & Bando, WASPAA 2025, arXiv 2505.07631; repository
b-sigpro/mixit-mss.

Signals are laid out as the stems of a batch, [batch, time, output or mixture, channel], and taken
as float32. A choice of mixtures is the number k of N bits: output n goes to mixture (k >> n) & 1.
All channels of an example share one.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

ASSIGNMENTS = ("exhaustive", "least_squares")
_EPSILON = 1e-8
_SMALLEST_RIDGE = 1e-30
_MOST_OUTPUTS = 16  # 65,536 choices


def thresholded_neg_snr(
    estimate: Float[Array, "*shape"],
    reference: Float[Array, "*shape"],
    *,
    max_snr_db: float | int | None = 30.0,
    axis: int = 1,
) -> Float[Array, "..."]:
    """10 lg(|x - x_hat|^2 + tau |x|^2 + 1e-8) - 10 lg(|x|^2 + 1e-8), tau = 10^(-max_snr_db / 10),
    sums over `axis`.

    Not below -max_snr_db (None: tau = 0); 0 dB where both are silent. All other axes stay.
    """
    estimate, reference = _float32(estimate, reference)
    noise = jnp.sum((reference - estimate) ** 2, axis=axis)
    return _in_db(noise, jnp.sum(reference**2, axis=axis), max_snr_db)


def inactive_sources(
    estimates: Float[Array, "batch time source channel"],
    references: Float[Array, "batch time source channel"],
    *,
    max_snr_db: float | int = 30.0,
    inactive_db: float | int = -60.0,
    inactive_weight: float | int = 0.1,
) -> Float[Array, "batch source channel"]:
    """`thresholded_neg_snr` of supervised training, which also takes sources that are silent, with
    x = sum_i r_i per channel:

    0.1 · 10 lg(|e_i - r_i|^2 + tau |x|^2 + 1e-8) where 10 lg(|r_i|^2 / (|x|^2 + 1e-8)) < -60 dB
    (b-sigpro/mixit-mss, `loss/snr.py`).

    Args:
        estimates: e.
        references: r.
        max_snr_db: that of `thresholded_neg_snr`, which makes tau.
        inactive_db: the -60 dB of the formula.
        inactive_weight: its 0.1.
    """
    estimates, references = _float32(estimates, references)
    noise = jnp.sum((estimates - references) ** 2, axis=1)
    power = jnp.sum(references**2, axis=1)
    whole = jnp.sum(references.sum(axis=2, keepdims=True) ** 2, axis=1)
    # Energies and not decibels are compared: the logarithm of a silent source is infinite.
    inactive = power < 10.0 ** (inactive_db / 10.0) * (whole + _EPSILON)
    level = _decibels(noise + _tau(max_snr_db) * whole + _EPSILON)
    return jnp.where(inactive, inactive_weight * level, _in_db(noise, power, max_snr_db))


def mixit(
    estimates: Float[Array, "batch time output channel"],
    mixtures: Float[Array, "batch time 2 channel"],
    *,
    assignment: str = "exhaustive",
    max_snr_db: float | int | None = 30.0,
) -> tuple[Float[Array, "batch 2 channel"], Int[Array, "batch output"]]:
    """`thresholded_neg_snr` of the summed outputs against both mixtures, and the mixture 0 or 1
    that each output went to.

    "exhaustive" takes the best of all 2^N choices (`exhaustive_assignment`), "least_squares" the
    authors' way (`least_squares_assignment`). The choice carries no gradient; the value is that of
    the summed waveforms.
    """
    if assignment not in ASSIGNMENTS:
        raise ValueError(f"assignment={assignment!r} is not one of {', '.join(ASSIGNMENTS)}.")
    if assignment == "exhaustive":
        chosen = exhaustive_assignment(estimates, mixtures, max_snr_db=max_snr_db)
    else:
        chosen = least_squares_assignment(estimates, mixtures)
    sums = assigned_sums(estimates, chosen)
    return thresholded_neg_snr(sums, mixtures, max_snr_db=max_snr_db), chosen


def assigned_sums(
    estimates: Float[Array, "batch time output channel"], assignment: Int[Array, "batch output"]
) -> Float[Array, "batch time 2 channel"]:
    """The sums of the outputs that go to mixture 0 and to mixture 1."""
    batch, time, outputs, channels = estimates.shape
    to_mixture = jax.nn.one_hot(assignment, 2, dtype=jnp.float32)
    # Outputs and channels as one axis, here and in `_products`: a sum over either alone would copy
    # all outputs to turn them.
    weights = _einsum("bnm,cd->bncmd", to_mixture, jnp.eye(channels))
    weights = weights.reshape(batch, outputs * channels, 2 * channels)
    sums = _einsum("btn,bnm->btm", _folded(estimates), weights)
    return sums.reshape(batch, time, 2, channels)


def all_losses(
    estimates: Float[Array, "batch time output channel"],
    mixtures: Float[Array, "batch time 2 channel"],
    *,
    max_snr_db: float | int | None = 30.0,
) -> Float[Array, "batch choice"]:
    """The loss of each of the 2^N choices k, mean over mixtures and channels, without making one
    of the sums.

    With G = E E^T, C = E X^T and a the 0/1 vector of the outputs that go to mixture m: |x_m - a
    E|^2 = |x_m|^2 - 2 a C_m + a G a, per channel. Exact but for rounding: up to 1e-3 dB at
    max_snr_db = 30, more above. A ValueError above 16 outputs.
    """
    outputs = estimates.shape[2]
    if outputs > _MOST_OUTPUTS:
        raise ValueError(
            f"{outputs} outputs have {2**outputs} choices of mixtures; expected at most"
            f' {_MOST_OUTPUTS} outputs. Take assignment="least_squares".'
        )
    gram, cross = _products(estimates, mixtures)
    power = jnp.sum(jnp.square(*_float32(mixtures)), axis=1)
    member = _choices(outputs).astype(jnp.float32)
    quadratic = jnp.sum(_einsum("kn,bcnl->bckl", member, gram) * member[None, None], axis=-1)
    linear = _einsum("kn,bcnm->bmck", member, cross)
    noise = power[..., None] - 2.0 * linear + quadratic[:, None]
    losses = _in_db(jnp.maximum(noise, 0.0), power[..., None], max_snr_db).mean(axis=2)
    # What does not go to mixture 1 goes to mixture 0, and the complement of choice k is the k-th
    # from the end.
    return 0.5 * (losses[:, 1] + losses[:, 0, ::-1])


def exhaustive_assignment(
    estimates: Float[Array, "batch time output channel"],
    mixtures: Float[Array, "batch time 2 channel"],
    *,
    max_snr_db: float | int | None = 30.0,
) -> Int[Array, "batch output"]:
    """The mixture of each output, by the smallest of `all_losses`; the first of equal ones."""
    estimates, mixtures = jax.lax.stop_gradient((estimates, mixtures))
    losses = all_losses(estimates, mixtures, max_snr_db=max_snr_db)
    return _choices(estimates.shape[2])[jnp.argmin(losses, axis=1)]


def least_squares_assignment(
    estimates: Float[Array, "batch time output channel"],
    mixtures: Float[Array, "batch time 2 channel"],
) -> Int[Array, "batch output"]:
    """The mixture with the larger of an output's `least_squares_coefficients`, 0 if equal (Wisdom
    et al., WASPAA 2021).

    A mixture that is silent, whose coefficients are all 0, gets none, or the outputs of negative
    coefficients would go to it.
    """
    coefficients = least_squares_coefficients(*jax.lax.stop_gradient((estimates, mixtures)))
    lean = coefficients[..., 1] - coefficients[..., 0]
    sounds = jnp.any(mixtures[..., 0] != 0.0, axis=1)
    lean = jnp.where(jnp.all(sounds, axis=1)[:, None], lean, jnp.where(sounds[:, 1:], 1.0, -1.0))
    return (lean > 0.0).astype(jnp.int32)


def least_squares_coefficients(
    estimates: Float[Array, "batch time output channel"],
    mixtures: Float[Array, "batch time 2 channel"],
    *,
    ridge: float | int = 1e-6,
) -> Float[Array, "batch output 2"]:
    """A = (G + lambda I)^-1 C of the first channel, E A ≈ X, with lambda = ridge · trace(G) / N
    against outputs that are alike.

    The authors have no ridge, so outputs that are silent or alike leave A undefined, as they are
    early in training.
    """
    gram, cross = (x[:, 0] for x in _products(estimates, mixtures))
    outputs = gram.shape[-1]
    added = ridge * jnp.trace(gram, axis1=1, axis2=2) / outputs
    added = jnp.maximum(added, _SMALLEST_RIDGE)  # all outputs are silent: A = 0
    return jnp.linalg.solve(gram + added[:, None, None] * jnp.eye(outputs)[None], cross)


def _products(estimates: Array, mixtures: Array) -> tuple[Array, Array]:
    """(G [batch, channel, output, output], C [batch, channel, output, mixture])."""
    (batch, _, outputs, channels), folded = estimates.shape, _folded(estimates)

    def products(other: Array) -> Array:
        all_channels = _einsum("btn,btl->bnl", folded, _folded(other))
        all_channels = all_channels.reshape(batch, outputs, channels, -1, channels)
        return jnp.moveaxis(jnp.diagonal(all_channels, axis1=2, axis2=4), -1, 1)

    return products(estimates), products(mixtures)


def _folded(x: Array) -> Array:
    """[batch, time, source, channel] as float32 [batch, time, source and channel]."""
    return x.astype(jnp.float32).reshape(*x.shape[:2], -1)


def _choices(outputs: int) -> Array:
    """The mixture of each output in each choice, [choice, output]."""
    return (jnp.arange(2**outputs)[:, None] >> jnp.arange(outputs)[None]) & 1


def _in_db(noise: Array, power: Array, max_snr_db: float | int | None) -> Array:
    return _decibels(noise + _tau(max_snr_db) * power + _EPSILON) - _decibels(power + _EPSILON)


def _tau(max_snr_db: float | int | None) -> float:
    return 0.0 if max_snr_db is None else 10.0 ** (-max_snr_db / 10.0)


def _decibels(energy: Array) -> Array:
    return 10.0 * jnp.log10(energy)


def _float32(*arrays: Array) -> tuple[Array, ...]:
    return tuple(x.astype(jnp.float32) for x in arrays)


def _einsum(subscripts: str, *operands: Array) -> Array:
    return jnp.einsum(subscripts, *operands, precision=jax.lax.Precision.HIGHEST)
