"""The pitch loss against its definition on probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.audio.pitch import CREPE_BIN_CENTS, gaussian_targets, one_hot_targets
from majl_jax.losses.salience_terms import weighted_bce


@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_equation_against_a_loop(weight):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 5, 7)) * 3
    targets = (rng.random((2, 5, 7)) < 0.2).astype(np.float64)
    expected = np.zeros((2, 5))
    for i, j, b in np.ndindex(2, 5, 7):
        p, y = 1 / (1 + np.exp(-logits[i, j, b])), targets[i, j, b]
        bce = -(y * np.log(p) + (1 - y) * np.log(1 - p))
        expected[i, j] += (weight if y == 1 else 1) * bce / 7  # the authors' form for hard targets
    arrays = (jnp.asarray(x, jnp.float32) for x in (logits, targets))
    np.testing.assert_allclose(weighted_bce(*arrays, positive_weight=weight), expected, rtol=1e-5)


@pytest.mark.parametrize("logit", [-1e4, -50.0, 0.0, 50.0, 1e4])
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_finite_for_any_logit(logit, target):
    arrays = jnp.full((1, 1, 3), logit), jnp.full((1, 1, 3), target)
    value, gradient = jax.value_and_grad(lambda z, y: weighted_bce(z, y).sum())(*arrays)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize("make", [one_hot_targets, gaussian_targets])
def test_unvoiced_frames_pull_every_bin_down(make):
    targets = make(jnp.array([[0.0, 220.0]]), CREPE_BIN_CENTS)
    gradient = jax.grad(lambda z: weighted_bce(z, targets).sum())(jnp.zeros((1, 2, 360)))
    assert np.all(np.asarray(gradient)[0, 0] > 0)
    assert np.asarray(gradient)[0, 1].min() < 0


def test_the_right_bin_costs_least():
    targets = one_hot_targets(jnp.array([440.0]), CREPE_BIN_CENTS)
    logits = [6 * jnp.eye(360)[b : b + 1] - 3 for b in (227, 228, 229)]
    values = [float(weighted_bce(z, targets)[0]) for z in logits]
    assert values[1] == min(values)
