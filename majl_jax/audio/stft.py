"""Short-time Fourier transform and its inverse, fast forwards and backwards on a CPU.

Why own code: framing by gather is the fastest forward pass, but its automatic gradient is a
scatter; overlap-add by in-place slices is the fastest gradient. So each of the two is declared
the transpose of the other. JAX transposes `rfft` as a complex FFT of full length, although an
`irfft` does the same with half the work. Zeros are padded by concatenation, because XLA fuses a
pad into the gather behind it and then branches at every sample.
Reverse-mode only (`jax.grad`, `jax.vjp`), to any order.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import signal
from jaxtyping import Array, Complex, Float

WINDOW_SUM_FLOOR = 1e-11


def hann_window(window_samples: int) -> np.ndarray:
    """Periodic Hann window w[n] = 0.5 - 0.5 cos(2 pi n / N), float32 [window_samples]."""
    phase = 2 * np.pi * np.arange(window_samples) / window_samples
    return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


def stft(
    x: Float[Array, "*batch time"], *, window_samples: int, hop_samples: int
) -> Complex[Array, "*batch frame frequency"]:
    """Centred STFT, X[k, f] = sum_n w[n] x[k hop + n - N/2] exp(-2 pi i f n / N).

    Periodic Hann window, reflect padding by N/2, not normalised (as torch.stft and librosa):
    1 + time // hop_samples frames, frame k is centred at sample k * hop_samples.
    """
    _check_sizes(window_samples, hop_samples)
    half = window_samples // 2
    if x.shape[-1] <= half:
        raise ValueError(
            f"stft got {x.shape[-1]} samples; reflect padding of a {window_samples}-sample window "
            f"needs more than {half}. Pad the signal or choose a shorter window."
        )
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(half, half)], mode="reflect")
    frames: Array = frame(padded, window_samples, hop_samples)
    return _rfft(frames * jax.lax.broadcast_to_rank(hann_window(window_samples), frames.ndim))


def istft(
    spec: Complex[Array, "*batch frame frequency"],
    *,
    window_samples: int,
    hop_samples: int,
    length_samples: int,
) -> Float[Array, "*batch time"]:
    """Least-squares inverse of `stft`: sum_k w x_k / sum_k w^2, cut to exactly `length_samples`.

    Griffin & Lim 1984, eq. 6. The window sum has a floor of 1e-11.
    """
    _check_sizes(window_samples, hop_samples)
    frames, bins = spec.shape[-2:]
    half = window_samples // 2
    if bins != half + 1:
        raise ValueError(
            f"istft got {bins} frequency bins; a {window_samples}-sample window has {half + 1}. "
            "Pass the window_samples that made the spectrogram."
        )
    covered = (frames - 1) * hop_samples + half
    if length_samples > covered:
        raise ValueError(
            f"istft got {frames} frames, which reach sample {covered}, but length_samples is "
            f"{length_samples}. Compute more frames or ask for fewer samples."
        )
    window = hann_window(window_samples)
    parts: Array = _irfft(spec)
    signal: Array = overlap_add(parts * jax.lax.broadcast_to_rank(window, spec.ndim), hop_samples)
    window_sum = _overlap_add_numpy(np.tile(window**2, (frames, 1)), hop_samples)
    window_sum = np.maximum(window_sum[half : half + length_samples], WINDOW_SUM_FLOOR)
    scale = (1.0 / window_sum).astype(np.float32)
    cropped: Array = _crop(signal, half, length_samples)
    return cropped * jax.lax.broadcast_to_rank(scale, signal.ndim)


def magnitude(spec: Complex[Array, "*any"], floor: float = 1e-10) -> Float[Array, "*any"]:
    """|X| = sqrt(max(re^2 + im^2, floor)); `floor` is a power, so silence has a zero gradient."""
    return jnp.sqrt(jnp.maximum(jnp.real(spec) ** 2 + jnp.imag(spec) ** 2, floor))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def frame(
    x: Float[Array, "*batch time"], window_samples: int, hop_samples: int
) -> Float[Array, "*batch frame window"]:
    """Overlapping frames x[k hop : k hop + window]; a tail that fills no frame is left out."""
    count = (x.shape[-1] - window_samples) // hop_samples + 1
    starts = np.arange(count)[:, None] * hop_samples
    return x[..., starts + np.arange(window_samples)]


def _frame_forward(x, window_samples, hop_samples):
    return frame(x, window_samples, hop_samples), x.shape[-1]


def _frame_backward(window_samples, hop_samples, time, cotangent):
    signal: Array = overlap_add(cotangent, hop_samples)
    return (_pad_zeros(signal, 0, time - signal.shape[-1]),)


frame.defvjp(_frame_forward, _frame_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def overlap_add(
    frames: Float[Array, "*batch frame window"], hop_samples: int
) -> Float[Array, "*batch time"]:
    """Sum of frames placed hop_samples apart, the transpose of `frame`."""
    count, window_samples = frames.shape[-2:]
    parts = -(-window_samples // hop_samples)
    out = jnp.zeros((*frames.shape[:-2], count + parts - 1, hop_samples), frames.dtype)
    # Column block i of every frame belongs i hops later: `parts` dense additions, no scatter.
    for part in range(parts):
        block = frames[..., part * hop_samples : (part + 1) * hop_samples]
        out = out.at[..., part : part + count, : block.shape[-1]].add(block)
    out = out.reshape(*frames.shape[:-2], (count + parts - 1) * hop_samples)
    time = (count - 1) * hop_samples + window_samples
    return out[..., :time]


def _overlap_add_forward(frames, hop_samples):
    return overlap_add(frames, hop_samples), frames.shape[-1]


def _overlap_add_backward(hop_samples, window_samples, cotangent):
    return (frame(cotangent, window_samples, hop_samples),)


overlap_add.defvjp(_overlap_add_forward, _overlap_add_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _crop(x, start, length):
    return x[..., start : start + length]


def _crop_forward(x, start, length):
    return _crop(x, start, length), x.shape[-1]


def _crop_backward(start, length, time, cotangent):
    return (_pad_zeros(cotangent, start, time - start - length),)


_crop.defvjp(_crop_forward, _crop_backward)


def _pad_zeros(x, left, right):
    zeros = [jnp.zeros((*x.shape[:-1], n), x.dtype) for n in (left, right)]
    return jnp.concatenate([zeros[0], x, zeros[1]], axis=-1)


@jax.custom_vjp
def _rfft(x):
    return jnp.fft.rfft(x)


@jax.custom_vjp
def _irfft(spec):
    return jnp.fft.irfft(spec, n=2 * (spec.shape[-1] - 1))


def _rfft_backward(_, cotangent):
    # x_n = Re sum_f t_f exp(-i theta) = N irfft(conj(t) m) with m halving all but the end bins,
    # because irfft counts those once and the others twice.
    window_samples = 2 * (cotangent.shape[-1] - 1)
    return (_irfft(_scaled_conjugate(cotangent, window_samples / 2, window_samples)),)


def _irfft_backward(_, cotangent):
    window_samples = cotangent.shape[-1]
    return (_scaled_conjugate(_rfft(cotangent), 2 / window_samples, 1 / window_samples),)


def _scaled_conjugate(spec, inner, ends):
    scale = np.full(spec.shape[-1], inner, np.float32)
    scale[[0, -1]] = ends
    scale = jax.lax.broadcast_to_rank(scale, spec.ndim)
    return jax.lax.complex(jnp.real(spec) * scale, -jnp.imag(spec) * scale)


_rfft.defvjp(lambda x: (_rfft(x), None), _rfft_backward)
_irfft.defvjp(lambda spec: (_irfft(spec), None), _irfft_backward)


def _overlap_add_numpy(frames: np.ndarray, hop_samples: int) -> np.ndarray:
    count, window_samples = frames.shape
    out = np.zeros((count - 1) * hop_samples + window_samples)
    for k in range(count):
        out[k * hop_samples : k * hop_samples + window_samples] += frames[k]
    return out


def _check_sizes(window_samples: int, hop_samples: int) -> None:
    if window_samples < 2 or window_samples % 2:
        raise ValueError(f"window_samples must be an even number >= 2, got {window_samples}.")
    if not 0 < hop_samples <= window_samples // 2:
        raise ValueError(
            f"hop_samples must be in 1..{window_samples // 2} (half the window), "
            f"got {hop_samples}: a larger hop leaves samples that no window can restore."
        )


def scaled_stft(
    x: Float[Array, "*batch time"], *, window_samples: int, hop_samples: int
) -> Complex[Array, "*batch frame frequency"]:
    """X[k, f] = sum_n w[n] x[k hop + n - N/2] exp(-2 pi i f n / N) / sum w; 1 + ceil(time / hop)
    frames.
    """
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
            f"scaled_istft got {spectrum.shape[-2]} frames, which reach sample {covered}, but"
            f" length_samples is {length_samples}"
        )
    arguments = _scaled_arguments(window_samples, hop_samples)
    _, x = signal.istft(jnp.swapaxes(spectrum, -1, -2), **arguments)
    return x[..., :length_samples]


def _scaled_arguments(window_samples: int, hop_samples: int) -> dict[str, Any]:
    if hop_samples < 1 or window_samples % (2 * hop_samples):
        raise ValueError(
            f"window_samples is {window_samples}, hop_samples {hop_samples}; expected an even"
            " number of hops in a window"
        )
    phase = 2 * np.pi * np.arange(window_samples) / window_samples
    window = np.sqrt(0.5 - 0.5 * np.cos(phase)).astype(np.float32)
    overlap = window_samples - hop_samples
    return {"window": window, "nperseg": window_samples, "noverlap": overlap}
