"""TF-Locoformer: norm, dropout, initial values; convolution and attention with their gradients
against jax.lax and jax.nn.
"""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.models.layers import attention
from majl_jax.models.layers.sequence_convolution import convolve
from majl_jax.models.locoformer import LocoformerSizes, RMSGroupNorm, TFLocoformerBlock

SMALL = {
    "features": 16,
    "attention_features": 8,
    "heads": 4,
    "norm_groups": 4,
    "hidden": 12,
    "kernel_size": 3,
}


def _normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@functools.cache
def _parameters():
    """Initial values of a small block, and its inputs."""
    inputs = _normal(1, 3, 4, 16)
    block = TFLocoformerBlock(LocoformerSizes(**SMALL))
    return jax.jit(block.init)(jax.random.key(0), inputs), inputs


@functools.cache
def _apply(deterministic=True, **changes):
    block = TFLocoformerBlock(LocoformerSizes(**(SMALL | changes)), deterministic)
    return jax.jit(block.apply)


# ---- the block ----------------------------------------------------------------------------------


def test_the_norm_divides_each_group_by_its_level_and_is_smooth_at_zero():
    inputs = _normal(3, 8)
    norm = RMSGroupNorm(2)
    scale = np.arange(1.0, 9.0, dtype=np.float32)
    found = norm.apply({"params": {"scale": scale}}, inputs)
    grouped = np.asarray(inputs, np.float64).reshape(3, 2, 4)
    level = np.sqrt((grouped**2).mean(-1, keepdims=True)) + 1e-5
    np.testing.assert_allclose(found, (grouped / level).reshape(3, 8) * scale, rtol=1e-6)
    zeros = jnp.zeros((1, 8))
    gradient = jax.grad(lambda x: norm.apply({"params": {"scale": scale}}, x).sum())(zeros)
    assert np.isfinite(gradient).all()


def test_initial_values_are_pytorchs():
    params = _parameters()[0]["params"]
    # Fan-in of the layers, where the second convolution is a transposed one in PyTorch.
    fan_in = {
        ("ffn_before", "in_kernel"): 3 * 16,
        ("ffn_after", "in_bias"): 3 * 16,
        ("ffn_before", "out_kernel"): 3 * 16,
        ("ffn_after", "out_bias"): 3 * 16,
        ("attention", "in_kernel"): 16,
        ("attention", "out_kernel"): 8,
    }
    for (module, leaf), inputs in fan_in.items():
        for path in ("frequency_path", "time_path"):
            largest = np.abs(params[path][module][leaf]).max() * np.sqrt(inputs)
            assert 0.8 < largest <= 1.0, (module, leaf)
    assert (params["time_path"]["attention_norm"]["scale"] == 1).all()


