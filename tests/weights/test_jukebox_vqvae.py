"""The converter of Jukebox's VQ-VAE and the network, against what openai/jukebox computes with
random weights.

Weights are stored under the key names of openai/jukebox and of transformers' `JukeboxVQVAE`;
`jukebox_vqvae_l1.npz` has one level, `jukebox_vqvae_l3.npz` three in the layout of the published
file.
"""

import functools

import golden_files
import jax
import numpy as np
import pytest

from majl_jax.models.vqvae import LEVELS, Decoder, Encoder, VqVaeSizes, hop
from majl_jax.weights.filling import WeightsError
from majl_jax.weights.jukebox_vqvae import convert_jukebox_vqvae, sizes_of

TINY = {"width": 8, "depth": 4, "multiplier": 1, "latent": 8}


@functools.cache
def _stored(name):
    return golden_files.read(name)


def _tensors(name="jukebox_vqvae_l1", naming="openai"):
    prefix = {"openai": "state/", "transformers": "state_hf/"}[naming]
    with np.load(golden_files.find(name), allow_pickle=False) as file:
        return {key.removeprefix(prefix): file[key] for key in file.files if key.startswith(prefix)}


@pytest.mark.parametrize("name", ["jukebox_vqvae_l1", "jukebox_vqvae_l3"])
def test_the_network_computes_what_the_original_computes(name):
    state, inputs, outputs, _ = _stored(name)
    variables, sizes = convert_jukebox_vqvae(state), sizes_of(state)
    assert sizes == VqVaeSizes(**TINY)
    encoder, decoder = ({"params": variables["params"][half]} for half in ("encoder", "decoder"))
    with jax.default_matmul_precision("highest"):
        latents = jax.jit(Encoder(sizes).apply)(encoder, inputs["x"])
        rows = variables["codebook"]["vectors"][outputs["codes"]]
        decoded = jax.jit(Decoder(sizes).apply)(decoder, rows)
    np.testing.assert_array_equal(rows, outputs["quantised"].swapaxes(1, 2))
    np.testing.assert_allclose(latents, outputs["latents"].swapaxes(1, 2), rtol=0, atol=1e-6)
    np.testing.assert_allclose(decoded, outputs["decoded"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("naming", ["openai", "transformers"])
@pytest.mark.parametrize("prefix", ["", "module.", "vqvae.", "model.", "model.module."])
def test_both_namings_with_any_prefix_give_the_same_variables(naming, prefix):
    tensors = {f"{prefix}{key}": array for key, array in _tensors(naming=naming).items()}
    if prefix:
        tensors |= {"opt.state.0.exp_avg": np.ones(3), "priors.0.x_out.weight": np.ones(3)}
    expected = convert_jukebox_vqvae(_stored("jukebox_vqvae_l1")[0])
    jax.tree.map(np.testing.assert_array_equal, convert_jukebox_vqvae(tensors), expected)
    assert expected["codebook"]["vectors"].shape == (32, 8)


@pytest.mark.parametrize("naming", ["openai", "transformers"])
@pytest.mark.parametrize(
    ("level", "downs", "samples"), [(0, (3,), 8), (1, (3, 2), 32), (2, (3, 2, 2), 128)]
)
def test_any_level_of_three(naming, level, downs, samples):
    tensors = _tensors("jukebox_vqvae_l3", naming)
    sizes = sizes_of(tensors, level=level)
    assert sizes.downs == downs
    assert (sizes.hidden, len(sizes.dilations)) == ((8, 4) if level == 0 else (4, 2))
    assert hop(sizes) == hop(LEVELS[level]) == samples
    variables = convert_jukebox_vqvae(tensors, level=level)
    expected = tensors[
        f"bottleneck.level_blocks.{level}.{'k' if naming == 'openai' else 'codebook'}"
    ]
    np.testing.assert_array_equal(variables["codebook"]["vectors"], expected)
    last = variables["params"]["decoder"]["out"]["kernel"]
    np.testing.assert_array_equal(last[:, 3, 0], tensors[f"decoders.{level}.out.weight"][0, 3])
    # What is not of this level is not missed.
    alone = {key: array for key, array in tensors.items() if str(level) == _level(key)}
    assert len(alone) < len(tensors) // 2
    alone = convert_jukebox_vqvae(alone, level=level)
    jax.tree.map(np.testing.assert_array_equal, variables, alone)


def _level(key):
    parts = key.split(".")
    return parts[2] if parts[0] == "bottleneck" else parts[1]


ENCODER, DECODER = "encoders.0.level_blocks.0.model", "decoders.0.level_blocks.0.model"
HF_DECODER = "decoders.0.level_blocks.0.upsample_block"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(f"{ENCODER}.0.0.weight"), r"level 0 needs one key.*got \[\]"),
        (
            lambda s: s.pop(f"{ENCODER}.1.1.model.3.model.3.bias"),
            "1 keys are missing.*1.1.model.3.model.3.bias",
        ),
        (
            lambda s: s.pop(f"{ENCODER}.0.1.model.3.model.3.bias"),
            "1 keys are missing.*0.1.model.3.model.3.bias",
        ),
        (lambda s: s.pop(f"{ENCODER}.2.0.weight"), "1 keys are missing.*model.2.0.weight"),
        (lambda s: s.pop(f"{ENCODER}.3.weight"), "model.3.weight with 3 axes.*no such key"),
        (lambda s: s.pop(f"{DECODER}.3.1.weight"), "1 keys are missing.*model.3.1.weight"),
        (lambda s: s.pop("bottleneck.level_blocks.0.k"), "bottleneck.level_blocks.0.k"),
        (
            lambda s: s.update({f"{DECODER}.3.2.weight": np.ones(3)}),
            "1 are unknown.*model.3.2.weight",
        ),
        (lambda s: s.update(temperature=np.ones(3)), "1 are unknown.*temperature"),
        (
            lambda s: s.update({"model.encoders.0.level_blocks.0.model.0.0.weight": np.ones(3)}),
            "one key",
        ),
        (
            lambda s: s.update({f"{DECODER}.1.1.weight": np.ones((8, 8, 3))}),
            "model.1.1.weight has shape",
        ),
        (lambda s: s.update({f"{DECODER}.2.1.bias": np.ones((8, 1))}), "model.2.1.bias has shape"),
        (lambda s: s.update({f"{ENCODER}.0.0.weight": np.ones((8, 4))}), "with 3 axes"),
        (lambda s: s.update({f"{ENCODER}.0.0.weight": np.ones((8, 1, 6))}), "6 taps"),
        (
            lambda s: s.update({"bottleneck.level_blocks.0.k": np.ones((32, 7))}),
            "level_blocks.0.k has shape",
        ),
        (lambda s: s["decoders.0.out.bias"].fill(np.nan), "decoders.0.out.bias.*not finite"),
    ],
)
def test_a_wrong_state_dictionary_is_refused_by_key(change, message):
    tensors = _tensors()
    change(tensors)
    with pytest.raises(WeightsError, match=message):
        convert_jukebox_vqvae(tensors)


def test_keys_of_transformers_are_named_as_there():
    tensors = _tensors(naming="transformers")
    del tensors[f"{HF_DECODER}.2.resnet_block.1.conv1d_2.weight"]
    with pytest.raises(WeightsError, match=r"upsample_block.2.resnet_block.1.conv1d_2.weight"):
        convert_jukebox_vqvae(tensors)


def test_a_level_that_the_file_lacks():
    with pytest.raises(WeightsError, match=r"level 1 needs one key.*levels of the file are \[0\]"):
        convert_jukebox_vqvae(_tensors(), level=1)
