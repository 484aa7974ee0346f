"""Convolutions rewritten so that XLA runs them fast on a CPU, above all their gradients.

All compute exactly what `jax.lax` computes (tests compare them); only the order of summation
differs. Measured on two CPU cores with jax 0.10.2: CREPE's forward pass and gradients take a third
(tiny) to a tenth (full) of the time of `lax.conv_general_dilated`, the gradients of the U-Net's
two kinds of layer a fifth of what automatic differentiation gives. `benchmarks/against_torch.py`
prints the ratios to PyTorch.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


# Traced once for all calls of one size, gradients included: CREPE may hear two voices in a step.
@functools.partial(jax.jit, static_argnames=("stride", "padding"))
def conv1d_spectral(
    inputs: Float[Array, "time row channel_in"],
    kernel: Float[Array, "width channel_in channel_out"],
    *,
    stride: int = 1,
    padding: tuple[int, int],
) -> Float[Array, "time_out row channel_out"]:
    """Strided 1-D convolution, `y[p] = sum_k x[p * stride + k - padding[0]] w[k]`, as a product of
    spectra.

    For signals this short (CREPE: 8 to 256 samples) the Fourier transform itself is a product with
    a constant matrix, so that all is dense matrix products, forwards and backwards, 4 to 20 times
    fewer multiplications than the direct sum. On the axes (time, row, channel) none of them needs
    a transposed copy. Only on CPU: accelerators have fast direct convolutions and round what goes
    through their matrix units.
    """
    width, channels_in, channels_out = kernel.shape
    time, rows, _ = inputs.shape
    dtype = inputs.dtype
    outputs = (time + sum(padding) - width) // stride + 1

    def direct(inputs: Array, kernel: Array) -> Array:
        dimensions = ("NWC", "WIO", "NWC")
        rows_first = inputs.transpose(1, 0, 2)
        convolved = jax.lax.conv_general_dilated(
            rows_first, kernel, (stride,), [padding], dimension_numbers=dimensions
        )
        return convolved.transpose(1, 0, 2)

    def spectral(inputs: Array, kernel: Array) -> Array:
        # `stride` neighbouring samples become channels: tap k reads channel q of the sample m
        # outputs later, k - padding[0] = stride m + q.
        before = -padding[0] % stride
        low = -(padding[0] + before) // stride
        inputs, kernel = inputs.astype(jnp.float32), kernel.astype(jnp.float32)
        kernel = jnp.pad(kernel, ((before, -(before + width) % stride), (0, 0), (0, 0)))
        kernel = kernel.reshape(-1, stride * channels_in, channels_out)
        inputs = jnp.pad(inputs, ((0, -time % stride), (0, 0), (0, 0)))
        inputs = (
            inputs.reshape(-1, stride, rows, channels_in)
            .swapaxes(1, 2)
            .reshape(-1, rows, stride * channels_in)
        )
        # Taps that reach past the whole signal from every output are left out.
        first, last = max(low, 1 - outputs), min(low + len(kernel), len(inputs)) - 1
        kernel = kernel[first - low : last - low + 1]
        analysis, kernel_analysis, synthesis = _fourier_matrices(len(inputs), outputs, first, last)
        x = (analysis @ inputs.reshape(len(inputs), -1)).reshape(2, -1, rows, stride * channels_in)
        w = (kernel_analysis @ kernel.reshape(len(kernel), -1)).reshape(
            2, -1, stride * channels_in, channels_out
        )
        real = jnp.matmul(x[0], w[0]) - jnp.matmul(x[1], w[1])
        imaginary = jnp.matmul(x[0], w[1]) + jnp.matmul(x[1], w[0])
        spectrum = jnp.stack([real, imaginary]).reshape(synthesis.shape[1], -1)
        convolved = jnp.matmul(synthesis, spectrum)
        return convolved.reshape(outputs, rows, channels_out).astype(dtype)

    return jax.lax.platform_dependent(inputs, kernel, cpu=spectral, default=direct)


@functools.cache
def _fourier_matrices(
    time: int, outputs: int, first: int, last: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x -> X, w -> W and X W -> y; real parts of all frequencies, then imaginary parts. Taps reach
    from `first` to `last`.
    """
    # Circular, just long enough for what wraps around to fall on zeros.
    length = max(time - first, outputs + last)
    frequency = np.arange(length // 2 + 1)

    def transform(positions: np.ndarray) -> np.ndarray:
        angle = 2 * np.pi * np.outer(frequency, positions) / length
        return np.concatenate([np.cos(angle), -np.sin(angle)])

    # Every frequency stands for its mirror as well, but the first and, of an even length, the last.
    count = np.where((frequency == 0) | (2 * frequency == length), 1, 2) / length
    synthesis = (transform(np.arange(outputs)) * np.tile(count, 2)[:, None]).T
    analysis, kernel_analysis = transform(np.arange(time)), transform(-np.arange(first, last + 1))
    return (
        analysis.astype(np.float32),
        kernel_analysis.astype(np.float32),
        synthesis.astype(np.float32),
    )


@jax.custom_vjp
def conv_halve(
    inputs: Float[Array, "batch time frequency channel_in"],
    kernel: Float[Array, "height width channel_in channel_out"],
) -> Float[Array, "batch time2 frequency2 channel_out"]:
    """Convolution with stride 2 and 'SAME' padding of even sizes, with a gradient that is no
    dilated convolution.

    XLA differentiates it to a dilated convolution, which for some shapes falls back to plain loops
    (20 times slower at the U-Net's lowest level). The same gradient is a `conv_transpose_double`
    with the reversed kernel.
    """
    return _strided(inputs, kernel)


def _halve_backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    inputs, kernel = residuals
    kernel_gradient = _kernel_gradient(inputs, kernel, cotangent)
    return conv_transpose_double(cotangent, _reversed(kernel)), kernel_gradient


conv_halve.defvjp(lambda x, w: (conv_halve(x, w), (x, w)), _halve_backward)


@jax.custom_vjp
def conv_transpose_double(
    inputs: Float[Array, "batch time frequency channel_in"],
    kernel: Float[Array, "height width channel_in channel_out"],
) -> Float[Array, "batch time2 frequency2 channel_out"]:
    """Transposed convolution with stride 2 and 'SAME' padding as one dense convolution to four
    phases, interleaved.

    Output `2 p + r` along an axis sees only the taps `k` with `r + k - pad` even, at input `p + (r
    + k - pad) / 2`, so each of the 2 x 2 phases `r` is a small stride-1 convolution of the input.
    Equal to `jax.lax.conv_transpose(..., (2, 2), "SAME")`. Its gradient is a `conv_halve` with the
    reversed kernel.
    """
    (rows, first_row), (columns, first_column) = (_phase_taps(size) for size in kernel.shape[:2])
    *_, channels_in, channels_out = kernel.shape
    # The added taps are the zeros that `_phase_taps` points at.
    padded = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    phases = padded[rows][:, :, columns].transpose(0, 2, 4, 1, 3, 5)
    phases = phases.reshape(len(rows), len(columns), channels_in, 4 * channels_out)
    padding = [
        (-first_row, len(rows) - 1 + first_row),
        (-first_column, len(columns) - 1 + first_column),
    ]
    outputs = jax.lax.conv_general_dilated(
        inputs, phases, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    batch, time, frequency, _ = outputs.shape
    outputs = outputs.reshape(batch, time, frequency, 2, 2, channels_out).transpose(
        0, 1, 3, 2, 4, 5
    )
    return outputs.reshape(batch, 2 * time, 2 * frequency, channels_out)


def _double_backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    inputs, kernel = residuals
    # <g, double(x, w)> = <halve(g, reversed w), x>: both gradients are those of the right side.
    kernel_gradient = _kernel_gradient(cotangent, _reversed(kernel), inputs)
    return conv_halve(cotangent, _reversed(kernel)), _reversed(kernel_gradient)


conv_transpose_double.defvjp(lambda x, w: (conv_transpose_double(x, w), (x, w)), _double_backward)


def _reversed(kernel: Array) -> Array:
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _strided(inputs: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(
        inputs, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _kernel_gradient(inputs: Array, kernel: Array, cotangent: Array) -> Array:
    return jax.linear_transpose(lambda k: _strided(inputs, k), kernel)(cotangent)[0]


def _phase_taps(size: int) -> tuple[np.ndarray, int]:
    """For a kernel of `size` taps: which tap each (input offset, phase) uses (`size` = none), and
    the first offset.
    """
    # 'SAME' for a transposed convolution of stride 2 pads the dilated input so that it grows to
    # exactly twice its length.
    pad = size - 1 if size < 3 else -(-size // 2)
    taps = {
        ((r + k - pad) // 2, r): k for r in range(2) for k in range(size) if (r + k - pad) % 2 == 0
    }
    first, last = min(offset for offset, _ in taps), max(offset for offset, _ in taps)
    table = np.full((last - first + 1, 2), size)
    for (offset, phase), tap in taps.items():
        table[offset - first, phase] = tap
    return table, first
