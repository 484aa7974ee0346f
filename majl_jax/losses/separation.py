"""Losses between estimated and true sources, one value per example.

`axes` are the axes to reduce; None reduces all but the first. For stems [batch, time, stem,
channel], axes=(1, 3) gives one value per example and stem, ready to be masked by `has_stems`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

Axes = tuple[int, ...] | None


def l1_wav(
    estimate: Float[Array, "*shape"], target: Float[Array, "*shape"], *, axes: Axes = None
) -> Float[Array, "..."]:
    """mean |s_hat - s| of waveforms (Kong et al. 2021; Wei et al. 2024); where both are equal the
    gradient is 0.
    """
    return _mean(_absolute(estimate - target), axes)


def l1_mag(
    estimate: Float[Array, "*shape"], target: Float[Array, "*shape"], *, axes: Axes = None
) -> Float[Array, "..."]:
    """mean | |Y_hat| - |Y| | of magnitude spectrograms (Jansson et al. 2017, sec. 3); the gradient
    as of `l1_wav`.
    """
    return _mean(_absolute(estimate - target), axes)


def neg_sdr(
    estimate: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    *,
    axes: Axes = None,
    floor: float = 1e-8,
) -> Float[Array, "..."]:
    """-SDR in dB: 10 lg max(mean (s_hat - s)^2, floor) - 10 lg max(mean s^2, floor).

    The negative of `metrics.sdr_db` (DJCM code, `evaluate.py`); below the floor the gradient is 0.
    """
    noise = _mean((estimate - target) ** 2, axes)
    signal = _mean(target**2, axes)
    return 10.0 * (jnp.log10(jnp.maximum(noise, floor)) - jnp.log10(jnp.maximum(signal, floor)))


def neg_si_sdr(
    estimate: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    *,
    axes: Axes = None,
    zero_mean: bool = False,
    floor: float = 1e-8,
) -> Float[Array, "..."]:
    """-SI-SDR in dB (Le Roux et al. 2019), with a = <s_hat, s> / (|s|^2 + floor):

    10 lg (mean (s_hat - a s)^2 + floor) - 10 lg (mean (a s)^2 + floor).

    Args:
        estimate: s_hat.
        target: s.
        axes: those to reduce.
        zero_mean: whether the mean of both is removed first.
        floor: added to mean squares, so that silence has a value.
    """
    kept = tuple(range(1, estimate.ndim)) if axes is None else axes
    if zero_mean:
        estimate = estimate - jnp.mean(estimate, axis=kept, keepdims=True)
        target = target - jnp.mean(target, axis=kept, keepdims=True)
    dot = jnp.mean(estimate * target, axis=kept, keepdims=True)
    energy = jnp.mean(target**2, axis=kept, keepdims=True)
    projection = dot / (energy + floor) * target
    noise = _mean((estimate - projection) ** 2, axes)
    return 10.0 * (jnp.log10(noise + floor) - jnp.log10(_mean(projection**2, axes) + floor))


def _absolute(x: Array) -> Array:
    # The gradient of jnp.abs at 0 would be 1.
    return x * jnp.sign(x)


def _mean(x, axes: Axes):
    return jnp.mean(x, axis=tuple(range(1, x.ndim)) if axes is None else axes)
