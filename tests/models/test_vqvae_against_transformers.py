"""Jukebox's VQ-VAE against `JukeboxVQVAE` of transformers with random weights, by way of every
kind of weight file.

pip install transformers==4.57.6 torch==2.13.0

The class exists in transformers 4.25.1 to 4.57.6.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax import weights
from majl_jax.models.layers import vector_quantizer
from majl_jax.models.vqvae import LEVELS, Decoder, Encoder, VqVaeSizes, hop
from majl_jax.weights.files import read_tensors
from majl_jax.weights.jukebox_vqvae import sizes_of

jukebox = pytest.importorskip(
    "transformers.models.deprecated.jukebox",
    reason="pip install transformers==4.57.6 torch",
    exc_type=ImportError,
)
torch = pytest.importorskip("torch", reason="pip install torch")

WIDTH, DEPTH, LATENT, CODES, FRAMES = 6, 3, 10, 48, 96
MULTIPLIERS = (2, 1, 1)  # Jukebox's: the finest level is twice as wide and deep


@functools.cache
def _original():
    """All three levels, random, with random latents of its own as codebooks: those of a new model
    are zeros.
    """
    torch.manual_seed(0)
    config = jukebox.JukeboxVQVAEConfig(
        levels=3,
        multipliers=list(MULTIPLIERS),
        res_conv_width=WIDTH,
        res_conv_depth=DEPTH,
        res_downs_t=[3, 2, 2],
        res_strides_t=[2, 2, 2],
        embed_dim=LATENT,
        nb_discrete_codes=CODES,
        sample_length=hop(LEVELS[2]) * FRAMES,
    )
    model = jukebox.JukeboxVQVAE(config).eval()
    with torch.no_grad():
        for level in range(3):
            latents = _encode(model, _audio(level, seed=1), level)
            chosen = torch.randperm(latents.shape[0] * latents.shape[2])[:CODES]
            tokens = latents.transpose(1, 2).reshape(-1, LATENT)
            model.bottleneck.level_blocks[level].codebook.copy_(tokens[chosen])
    return model


def _audio(level, seed=0):
    shape = 2, hop(LEVELS[level]) * FRAMES, 1
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _encode(model, audio, level):
    return model.encoders[level](torch.from_numpy(audio).transpose(1, 2))[-1]


@functools.cache
def _expected(level):
    """Latents, codes and the audio of these codes by the original."""
    model, audio = _original(), _audio(level)
    with torch.no_grad():
        latents = _encode(model, audio, level).transpose(1, 2).numpy()
        codes = model.encode(torch.from_numpy(audio), start_level=level, end_level=level + 1)
        decoded = model.decode(codes, start_level=level, end_level=level + 1)
    return latents, codes[0].numpy(), decoded.numpy()


def _saved(kind, folder):
    model = _original()
    state = model.state_dict()
    if kind == "safetensors":
        model.save_pretrained(folder, safe_serialization=True)
        return folder / "model.safetensors"
    if kind == "npz":
        np.savez(folder / "model.npz", **{key: tensor.numpy() for key, tensor in state.items()})
        return folder / "model.npz"
    # As openai/jukebox saves: beside the model lie settings and a step, and names may begin with a
    # wrapper's.
    content = {"model": {f"module.{key}": tensor for key, tensor in state.items()}, "step": 1}
    content["hps"] = {"levels": 3, "name": "vqvae", "multipliers": MULTIPLIERS, "lr": 3e-4}
    path = folder / "vqvae.pth.tar"
    torch.save(content, path, _use_new_zipfile_serialization=kind == "torch, zip archive")
    return path


KINDS = ("safetensors", "npz", "torch, zip archive", "torch, before 1.6")


@pytest.fixture(scope="module", params=KINDS)
def tensors(request, tmp_path_factory):
    return read_tensors(_saved(request.param, tmp_path_factory.mktemp("saved")))


@pytest.mark.parametrize("level", range(3))
def test_every_file_holds_the_weights_of_every_level(tensors, level):
    variables = weights.convert("jukebox_vqvae", tensors, level=level)
    assert sizes_of(tensors, level=level) == VqVaeSizes(
        width=WIDTH * MULTIPLIERS[level],
        depth=DEPTH * MULTIPLIERS[level],
        multiplier=1,
        downs=(3, 2, 2)[: level + 1],
        strides=(2, 2, 2)[: level + 1],
        latent=LATENT,
    )
    jax.tree.map(np.testing.assert_array_equal, variables, _converted(level))
    model = _original()
    halves = model.encoders[level], model.decoders[level]
    count = sum(parameter.numel() for half in halves for parameter in half.parameters())
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


@functools.cache
def _converted(level):
    state = {key: tensor.numpy() for key, tensor in _original().state_dict().items()}
    return weights.convert("jukebox_vqvae", state, level=level)


@pytest.mark.parametrize("remat", ["none", "full"])
@pytest.mark.parametrize("level", range(3))
def test_latents_codes_and_audio_are_those_of_transformers(level, remat):
    expected_latents, expected_codes, expected = _expected(level)
    variables = jax.tree.map(jnp.asarray, _converted(level))
    sizes = sizes_of({k: v.numpy() for k, v in _original().state_dict().items()}, level=level)
    params, vectors = variables["params"], variables["codebook"]["vectors"]
    with jax.default_matmul_precision("highest"):
        encode, decode = (jax.jit(half(sizes, remat=remat).apply) for half in (Encoder, Decoder))
        latents = encode({"params": params["encoder"]}, _audio(level))
        codes, _ = vector_quantizer.nearest_codes(latents, vectors)
        decoded = decode({"params": params["decoder"]}, vectors[expected_codes])
    np.testing.assert_allclose(latents, expected_latents, rtol=0, atol=1e-6)
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=1e-6)
    # Rounding decides between codes of equal distance.
    assert np.mean(np.asarray(codes) == expected_codes) >= 0.99
    assert len(np.unique(expected_codes)) > CODES // 4
