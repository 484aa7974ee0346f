"""The U-Net: published size, scale and length traps, silence."""

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax import weights
from majl_jax.models.unet import UNet
from majl_jax.weights.filling import WeightsError

NARROW = (2, 2, 2, 2, 2, 2)


@pytest.fixture(scope="module")
def narrow():
    model = UNet(channels=NARROW)
    audio = jnp.asarray(np.random.default_rng(0).standard_normal((2, 40_960)), jnp.float32) * 0.1
    return model, jax.jit(model.init)(jax.random.key(0), audio), audio


def test_published_parameter_count():
    shapes = jax.eval_shape(UNet().init, jax.random.key(0), jnp.zeros((1, 40_960)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 9_823_313


# ---- the port with 4 x 4 kernels -----------------------------------------------------------------


def test_parameter_count_of_the_port():
    model = UNet(kernel_size=4)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 40_960)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 6_288_545


@pytest.mark.parametrize(("norm_epsilon", "agrees"), [(2e-5, True), (1e-5, False)])
def test_mask_is_that_of_the_port(norm_epsilon, agrees):
    state, inputs, output, config = golden_files.read("unet_chainer")
    channels = tuple(config["channels"])
    model = UNet(channels, kernel_size=4, norm_epsilon=norm_epsilon)
    level = inputs["magnitude"][:, 0].swapaxes(1, 2)  # (batch, 1, frequency, time)
    variables = weights.convert("unet", state, channels=channels)
    found = jax.jit(model.apply, static_argnames="method")(variables, level, method="mask")
    error = golden_files.relative_error(found, output["mask"][:, 0].swapaxes(1, 2))
    assert (error <= 1e-5) == agrees, error


@pytest.mark.parametrize("name", ["conv3/W", "denorm2/avg_var", "deconv6/b"])
def test_a_wrong_file_of_the_port_is_refused_by_key(name):
    state, _, _, config = golden_files.read("unet_chainer")
    channels = tuple(config["channels"])
    with pytest.raises(WeightsError, match=name):
        weights.convert("unet", {k: v for k, v in state.items() if k != name}, channels=channels)
    with pytest.raises(WeightsError, match=f"{name} has shape"):
        weights.convert("unet", {**state, name: np.zeros((2, 9))}, channels=channels)


# ---- waveform to waveform -----------------------------------------------------------------------


@pytest.mark.slow
def test_output_has_the_length_and_scales_with_the_level(narrow):
    model, variables, audio = narrow
    estimate = model.apply(variables, audio)
    assert estimate.shape == audio.shape
    np.testing.assert_allclose(model.apply(variables, 10 * audio), 10 * estimate, atol=1e-4)


@pytest.mark.slow
def test_a_mask_cannot_be_louder_than_the_mixture(narrow):
    model, variables, audio = narrow
    assert float((model.apply(variables, audio) ** 2).mean()) <= float((audio**2).mean())


def test_a_mask_of_one_returns_the_mixture_without_its_mean(narrow):
    model, variables, audio = narrow
    params = dict(variables["params"])
    params["up6"] = {"kernel": params["up6"]["kernel"] * 0, "bias": params["up6"]["bias"] + 50.0}
    estimate = model.apply({**variables, "params": params}, audio)
    # The DC bin is dropped: what is left out is the local mean under the window.
    assert float(jnp.abs(estimate - audio).max()) < 0.02  # of 0.1 rms


@pytest.mark.slow
def test_silence_gives_silence_and_a_finite_gradient(narrow):
    model, variables, audio = narrow
    silent = jnp.zeros_like(audio)
    assert float(jnp.abs(model.apply(variables, silent)).max()) == 0.0

    def loss(params):
        estimate, _ = model.apply(
            {**variables, "params": params},
            silent,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )
        return jnp.abs(estimate).mean()

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))


def test_silence_enters_as_zeros_and_has_a_finite_gradient(monkeypatch):
    entered = []

    def mask(self, level, *, train=False):
        del self, train
        entered.append(level)
        return level

    monkeypatch.setattr(UNet, "mask", mask)
    noise = np.random.default_rng(0).standard_normal((1, 40_960)).astype(np.float32) * 1e-3
    audio = jnp.concatenate([jnp.zeros((1, 40_960)), noise])
    UNet().apply({}, audio)
    np.testing.assert_array_equal(entered[0].max((1, 2)), [0.0, 1.0])
    gradient = jax.grad(lambda x: UNet().apply({}, x).sum())(audio)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("samples", [40_000, 320 * 32])
def test_a_length_that_does_not_halve_is_refused_by_name(narrow, samples):
    model, variables, _ = narrow
    with pytest.raises(ValueError, match=r"multiple of 64 frames of 320 samples.*segment_samples"):
        model.apply(variables, jnp.zeros((1, samples)))
