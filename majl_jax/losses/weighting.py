"""Which example and which frame counts how much: masked means, and the trust in pseudo labels."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from majl_jax import parallel


def masked_mean(
    values: Float[Array, "*shape"], weights: Float[Array, "*shape"] | Bool[Array, "*shape"]
) -> Float[Array, ""]:
    """sum(w v) / sum(w) over the examples of all devices; 0 where no example counts.

    Each device returns its part times the number of devices, so that the mean over devices, which the training step
    takes of losses and gradients, is the global masked mean even if one device's share has fewer labels.
    """
    weights = weights.astype(jnp.float32)
    count = parallel.across(weights.sum())
    return jnp.where(weights > 0, values * weights, 0.0).sum() / jnp.maximum(count, 1e-6)


def weighted_sum(
    terms: Mapping[str, Float[Array, ""]], weights: Mapping[str, float]
) -> Float[Array, ""]:
    """sum_i w_i L_i; a term without a weight, or a weight without a term, is an error."""
    if terms.keys() != weights.keys():
        raise ValueError(
            f"config.weights names {sorted(weights)}, the loss has the terms {sorted(terms)}: every term needs a "
            "weight of its name (0 switches it off), and every weight a term"
        )
    return jnp.sum(jnp.stack([weights[name] * value for name, value in terms.items()]))


def trusted_pitch(
    f0_hz: Float[np.ndarray, "frame"],
    confidence: Float[np.ndarray, "frame"],
    *,
    threshold: float,
    granularity: str = "frame",
    voicing: float = 0.5,
) -> tuple[Float[np.ndarray, "frame"], Bool[np.ndarray, "frame"]]:
    """A teacher's pitch as labels: (f0_hz with 0 = unvoiced, is it trusted), MAJL's filter.

    A frame is voiced where c_t = max_b p_tb reaches `voicing`; the trust in that decision is c_t or 1 - c_t, and it is kept
    where the trust reaches `threshold`. With granularity "segment" all frames are kept or dropped together, by their mean
    trust. The paper says that samples below the threshold are filtered out (0.7 is best); frames as the unit and the trust in
    unvoiced frames are our decision.
    """
    voiced = confidence >= voicing
    trust = np.where(voiced, confidence, 1.0 - confidence)
    if granularity == "frame":
        kept = trust >= threshold
    elif granularity == "segment":
        kept = np.full(len(trust), len(trust) > 0 and float(trust.mean()) >= threshold)
    else:
        raise ValueError(f"granularity is {granularity!r}; expected 'frame' or 'segment'")
    return np.where(voiced & kept, f0_hz, 0.0).astype(np.float32), kept


def stem_confidence(
    salience: Float[np.ndarray, "frame bin"],
    f0_hz: Float[np.ndarray, "frame"],
    has_pitch: Bool[np.ndarray, "frame"],
    bin_cents: Float[np.ndarray, "bin"],
    *,
    tolerance_cents: float = 50.0,
) -> float:
    """How far a pitch estimator hears the labelled pitch in a separated stem: a confidence for a waveform.

    mean over labelled voiced frames of max_{|c_b - c_t| <= tolerance} p_tb; 0 where no frame is voiced. A regression has no
    probability of its own, so this stands in for the confidence that the paper does not define (our decision).
    """
    voiced = has_pitch & (f0_hz > 0)
    if not voiced.any():
        return 0.0
    cents = 1200.0 * np.log2(f0_hz[voiced] / 10.0)
    near = np.abs(bin_cents[None] - cents[:, None]) <= tolerance_cents
    return float(np.where(near, salience[voiced], 0.0).max(axis=1).mean())
