"""HarmoF0's convolutions compute what jax.lax computes, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.models.layers import harmonic_convolution
from majl_jax.models.layers.harmonic_convolution import conv3x3, shifted_products

NHWC = ("NHWC", "HWIO", "NHWC")


def _normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def _compare(ours, theirs, inputs, kernel):
    expected = theirs(inputs, kernel)
    np.testing.assert_allclose(ours(inputs, kernel), expected, rtol=1e-4, atol=1e-4)
    probe = _normal(*expected.shape, seed=2)
    gradients = [
        jax.jit(jax.grad(lambda x, k, f=f: (f(x, k) * probe).sum(), (0, 1)))(inputs, kernel)
        for f in (ours, theirs)
    ]
    for mine, reference in zip(*gradients, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-4, atol=3e-4)


@pytest.mark.parametrize(
    ("batch", "time", "bins", "channels"),
    [(1, 7, 11, (1, 4)), (3, 5, 8, (4, 2)), (2, 1, 1, (2, 2))],
)
def test_conv3x3(batch, time, bins, channels):
    def theirs(inputs, kernel):
        return jax.lax.conv_general_dilated(inputs, kernel, (1, 1), "SAME", dimension_numbers=NHWC)

    inputs, kernel = _normal(batch, time, bins, channels[0]), _normal(3, 3, *channels, seed=1)
    _compare(conv3x3, theirs, inputs, kernel)


# 30 rows fit one chunk, 35 need a second that is mostly padding, 32 fill one exactly.
@pytest.mark.parametrize(("batch", "time"), [(2, 15), (5, 7), (1, 32)])
@pytest.mark.parametrize("dilation", [1, 4, 12])
def test_shifted_products_is_a_dilated_convolution(batch, time, dilation):
    def theirs(inputs, kernel):
        return jax.lax.conv_general_dilated(
            inputs,
            kernel[None],
            (1, 1),
            [(0, 0), (dilation, dilation)],
            rhs_dilation=(1, dilation),
            dimension_numbers=NHWC,
        )

    def ours(inputs, kernel):
        return shifted_products(inputs, kernel, (-dilation, 0, dilation))

    _compare(ours, theirs, _normal(batch, time, 10, 3), _normal(3, 3, 2, seed=1))


def test_what_an_accelerator_runs_is_the_same():
    rows, kernel, shifts = _normal(40, 12, 3), _normal(4, 3, 2, seed=1), (0, 5, 9, 11)
    on_cpu = shifted_products(rows[None], kernel, shifts)[0]
    elsewhere = harmonic_convolution._products(rows, kernel, shifts)
    np.testing.assert_allclose(on_cpu, elsewhere, rtol=1e-5, atol=1e-5)
    by_hand = np.zeros((40, 12, 2), np.float32)
    for i, shift in enumerate(shifts):
        for bin_ in range(12 - shift):
            by_hand[:, bin_] += np.asarray(rows)[:, bin_ + shift] @ np.asarray(kernel)[i]
    np.testing.assert_allclose(elsewhere, by_hand, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["conv3x3", "shifted_products"])
def test_half_precision_gives_gradients_of_its_own_type(name):
    def sum_of(inputs, kernel):
        if name == "conv3x3":
            return conv3x3(inputs, kernel).astype(jnp.float32).sum()
        return shifted_products(inputs, kernel[0], (0, 1, 2)).astype(jnp.float32).sum()

    low = [_normal(*shape).astype(jnp.bfloat16) for shape in ((2, 6, 9, 3), (3, 3, 3, 4))]
    gradient = jax.jit(jax.grad(sum_of, (0, 1)))
    exact = gradient(*(x.astype(jnp.float32) for x in low))
    for mine, reference in zip(gradient(*low), exact, strict=True):
        assert mine.dtype == jnp.bfloat16
        largest = float(jnp.abs(reference).max())
        np.testing.assert_allclose(mine.astype(jnp.float32), reference, atol=0.02 * largest)
