"""Decoupled estimation of a source's magnitude and phase from a mixture (Kong et al., ISMIR
2021).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from majl_jax.audio.stft import istft, magnitude, stft

# Per source and channel: mask logit, real and imaginary phase residual, residual magnitude
MAPS = 4
_NORM_FLOOR = 1e-10


def decouple(
    maps: Float[Array, "*#any 4"], mixture: Complex[Array, "*#any"]
) -> Complex[Array, "*any"]:
    """The source's spectrum Y = |Y| exp(i (angle X + angle M)) of the mixture's X, with |Y| =
    relu(|X| m + Q).

    m = sigmoid(maps[0]), cos M and sin M are tanh(maps[1]) and tanh(maps[2]) over their norm (at
    least 1e-10), Q = maps[3]; Kong et al., sec. 3.3. The gradients are finite everywhere: a phase
    residual of length 0 has no direction and passes none, and |X| counts as at least 1e-5.
    Computed in float32.
    """
    maps = maps.astype(jnp.float32)
    level = magnitude(mixture)
    mixture_cos, mixture_sin = jnp.real(mixture) / level, jnp.imag(mixture) / level
    residual_cos, residual_sin = _unit(jnp.tanh(maps[..., 1]), jnp.tanh(maps[..., 2]))
    estimate = jax.nn.relu(level * jax.nn.sigmoid(maps[..., 0]) + maps[..., 3])
    return jax.lax.complex(
        estimate * (mixture_cos * residual_cos - mixture_sin * residual_sin),
        estimate * (mixture_sin * residual_cos + mixture_cos * residual_sin),
    )


def separate_by_maps(
    mixture: Float[Array, "batch time channel"],
    network: Callable[[Array], Array],
    *,
    sources: int,
    window_samples: int,
    hop_samples: int,
) -> Float[Array, "batch time source channel"]:
    """STFT, `network`, `decouple`, inverse STFT; any length of more than half a window.

    The last frequency of the estimates is silent. ceil(time / hop) frames: one that would be
    centred where the signal ends is left out, so that there are as many frames as hops.

    Args:
        mixture: the sound.
        network: magnitudes [batch, channel, frame, frequency] to [batch, frame, frequency - 1,
            source * channel * 4].
        sources: how many come out.
        window_samples: of the STFT.
        hop_samples: of the STFT.
    """
    length, channels = mixture.shape[1:]
    spectrum = stft(mixture.swapaxes(1, 2), window_samples=window_samples, hop_samples=hop_samples)[
        ..., : -(-length // hop_samples), :
    ]
    maps = network(magnitude(spectrum))
    maps = jnp.pad(maps, ((0, 0), (0, 0), (0, 1), (0, 0)))
    maps = maps.reshape(*maps.shape[:3], sources, channels, MAPS)
    # Sources and channels first, as the inverse STFT needs them.
    estimate = decouple(maps.transpose(0, 3, 4, 1, 2, 5), spectrum[:, None])
    audio = istft(
        estimate,
        window_samples=window_samples,
        hop_samples=hop_samples,
        length_samples=length,
    )
    return audio.transpose(0, 3, 1, 2)


def _unit(real: Array, imaginary: Array) -> tuple[Array, Array]:
    power = real**2 + imaginary**2
    # Neither branch of the second `where` is differentiated at 0, where the square root has no
    # slope.
    directed = power > _NORM_FLOOR**2
    norm = jnp.sqrt(jnp.where(directed, power, 1.0))
    scale = jnp.where(directed, 1.0 / norm, 0.0)
    rest = jax.lax.stop_gradient(jnp.where(directed, 0.0, 1.0 / _NORM_FLOOR))
    still_real, still_imaginary = jax.lax.stop_gradient((real, imaginary))
    return real * scale + still_real * rest, imaginary * scale + still_imaginary * rest
