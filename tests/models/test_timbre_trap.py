"""Timbre-Trap: sizes, initial values, frames that do not count, gradients; the layers against
jax.lax.
"""

import functools

import flax.linen as nn
import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax import weights
from majl_jax.losses import salience_terms
from majl_jax.models import timbre_trap
from majl_jax.models.timbre_trap import TimbreTrap, embedding_bins
from majl_jax.weights.filling import flat

SMALL = {"bins": 50, "harmonics": 3, "complexity": 1, "latent": 4}


def _normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def _features(frames=9, batch=2, seed=0):
    return jnp.abs(_normal(batch, frames, SMALL["bins"], SMALL["harmonics"], seed=seed))


def _filled(model):
    """Variables with random values, without compiling the network's own initial values."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), _features())
    rng = np.random.default_rng(7)

    def values(path, leaf):
        values = rng.standard_normal(leaf.shape)
        if path[-1].key == "kernel":
            return jnp.asarray(values / np.sqrt(np.prod(leaf.shape[:-1])), jnp.float32)
        return jnp.asarray(0.1 * values + (path[-1].key != "bias"), jnp.float32)

    return jax.tree_util.tree_map_with_path(values, shapes)


@functools.cache
def _network(**sizes):
    """A small network, random variables, its output, and the gradients of the sum of its squares
    where the mask is True.
    """
    model = TimbreTrap(**{**SMALL, **sizes})

    def loss(variables, features, mask):
        logits = model.apply(variables, features, mask)
        return jnp.where(mask[..., None], logits**2, 0).sum()

    return model, _filled(model), jax.jit(model.apply), jax.jit(jax.grad(loss, (0, 1)))


# ---- sizes and initial values -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ({}, 1_303_753),
        ({"complexity": 2}, 548_709),
        ({"complexity": 2, "latent": 64}, 343_717),
        ({"skip_connections": True}, 1_303_758),
    ],
)
def test_parameter_count(sizes, count):
    features = jnp.zeros((1, 1, 440, 6))
    shapes = jax.eval_shape(TimbreTrap(**sizes).init, jax.random.key(0), features)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    assert set(shapes["params"]) == {"encoder", "decoder"}


@pytest.mark.slow
def test_logits_and_gradients_are_the_original_s():
    state, inputs, output, _ = golden_files.read("ss_mpe_model")
    sizes = {"complexity": 2, "latent": 64}
    variables = jax.tree.map(jnp.asarray, weights.convert("timbre_trap", state, **sizes))
    model, features = TimbreTrap(**sizes), inputs["features"].transpose(0, 3, 2, 1)
    target = inputs["target"].swapaxes(1, 2)

    def loss(params):
        logits, seen = model.apply(
            {"params": params}, features, capture_intermediates=True, mutable="intermediates"
        )
        return salience_terms.bce(logits, target).mean(), (logits, seen["intermediates"])

    (value, (logits, seen)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        variables["params"]
    )
    np.testing.assert_allclose(logits[0].T, output["logits"][0], atol=1e-4)
    np.testing.assert_allclose(jax.nn.sigmoid(logits)[0].T, output["activations"][0], atol=1e-4)
    (latents, *_) = jax.tree.leaves(seen["encoder"]["__call__"])
    np.testing.assert_allclose(latents.reshape(16, 64).T, output["latents"][0], atol=5e-5)
    np.testing.assert_allclose(value, output["supervised_loss"], rtol=1e-5)

    gradients = [np.asarray(x, np.float64) for x in jax.tree.leaves(gradient)]
    norms = sorted(np.linalg.norm(x) for x in gradients)
    theirs = sorted(v for k, v in output.items() if k.startswith("grad_norm/"))
    np.testing.assert_allclose(norms, theirs, rtol=1e-4, atol=1e-4)
    total = np.sqrt(sum((x**2).sum() for x in gradients))
    np.testing.assert_allclose(total, output["grad_global_norm"], rtol=1e-4)
    # As the converter reads weights, it reads gradients of the same names.
    given = {k: np.zeros_like(v) for k, v in state.items()}
    given |= {k.removeprefix("grad/"): v for k, v in output.items() if k.startswith("grad/")}
    expected = weights.convert("timbre_trap", given, **sizes)["params"]
    compared = 0
    for (path, mine), other in zip(
        jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(expected), strict=True
    ):
        if np.any(other):
            compared += 1
            atol = 2e-4 * np.abs(other).max()
            np.testing.assert_allclose(mine, other, atol=atol, err_msg=str(path))
    assert compared == 3


def test_bins_of_the_levels():
    assert embedding_bins(440) == (440, 219, 108, 53, 25)
    assert embedding_bins(46)[-1] == 1
    with pytest.raises(ValueError, match=r"bins=45.*at least 46"):
        embedding_bins(45)


def test_other_features_are_refused():
    with pytest.raises(ValueError, match=r"50 bins and 2 harmonics.*bins=50 and harmonics=3"):
        jax.eval_shape(TimbreTrap(**SMALL).init, jax.random.key(0), _features()[..., :2])


@pytest.mark.slow
def test_initial_values_are_uniform_within_pytorch_s_bounds():
    # Of a transposed convolution PyTorch counts the outputs as fan-in.
    fan_in = {
        "encoder/convin": 6 * 9,
        "encoder/block2/unit1/conv1": 16 * 9,
        "encoder/block2/unit1/conv2": 16,
        "encoder/block1/down": 8 * 4,
        "encoder/convlat": 128 * 25,
        "decoder/convin": 128 * 25,
        "decoder/block1/up": 64 * 4,
        "decoder/convout": 8 * 9,
    }
    names = [f"{name}/{leaf}" for name in fan_in for leaf in ("kernel", "bias")]
    names += ["encoder/block1/norm/scale", "encoder/block1/norm/bias"]

    @jax.jit
    def initial(key):
        params = flat(TimbreTrap().init(key, jnp.zeros((1, 1, 440, 6)))["params"])
        return {name: params[name] for name in names}

    params = initial(jax.random.key(1))
    for name, inputs in fan_in.items():
        bound = inputs**-0.5
        kernel, bias = params[f"{name}/kernel"], params[f"{name}/bias"]
        assert 0.9 * bound < jnp.abs(kernel).max() <= bound, name
        assert float(kernel.mean()) == pytest.approx(0, abs=4 * bound / kernel.size**0.5), name
        assert 0 < jnp.abs(bias).max() <= bound, name
    assert bool(jnp.all(params["encoder/block1/norm/scale"] == 1))
    assert bool(jnp.all(params["encoder/block1/norm/bias"] == 0))


def test_skip_connections_start_as_plain_sums():
    model = TimbreTrap(**SMALL, skip_connections=True)
    init = jax.jit(lambda key: model.init(key, _features())["params"]["decoder"]["skip_weights"])
    np.testing.assert_array_equal(init(jax.random.key(0)), np.ones(5))


# ---- layers -------------------------------------------------------------------------------------


def _lax(inputs, kernel, strides, padding, lhs_dilation=(1, 1)):
    return jax.lax.conv_general_dilated(
        inputs,
        kernel,
        strides,
        padding,
        lhs_dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@pytest.mark.parametrize("bins", [12, 13])
def test_down_is_a_strided_convolution(bins):
    inputs = _normal(2, 3, bins, 4)
    outputs, variables = timbre_trap._Down(5, jnp.float32).init_with_output(
        jax.random.key(0), inputs
    )
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    expected = _lax(inputs, kernel[None], (1, 2), "VALID") + bias[None, None, None]
    assert outputs.shape == (2, 3, bins // 2 - 1, 5)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


@pytest.mark.parametrize("bins", [12, 13])
def test_up_scatters_each_bin_to_four(bins):
    inputs = _normal(2, 3, bins // 2 - 1, 4)
    outputs, variables = timbre_trap._Up(bins, 5, jnp.float32).init_with_output(
        jax.random.key(0), inputs
    )
    kernel = np.asarray(variables["params"]["kernel"])
    expected = np.zeros((2, 3, bins, 5), np.float32) + np.asarray(variables["params"]["bias"])
    for i in range(inputs.shape[2]):
        for k in range(4):
            expected[:, :, 2 * i + k] += np.asarray(inputs)[:, :, i] @ kernel[k]
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


# ---- the network --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_padded_clip_gives_what_the_bare_clip_gives():
    _, variables, apply, _ = _network(skip_connections=True)
    features = _features(9)
    bare = apply(variables, features)
    # Padding of any content, before and behind, and in other places for each clip.
    padded = 7.0 + _normal(2, 120, *features.shape[2:], seed=3)
    padded = padded.at[0, 4:13].set(features[0]).at[1, 111:].set(features[1])
    frame = np.arange(120)
    mask = jnp.asarray(np.stack([(frame >= 4) & (frame < 13), frame >= 111]))
    found = apply(variables, padded, mask)
    np.testing.assert_allclose(found[0, 4:13], bare[0], atol=1e-5)
    np.testing.assert_allclose(found[1, 111:], bare[1], atol=1e-5)
    without = apply(variables, padded, jnp.ones_like(mask))
    assert float(jnp.abs(without[0, 4:13] - bare[0]).max()) > 1e-2


@pytest.mark.slow
def test_no_gradient_reaches_frames_that_do_not_count():
    _, variables, _, gradients = _network()
    mask = jnp.asarray([[True] * 6 + [False] * 3] * 2)
    _, found = gradients(variables, _features(9), mask)
    assert not bool(jnp.any(found[:, 6:]))
    assert bool(jnp.all(jnp.any(found[:, :6] != 0, (2, 3))))


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.0, 1.0, 1e4])
def test_gradients_are_finite(level):
    _, variables, _, gradients = _network()
    found = gradients(variables, level * _features(9), jnp.ones((2, 9), bool))
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(found))


@pytest.mark.slow
def test_rematerialisation_covers_all_blocks_and_changes_no_gradient():
    for remat, blocks in ((False, 0), (True, 8)):
        model = TimbreTrap(**SMALL, remat=remat)
        variables = jax.eval_shape(model.init, jax.random.key(0), _features())
        jaxpr = jax.make_jaxpr(model.apply)(variables, _features())
        assert sum("prevent_cse" in equation.params for equation in jaxpr.eqns) == blocks
    inputs, mask = _normal(2, 9, 12, 3), jnp.ones((2, 9), bool).at[1, 6:].set(False)
    block = timbre_trap._EncoderBlock(4, jnp.float32)
    variables = block.init(jax.random.key(0), inputs, mask)

    def gradients(block):
        loss = lambda *x: (block.apply(*x, mask)[0] ** 2).sum()  # noqa: E731
        return jax.tree.leaves(jax.jit(jax.grad(loss, (0, 1)))(variables, inputs))

    again = nn.remat(timbre_trap._EncoderBlock)(4, jnp.float32)
    for a, b in zip(gradients(block), gradients(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(a).max()))


@pytest.mark.slow
def test_half_precision_stays_near():
    _, variables, apply, _ = _network()
    _, _, in_half, _ = _network(dtype=jnp.bfloat16)
    exact, near = (np.asarray(f(variables, _features(9))) for f in (apply, in_half))
    assert near.dtype == np.float32
    assert 0 < np.linalg.norm(exact - near) / np.linalg.norm(exact) < 0.05


@pytest.mark.slow
def test_a_frame_sees_fifty_frames_on_either_side():
    _, variables, apply, _ = _network(skip_connections=True)
    features = _features(120, seed=5).at[1, 60].set(jnp.nan)
    found = apply(variables, features, jnp.ones((2, 120), bool))
    reached = np.flatnonzero(np.any(np.isnan(found[1]), -1))
    assert reached.tolist() == list(range(10, 111))
    assert not bool(jnp.any(jnp.isnan(found[0])))


@pytest.mark.slow
def test_skip_connections_add_the_embeddings_of_the_encoder_times_their_weights():
    _, variables, apply, _ = _network(skip_connections=True)
    _, plain, apply_plain, _ = _network()
    features = _features(9)

    def with_weights(weights):
        params = jax.tree.map(lambda x: x, variables["params"])
        params["decoder"]["skip_weights"] = jnp.asarray(weights, jnp.float32)
        return params, apply({"params": params}, features)

    params, silent = with_weights(np.zeros(5))
    for row in np.eye(5):
        assert float(jnp.abs(with_weights(row)[1] - silent).max()) > 1e-2
    del params["decoder"]["skip_weights"]
    assert jax.tree.structure({"params": params}) == jax.tree.structure(plain)
    np.testing.assert_allclose(silent, apply_plain({"params": params}, features), atol=1e-5)
