"""The whole loss of a Chimera network: the original's value and gradient, which examples and terms
count.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import read

from majl_jax import weights
from majl_jax.audio import stft
from majl_jax.losses import chimera
from majl_jax.models.chimera import Chimera

SPECTRUM = functools.partial(stft.scaled_stft, window_samples=32, hop_samples=8)
NETWORK = Chimera(frequency_bins=17, units=6, layers=4, dropout=0.0, embedding=5, sources=2)
PAPER = {"deep_clustering": 0.01, "mask_inference": 0.99}


@pytest.fixture(scope="module")
def original():
    state, inputs, output, _ = read("chimera")
    variables = jax.tree.map(jnp.asarray, weights.convert("chimera", state))
    return variables, jnp.moveaxis(inputs["audio_sources"], 1, -1), output


def _loss(params, statistics, sources, known=None, weights=PAPER, **options):
    known = jnp.ones(len(sources), bool) if known is None else known
    settings = chimera.Settings(SPECTRUM, weights, chunk_frames=4)
    options = {"network": NETWORK, "settings": settings} | options
    loss = jax.jit(functools.partial(chimera.chimera_loss, **options))  # else op by op
    with jax.default_matmul_precision("highest"):
        return loss(params, {"batch_stats": statistics}, sources, known, jax.random.key(0))


def _parts(variables):
    return variables["params"], variables["batch_stats"]


def test_the_original_s_loss_and_gradient(original):
    variables, sources, output = original
    params, statistics = _parts(variables)
    (total, (mutables, terms)), gradient = jax.value_and_grad(_loss, has_aux=True)(
        params, statistics, sources
    )
    np.testing.assert_allclose(total, output["train/loss_total_0.01dc_0.99l1"], rtol=1e-5)
    np.testing.assert_allclose(
        terms["deep_clustering"], output["train/loss_deep_clustering"], rtol=1e-5
    )
    np.testing.assert_allclose(terms["mask_inference"], output["train/loss_l1"], rtol=1e-5)
    mean = output["train/running_mean_after"][0]
    np.testing.assert_allclose(mutables["batch_stats"]["norm"]["mean"], mean, rtol=1e-5)
    start = "train/grad/"
    theirs = {k.removeprefix(start): v for k, v in output.items() if k.startswith(start)}
    theirs |= {k: v for k, v in read("chimera")[0].items() if "running" in k}
    expected = weights.convert("chimera", theirs)["params"]
    for name, layer in expected["blstm"].items():
        # PyTorch's two have the same gradient, and the converter adds them
        layer["bias"] = layer["bias"] / 2
        assert gradient["blstm"][name]["bias"].shape == layer["bias"].shape
    jax.tree.map(
        lambda g, e: np.testing.assert_allclose(g, e, atol=1e-4 * np.abs(e).max()),
        gradient,
        expected,
    )


def test_evaluation_leaves_the_statistics_alone(original):
    variables, sources, output = original
    params, statistics = _parts(variables)
    _, (mutables, terms) = _loss(params, statistics, sources, train=False)
    jax.tree.map(np.testing.assert_array_equal, mutables["batch_stats"], statistics)
    for ours, theirs in (("deep_clustering", "deep_clustering"), ("mask_inference", "l1")):
        np.testing.assert_allclose(terms[ours], output[f"eval/loss_{theirs}"], rtol=1e-5)


def test_only_examples_whose_sources_are_known_count(original):
    variables, sources, _ = original
    params, statistics = _parts(variables)
    known = jnp.array([True, False, True])
    some, _ = _loss(params, statistics, sources, known, train=False)
    pair, _ = _loss(params, statistics, sources[jnp.array([0, 2])], train=False)
    np.testing.assert_allclose(some, pair, rtol=1e-6)
    none, _ = _loss(params, statistics, sources, jnp.zeros(3, bool), train=False)
    assert none == 0


def test_terms_without_a_weight_are_not_computed(original):
    variables, sources, _ = original
    params, statistics = _parts(variables)
    _, (_, terms) = _loss(params, statistics, sources, weights={"mask_inference": 1.0})
    assert list(terms) == ["mask_inference"]
    trunk = {name: value for name, value in params.items() if name != "mask"}
    network = NETWORK.clone(sources=None)
    options = {"weights": {"whitened_k_means": 1.0}, "network": network}
    _, (_, terms) = _loss(trunk, statistics, sources, **options)
    assert list(terms) == ["whitened_k_means"]
    for wrong, message in (
        ({"l1": 1.0}, "names .'l1'.; the terms"),
        ({"mask_inference": 0.0}, "0"),
    ):
        with pytest.raises(ValueError, match=message):
            _loss(params, statistics, sources, weights=wrong)


@pytest.mark.slow
def test_a_network_without_statistics():
    network = NETWORK.clone(norm="instance", dropout=0.2)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 2, 17)))
    assert set(variables) == {"params"}
    sources = 0.1 * jax.random.normal(jax.random.key(1), (2, 77, 2))
    settings = chimera.Settings(SPECTRUM, PAPER, chunk_frames=4)
    loss = functools.partial(chimera.chimera_loss, network=network, settings=settings)
    known, key = jnp.ones(2, bool), jax.random.key(2)
    value, (mutables, _) = jax.jit(loss)(variables["params"], {}, sources, known, key)
    assert np.isfinite(value) and mutables == {}


def test_silence_has_a_finite_loss_and_gradient(original):
    params, statistics = _parts(original[0])
    value, gradient = jax.value_and_grad(lambda p: _loss(p, statistics, jnp.zeros((2, 77, 2)))[0])(
        params
    )
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
