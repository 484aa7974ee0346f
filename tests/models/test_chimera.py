"""Chimera: sizes and initial values, the numbers of the original code, normalisation over devices,
silence, pieces of time.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import read
from jax.sharding import Mesh, PartitionSpec

from majl_jax import weights
from majl_jax.models import chimera
from majl_jax.models.chimera import Chimera
from majl_jax.training.parameters import trainable_mask
from majl_jax.weights.filling import flat

SMALL = {"frequency_bins": 17, "units": 6, "layers": 4, "dropout": 0.0, "embedding": 5}


@functools.cache
def _original():
    """Network of the fixture, its variables, the magnitudes, the expected arrays without the
    channel axis.
    """
    state, inputs, output, _ = read("chimera")
    magnitude = inputs["mix_magnitude"][..., 0]
    expected = {k: v[:, :, :, 0] if v.ndim >= 4 else v for k, v in output.items()}
    variables = jax.tree.map(jnp.asarray, weights.convert("chimera", state))
    return Chimera(**SMALL, sources=2), variables, magnitude, expected


def _shapes(**fields):
    model = Chimera(**fields)
    magnitude = jax.ShapeDtypeStruct((1, 1, model.frequency_bins), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), magnitude)


# ---- sizes and initial values -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        # PyTorch has a second bias in each layer and direction.
        ({"sources": 2}, 26_719_656 - 8 * 2000),
        ({}, 26_205_142 - 8 * 2000),
        ({"sources": 4, "embedding": None}, 26_719_656 - 8 * 2000 - 5_145_140 + 2 * 257_257),
        ({"norm": "instance"}, 26_205_142 - 8 * 2000 - 2),
    ],
)
def test_parameter_count(fields, count):
    shapes = _shapes(**fields)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count
    assert ("batch_stats" in shapes) == ("norm" not in fields)
    assert ("mask" in shapes["params"]) == ("sources" in fields)


def test_names_of_the_parameters():
    params = _shapes(sources=2)["params"]
    assert set(params) == {"norm", "blstm", "embedding", "mask"}
    trained = flat(trainable_mask(params, (("mask/.*", True), (".*", False))))
    assert {path for path, wanted in trained.items() if wanted} == {"mask/kernel", "mask/bias"}
    assert params["blstm"]["layer_3"]["input_kernel"].shape == (2, 1000, 2000)


def test_initial_values():
    @jax.jit
    def initial(key):
        model = Chimera(units=100, layers=1, sources=1)
        return model.init(key, jnp.zeros((1, 1, 257)))["params"]

    params = initial(jax.random.key(0))
    for head, features in (("embedding", 257 * 20), ("mask", 257)):
        values, std = np.asarray(params[head]["kernel"]), np.sqrt(2 / (200 + features))
        assert values.std() == pytest.approx(std, rel=0.01)
        assert np.abs(values).max() > 3.5 * std  # not truncated
        assert not np.any(params[head]["bias"])
    assert params["norm"] == {"scale": 1, "bias": 0}


# ---- the numbers of the original code -----------------------------------------------------------


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_original_s_outputs(mode):
    model, variables, magnitude, expected = _original()
    train = mode == "train"

    @jax.jit
    def apply(variables, magnitude):
        apply = functools.partial(model.apply, variables, magnitude, mutable=["batch_stats"])
        return *apply(train=train), apply(train=train, method="trunk")[0]

    found, updated, hidden = apply(variables, magnitude)
    np.testing.assert_allclose(hidden, expected[f"{mode}/recurrent_stack"], atol=5e-6)
    np.testing.assert_allclose(found.embedding, expected[f"{mode}/embedding"], atol=2e-6)
    np.testing.assert_allclose(found.masks, expected[f"{mode}/mask"], atol=2e-6)
    estimates = found.masks * magnitude[..., None]
    np.testing.assert_allclose(estimates, expected[f"{mode}/estimates"], atol=1e-6)
    level = chimera.decibels(magnitude)
    np.testing.assert_allclose(level, expected[f"{mode}/log_spectrogram"], atol=1e-4)
    before, after = variables["batch_stats"]["norm"], updated["batch_stats"]["norm"]
    if train:
        np.testing.assert_allclose(after["mean"], expected["train/running_mean_after"][0], 1e-5)
        np.testing.assert_allclose(after["var"], expected["train/running_var_after"][0], 1e-5)
        assert float(abs(after["var"] - before["var"])) > 1
    else:
        assert after == before


def test_the_original_s_gradients():
    model, variables, magnitude, expected = _original()
    stats = {"batch_stats": variables["batch_stats"]}

    @jax.jit
    def gradients(params, of_embedding, of_estimates):
        def heads(params):
            variables = {"params": params, **stats}
            found, _ = model.apply(variables, magnitude, train=True, mutable=["batch_stats"])
            return found.embedding, found.masks * magnitude[..., None]

        return jax.vjp(heads, params)[1]((0.01 * of_embedding, 0.99 * of_estimates))[0]

    of_embedding = expected["train/grad_embedding/deep_clustering"]
    found = flat(gradients(variables["params"], of_embedding, expected["train/grad_estimates/l1"]))
    state = read("chimera")[0]
    originals = {k.removeprefix("train/grad/"): v for k, v in expected.items() if "/grad/" in k}
    converted = flat(weights.convert("chimera", state | originals)["params"])
    assert len(found) == len(converted) == 4 * 3 + 2 * 2 + 2
    for path, gradient in found.items():
        # Each of the two biases of the original has the gradient of their sum.
        wanted = converted[path] / (2 if re.fullmatch(r"blstm/.*/bias", path) else 1)
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


# ---- heads and pieces ---------------------------------------------------------------------------


def test_pieces_of_time_give_what_the_whole_gives():
    model, variables, magnitude, _ = _original()
    whole = model.apply(variables, magnitude)
    hidden = model.apply(variables, magnitude, method="trunk")
    for method, expected in (("embed", whole.embedding), ("mask", whole.masks)):
        found = model.apply(variables, hidden[:, 3:7], method=method)
        np.testing.assert_allclose(found, expected[:, 3:7], atol=1e-6)


def test_a_network_of_one_head():
    _, variables, magnitude, _ = _original()
    for absent, present, method in (
        ("embedding", "mask", "embed"),
        ("mask", "embedding", "mask"),
    ):
        params = {k: v for k, v in variables["params"].items() if k != absent}
        fields = {**SMALL, "embedding": None, "sources": 2} if absent == "embedding" else SMALL
        model = Chimera(**fields)
        found = model.apply({**variables, "params": params}, magnitude)
        assert (found.embedding is None) == (absent == "embedding")
        assert (found.masks is None) == (absent == "mask")
        assert present in params
        with pytest.raises(ValueError, match="has no"):
            model.apply({**variables, "params": params}, jnp.zeros((1, 1, 12)), method=method)


def test_other_sizes_and_norms_are_refused():
    model, variables, magnitude, _ = _original()
    with pytest.raises(ValueError, match=r"16 frequency bins.*frequency_bins=17"):
        model.apply(variables, magnitude[..., 1:])
    with pytest.raises(ValueError, match=r"norm='layer'.*batch, instance"):
        _shapes(norm="layer")


# ---- normalisation ------------------------------------------------------------------------------


def test_level_of_known_magnitudes():
    found = chimera.decibels(jnp.array([0.0, 1e-5, 1e-4, 1e-3, 0.1, 1.0]))
    np.testing.assert_allclose(found, [-80, -80, -80, -60, -20, 0], atol=1e-4)


def test_instance_norm_standardises_each_item():
    _, variables, magnitude, _ = _original()
    level = chimera.decibels(magnitude)
    found = np.asarray(chimera.instance_norm(level))
    np.testing.assert_allclose(found.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(found.var((1, 2)), 1, atol=1e-5)
    model = Chimera(**SMALL, sources=2, norm="instance")
    params = {k: v for k, v in variables["params"].items() if k != "norm"}
    apply = functools.partial(model.apply, {"params": params})
    # An item's output depends neither on its gain nor on the other items.
    loud = jnp.maximum(magnitude, 1e-3)
    np.testing.assert_allclose(apply(loud[:1]).masks, apply(4 * loud).masks[:1], atol=1e-5)


def test_statistics_of_all_devices_are_those_of_the_whole_batch():
    _, variables, magnitude, _ = _original()
    magnitude = jnp.concatenate([magnitude, 0.1 * magnitude[:1]])
    model = Chimera(**SMALL, sources=2, statistics_axis="data")

    def share(model, variables, magnitude):
        found, updated = model.apply(variables, magnitude, train=True, mutable=["batch_stats"])
        return found.masks, updated

    rows, whole = PartitionSpec("data"), PartitionSpec()
    mapped = jax.shard_map(
        functools.partial(share, model),
        mesh=Mesh(jax.devices()[:2], ("data",)),
        in_specs=(whole, rows),
        out_specs=(rows, whole),
        check_vma=False,
    )
    masks, updated = jax.jit(mapped)(variables, magnitude)
    alone = Chimera(**SMALL, sources=2)
    expected, expected_stats = jax.jit(functools.partial(share, alone))(variables, magnitude)
    np.testing.assert_allclose(masks, expected, atol=1e-6)
    for path, value in flat(updated).items():
        np.testing.assert_allclose(value, flat(expected_stats)[path], rtol=1e-6)
    # Also where no axis is mapped, as at initialisation.
    jax.eval_shape(functools.partial(model.init, train=True), jax.random.key(0), magnitude)


# ---- numbers ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("norm", chimera.NORMS)
def test_silence_has_finite_outputs_and_gradients(norm):
    _, variables, magnitude, _ = _original()
    model = Chimera(**SMALL, sources=2, norm=norm)

    @jax.jit
    def run(variables, magnitude):
        def loss(params, magnitude):
            variables_ = {**variables, "params": params}
            found, updated = model.apply(variables_, magnitude, train=True, mutable=["batch_stats"])
            return (found.embedding[..., 0] + found.masks.sum(-1)).sum(), (found, updated)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(variables["params"], magnitude)

    if norm == "instance":
        params = {k: v for k, v in variables["params"].items() if k != "norm"}
        variables = {"params": params}
    found = run(variables, 0 * magnitude)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(found))
    # Also where every sigmoid of an embedding is 0.
    far = jax.tree.map(lambda x: x, variables)
    far["params"]["embedding"]["bias"] = jnp.full(85, -200.0)
    found = run(far, magnitude)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(found))


def test_half_precision_stays_near():
    model, variables, magnitude, _ = _original()
    exact = model.apply(variables, magnitude)
    near = Chimera(**SMALL, sources=2, dtype=jnp.bfloat16).apply(variables, magnitude)
    for a, b in zip(exact, near, strict=True):
        assert b.dtype == jnp.float32
        assert 0 < float(jnp.abs(a - b).max()) < 0.03


def test_dropout_in_training_alone():
    _, variables, magnitude, _ = _original()
    model = Chimera(**{**SMALL, "dropout": 0.5}, sources=2)
    plain = model.apply(variables, magnitude).masks
    np.testing.assert_array_equal(plain, _original()[0].apply(variables, magnitude).masks)
    keys = {"dropout": jax.random.key(0)}
    found, _ = model.apply(variables, magnitude, train=True, rngs=keys, mutable=["batch_stats"])
    undropped, _ = _original()[0].apply(variables, magnitude, train=True, mutable=["batch_stats"])
    assert float(jnp.abs(found.masks - undropped.masks).max()) > 1e-2
