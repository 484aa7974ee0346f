"""The dilated convolution computes what jax.lax computes, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.models.layers import dilated_convolution
from majl_jax.models.layers.dilated_convolution import dilated_conv3x3


def _normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def _lax(inputs, kernel, dilation):
    return jax.lax.conv_general_dilated(
        inputs,
        kernel,
        (1, 1),
        [(dilation, dilation)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


# 8 frames fill one step; 9 and 19 need another that is mostly padding; 2 frames are fewer than a
# kernel reaches.
@pytest.mark.parametrize(
    ("batch", "frames", "bins", "channels", "dilation"),
    [
        (1, 8, 7, (2, 3), 1),
        (2, 9, 11, (3, 2), 2),
        (3, 19, 5, (1, 4), 3),
        (1, 2, 1, (2, 2), 3),
        (2, 9, 6, (17, 3), 2),
        (1, 17, 4, (3, 20), 1),
    ],
)
def test_outputs_and_gradients(batch, frames, bins, channels, dilation):
    inputs, kernel = _normal(batch, frames, bins, channels[0]), _normal(3, 3, *channels, seed=1)
    probe = _normal(batch, frames, bins, channels[1], seed=2)

    def all_of(conv):
        def loss(inputs, kernel):
            outputs = conv(inputs, kernel, dilation)
            return (outputs * probe).sum(), outputs

        gradients, outputs = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(inputs, kernel)
        return outputs, *gradients

    for mine, reference in zip(all_of(dilated_conv3x3), all_of(_lax), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-4, atol=1e-4)


def test_one_tap_moves_frames_and_bins_the_right_way():
    inputs = jnp.zeros((1, 9, 9, 1)).at[0, 4, 4, 0].set(1.0)
    kernel = jnp.zeros((3, 3, 1, 1)).at[0, 2, 0, 0].set(1.0)
    # Tap (0, 2) reads `dilation` frames before and `dilation` bins above.
    outputs = dilated_conv3x3(inputs, kernel, 2)[0, ..., 0]
    assert np.argwhere(outputs).tolist() == [[6, 2]]


def test_what_an_accelerator_runs_is_the_same():
    inputs, kernel = _normal(1, 9, 6, 3), _normal(3, 3, 3, 2, seed=1)
    elsewhere = dilated_convolution._by_xla(inputs, kernel, 2)
    np.testing.assert_allclose(dilated_conv3x3(inputs, kernel, 2), elsewhere, rtol=1e-5, atol=1e-5)


def test_half_precision_gives_gradients_of_its_own_type():
    def sum_of(inputs, kernel):
        return dilated_conv3x3(inputs, kernel, 2).astype(jnp.float32).sum()

    low = [_normal(*shape).astype(jnp.bfloat16) for shape in ((2, 6, 9, 3), (3, 3, 3, 4))]
    gradient = jax.jit(jax.grad(sum_of, (0, 1)))
    exact = gradient(*(x.astype(jnp.float32) for x in low))
    for mine, reference in zip(gradient(*low), exact, strict=True):
        assert mine.dtype == jnp.bfloat16
        largest = float(jnp.abs(reference).max())
        np.testing.assert_allclose(mine.astype(jnp.float32), reference, atol=0.02 * largest)
