"""Convolution over short sequences of many channels whose gradients XLA computes fast on a CPU.

It computes exactly what `jax.lax` computes (tests compare them). Measured on two CPU cores with
jax 0.10.2, 64 sequences of 62 positions, 128 channels to 384, 8 taps: forward and backward pass
take 0.11 s of CPU time, 1.8 s by automatic differentiation, whose gradient of the kernel is the
slow part, and 0.14 s in PyTorch.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_PATCH_VALUES = 2**20  # of one step, 4 MB in float32


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(
    inputs: Float[Array, "sequence position channel_in"],
    kernel: Float[Array, "tap channel_in channel_out"],
    padding: int,
) -> Float[Array, "sequence position_out channel_out"]:
    """y[l] = sum_k x[l + k - padding] W[k] with zeros beyond both ends; position + 2 padding - tap
    + 1 positions.
    """
    return _by_xla(inputs, kernel, padding)


def _by_xla(inputs: Array, kernel: Array, padding: int) -> Array:
    return jax.lax.conv_general_dilated(
        inputs, kernel, (1,), [(padding, padding)], dimension_numbers=("NWC", "WIO", "NWC")
    )


def _forward(inputs: Array, kernel: Array, padding: int) -> tuple[Array, tuple[Array, Array]]:
    return _by_xla(inputs, kernel, padding), (inputs, kernel)


def _backward(
    padding: int, residuals: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    inputs, kernel = residuals
    of_inputs = _by_xla(cotangent, kernel[::-1].swapaxes(1, 2), len(kernel) - 1 - padding)

    def by_xla(inputs: Array, cotangent: Array) -> Array:
        return jax.vjp(lambda kernel: _by_xla(inputs, kernel, padding), kernel)[1](cotangent)[0]

    by_products = functools.partial(_kernel_gradient, taps=len(kernel), padding=padding)
    of_kernel = jax.lax.platform_dependent(inputs, cotangent, cpu=by_products, default=by_xla)
    return of_inputs, of_kernel


convolve.defvjp(_forward, _backward)


def _kernel_gradient(inputs: Array, cotangent: Array, *, taps: int, padding: int) -> Array:
    """W'[k] = sum_l x[l + k - padding]^T y'[l], as products of all taps of the side with fewer
    channels and the other side.
    """
    if inputs.shape[2] <= cotangent.shape[2]:
        return _correlation(_padded(inputs, padding), cotangent, taps).transpose(1, 2, 0)
    shifted = _padded(cotangent, taps - 1 - padding)
    return _correlation(shifted, inputs, taps)[:, ::-1].transpose(1, 0, 2)


def _correlation(
    narrow: Float[Array, "sequence position_in channel_in"],
    wide: Float[Array, "sequence position channel_out"],
    taps: int,
) -> Float[Array, "channel_out tap channel_in"]:
    """sum_l wide[l]^T narrow[l + k], some sequences at a time."""
    sequences, positions, channels = wide.shape
    patch = positions * taps * narrow.shape[2]

    def product(narrow: Array, wide: Array) -> Array:
        patches = jnp.concatenate([narrow[:, k : k + positions] for k in range(taps)], -1)
        rows = wide.reshape(-1, channels), patches.reshape(-1, patches.shape[2])
        axes = (((0,), (0,)), ((), ()))
        return jax.lax.dot_general(*rows, axes, preferred_element_type=jnp.float32)

    def step(total: Array, piece: tuple[Array, Array]) -> tuple[Array, None]:
        return total + product(*piece), None

    steps = -(-sequences * patch // max(_PATCH_VALUES, patch))
    if steps == 1:
        total = product(narrow, wide)
    else:
        size = -(-sequences // steps)
        rest = ((0, steps * size - sequences), (0, 0), (0, 0))
        narrow, wide = (jnp.pad(x, rest).reshape(steps, size, *x.shape[1:]) for x in (narrow, wide))
        zeros = jnp.zeros((channels, taps * narrow.shape[3]), jnp.float32)
        total, _ = jax.lax.scan(step, zeros, (narrow, wide))
    return total.reshape(channels, taps, -1).astype(wide.dtype)


def _padded(inputs: Array, padding: int) -> Array:
    return jnp.pad(inputs, ((0, 0), (padding, padding), (0, 0)))
