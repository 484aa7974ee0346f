"""The loss of MAJL's joint cascade: separation and pitch, each over what is labelled."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from majl_jax.audio import mixing, pitch, stft
from majl_jax.batch import Batch
from majl_jax.losses import salience, separation, weighting
from majl_jax.models.cascade import Cascade


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
    weights: Mapping[str, float],
) -> tuple[Float[Array, ""], tuple[Any, dict[str, Array]]]:
    """L = w_separation L_separation(s_hat, s) + w_pitch L_pitch(PE(s_hat), y), each over what is labelled.

    With `joint`, PE hears the estimate (gradients flow into the separator unless `stop_gradient`); without, the true voice:
    two networks trained side by side, each on its own loss. L_pitch is taken on `pitch_frames` frames per segment, one drawn
    from each of as many equal stretches: neighbouring 64 ms frames share most of their samples.
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

    distance = _separation_loss(separation_loss, estimate, truth)
    likelihood = salience.weighted_bce(
        logits,
        _pitch_targets(f0_hz, cascade.bin_cents, target_width_cents),
        positive_weight=positive_weight,
    )
    terms = {
        "separation": weighting.masked_mean(distance, batch["has_stems"][:, target]),
        "pitch": weighting.masked_mean(likelihood, has_pitch),
    }
    states = {"separator": separator_state, "pitch": pitch_state}
    updated = {
        c: {name: states[name].get(c, old) for name, old in parts.items()}
        for c, parts in mutables.items()
    }
    return weighting.weighted_sum(terms, weights), (updated, terms)


def _draw_frames(keys: Array, frames: int, drawn: int) -> Array:
    """One random frame from each of `drawn` equal stretches of a segment: [batch, drawn]."""
    if not 0 < drawn <= frames or frames % drawn:
        raise ValueError(
            f"config.pitch.frames_per_segment is {drawn}; expected a divisor of {frames}, "
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
