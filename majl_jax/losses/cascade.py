"""The loss of MAJL's joint cascade: separation and pitch, each over what is labelled, harder samples counting more."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from majl_jax.audio import mixing, pitch, stft
from majl_jax.batch import Batch
from majl_jax.losses import hard_samples, salience_terms, separation, weighting
from majl_jax.models.cascade import Cascade

OPTIONAL = ("pitch_on_target", "weighting")  # terms that exist in some stages only


@dataclasses.dataclass(frozen=True)
class _Heard:
    """The labels of the frames whose pitch loss is taken, and what PE hears in them."""

    index: Integer[Array, "batch frame"]
    f0_hz: Float[Array, "batch frame"]
    has_pitch: Bool[Array, "batch frame"]
    targets: Float[Array, "batch frame bin"]
    logits: Float[Array, "batch frame bin"]


def cascade_loss(
    params: Any,
    mutables: Any,
    batch: Batch,
    key: Any,
    *,
    cascade: Cascade,
    target: int,
    separation_loss: str,
    positive_weight: float,
    target_width_cents: float,
    pitch_frames: int,
    mixture_gain: float,
    joint: bool,
    stop_gradient: bool,
    dynamic: hard_samples.HardSamples | None,
    weights: Mapping[str, float],
) -> tuple[Float[Array, ""], tuple[Any, dict[str, Array]]]:
    """L = mean_i w_separation a_i L_separation(s_hat_i, s_i) + w_pitch b_i L_pitch(PE(s_hat_i), y_i), over what is labelled.

    With `joint`, PE hears the estimate (gradients flow into the separator unless `stop_gradient`); without, the true voice:
    two networks trained side by side, each on its own loss. L_pitch is taken on `pitch_frames` frames per segment, one drawn
    from each of as many equal stretches: neighbouring 64 ms frames share most of their samples.

    `dynamic` makes the weights a_i and b_i of a segment depend on how hard it is (losses/hard_samples.py); None: both are 1.
    """
    stems = mixing.to_float(batch["stems"])
    truth = stems[:, :, target, 0]
    frame_key, dropout_key = jax.random.split(key)
    # The first example's number tells the devices apart, so that they drop different units.
    keys = jax.random.split(jax.random.fold_in(dropout_key, batch["index"][0]))
    variables = {"params": params, **mutables}
    estimate, separator_state = cascade.separate(
        variables, mixture_gain * mixing.mixture(stems)[..., 0], key=keys[0]
    )

    index = _draw_frames(
        mixing.example_keys(frame_key, batch["index"]), batch["f0_hz"].shape[1], pitch_frames
    )
    f0_hz, has_pitch = (
        jnp.take_along_axis(batch[name][:, :, target], index, 1) for name in ("f0_hz", "has_pitch")
    )
    heard = jax.lax.stop_gradient(estimate) if stop_gradient else estimate
    logits, pitch_state = cascade.listen(
        variables, heard if joint else truth, index=index, key=keys[1]
    )
    targets = _pitch_targets(f0_hz, cascade.bin_cents, target_width_cents)
    frames = _Heard(index, f0_hz, has_pitch, targets, logits)

    has_target, weighed, more, readings = batch["has_stems"][:, target], jnp.ones(2), {}, {}
    if dynamic is not None or weights.get("pitch_on_target"):
        # The same parameters, dropout and kind of statistics as for the estimate; these statistics are not kept.
        of_truth, _ = cascade.listen(variables, truth, index=index, key=keys[1])
        if weights.get("pitch_on_target"):
            likelihood = salience_terms.weighted_bce(
                of_truth, targets, positive_weight=positive_weight
            )
            more["pitch_on_target"] = weighting.masked_mean(
                likelihood, has_pitch & has_target[:, None]
            )
        if dynamic is not None:
            weighed, found, readings = _dynamic_weights(
                variables, cascade, frames, of_truth, has_target, dynamic
            )
            more |= found
    distance = _separation_loss(separation_loss, estimate, truth)
    likelihood = salience_terms.weighted_bce(logits, targets, positive_weight=positive_weight)
    terms = {
        "separation": weighting.masked_mean(weighed[..., 0] * distance, has_target),
        "pitch": weighting.masked_mean(weighed[..., 1, None] * likelihood, has_pitch),
        **more,
    }
    used = {k: w for k, w in weights.items() if k in terms or k not in OPTIONAL}
    states = {"separator": separator_state, "pitch": pitch_state}
    updated = {
        c: {name: states[name].get(c, old) for name, old in parts.items()}
        for c, parts in mutables.items()
    }
    return weighting.weighted_sum(terms, used), (updated, {**terms, **readings})


def _dynamic_weights(
    variables: Any,
    cascade: Cascade,
    frames: _Heard,
    of_truth: Float[Array, "batch frame bin"],
    has_target: Bool[Array, "batch"],
    settings: hard_samples.HardSamples,
) -> tuple[Float[Array, "batch 2"], dict[str, Array], dict[str, Array]]:
    """Weights of (separation, pitch) per segment, the weight module's loss if it has one, and readings."""
    saliences = [jax.lax.stop_gradient(jax.nn.sigmoid(x)) for x in (frames.logits, of_truth)]
    (right_in_estimate, known), (right_in_target, _) = (
        hard_samples.right_segments(
            heard,
            frames.f0_hz,
            frames.has_pitch,
            cascade.bin_cents,
            right_share=settings.right_share,
            tolerance_cents=settings.tolerance_cents,
            voicing=settings.voicing,
        )
        for heard in saliences
    )
    case = hard_samples.case_numbers(right_in_estimate, right_in_target, known & has_target)
    in_estimate, in_target = saliences
    scores = cascade.weigh(variables, in_estimate, in_target, frames.targets, frames.has_pitch)
    weights, loss = hard_samples.sample_weights(scores, case, settings)
    terms = {"weighting": loss} if settings.objective in ("regularised", "supervised") else {}
    return weights, terms, hard_samples.readings(weights, case, settings)


def _draw_frames(keys: Array, frames: int, drawn: int) -> Array:
    """One random frame from each of `drawn` equal stretches of a segment: [batch, drawn]."""
    if not 0 < drawn <= frames or frames % drawn:
        raise ValueError(
            f"config.losses.pitch_frames is {drawn}; expected a divisor of {frames}, "
            "the frames of a segment"
        )
    stride = frames // drawn
    offsets = jax.vmap(lambda key: jax.random.randint(key, (drawn,), 0, stride))(keys)
    return jnp.arange(drawn) * stride + offsets


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
