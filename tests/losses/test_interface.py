"""The balance of two tasks at the waveform between them, against gradients taken task by task."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax import parallel
from majl_jax.losses.interface import METHODS, Interface, balanced

BATCH, TIME = 4, 6
W_PITCH = 3.0


def _data(seed=0):
    rng = np.random.default_rng(seed)
    mixture, truth, label = (jnp.asarray(x) for x in rng.normal(size=(3, BATCH, TIME)))
    params = {"listener": jnp.asarray(rng.normal(size=(1, TIME)))}
    return params, jnp.asarray(rng.normal(size=(1, TIME))), mixture, truth, label


def _losses(separated, heard, params, truth, label):
    separation = jnp.abs(separated - truth).mean()
    pitch = W_PITCH * jnp.mean((jnp.tanh(heard * params["listener"]) - label) ** 2)
    return separation + pitch, separation, pitch, {"pitch": pitch}


def _total(separator, params, mixture, truth, label, settings):
    estimate = mixture * separator

    def losses(separated, heard, params):
        return _losses(separated, heard, params, truth, label)

    loss, aux, readings = balanced(losses, estimate, params, settings)
    return loss, (aux, readings)


def _by_task():
    """Gradients of each task in the separator, the listener, and the estimate of each example."""
    params, separator, mixture, truth, label = _data()

    def loss(separator, params, estimate_shift, task):
        estimate = mixture * separator + estimate_shift
        return _losses(estimate, estimate, params, truth, label)[task]

    zero = jnp.zeros((BATCH, TIME))
    return [jax.grad(loss, (0, 1, 2))(separator, params, zero, task) for task in (1, 2)]


def _factor(balance, share):
    (_, _, g_s), (_, _, g_p) = _by_task()
    params, separator, mixture, truth, label = _data()
    estimate = mixture * separator
    _, l_s, l_p, _ = _losses(estimate, estimate, params, truth, label)
    return {
        "none": 1.0,
        "ratio": share,
        "gradient_norm": share * jnp.linalg.norm(g_s) / jnp.linalg.norm(g_p),
        "uncertainty": l_s / l_p,
    }[balance]


@pytest.mark.parametrize("balance", METHODS)
def test_the_separator_s_gradient_is_balanced_and_the_listener_s_is_not(balance):
    params, separator, *data = _data()
    settings = Interface(balance=balance, pitch_share=0.3)
    (loss, (aux, told)), (of_separator, of_listener) = jax.jit(
        jax.value_and_grad(_total, (0, 1), has_aux=True), static_argnums=5
    )(separator, params, *data, settings)
    (j_s, _, g_s), (j_p, listener, g_p) = _by_task()
    factor = _factor(balance, 0.3)
    np.testing.assert_allclose(of_separator, j_s + factor * j_p, rtol=1e-5)
    np.testing.assert_allclose(of_listener["listener"], listener["listener"], rtol=1e-5)
    estimate = data[0] * separator
    np.testing.assert_allclose(loss, _losses(estimate, estimate, params, *data[1:])[0], rtol=1e-6)
    np.testing.assert_allclose(told["interface_pitch_factor"], factor, rtol=1e-5)
    for name, g in (("separation", g_s), ("pitch", g_p)):
        rms = jnp.sqrt(jnp.mean(jnp.sum((BATCH * g) ** 2, 1)))
        np.testing.assert_allclose(told[f"interface_grad_{name}"], rms, rtol=1e-5)
    cosine = jnp.vdot(g_s, g_p) / jnp.linalg.norm(g_s) / jnp.linalg.norm(g_p)
    np.testing.assert_allclose(told["interface_cosine"], cosine, rtol=1e-4, atol=1e-6)
    assert aux.keys() == {"pitch"}


def test_the_plain_sum_is_that_of_ordinary_differentiation():
    params, separator, mixture, truth, label = _data()

    def plain(separator, params):
        estimate = mixture * separator
        return _losses(estimate, estimate, params, truth, label)[0]

    ours = jax.grad(_total, (0, 1), has_aux=True)(
        separator, params, mixture, truth, label, Interface()
    )[0]
    expected = jax.grad(plain, (0, 1))(separator, params)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("balance", METHODS)
def test_two_devices_balance_as_one(balance):
    """Where the norm were that of one device's examples, both would see another factor."""
    params, separator, *data = _data()
    settings = Interface(balance=balance, pitch_share=0.3)

    def step(separator, params, *data):
        (loss, (_, told)), gradients = jax.value_and_grad(_total, (0, 1), has_aux=True)(
            separator, params, *data, settings
        )
        return parallel.across((loss, told, gradients))

    whole, over = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(parallel.AXIS)
    split = jax.shard_map(
        step,
        mesh=parallel.mesh(jax.devices()[:2]),
        in_specs=(whole, whole, over, over, over),
        out_specs=whole,
        check_vma=False,
    )
    one, two = step(separator, params, *data), jax.jit(split)(separator, params, *data)
    for a, b in zip(jax.tree.leaves(two), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("balance", METHODS)
def test_a_task_without_gradient_leaves_the_other_finite(balance):
    params, separator, mixture, *_ = _data()
    settings = Interface(balance=balance)
    estimate = mixture * separator

    def total(separator):
        def losses(separated, heard, params):
            del params
            separation, pitch = jnp.abs(separated - truth).mean(), 0.0 * heard.sum()
            return separation + pitch, separation, pitch, {}

        loss, _, told = balanced(losses, mixture * separator, params, settings)
        return loss, told

    truth = estimate + 0.1
    gradient, told = jax.grad(total, has_aux=True)(separator)
    assert np.all(np.isfinite(gradient)) and np.abs(gradient).sum() > 0
    assert all(np.isfinite(x) for x in told.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"balance": "pareto"}, "config.balance.method is 'pareto'; expected one of none, ratio"),
        ({"pitch_share": -0.1}, "config.balance.pitch_share is -0.1; expected 0 or more"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Interface(), **changes)
