"""Band-split TF-Locoformer: sizes, bands, finite gradients, what does not change the result,
choice of outputs.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.models.band_split import (
    BANDS_44_1_KHZ,
    PRESETS,
    BandSplitLocoformer,
    band_groups,
    channel_level,
    select_outputs,
)

BANDS = (2,) * 4 + (3,)
SMALL = {
    "sources": 3,
    "bands": BANDS,
    "layers": 2,
    "features": 8,
    "attention_features": 8,
    "heads": 2,
    "norm_groups": 2,
    "hidden": 6,
    "kernel_size": 3,
}


def _spectrum(frames=5, batch=2, channels=2, bins=11, seed=0):
    parts = np.random.default_rng(seed).standard_normal((2, batch, channels, frames, bins))
    return jnp.asarray(parts[0] + 1j * parts[1], jnp.complex64)


@functools.cache
def _network(**changes):
    """Random variables that fit all small networks, the compiled network and the gradient of the
    mean of its squares.
    """
    model = BandSplitLocoformer(**(SMALL | changes))

    def loss(variables, spectrum):
        estimate = model.apply(variables, spectrum)
        return jnp.mean(jnp.real(estimate) ** 2 + jnp.imag(estimate) ** 2)

    return jax.jit(model.apply), jax.jit(jax.value_and_grad(loss))


@functools.cache
def _variables():
    """Random values, without compiling the network's own initial values."""
    model = BandSplitLocoformer(**SMALL)
    shapes = jax.eval_shape(model.init, jax.random.key(0), _spectrum())
    rng = np.random.default_rng(7)

    def values(path, leaf):
        name = path[-1].key
        values = rng.standard_normal(leaf.shape)
        if name.endswith("kernel"):
            return jnp.asarray(values / np.sqrt(np.prod(leaf.shape[1:3])), jnp.float32)
        return jnp.asarray(0.1 * values + (name == "scale"), jnp.float32)

    return jax.tree_util.tree_map_with_path(values, shapes)


# ---- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sources", "count"),
    [
        ("small", 12, 54_800_552),
        ("small", 4, 29_544_552),
        ("medium", 12, 86_374_760),
        ("medium", 4, 52_721_960),
        ("large", 12, 167_464_552),
        ("large", 4, 117_018_152),
    ],
)
def test_parameter_count(name, sources, count):
    model = BandSplitLocoformer(sources=sources, **PRESETS[name])
    spectrum = jax.ShapeDtypeStruct((1, 2, 4, 1025), jnp.complex64)
    shapes = jax.eval_shape(model.init, jax.random.key(0), spectrum)["params"]
    parts = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in shapes.items()}
    assert sum(parts.values()) == count
    layers = {"small": 5_021_440, "medium": 14_959_104, "large": 45_157_248}
    encoder = {"small": 407_752, "medium": 540_936, "large": 807_304}
    assert (parts["layers"], parts["encoder"]) == (layers[name], encoder[name])
    assert (
        max(len(jax.tree.leaves(v)) for v in shapes.values()) <= 56
    )  # bands and layers are stacked


def test_bands_of_equal_width_are_one_group():
    groups = band_groups(BANDS_44_1_KHZ)
    assert [(g.bands, g.width) for g in groups] == [
        (24, 2),
        (12, 4),
        (8, 12),
        (8, 24),
        (8, 48),
        (1, 128),
        (1, 129),
    ]
    assert (groups[2].bins, groups[-1].bins) == (slice(96, 192), slice(896, 1025))
    assert len(BANDS_44_1_KHZ) == 62 and sum(BANDS_44_1_KHZ) == 1025
    # Equal widths apart from each other are two groups.
    assert [(g.first_bin, g.bands) for g in band_groups((2, 4, 4, 2))] == [(0, 1), (2, 2), (10, 1)]
    with pytest.raises(ValueError, match=r"at least one bin, got \(2, 0\)"):
        band_groups((2, 0))
    with pytest.raises(ValueError, match=r"got \(\)"):
        band_groups(())


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        (
            {},
            (1, 1, 4, 11),
            "1 channels and 11 frequency bins.*audio_channels=2 and bands of 11 bins",
        ),
        ({}, (1, 2, 4, 10), "2 channels and 10 frequency bins"),
        (
            {"decoder_tanh": "first"},
            (1, 2, 4, 11),
            "decoder_tanh='first' is not one of after_second",
        ),
        ({"remat": "some"}, (1, 2, 4, 11), "remat='some' is not one of none, full, dots"),
        ({"attention": "flash"}, (1, 2, 4, 11), "attention='flash' is not one of auto, xla, cudnn"),
        ({"heads": 3}, (1, 2, 4, 11), "attention_features=8 is no multiple of heads=3"),
        ({"bands": ()}, (1, 2, 4, 0), "bands are widths of at least one bin"),
    ],
)
def test_wrong_sizes_are_refused(changes, shape, message):
    model = BandSplitLocoformer(**(SMALL | changes))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.complex64))


# ---- the bands ----------------------------------------------------------------------------------


