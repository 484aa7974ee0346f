"""HarmoF0's two kinds of convolution, rewritten so that XLA runs their gradients fast on a CPU.

Both compute exactly what `jax.lax` computes (tests compare them). XLA's own gradient of a 3 x 3
kernel over images this large falls back to plain loops for some sizes, above all for batches of
one or two; products of few rows at a time stay in the cache.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_ROWS = 32  # 0.4 MB of activations at 8 channels


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def shifted_products(
    inputs: Float[Array, "batch time bin channel_in"],
    kernel: Float[Array, "shift channel_in channel_out"],
    shifts: tuple[int, ...],
) -> Float[Array, "batch time bin channel_out"]:
    """`y[f] = sum_i x[f + shifts[i]] kernel[i]` over the shifts that stay inside: 1 x 1
    convolutions along the bins, moved.
    """

    def few_rows(rows: Array) -> Array:
        return jax.lax.map(lambda chunk: _products(chunk, kernel, shifts), _chunks(rows))

    rows = inputs.reshape(-1, *inputs.shape[2:])
    outputs = jax.lax.platform_dependent(
        rows,
        cpu=lambda rows: few_rows(rows).reshape(-1, rows.shape[1], kernel.shape[2])[: len(rows)],
        default=lambda rows: _products(rows, kernel, shifts),
    )
    return outputs.reshape(*inputs.shape[:3], kernel.shape[2])


def _shifted_forward(inputs: Array, kernel: Array, shifts: tuple[int, ...]):
    return shifted_products(inputs, kernel, shifts), (inputs, kernel)


def _shifted_backward(shifts: tuple[int, ...], residuals: tuple[Array, Array], cotangent: Array):
    inputs, kernel = residuals
    back = tuple(-shift for shift in shifts)

    def gradients(rows: Array, gradient: Array) -> tuple[Array, Array]:
        parts = []
        for shift in shifts:
            start, stop = _inside(shift, rows.shape[1])
            moved = rows[:, start + shift : stop + shift]
            parts.append(_contract(moved, gradient[:, start:stop]))
        return jnp.stack(parts), _products(gradient, kernel.swapaxes(1, 2), back)

    def few_rows(rows: Array, gradient: Array) -> tuple[Array, Array]:
        def step(total: Array, chunk: tuple[Array, Array]) -> tuple[Array, Array]:
            kernel_part, inputs_part = gradients(*chunk)
            return total + kernel_part, inputs_part

        zeros = jnp.zeros(kernel.shape, jnp.float32)
        total, by_chunk = jax.lax.scan(step, zeros, (_chunks(rows), _chunks(gradient)))
        return total, by_chunk.reshape(-1, *rows.shape[1:])[: len(rows)]

    rows, gradient = (x.reshape(-1, *x.shape[2:]) for x in (inputs, cotangent))
    of_kernel, of_inputs = jax.lax.platform_dependent(
        rows, gradient, cpu=few_rows, default=gradients
    )
    return of_inputs.reshape(inputs.shape), of_kernel.astype(kernel.dtype)


shifted_products.defvjp(_shifted_forward, _shifted_backward)


@jax.custom_vjp
def conv3x3(
    inputs: Float[Array, "batch time bin channel_in"],
    kernel: Float[Array, "3 3 channel_in channel_out"],
) -> Float[Array, "batch time bin channel_out"]:
    """3 x 3 convolution with zero padding to the same size."""
    return _same_size(inputs, kernel)


def _same_size(inputs: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(
        inputs, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _conv_forward(inputs: Array, kernel: Array):
    return conv3x3(inputs, kernel), (inputs, kernel)


def _conv_backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    inputs, kernel = residuals
    reversed_kernel = kernel[::-1, ::-1].swapaxes(2, 3)

    def of_xla(inputs: Array, cotangent: Array) -> Array:
        conv = jax.linear_transpose(lambda kernel: _same_size(inputs, kernel), kernel)
        return conv(cotangent)[0].astype(jnp.float32)

    of_kernel = jax.lax.platform_dependent(
        inputs, cotangent, cpu=_conv_kernel_gradient, default=of_xla
    )
    return conv3x3(cotangent, reversed_kernel), of_kernel.astype(kernel.dtype)


conv3x3.defvjp(_conv_forward, _conv_backward)


def _conv_kernel_gradient(inputs: Array, cotangent: Array) -> Array:
    """One product per example of the inputs moved by three bins and the gradient moved by three
    frames: all nine taps.
    """
    bins, channels = inputs.shape[2], (inputs.shape[3], cotangent.shape[3])

    def step(total: Array, example: tuple[Array, Array]) -> tuple[Array, None]:
        padded = jnp.pad(example[0], ((1, 1), (1, 1), (0, 0)))
        moved = [padded[:, k : k + bins] for k in range(3)]
        delayed = [jnp.pad(example[1], ((k, 2 - k), (0, 0), (0, 0))) for k in range(3)]
        return total + _contract(jnp.concatenate(moved, -1), jnp.concatenate(delayed, -1)), None

    zeros = jnp.zeros((3 * channels[0], 3 * channels[1]), jnp.float32)
    total, _ = jax.lax.scan(step, zeros, (inputs, cotangent))
    return total.reshape(3, channels[0], 3, channels[1]).transpose(2, 0, 1, 3)


def _products(rows: Array, kernel: Array, shifts: tuple[int, ...]) -> Array:
    bins, features = rows.shape[1], kernel.shape[2]
    outputs = jnp.zeros((*rows.shape[:2], features), rows.dtype)
    for i, shift in enumerate(shifts):
        start, stop = _inside(shift, bins)
        part = rows[:, start + shift : stop + shift].reshape(-1, rows.shape[2]) @ kernel[i]
        part = part.reshape(len(rows), stop - start, features)
        outputs = outputs.at[:, start:stop].add(part)
    return outputs


def _inside(shift: int, bins: int) -> tuple[int, int]:
    """Outputs that read an input inside, which are none for a shift past all bins."""
    return min(bins, max(0, -shift)), max(0, min(bins, bins - shift))


def _chunks(rows: Array) -> Array:
    padded = jnp.pad(rows, ((0, -len(rows) % _ROWS), (0, 0), (0, 0)))
    return padded.reshape(-1, _ROWS, *rows.shape[1:])


def _contract(left: Array, right: Array) -> Array:
    """Sum over all axes but the last of both."""
    left, right = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
    dimensions = (((0,), (0,)), ((), ()))
    return jax.lax.dot_general(left, right, dimensions, preferred_element_type=jnp.float32)
