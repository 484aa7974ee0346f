"""The rewritten convolutions compute what jax.lax computes, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.models.layers.convolution import conv1d_spectral, conv_halve, conv_transpose_double

CREPE_FIRST = (1024, 1, 3, 512, 4, (254, 254))


@pytest.mark.parametrize(
    ("time", "channels_in", "channels_out", "width", "stride", "padding"),
    [CREPE_FIRST, (50, 3, 2, 7, 1, (3, 3)), (41, 2, 4, 6, 3, (0, 5)), (64, 1, 1, 64, 2, (31, 32))],
)
def test_conv1d_spectral(time, channels_in, channels_out, width, stride, padding):
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.standard_normal((2, time, channels_in)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((width, channels_in, channels_out)), jnp.float32)

    def ours(inputs, kernel):
        return conv1d_spectral(
            inputs.transpose(1, 0, 2), kernel, stride=stride, padding=padding
        ).transpose(1, 0, 2)

    def theirs(inputs, kernel):
        return jax.lax.conv_general_dilated(
            inputs, kernel, (stride,), [padding], dimension_numbers=("NWC", "WIO", "NWC")
        )

    _compare(ours, theirs, inputs, kernel)


@pytest.mark.parametrize("size", [(5, 5), (2, 2), (3, 4), (4, 1)])
def test_conv_transpose_double(size):
    rng = np.random.default_rng(1)
    inputs = jnp.asarray(rng.standard_normal((2, 4, 6, 3)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((*size, 3, 2)), jnp.float32)

    def theirs(inputs, kernel):
        return jax.lax.conv_transpose(
            inputs, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    _compare(conv_transpose_double, theirs, inputs, kernel)


@pytest.mark.parametrize("size", [(5, 5), (2, 2), (3, 4), (4, 1)])
@pytest.mark.slow
def test_conv_halve(size):
    rng = np.random.default_rng(1)
    inputs = jnp.asarray(rng.standard_normal((2, 4, 6, 3)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((*size, 3, 2)), jnp.float32)

    def theirs(inputs, kernel):
        return jax.lax.conv_general_dilated(
            inputs, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    _compare(conv_halve, theirs, inputs, kernel)


def _compare(ours, theirs, inputs, kernel):
    expected = theirs(inputs, kernel)
    np.testing.assert_allclose(ours(inputs, kernel), expected, rtol=1e-4, atol=1e-4)
    probe = jnp.asarray(np.random.default_rng(2).standard_normal(expected.shape), jnp.float32)
    gradients = [
        jax.grad(lambda x, k, f=f: (f(x, k) * probe).sum(), (0, 1))(inputs, kernel)
        for f in (ours, theirs)
    ]
    for mine, reference in zip(*gradients, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-4, atol=2e-4)