def test_channels_are_divided_by_their_own_level():
    spectrum = _spectrum().at[1, 0].set(0).at[0, 1].multiply(100)
    level = channel_level(spectrum)
    power = np.maximum(np.abs(np.asarray(spectrum, np.complex128)) ** 2, 1e-15)
    np.testing.assert_allclose(level[..., 0, 0], np.sqrt(power.mean((2, 3))), rtol=1e-6)
    assert level.shape == (2, 2, 1, 1) and np.isfinite(spectrum / level).all()


def test_estimates_of_a_band_are_its_bins_times_its_masks():
    """The mixture's other bands change the masks, a factor of a bin's own phase and level is that
    of its estimates.
    """
    apply, _ = _network()
    spectrum = _spectrum()
    estimate = apply(_variables(), spectrum)
    assert estimate.shape == (2, 3, 2, 5, 11) and estimate.dtype == jnp.complex64
    masks = estimate / spectrum[:, None]
    silent = spectrum.at[..., 5:].set(0)
    changed = apply(_variables(), silent)
    assert (changed[..., 5:] == 0).all()
    assert np.abs(changed[..., :5] / silent[:, None, ..., :5] - masks[..., :5]).max() > 1e-3


def test_items_of_a_batch_are_separate_and_their_scale_leaves_the_masks():
    """The norm of each band makes masks independent of the level, up to its epsilon."""
    apply, _ = _network()
    spectrum = _spectrum()
    estimate = apply(_variables(), spectrum)
    other = apply(_variables(), spectrum.at[0].multiply(7.0))
    np.testing.assert_allclose(other[1], estimate[1], atol=1e-6)
    np.testing.assert_allclose(other[0] / 7, estimate[0], atol=1e-4)


def test_another_number_of_frames_and_other_bands():
    found = _network()[0](_variables(), _spectrum(9))
    assert found.shape == (2, 3, 2, 9, 11) and np.isfinite(found).all()
    bands = (2,) * 8 + (4,) * 8 + (16,) * 4 + (17,)  # a window of 256 samples
    model = BandSplitLocoformer(**(SMALL | {"bands": bands}))
    estimate, variables = jax.eval_shape(
        model.init_with_output, jax.random.key(0), _spectrum(7, bins=129)
    )
    assert estimate.shape == (2, 3, 2, 7, 129)
    assert variables["params"]["encoder"]["group2"]["kernel"].shape == (4, 64, 8)


# ---- the same by other ways ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["full", "dots"])
def test_rematerialised_layers_give_the_same_values_and_gradients(remat):
    expected, expected_gradient = _network()[1](_variables(), _spectrum())
    found, gradient = _network(remat=remat)[1](_variables(), _spectrum())
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max()),
        gradient,
        expected_gradient,
    )


def test_the_scan_over_layers_is_one_layer_after_the_other():
    """With the second layer's outputs at zero, two layers are the first alone."""
    params = _variables()["params"]
    layers = jax.tree_util.tree_map_with_path(
        lambda path, x: x.at[1].set(0.0) if path[-1].key.startswith("out_") else x, params["layers"]
    )
    first = jax.tree.map(lambda x: x[:1], params["layers"])
    found = _network()[0]({"params": params | {"layers": layers}}, _spectrum())
    expected = _network(layers=1)[0]({"params": params | {"layers": first}}, _spectrum())
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(_network()[0](_variables(), _spectrum()) - expected).max() > 1e-3


@pytest.mark.slow
def test_silence_has_finite_gradients():
    value, gradients = _network()[1](_variables(), jnp.zeros_like(_spectrum()))
    assert value == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


def test_bfloat16_is_close_and_its_estimates_are_complex64():
    apply, gradient = _network(dtype=jnp.bfloat16)
    expected = _network()[0](_variables(), _spectrum())
    found = apply(_variables(), _spectrum())
    assert found.dtype == jnp.complex64
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-5 < error < 0.05
    gradients = jax.eval_shape(gradient, _variables(), _spectrum())[1]
    assert {x.dtype for x in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}


# ---- choice of outputs --------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [[2, 0], [1], [0, 1, 2]])
def test_chosen_outputs_are_those_of_the_whole_network(heads):
    params = _variables()["params"]
    expected = _network()[0](_variables(), _spectrum())[:, np.asarray(heads)]
    apply, _ = _network(sources=len(heads))
    found = apply({"params": select_outputs(params, heads)}, _spectrum())
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_only_the_last_layer_is_sliced_and_the_parameters_stay():
    params = _variables()["params"]
    before = jax.tree.map(jnp.shape, params)
    chosen = select_outputs(params, [1])
    assert jax.tree.map(jnp.shape, params) == before
    for path, leaf in jax.tree_util.tree_leaves_with_path(chosen):
        original = functools.reduce(lambda tree, key: tree[key.key], path, params)
        if path[1].key.endswith("_mask"):
            np.testing.assert_array_equal(leaf, original[..., 1:2, :, :])
        else:
            assert leaf is original


@pytest.mark.parametrize("heads", [[3], [-1], [0, 0], []])
def test_outputs_that_do_not_exist_are_refused(heads):
    with pytest.raises(ValueError, match="different outputs from 0 to 2"):
        select_outputs(_variables()["params"], heads)


def test_other_parameters_are_refused():
    with pytest.raises(ValueError, match=r"a decoder with masks, got \['params'\]"):
        select_outputs(_variables(), [0])
