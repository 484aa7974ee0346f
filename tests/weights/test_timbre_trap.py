"""The converter of SS-MPE's state dictionary and the network, against numbers of the original
code.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax import weights
from majl_jax.models.timbre_trap import TimbreTrap
from majl_jax.weights.filling import WeightsError

BINS, CHANNELS, LATENT, HARMONICS = (440, 219, 108, 53, 25), (8, 16, 32, 64, 128), 128, 6


def _layer(name, shape, *, transposed=False):
    """A convolution's weight and bias under the original's names."""
    return {f"{name}.weight": shape, f"{name}.bias": (shape[1 if transposed else 0],)}


def _norm(name, channels, bins):
    return {f"{name}.weight": (channels, bins), f"{name}.bias": (channels, bins)}


def _units(name, channels):
    shapes = {}
    for i in (1, 2, 3):
        shapes |= _layer(f"{name}.block{i}.conv1.0", (channels, channels, 3, 3))
        shapes |= _layer(f"{name}.block{i}.conv2.0", (channels, channels, 1, 1))
    return shapes


def _original_shapes():
    """Shapes of the encoder's and of the decoder's parameters in PyTorch's order."""
    encoder = _layer("convin.0", (CHANNELS[0], HARMONICS, 3, 3))
    encoder |= _norm("convin.1", CHANNELS[0], BINS[0])
    for i in range(4):
        name = f"blocks.{i}"
        encoder |= _units(name, CHANNELS[i])
        encoder |= _layer(f"{name}.sconv.0", (CHANNELS[i + 1], CHANNELS[i], 4, 1))
        encoder |= _norm(f"{name}.sconv.1", CHANNELS[i + 1], BINS[i + 1])
    encoder |= _layer("convlat.0", (LATENT, CHANNELS[4], BINS[4], 1))
    encoder |= _norm("convlat.1", LATENT, 1)
    decoder = _layer("convin.0", (LATENT, CHANNELS[4], BINS[4], 1), transposed=True)
    decoder |= _norm("convin.1", CHANNELS[4], BINS[4])
    for i in range(4):
        name, level = f"blocks.{i}", 3 - i
        shape = (CHANNELS[level + 1], CHANNELS[level], 4, 1)
        decoder |= _layer(f"{name}.tconv.0", shape, transposed=True)
        decoder |= _norm(f"{name}.tconv.1", CHANNELS[level], BINS[level])
        decoder |= _units(name, CHANNELS[level])
    decoder |= _layer("convout.0", (1, CHANNELS[0], 3, 3))
    return encoder, decoder


def _closed_form():
    """Parameters by a formula: s_i = sin(0.37 (i + 1) + 0.11 j) for value i of tensor j, scaled by
    its kind.
    """
    tensors = {}
    for half, shapes in zip(("encoder", "decoder"), _original_shapes(), strict=True):
        for j, (name, shape) in enumerate(shapes.items()):
            size = np.prod(shape)
            values = np.sin(0.37 * np.arange(1, size + 1) + 0.11 * j)
            if name.endswith("bias"):
                values = 0.1 * values
            elif len(shape) == 2:
                values = 1 + 0.1 * values
            else:
                values = values * 1.5 / np.sqrt(size / shape[0])
            tensors[f"{half}.{name}"] = values.reshape(shape).astype(np.float32)
    return tensors


@pytest.mark.slow
def test_the_whole_network_computes_what_the_original_computes():
    variables = weights.convert("timbre_trap", _closed_form())
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 1_303_753
    index = np.arange(6 * 440 * 12)
    features = (0.5 + 0.5 * np.sin(0.013 * index + 0.7)).reshape(1, 6, 440, 12)
    features = jnp.asarray(features.transpose(0, 3, 2, 1), jnp.float32)

    @jax.jit
    def apply(variables, features):
        def is_encoder(module, _):
            return module.name == "encoder"

        model = TimbreTrap()
        logits, kept = model.apply(variables, features, capture_intermediates=is_encoder)
        return logits, kept["intermediates"]["encoder"]["__call__"][0]

    logits, (latents, stages) = apply(variables, features)
    expected = [
        (0.176220, 0.778324),
        (0.175238, 0.796745),
        (0.165110, 0.800563),
        (0.168004, 0.799309),
        (0.164074, 0.797240),
    ]
    for stage, numbers in zip(stages, expected, strict=True):
        found = float(stage.mean()), np.std(stage, ddof=1)
        np.testing.assert_allclose(found, numbers, atol=2e-6)
    found = float(latents.mean()), np.std(latents, ddof=1)
    np.testing.assert_allclose(found, (0.000853, 1.007353), atol=2e-6)
    np.testing.assert_allclose(latents[0, 5, :3], (1.6437, -1.3843, 1.2859), atol=1e-4)
    found = float(logits.mean()), np.std(logits, ddof=1)
    np.testing.assert_allclose(found, (-9.625073, 7.004193), atol=1e-5)
    some = logits[0, 5, jnp.array([0, 100, 220, 439])]
    np.testing.assert_allclose(some, (-4.874278, -7.384608, -19.791737, 0.188623), atol=2e-5)
    np.testing.assert_allclose(logits[0, [0, 11], 220], (-12.087622, -7.666816), atol=2e-5)


def test_filters_of_the_front_end_are_not_needed_and_skip_weights_are_taken():
    tensors = _closed_form() | {"hcqt.modules.0.real_weights": np.zeros((2, 1, 3))}
    tensors["skip_weights"] = np.arange(5.0)
    variables = weights.convert("timbre_trap", tensors, skip_connections=True)
    found = variables["params"]["decoder"]["skip_weights"]
    np.testing.assert_array_equal(found, np.arange(5.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("encoder.blocks.2.block3.conv1.0.bias"), "encoder.blocks.2.block3.conv1"),
        (lambda s: s.pop("decoder.blocks.0.tconv.1.weight"), "decoder.blocks.0.tconv.1.weight"),
        (lambda s: s.update(skip_weights=np.ones(5)), "1 are unknown.*skip_weights"),
        (lambda s: s.update({"decoder.convin.0.weight": np.zeros((128, 128, 25))}), "convin.0"),
        (lambda s: s["encoder.convin.1.weight"].fill(np.nan), "convin.1.weight.*not finite"),
    ],
)
def test_a_wrong_state_dictionary_is_refused_by_key(change, message):
    tensors = _closed_form()
    change(tensors)
    with pytest.raises(WeightsError, match=message):
        weights.convert("timbre_trap", tensors)


def test_another_width_is_refused():
    with pytest.raises(WeightsError, match="another capacity or width"):
        weights.convert("timbre_trap", _closed_form(), complexity=2)
