"""The other papers' separators in a cascade give what their own recipes give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smoke_runs
from flax import linen as nn

from majl_jax.audio import stft
from majl_jax.inference.band_split import Separator
from majl_jax.models import by_name
from majl_jax.models.band_split import BandSplitLocoformer, select_outputs
from majl_jax.models.chimera import Chimera

HOP, TIME = 320, 6400
NAMES = ("chimera", "locoformer", "vqvae")


def separator(name, **changed):
    fields = smoke_runs.load_config("majl")[name].to_dict()
    return by_name.separator(name, fields | changed, hop_samples=HOP)


def audio(seed=0):
    return 0.1 * jax.random.normal(jax.random.key(seed), (2, TIME))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_the_target_has_the_mixtures_shape_and_every_parameter_a_gradient(name):
    network = separator(name)
    variables = jax.jit(network.init)(jax.random.key(0), audio())

    def power(params):
        found = network.apply({**variables, "params": params}, audio(1))
        assert found.shape == (2, TIME)
        return jnp.mean((found - audio(2)) ** 2)

    gradients = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(power))(variables["params"]))
    assert all(np.isfinite(leaf).all() for _, leaf in gradients)
    still = [jax.tree_util.keystr(path) for path, leaf in gradients if not np.any(leaf)]
    assert not still


@pytest.mark.parametrize("name", ["chimera", "locoformer"])
@pytest.mark.slow
def test_silence_has_a_finite_gradient(name):
    network = separator(name)
    variables = jax.jit(network.init)(jax.random.key(0), audio())
    found = jax.jit(jax.grad(lambda x: jnp.sum(network.apply(variables, x))))(jnp.zeros((2, TIME)))
    assert np.isfinite(found).all()


def test_chimera_in_a_cascade_hears_spectra_as_loud_as_its_recipe_s():
    network = separator("chimera", window_samples=1280)
    tone = 0.5 * jnp.sin(2 * jnp.pi * 1000.0 * jnp.arange(TIME) / 16_000)[None]
    variables = jax.jit(network.init)(jax.random.key(0), tone)
    heard = []

    def listen(call, inputs, keywords, context):
        if isinstance(context.module, Chimera) and context.method_name == "__call__":
            heard.append(float(inputs[0].max()))
        return call(*inputs, **keywords)

    with nn.intercept_methods(listen):
        network.apply(variables, tone)
    recipe = jnp.abs(stft.scaled_stft(tone, window_samples=1280, hop_samples=HOP)).max()
    np.testing.assert_allclose(heard, [recipe], rtol=0.2)  # one window is the other's root


def test_chimera_in_a_cascade_has_the_names_of_chimera_itself():
    network = separator("chimera")
    variables = jax.jit(network.init)(jax.random.key(0), audio())
    own = Chimera(513, 4, 1, 0.0, embedding=None, sources=1)
    wanted = jax.eval_shape(own.init, jax.random.key(0), jnp.ones((2, 20, 513)))
    assert jax.tree.structure(variables) == jax.tree.structure(wanted)


@pytest.mark.slow
def test_locoformer_in_a_cascade_is_the_separator_of_mixit():
    fields = smoke_runs.load_config("majl").locoformer.to_dict()
    network = separator("locoformer")
    variables = jax.jit(network.init)(jax.random.key(0), audio())
    window, _ = fields.pop("window_samples"), fields.pop("outputs")
    fields = {**fields, "dtype": jnp.float32, "bands": tuple(fields["bands"])}
    own = Separator(BandSplitLocoformer(sources=1, audio_channels=1, **fields), window, HOP, 16_000)
    wanted = jax.jit(own.separate)(variables, audio(1)[..., None])[:, :, 0, 0]
    found = jax.jit(network.apply)(variables, audio(1))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.slow
def test_of_a_locoformer_of_several_outputs_the_target_is_a_sum_with_learnt_shares():
    network, alone = separator("locoformer", outputs=3), separator("locoformer")
    variables = jax.jit(network.init)(jax.random.key(0), audio())
    params = variables["params"]
    assert params["shares"].tolist() == [0.5] * 3
    heard = jax.jit(network.apply)
    total = 0.0
    for number, share in enumerate((0.5, 0.5, 0.5)):
        of_one = select_outputs({k: v for k, v in params.items() if k != "shares"}, [number])
        total = total + share * jax.jit(alone.apply)({"params": of_one}, audio(1))
    np.testing.assert_allclose(heard(variables, audio(1)), total, atol=1e-6)
    only = {"params": {**params, "shares": jnp.array([0.0, 1.0, 0.0])}}
    of_one = select_outputs({k: v for k, v in params.items() if k != "shares"}, [1])
    wanted = jax.jit(alone.apply)({"params": of_one}, audio(1))
    np.testing.assert_allclose(heard(only, audio(1)), wanted, atol=1e-6)


def test_a_segment_between_two_latents_is_refused():
    network = separator("vqvae")
    with pytest.raises(ValueError, match=r"a latent every 8 samples, and the segment 6404"):
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 6404)))
