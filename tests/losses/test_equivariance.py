"""Consistency between two outputs: the authors' values, loops, and where each loss is least."""

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.audio import augmentation
from majl_jax.losses import equivariance
from majl_jax.losses.equivariance import (
    categorical_consistency,
    consistency,
    symmetric_divergence,
)


@pytest.fixture(scope="module")
def golden():
    return golden_files.read("ss_mpe_ops")


def _first(x):
    return jnp.swapaxes(jnp.asarray(x), 1, 2)


def _noise(*shape, seed=0, scale=3.0):
    return jnp.asarray(scale * np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def _sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def _compare(found, output, name):
    value, gradients = found
    np.testing.assert_allclose(value, output[f"loss/{name}"], rtol=1e-5)
    for gradient, side in zip(gradients, ("augmented", "clean"), strict=True):
        expected = _first(output[f"loss/{name}_grad_{side}_logits"])
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(gradient, expected, atol=1e-4 * np.abs(expected).max())


def test_invariance_of_the_original(golden):
    _, inputs, output, _ = golden
    logits = [_first(inputs[f"loss/{name}"]) for name in ("augmented_logits", "logits")]
    found = jax.value_and_grad(
        lambda augmented, clean: consistency(augmented, jax.nn.sigmoid(clean)).mean(),
        argnums=(0, 1),
    )(*logits)
    _compare(found, output, "invariance")


def test_equivariance_of_the_original(golden):
    _, inputs, output, _ = golden
    logits = [_first(inputs[f"loss/{name}"]) for name in ("augmented_logits", "logits")]
    move = {
        "vertical": inputs["loss/geometric_vertical_shift"],
        "horizontal": inputs["loss/geometric_horizontal_shift"],
        "stretch": augmentation.stretch_factors(inputs["loss/geometric_uniform"]),
    }

    @jax.jit
    def loss(augmented, clean):
        moved = augmentation.shift_and_stretch(jax.nn.sigmoid(clean), **move)
        return consistency(augmented, moved).mean()

    _compare(jax.value_and_grad(loss, argnums=(0, 1))(*logits), output, "geometric")


def test_known_answer_and_gradients_of_both_sides():
    i = np.arange(2 * 12 * 7).reshape(2, 12, 7)
    clean = _first((3 * np.sin(0.9 * i + 0.2)).astype(np.float32))
    augmented = _first((2 * np.cos(0.5 * i)).astype(np.float32))

    def both(stop_gradient):
        return jax.value_and_grad(
            lambda a, c: consistency(a, jax.nn.sigmoid(c), stop_gradient=stop_gradient).mean(),
            argnums=(0, 1),
        )(augmented, clean)

    value, gradients = both(False)
    norms = [float(jnp.linalg.norm(g)) for g in gradients]
    np.testing.assert_allclose([value, *norms], [10.833792, 0.420169, 0.183805], rtol=5e-6)
    stopped, (kept, gone) = both(True)
    assert stopped == value and not gone.any()
    np.testing.assert_array_equal(kept, gradients[0])


def test_the_target_is_pushed_where_the_logit_points():
    logits = _noise(1, 2, 5)
    gradient = jax.grad(lambda t: consistency(logits, t).sum())(jnp.full((1, 2, 5), 0.4))
    np.testing.assert_allclose(gradient, -logits, rtol=1e-6)


def test_blank_output_is_the_least_of_the_cross_entropy_but_not_of_the_divergence():
    unsure, blank = jnp.zeros((1, 1, 4)), jnp.full((1, 1, 4), -30.0)
    assert consistency(blank, jax.nn.sigmoid(blank))[0, 0] < 1e-10
    np.testing.assert_allclose(consistency(unsure, jax.nn.sigmoid(unsure)), 4 * np.log(2))
    for logits in (unsure, blank):
        value, slopes = jax.value_and_grad(
            lambda a, b: symmetric_divergence(a, b).sum(), argnums=(0, 1)
        )(logits, logits)
        assert abs(value) < 1e-6
        assert all(np.abs(slope).max() < 1e-6 for slope in slopes)


def test_divergence_by_a_loop_and_its_limits():
    a, b = _noise(2, 3, 5), _noise(2, 3, 5, seed=1)
    expected = np.zeros((2, 3))

    def entropy(p):
        return -p * np.log(p) - (1 - p) * np.log(1 - p)

    for i, k, j in np.ndindex(2, 3, 5):
        p, q = _sigmoid(a[i, k, j]), _sigmoid(b[i, k, j])
        expected[i, k] += entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    np.testing.assert_allclose(symmetric_divergence(a, b), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(symmetric_divergence(b, a), expected, rtol=1e-4, atol=1e-6)
    opposite = jnp.full((1, 1, 5), 80.0)
    np.testing.assert_allclose(symmetric_divergence(opposite, -opposite), 5 * np.log(2), rtol=1e-6)


def test_categorical_by_a_loop():
    a, b = _noise(2, 3, 5), _noise(2, 3, 5, seed=1)
    expected = np.zeros((2, 3))
    for i, k in np.ndindex(2, 3):
        p, q = (np.exp(np.append(np.asarray(x[i, k], np.float64), 0)) for x in (a, b))
        expected[i, k] = -np.sum(q / q.sum() * np.log(p / p.sum()))
    np.testing.assert_allclose(categorical_consistency(a, b), expected, rtol=1e-5)


def test_categorical_is_least_at_the_target_and_the_target_can_be_fixed():
    a, b = _noise(1, 2, 5), _noise(1, 2, 5, seed=1)
    at_target = jax.grad(lambda z: categorical_consistency(z, b).sum())(b)
    assert np.abs(at_target).max() < 1e-6
    assert np.all(categorical_consistency(a, b) > categorical_consistency(b, b))
    for stop_gradient in (False, True):
        gradient = jax.grad(
            lambda z, stop=stop_gradient: categorical_consistency(a, z, stop_gradient=stop).sum()
        )(b)
        assert gradient.any() != stop_gradient


def test_a_silent_target_asks_for_silence():
    silent = jnp.full((1, 1, 5), -30.0)
    assert categorical_consistency(silent, silent)[0, 0] < 1e-6
    gradient = jax.grad(lambda z: categorical_consistency(z, silent).sum())(jnp.zeros((1, 1, 5)))
    np.testing.assert_allclose(gradient, 1 / 6, rtol=1e-5)


@pytest.mark.parametrize("name", ["consistency", "symmetric_divergence", "categorical_consistency"])
def test_finite_for_any_logit(name):
    loss = getattr(equivariance, name)
    second = jax.nn.sigmoid if name == "consistency" else lambda z: z
    levels = jnp.array([-1e4, -100.0, 0.0, 100.0, 1e4])
    a, b = (jnp.tile(x[..., None], 4) for x in jnp.meshgrid(levels, levels))  # every pair
    value, gradients = jax.value_and_grad(lambda x, y: loss(x, second(y)).sum(), argnums=(0, 1))(
        a, b
    )
    assert np.isfinite(value) and all(np.all(np.isfinite(g)) for g in gradients)