@pytest.mark.parametrize("rates", [(0.5, 0.0), (0.0, 0.5)])
@pytest.mark.slow
def test_dropout_of_values_and_of_probabilities_acts_in_training_alone(rates):
    params, inputs = _parameters()
    moving = _apply(False, dropout=rates[0], attention_dropout=rates[1])
    first, again, other = (
        moving(params, inputs, rngs={"dropout": jax.random.key(i)}) for i in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    assert np.abs(first - _apply()(params, inputs)).max() > 1e-3  # the block at rest needs no key


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"norm_groups": 3}, "features=16 cannot be split into norm_groups=3"),
        ({"heads": 5}, "attention_features=8 is no multiple of heads=5"),
        ({"heads": 8, "pos_enc": "rope"}, "over heads=8 is odd"),
        ({"order": "time"}, "order='time' is not one of ft, tf"),
        ({"pos_enc": "sine"}, "pos_enc='sine' is not one of nope, rope"),
        ({"kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        LocoformerSizes(**(SMALL | sizes))


# ---- the convolution ----------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "padding"), [((3, 5), 3), ((5, 3), 0), ((4, 4), 1)])
@pytest.mark.parametrize("patch_values", [300, 2**20])
def test_convolution_and_gradients_are_those_of_lax(channels, padding, patch_values, monkeypatch):
    monkeypatch.setattr("majl_jax.models.layers.sequence_convolution._PATCH_VALUES", patch_values)
    inputs, kernel = _normal(5, 9, channels[0]), _normal(4, *channels, seed=1)

    def of_lax(inputs, kernel):
        dimensions = ("NWC", "WIO", "NWC")
        return jax.lax.conv_general_dilated(
            inputs, kernel, (1,), [(padding, padding)], dimension_numbers=dimensions
        )

    expected, pullback = jax.vjp(of_lax, inputs, kernel)
    cotangent = _normal(*expected.shape, seed=2)

    @jax.jit
    def both(inputs, kernel, cotangent):
        found, own_pullback = jax.vjp(lambda x, w: convolve(x, w, padding), inputs, kernel)
        return found, own_pullback(cotangent)

    found, gradients = both(inputs, kernel, cotangent)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    for own, other in zip(gradients, pullback(cotangent), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-4)


# ---- the attention ------------------------------------------------------------------------------


def _heads(sequences=3, positions=7, scale=1.0):
    return [scale * _normal(sequences, positions, 2, 8, seed=i) for i in range(3)]


@pytest.mark.parametrize("logits", [4 * 49, 2**20])
def test_attention_and_gradients_are_those_of_jax_nn(logits, monkeypatch):
    """Also where 10 rows do not fill 3 equal steps, with logits up to 100 and for a sequence of
    zeros.
    """
    monkeypatch.setattr(attention, "_CPU_LOGITS", logits)
    arrays = [x.at[1].set(0.0) for x in _heads(sequences=5, scale=4.0)]
    expected, pullback = jax.vjp(jax.nn.dot_product_attention, *arrays)
    cotangent = _normal(*expected.shape, seed=3)

    @jax.jit
    def both(arrays, cotangent):
        found, own_pullback = jax.vjp(lambda q, k, v: attention.attend(q, k, v, "xla"), *arrays)
        return found, own_pullback(cotangent)

    found, gradients = both(arrays, cotangent)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    for own, other in zip(gradients, pullback(cotangent), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-4)


def test_attention_with_dropout_has_the_attention_as_its_mean():
    query, key, value = _heads(sequences=1)
    keys = jax.random.split(jax.random.key(0), 300)
    draw = jax.vmap(lambda k: attention.attend_with_dropout(query, key, value, 0.3, k))
    draws = draw(keys)
    expected = attention.attend(query, key, value, "xla")
    spread = np.std(draws, axis=0) / np.sqrt(len(keys))
    assert (np.abs(draws.mean(0) - expected) < 5 * spread).all()
    assert (spread > 0).all()


def test_rotary_positions_turn_pairs_and_make_logits_depend_on_distance():
    query, key, _ = _heads(sequences=1)
    turned = attention.rotate(query)
    np.testing.assert_array_equal(turned[:, 0], query[:, 0])
    pair = np.asarray(query[0, 3, 1, 2:4], np.float64) @ [1, 1j]
    pair *= np.exp(1j * 3 * 10_000 ** (-2 / 8))
    np.testing.assert_allclose(turned[0, 3, 1, 2:4], [pair.real, pair.imag], rtol=1e-5)
    same = [jnp.broadcast_to(x[:, :1], x.shape) for x in (query, key)]
    logits = jnp.einsum("nthd,nshd->nhts", *map(attention.rotate, same))
    np.testing.assert_allclose(logits[..., 1:, 1:], logits[..., :-1, :-1], rtol=1e-4, atol=1e-4)


def test_the_probe_says_xla_where_cudnn_is_not(caplog):
    attention._obstacle.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert attention.implementation_for("auto", jnp.bfloat16, 16) == "xla"
    (said,) = caplog.messages
    assert said.startswith("attention by XLA, since for cuDNN a trial failed with RuntimeError: ")
    assert attention.implementation_for("xla", jnp.bfloat16, 16) == "xla"
    with pytest.raises(ValueError, match=r'"cudnn" cannot be used: a trial failed.*"auto" or'):
        attention.implementation_for("cudnn", jnp.bfloat16, 16)
    with pytest.raises(ValueError, match="attention='flash' is not one of auto, xla, cudnn"):
        attention.implementation_for("flash", jnp.float32, 16)


@pytest.mark.parametrize(
    ("dtype", "features", "raised", "found"),
    [
        (jnp.bfloat16, 24, None, "cudnn"),
        (jnp.bfloat16, 24, RuntimeError("no libcudnn"), "xla"),
        (jnp.bfloat16, 12, None, "xla"),
        (jnp.float32, 24, None, "xla"),
    ],
)
def test_the_probe_takes_cudnn_where_a_trial_passes(dtype, features, raised, found, monkeypatch):
    def trial(query, key, value, implementation):
        assert implementation == "cudnn"
        if raised:
            raise raised
        return query + key + value

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax.nn, "dot_product_attention", trial)
    attention._obstacle.cache_clear()
    try:
        # Also while a program is traced, which is when a network asks.
        jax.eval_shape(lambda x: x + len(attention.implementation_for("auto", dtype, features)), 0)
        assert attention.implementation_for("auto", dtype, features) == found
    finally:
        attention._obstacle.cache_clear()
