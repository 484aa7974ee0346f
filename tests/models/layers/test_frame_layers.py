"""Layers computed a few frames at a time against their formulas, forward and backward."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.models.layers.frame_layers import elu, frame_norm, product, residual_unit


def _normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def _unit(inputs, kernel, bias, matrix, offset, dilation):
    convolved = jax.lax.conv_general_dilated(
        inputs,
        kernel,
        (1, 1),
        [(dilation, dilation)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    bias, offset = bias[None, None, None], offset[None, None, None]
    return inputs + nn.elu(nn.elu(convolved + bias) @ matrix + offset)


def _norm(inputs, scale, bias, activate):
    mean = inputs.mean((2, 3), keepdims=True)
    variance = inputs.var((2, 3), keepdims=True)
    outputs = (inputs - mean) / jnp.sqrt(variance + 1e-5) * scale[None, None] + bias[None, None]
    return nn.elu(outputs) if activate else outputs


def _compare(ours, theirs, arguments, option):
    def all_of(layer):
        def loss(arguments):
            outputs = layer(*arguments, option)
            return (outputs * _normal(*outputs.shape, seed=9)).sum(), outputs

        gradients, outputs = jax.jit(jax.grad(loss, has_aux=True))(arguments)
        return outputs, *gradients

    for mine, reference in zip(all_of(ours), all_of(theirs), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-4, atol=1e-4)


# 8 frames fill one step; 11 need a second that begins inside the first; 3 are fewer than a step.
@pytest.mark.parametrize(
    ("batch", "frames", "channels", "dilation"), [(1, 8, 3, 1), (2, 11, 4, 3), (2, 3, 2, 2)]
)
def test_residual_unit(batch, frames, channels, dilation):
    arguments = (
        _normal(batch, frames, 7, channels),
        _normal(3, 3, channels, channels, seed=1) / 3,
        _normal(channels, seed=2),
        _normal(channels, channels, seed=3),
        _normal(channels, seed=4),
    )
    _compare(residual_unit, _unit, arguments, dilation)


def test_residual_unit_of_many_channels():
    arguments = (
        _normal(2, 9, 5, 18),
        _normal(3, 3, 18, 18, seed=1) / 12,
        _normal(18, seed=2),
        _normal(18, 18, seed=3) / 4,
        _normal(18, seed=4),
    )
    _compare(residual_unit, _unit, arguments, 2)


@pytest.mark.parametrize(("frames", "activate"), [(8, True), (11, True), (11, False), (3, False)])
def test_frame_norm(frames, activate):
    inputs = 2.0 + 3.0 * _normal(2, frames, 5, 4)
    arguments = (inputs, 1 + 0.3 * _normal(5, 4, seed=1), _normal(5, 4, seed=2))
    _compare(frame_norm, _norm, arguments, activate)


def test_frames_without_variance_have_a_gradient():
    inputs = jnp.ones((1, 3, 4, 2))
    ones, zeros = jnp.ones((4, 2)), jnp.zeros((4, 2))
    probe = _normal(1, 1, 4, 2)
    gradient = jax.grad(lambda x: (frame_norm(x, ones, zeros, True) * probe).sum())(inputs)
    assert bool(jnp.all(jnp.isfinite(gradient))) and bool(jnp.any(gradient != 0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_elu(dtype):
    inputs = jnp.asarray([-90.0, -3.0, -0.5, -1e-3, 0.0, 1e-3, 2.0, 90.0], dtype)
    exact = nn.elu(inputs.astype(jnp.float32))
    assert elu(inputs).dtype == inputs.dtype
    rounding = 1e-7 if dtype == "float32" else 4e-3
    np.testing.assert_allclose(elu(inputs).astype(jnp.float32), exact, atol=1e-7, rtol=rounding)


def test_product_is_the_product_of_the_last_axis():
    inputs, kernel = _normal(2, 3, 4, 5), _normal(5, 6, seed=1)
    np.testing.assert_allclose(product(inputs, kernel), inputs @ kernel, rtol=1e-5, atol=1e-5)


def test_half_precision_gives_gradients_of_its_own_type():
    shapes = ((1, 9, 5, 3), (3, 3, 3, 3), (3,), (3, 3), (3,))
    low = tuple((_normal(*s, seed=i) / 2).astype(jnp.bfloat16) for i, s in enumerate(shapes))
    gradient = jax.jit(
        jax.grad(lambda a: residual_unit(*a, 2).astype(jnp.float32).sum()), inline=True
    )
    exact = gradient(tuple(x.astype(jnp.float32) for x in low))
    for mine, reference in zip(gradient(low), exact, strict=True):
        assert mine.dtype == jnp.bfloat16
        largest = float(jnp.abs(reference).max())
        np.testing.assert_allclose(mine.astype(jnp.float32), reference, atol=0.03 * largest)
