"""Layers of Timbre-Trap whose gradients are computed a few frames at a time on a CPU.

XLA's CPU compiler keeps what it could compute anew, such as every exponential of an ELU; a loop
over frames works in the cache and needs the inputs and outputs of a layer alone. Written for that,
they compute what their formulas say (tests compare).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from majl_jax.models.layers.dilated_convolution import (
    conv_gradients,
    dilated_conv3x3,
    rows_at,
    steps,
)

_EPSILON = 1e-5


def elu(inputs: Array) -> Array:
    """x above zero, exp(x) - 1 below; computed in float32, of the type of x."""
    wide = inputs.astype(jnp.float32)
    return jnp.where(wide > 0, wide, jnp.exp(jnp.minimum(wide, 0)) - 1).astype(inputs.dtype)


def _before_elu(outputs: Array, cotangent: Array) -> Array:
    """The gradient before an ELU with these outputs: its slope is y + 1 below zero."""
    return cotangent * (jnp.minimum(outputs.astype(jnp.float32), 0) + 1).astype(cotangent.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def residual_unit(
    inputs: Float[Array, "batch frame bin channel"],
    kernel: Float[Array, "3 3 channel channel"],
    bias: Float[Array, " channel"],
    pointwise_kernel: Float[Array, "channel channel"],
    pointwise_bias: Float[Array, " channel"],
    dilation: int,
) -> Float[Array, "batch frame bin channel"]:
    """y = x + ELU(V ELU(W * x + b) + c) with a dilated 3 x 3 convolution W and a matrix V.

    Args:
        inputs: x.
        kernel: W.
        bias: b.
        pointwise_kernel: V.
        pointwise_bias: c.
        dilation: of W, along frames and bins.
    """
    hidden = _hidden(inputs, kernel, bias, dilation)
    return inputs + _pointwise(hidden, pointwise_kernel, pointwise_bias)


def _hidden(inputs: Array, kernel: Array, bias: Array, dilation: int) -> Array:
    convolved: Array = dilated_conv3x3(inputs, kernel, dilation)
    return elu(convolved + bias[None, None, None])


def _pointwise(hidden: Array, matrix: Array, offset: Array) -> Array:
    return elu(product(hidden, matrix) + jax.lax.broadcast_to_rank(offset, hidden.ndim))


def _unit_forward(
    inputs: Array, kernel: Array, bias: Array, matrix: Array, offset: Array, dilation: int
):
    hidden = _hidden(inputs, kernel, bias, dilation)
    outputs = inputs + _pointwise(hidden, matrix, offset)
    return outputs, (inputs, hidden, kernel, matrix, offset)


def _unit_backward(dilation: int, residuals: tuple[Array, ...], cotangent: Array):
    inputs, hidden, kernel, matrix, offset = residuals

    def pointwise(hidden: Array, cotangent: Array) -> tuple[Array, tuple[Array, ...]]:
        after = _before_elu(_pointwise(hidden, matrix, offset), cotangent)
        before = _before_elu(hidden, product(after, matrix.T))
        sums = (_contract(hidden, after), _sum(after), _sum(before))
        return before, sums

    before, (of_matrix, of_offset, of_bias) = _few_frames(pointwise, hidden, cotangent)
    of_inputs, of_kernel = conv_gradients(inputs, kernel, before, dilation)
    parameters = [of_kernel, of_bias, of_matrix, of_offset]
    return cotangent + of_inputs, *(x.astype(kernel.dtype) for x in parameters)


residual_unit.defvjp(_unit_forward, _unit_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def frame_norm(
    inputs: Float[Array, "batch frame bin channel"],
    scale: Float[Array, "bin channel"],
    bias: Float[Array, "bin channel"],
    activate: bool,
) -> Float[Array, "batch frame bin channel"]:
    """y = (x - mean) / sqrt(variance + 1e-5) * scale + bias over bins and channels of each frame,
    in float32; then an ELU.
    """
    outputs = (_standardised(inputs)[0] * scale[None, None] + bias[None, None]).astype(inputs.dtype)
    return elu(outputs) if activate else outputs


def _standardised(inputs: Array) -> tuple[Array, Array]:
    inputs = inputs.astype(jnp.float32)
    centred = inputs - inputs.mean((-2, -1), keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(centred**2, (-2, -1), keepdims=True) + _EPSILON)
    return centred * inverse, inverse


def _norm_forward(inputs: Array, scale: Array, bias: Array, activate: bool):
    return frame_norm(inputs, scale, bias, activate), (inputs, scale, bias)


def _norm_backward(activate: bool, residuals: tuple[Array, ...], cotangent: Array):
    inputs, *parameters = residuals

    def of_frames(inputs: Array, cotangent: Array) -> tuple[Array, tuple[Array, ...]]:
        scale, bias = (jax.lax.broadcast_to_rank(x, inputs.ndim) for x in parameters)
        standard, inverse = _standardised(inputs)
        cotangent = cotangent.astype(jnp.float32)
        if activate:
            cotangent = _before_elu(elu(standard * scale + bias), cotangent)
        inner = cotangent * scale
        along = jnp.mean(inner * standard, (-2, -1), keepdims=True)
        of_inputs = inverse * (inner - inner.mean((-2, -1), keepdims=True) - standard * along)
        frames = tuple(range(cotangent.ndim - 2))
        sums = ((cotangent * standard).sum(frames), cotangent.sum(frames))
        return of_inputs.astype(inputs.dtype), sums

    of_inputs, (of_scale, of_bias) = _few_frames(of_frames, inputs, cotangent)
    return of_inputs, of_scale, of_bias


frame_norm.defvjp(_norm_forward, _norm_backward)


def product(inputs: Array, kernel: Array) -> Array:
    """inputs @ kernel as a product of two matrices: XLA's gradient of the other is several times
    slower on a CPU.
    """
    outputs = inputs.reshape(-1, inputs.shape[-1]) @ kernel
    return outputs.reshape(*inputs.shape[:-1], kernel.shape[-1])


def _few_frames(
    function: Callable[[Array, Array], tuple[Array, tuple[Array, ...]]],
    inputs: Array,
    cotangent: Array,
) -> tuple[Array, tuple[Array, ...]]:
    """function(inputs, cotangent) -> (image like the cotangent, sums over frames), a few frames at
    a time on a CPU.
    """

    def by_steps(inputs: Array, cotangent: Array) -> tuple[Array, tuple[Array, ...]]:
        starts, size = steps(inputs)

        def step(done: tuple, start: Array) -> tuple[tuple, None]:
            image, totals = done
            counts = (jnp.arange(size) >= start[2])[:, None, None]
            gradient = jnp.where(counts, rows_at(cotangent, start, size), 0)
            part, sums = function(rows_at(inputs, start, size), gradient)
            # What the step before has done of these frames stays.
            part = jnp.where(counts, part, rows_at(image, start, size))
            image = jax.lax.dynamic_update_slice(image, part[None], (*start[:2], 0, 0))
            return (image, tuple(a + b for a, b in zip(totals, sums, strict=True))), None

        shapes = jax.eval_shape(function, inputs, cotangent)[1]
        totals = tuple(jnp.zeros(x.shape, x.dtype) for x in shapes)
        return jax.lax.scan(step, (cotangent, totals), starts)[0]

    return jax.lax.platform_dependent(inputs, cotangent, cpu=by_steps, default=function)


def _contract(left: Array, right: Array) -> Array:
    """Sum over all axes but the last of both, in float32."""
    left, right = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
    dimensions = (((0,), (0,)), ((), ()))
    return jax.lax.dot_general(left, right, dimensions, preferred_element_type=jnp.float32)


def _sum(images: Array) -> Array:
    return images.reshape(-1, images.shape[-1]).sum(0, dtype=jnp.float32)
