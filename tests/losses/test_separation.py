"""Separation losses against plain NumPy loops, and their gradients at silence."""

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.losses import separation
from majl_jax.metrics.separation import sdr_db, si_sdr_db

LOSSES = [separation.l1_wav, separation.l1_mag, separation.neg_sdr, separation.neg_si_sdr]


def _pair(*shape):
    rng = np.random.default_rng(0)
    target = rng.standard_normal(shape).astype(np.float32)
    return target + 0.3 * rng.standard_normal(shape).astype(np.float32), target


def _mean_absolute(estimate, target):
    return sum(abs(float(a) - float(b)) for a, b in zip(estimate, target, strict=True)) / len(
        target
    )


def _neg_sdr(estimate, target):
    signal = sum(float(b) ** 2 for b in target) / len(target)
    noise = sum((float(a) - float(b)) ** 2 for a, b in zip(estimate, target, strict=True))
    return 10 * np.log10(max(noise / len(target), 1e-8)) - 10 * np.log10(max(signal, 1e-8))


def _neg_si_sdr(estimate, target):
    estimate, target = estimate.astype(np.float64), target.astype(np.float64)
    scaled = (estimate @ target) / (target @ target) * target
    return 10 * np.log10(np.sum((estimate - scaled) ** 2) / np.sum(scaled**2))


@pytest.mark.parametrize(
    ("loss", "loop"),
    list(zip(LOSSES, [_mean_absolute, _mean_absolute, _neg_sdr, _neg_si_sdr], strict=True)),
)
def test_equation_against_a_loop(loss, loop):
    estimate, target = _pair(3, 80)
    found = loss(jnp.asarray(estimate), jnp.asarray(target))
    assert found.shape == (3,)
    expected = [loop(estimate[i], target[i]) for i in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_axes_keep_examples_and_stems_apart(loss):
    estimate, target = (jnp.asarray(x) for x in _pair(2, 60, 3, 2))
    found = loss(estimate, target, axes=(1, 3))
    assert found.shape == (2, 3)
    for stem in range(3):
        alone = loss(estimate[:, :, stem], target[:, :, stem])
        np.testing.assert_allclose(found[:, stem], alone, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("silent", ["estimate", "target", "both"])
def test_finite_value_and_gradient_at_silence(loss, silent):
    estimate, target = (jnp.asarray(x) for x in _pair(2, 50))
    estimate = estimate * (silent == "target")
    target = target * (silent == "estimate")
    value, gradient = jax.value_and_grad(lambda x: loss(x, target).sum())(estimate)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


def test_perfect_estimates_have_finite_gradients():
    _, target = _pair(2, 50)
    for loss in LOSSES:
        gradient = jax.grad(lambda x, f=loss: f(x, jnp.asarray(target)).sum())(jnp.asarray(target))
        assert np.all(np.isfinite(gradient))


def test_neg_sdr_is_the_metric():
    estimate, target = _pair(4, 500)
    found = separation.neg_sdr(jnp.asarray(estimate), jnp.asarray(target))
    expected = [-sdr_db(estimate[i], target[i]) for i in range(4)]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_si_sdr_ignores_scale_and_zero_mean_ignores_offset():
    estimate, target = (jnp.asarray(x) for x in _pair(2, 300))
    plain = separation.neg_si_sdr(estimate, target)
    np.testing.assert_allclose(separation.neg_si_sdr(7 * estimate, target), plain, atol=1e-3)
    moved = separation.neg_si_sdr(estimate + 5, target - 2, zero_mean=True)
    expected = separation.neg_si_sdr(estimate, target, zero_mean=True)
    np.testing.assert_allclose(moved, expected, atol=1e-2)
    assert np.all(np.abs(separation.neg_si_sdr(estimate + 5, target) - plain) > 5)


def test_si_sdr_of_each_source_is_that_of_nussl():
    _, inputs, output, _ = golden_files.read("chimera")
    estimate, reference = (inputs[f"sisdr/{name}"] for name in ("estimate", "reference"))
    found = separation.neg_si_sdr(estimate, reference, axes=(1,), zero_mean=True)
    np.testing.assert_allclose(found, output["sisdr/loss_per_item_source"], rtol=1e-5)
    mean = separation.neg_si_sdr(estimate, reference, axes=(1,)).mean()
    np.testing.assert_allclose(mean, output["sisdr/loss_zero_mean_false"], rtol=1e-5)
    estimate, reference = np.asarray(estimate), np.asarray(reference)
    pairs = zip(np.moveaxis(estimate, 2, 1), np.moveaxis(reference, 2, 1), strict=True)
    scores = [
        [-si_sdr_db(e[:, None], r[:, None], zero_mean=True) for e, r in zip(*pair, strict=True)]
        for pair in pairs
    ]
    np.testing.assert_allclose(scores, output["sisdr/loss_per_item_source"], rtol=1e-5)


@pytest.mark.parametrize("loss", [separation.l1_wav, separation.l1_mag])
def test_an_estimate_that_is_right_has_no_gradient_of_l1(loss):
    target = jnp.asarray([[0.5, 0.0, -1.0, 2.0]])
    estimate = jnp.asarray([[0.5, 0.0, 0.0, 1.0]])
    gradient = jax.grad(lambda x: loss(x, target).sum())(estimate)
    np.testing.assert_allclose(gradient, [[0.0, 0.0, 0.25, -0.25]])
