"""The loss of MAJL's joint cascade: separation and pitch, each over what is labelled, harder
samples counting more.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from majl_jax.audio import mixing, pitch, stft
from majl_jax.audio.voice_remixing import Remixing, remix
from majl_jax.batch import Batch
from majl_jax.losses import hard_samples, salience_terms, separation, weighting
from majl_jax.losses.interface import Interface, balanced
from majl_jax.models.cascade import Cascade
from majl_jax.models.weight_module import TASKS, over_segments

_REMIXING = 3  # folded into a step's key
OPTIONAL = ("pitch_on_target", "weighting")  # terms that exist in some stages only


@dataclasses.dataclass(frozen=True)
class CascadeTerms:
    """The terms of the loss and how much each counts."""

    weights: Mapping[str, float]
    """Of separation, pitch, pitch_on_target and weighting."""
    separation: str = "l1_wav"
    """l1_wav, l1_mag, neg_sdr or neg_si_sdr."""
    positive_weight: float = 10.0
    """Of the labelled bin against the others."""
    target_width_cents: float = 0.0
    """0: one-hot targets (DJCM), else Gaussian ones (CREPE)."""
    pitch_frames: int = 128
    """Frames per segment whose pitch loss is taken."""
    mixture_gain: float = 1.0
    """The mixture is this times the sum of the stems."""
    remixing: Remixing = dataclasses.field(default_factory=Remixing)
    """How examples are changed before."""


@dataclasses.dataclass(frozen=True)
class _Truth:
    """What is known of a batch: the true source, and the pitch of the frames whose loss is
    taken.
    """

    source: Float[Array, "batch time"]
    has_source: Bool[Array, "batch"]
    index: Integer[Array, "batch frame"]
    f0_hz: Float[Array, "batch frame"]
    has_pitch: Bool[Array, "batch frame"]
    salience: Float[Array, "batch frame bin"]


@dataclasses.dataclass(frozen=True)
class _Unweighted:
    """The losses of both tasks before weighing, and what PE hears in the estimate and in the true
    source.
    """

    distance: Float[Array, "batch"]
    likelihood: Float[Array, "batch frame"]
    in_estimate: Float[Array, "batch frame bin"]
    in_source: Float[Array, "batch frame bin"]


@dataclasses.dataclass(frozen=True)
class _Fixed:
    """What is the same in every step: the networks, and how their losses count."""

    cascade: Cascade
    terms: CascadeTerms
    dynamic: hard_samples.HardSamples | None


def cascade_loss(
    params: Any,
    mutables: Any,
    batch: Batch,
    key: Any,
    *,
    cascade: Cascade,
    terms: CascadeTerms,
    interface: Interface,
    dynamic: hard_samples.HardSamples | None = None,
) -> tuple[Float[Array, ""], tuple[Any, dict[str, Array]]]:
    """L = mean_i w_separation a_i L_separation(s_hat_i, s_i) + w_pitch b_i L_pitch(PE(s_hat_i),
    y_i), over what is labelled.

    With `interface.joint`, PE hears the estimate, and the separator learns from both losses,
    balanced as losses/interface.py says; without, PE hears the true voice, where it is known: two
    networks trained side by side, each on its own loss. L_pitch is taken on some frames per
    segment, one drawn from each of as many equal stretches: neighbouring 64 ms frames share most of
    their samples.

    Args:
        params: {"separator", "pitch"}, and "weight_module" where the cascade has one.
        mutables: statistics of the networks, {"batch_stats": {"separator", "pitch"}}, or {}.
        batch: segments with the keys and shapes of batch.py; the target s is stem 0.
        key: of the drawn frames and of dropout.
        cascade: the networks.
        terms: the terms and how much each counts.
        interface: what PE hears, and what of its gradient the separator sees.
        dynamic: how a_i and b_i depend on how hard a sample is; None: both are 1.
    """
    frame_key, dropout_key = jax.random.split(key)
    # The first example's number tells the devices apart, so that they drop different units.
    keys = jax.random.split(jax.random.fold_in(dropout_key, batch["index"][0]))
    stems, f0_hz = remix(
        mixing.to_float(batch["stems"])[..., 0],
        batch["has_stems"].all(axis=1),
        batch["f0_hz"],
        batch["index"],
        key=jax.random.fold_in(key, _REMIXING),
        options=terms.remixing,
    )
    truth = _truth(batch, stems[:, :, 0], f0_hz, frame_key, cascade.bin_cents, terms)
    if not interface.joint:
        has_pitch = truth.has_pitch & truth.has_source[:, None]
        truth = dataclasses.replace(truth, has_pitch=has_pitch)
    estimate, separator_state = cascade.separate(
        {"params": params, **mutables},
        terms.mixture_gain * stems.sum(axis=2),
        key=keys[0],
    )
    fixed = _Fixed(cascade, terms, dynamic)
    losses = functools.partial(_losses, mutables=mutables, truth=truth, key=keys[1], fixed=fixed)
    rest, at_interface = {k: v for k, v in params.items() if k != "separator"}, {}
    if interface.joint and not interface.stop_gradient:
        loss, aux, at_interface = balanced(losses, estimate, rest, interface)
    else:
        heard = jax.lax.stop_gradient(estimate) if interface.joint else truth.source
        loss, _, _, aux = losses(estimate, heard, rest)
    found, pitch_state = aux
    updated = _updated(mutables, {"separator": separator_state, "pitch": pitch_state})
    return loss, (updated, {**found, **at_interface})


def _updated(mutables: Any, states: Mapping[str, Any]) -> dict[str, Any]:
    """`mutables` with what is in the new states of the networks."""
    return {
        c: {name: states[name].get(c, old) for name, old in parts.items()}
        for c, parts in mutables.items()
    }


def _truth(
    batch: Batch,
    source: Array,
    pitch_hz: Array,
    key: Any,
    bin_cents: np.ndarray,
    terms: CascadeTerms,
) -> _Truth:
    frames = pitch_hz.shape[1]
    index = _draw_frames(mixing.example_keys(key, batch["index"]), frames, terms.pitch_frames)
    f0_hz, has_pitch = (
        jnp.take_along_axis(x[:, :, 0], index, 1) for x in (pitch_hz, batch["has_pitch"])
    )
    targets = _pitch_targets(f0_hz, bin_cents, terms.target_width_cents)
    return _Truth(source, batch["has_stems"][:, 0], index, f0_hz, has_pitch, targets)


def _losses(
    separated: Array,
    heard: Array,
    params: Any,
    *,
    mutables: Any,
    truth: _Truth,
    key: Any,
    fixed: _Fixed,
) -> tuple[Array, Array, Array, tuple[dict[str, Array], Any]]:
    """(the whole loss, its part of separation, its part of pitch, (terms and readings, PE's
    statistics)).
    """
    cascade, terms, dynamic = fixed.cascade, fixed.terms, fixed.dynamic
    variables = {"params": params, **mutables}
    listen = functools.partial(cascade.listen, variables, index=truth.index, key=key)
    logits, pitch_state = listen(heard)
    likelihood_of = functools.partial(
        salience_terms.weighted_bce, targets=truth.salience, positive_weight=terms.positive_weight
    )
    distance = _separation_loss(terms.separation, separated, truth.source)
    likelihood = likelihood_of(logits)
    of_separation, of_pitch, found, readings = 1.0, 1.0, {}, {}
    if dynamic is not None or terms.weights.get("pitch_on_target"):
        # The same parameters, dropout and kind of statistics as for the estimate; these statistics
        # are not kept.
        of_source, _ = listen(truth.source)
        if terms.weights.get("pitch_on_target"):
            found["pitch_on_target"] = weighting.masked_mean(
                likelihood_of(of_source), truth.has_pitch & truth.has_source[:, None]
            )
        if dynamic is not None:
            unweighted = _Unweighted(distance, likelihood, logits, of_source)
            (of_separation, of_pitch), more, readings = _dynamic_weights(
                variables, cascade, truth, unweighted, dynamic
            )
            found |= more
    found |= {
        "separation": weighting.masked_mean(of_separation * distance, truth.has_source),
        "pitch": weighting.masked_mean(of_pitch * likelihood, truth.has_pitch),
    }
    used = {k: w for k, w in terms.weights.items() if k in found or k not in OPTIONAL}
    loss = weighting.weighted_sum(found, used)
    by_task = (used[name] * found[name] for name in TASKS)
    return loss, *by_task, ({**found, **readings}, pitch_state)


def _dynamic_weights(
    variables: Any,
    cascade: Cascade,
    truth: _Truth,
    unweighted: _Unweighted,
    settings: hard_samples.HardSamples,
) -> tuple[tuple[Array, Array], dict[str, Array], dict[str, Array]]:
    """(weights of separation [batch] and pitch [batch, frame or 1], the weight module's loss if it
    has one, readings).
    """
    heard = [
        jax.lax.stop_gradient(jax.nn.sigmoid(x))
        for x in (unweighted.in_estimate, unweighted.in_source)
    ]
    samples = _samples(heard, truth, cascade.bin_cents, unweighted, settings)
    of_separation, of_pitch = (hard_samples.difficulty(x) for x in samples)
    shape = truth.f0_hz.shape
    hardness = [jnp.broadcast_to(x, shape) for x in (of_separation[:, None], of_pitch)]
    scores = cascade.weigh(
        variables, heard[0], heard[1], truth.salience, jnp.stack(hardness, axis=-1)
    )
    of_task: tuple[Array | None, Array | None] = (None, None)
    if scores is not None:
        segments = over_segments(scores, truth.has_pitch)
        framewise = settings.grain == "frame"
        of_task = segments[:, 0], scores[..., 1] if framewise else segments[:, 1, None]
    readings: dict[str, Array] = {}
    weights, loss = [], jnp.zeros(())
    for task, (own, of_samples) in enumerate(zip(of_task, samples, strict=True)):
        weight, of_module = hard_samples.weigh(own, of_samples, task, settings)
        weights.append(weight)
        loss += of_module
        readings |= hard_samples.readings(weight, of_samples, task, settings)
    terms = {"weighting": loss} if settings.objective in hard_samples.LEARNT else {}
    return (weights[0], weights[1]), terms, readings


def _samples(
    heard: list[Array],
    truth: _Truth,
    bin_cents: np.ndarray,
    unweighted: _Unweighted,
    settings: hard_samples.HardSamples,
) -> tuple[hard_samples.Samples, hard_samples.Samples]:
    """What is weighed for separation: segments; and for pitch: [batch, frame], or segments as
    [batch, 1].
    """
    right = [
        hard_samples.right_frames(
            x,
            truth.f0_hz,
            bin_cents,
            tolerance_cents=settings.tolerance_cents,
            voicing=settings.voicing,
        )
        for x in heard
    ]
    voiced = truth.has_pitch & (truth.f0_hz > 0)
    known = voiced & truth.has_source[:, None]
    if settings.grain == "frame":
        case = hard_samples.case_numbers(right[0], right[1], known)
        return (
            hard_samples.Samples(unweighted.distance, hard_samples.segment_shares(case)),
            hard_samples.Samples(unweighted.likelihood, hard_samples.case_shares(case)),
        )
    right = [
        hard_samples.right_segments(x, voiced, right_share=settings.right_share) for x in right
    ]
    case = hard_samples.case_numbers(right[0], right[1], known.any(1))
    shares = hard_samples.case_shares(case)
    of_frames = jnp.where(truth.has_pitch, unweighted.likelihood, 0.0).sum(1, keepdims=True)
    likelihood = of_frames / jnp.maximum(truth.has_pitch.sum(1, keepdims=True), 1)
    return (
        hard_samples.Samples(unweighted.distance, shares),
        hard_samples.Samples(likelihood, shares[..., None]),
    )


def _draw_frames(keys: Array, frames: int, drawn: int) -> Array:
    """One random frame from each of `drawn` equal stretches of a segment: [batch, drawn]."""
    if not 0 < drawn <= frames or frames % drawn:
        raise ValueError(
            f"config.losses.pitch_frames is {drawn}; expected a divisor of {frames}, "
            "the frames of a segment"
        )
    stride = frames // drawn
    offsets = jax.vmap(lambda key: jax.random.randint(key, (drawn,), 0, stride))(keys)
    return jnp.arange(drawn)[None] * stride + offsets


def _separation_loss(name: str, estimate: Array, truth: Array) -> Array:
    match name:
        case "l1_wav":
            return separation.l1_wav(estimate, truth)
        case "l1_mag":
            spectra = (
                stft.stft(x, window_samples=1024, hop_samples=320) for x in (estimate, truth)
            )
            return separation.l1_mag(*map(stft.magnitude, spectra))
        case "neg_sdr":
            return separation.neg_sdr(estimate, truth)
        case "neg_si_sdr":
            return separation.neg_si_sdr(estimate, truth)
    raise ValueError(
        f"config.losses.separation is {name!r}; expected l1_wav, l1_mag, neg_sdr or neg_si_sdr"
    )


def _pitch_targets(f0_hz: Array, bin_cents: np.ndarray, width_cents: float) -> Array:
    """One-hot for width 0 (DJCM), else blurred (CREPE)."""
    if width_cents == 0:
        return pitch.one_hot_targets(f0_hz, bin_cents)
    return pitch.gaussian_targets(f0_hz, bin_cents, width_cents=width_cents)
