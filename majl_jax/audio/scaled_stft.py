"""The STFT of nussl's networks: square root of a Hann window, zeros at both ends, divided by the sum of the window.

It is scipy.signal.stft with this window: a sine of amplitude 1 has a magnitude of 1/2, whatever the length of the window. The
scale decides where a floor in decibels lies and how much a loss on magnitudes weighs.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy import signal
from jaxtyping import Array, Complex, Float


def scaled_stft(
    x: Float[Array, "*batch time"], *, window_samples: int, hop_samples: int
) -> Complex[Array, "*batch frame frequency"]:
    """X[k, f] = sum_n w[n] x[k hop + n - N/2] exp(-2 pi i f n / N) / sum w; 1 + ceil(time / hop) frames."""
    _, _, spectrum = signal.stft(x, **_scaled_arguments(window_samples, hop_samples))
    return jnp.swapaxes(spectrum, -1, -2)


def scaled_istft(
    spectrum: Complex[Array, "*batch frame frequency"],
    *,
    window_samples: int,
    hop_samples: int,
    length_samples: int,
) -> Float[Array, "*batch time"]:
    """The inverse of `scaled_stft`, cut to `length_samples`."""
    if length_samples > (covered := (spectrum.shape[-2] - 1) * hop_samples):
        raise ValueError(
            f"scaled_istft got {spectrum.shape[-2]} frames, which reach sample {covered}, but length_samples is {length_samples}"
        )
    arguments = _scaled_arguments(window_samples, hop_samples)
    _, x = signal.istft(jnp.swapaxes(spectrum, -1, -2), **arguments)
    return x[..., :length_samples]


def _scaled_arguments(window_samples: int, hop_samples: int) -> dict[str, Any]:
    if hop_samples < 1 or window_samples % (2 * hop_samples):
        raise ValueError(
            f"window_samples is {window_samples}, hop_samples {hop_samples}; expected an even number of hops in a window"
        )
    phase = 2 * np.pi * np.arange(window_samples) / window_samples
    window = np.sqrt(0.5 - 0.5 * np.cos(phase)).astype(np.float32)
    overlap = window_samples - hop_samples
    return {"window": window, "nperseg": window_samples, "noverlap": overlap}
