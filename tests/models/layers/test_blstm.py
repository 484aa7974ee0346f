"""The bidirectional LSTM against a plain loop, Flax's cells and the reference of cuDNN's; initial
values, memory, devices.
"""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn
from jax.sharding import Mesh, PartitionSpec

from majl_jax.models.layers import blstm, cudnn_lstm
from majl_jax.models.layers.blstm import BLSTM, bidirectional_lstm

FRAMES, BATCH, FEATURES, UNITS, LAYERS = 7, 3, 5, 4, 2


def _inputs(*shape, seed=0):
    shape = shape or (BATCH, FRAMES, FEATURES)
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@functools.cache
def _variables():
    """Random values in all parameters, biases too."""
    shapes = jax.eval_shape(BLSTM(UNITS, LAYERS).init, jax.random.key(0), _inputs())
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape) / 2, x.dtype), shapes)


def _loss(outputs):
    return jnp.sum(jnp.sin(outputs * jnp.arange(1, 1 + outputs.size).reshape(outputs.shape)))


def _compare(found, expected, tolerance=2e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert float(jnp.abs(a - b).max()) <= tolerance * max(float(jnp.abs(b).max()), 1.0)


def _value_and_gradients(apply, variables=None, inputs=None):
    variables = _variables() if variables is None else variables
    inputs = _inputs() if inputs is None else inputs

    def loss(variables, inputs):
        outputs = apply(variables, inputs)
        return _loss(outputs), outputs

    (_, outputs), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(
        variables, inputs
    )
    return outputs, gradients


@functools.cache
def _ours():
    return _value_and_gradients(BLSTM(UNITS, LAYERS).apply)


# ---- against other implementations --------------------------------------------------------------


def _loop(variables, inputs):
    """The equations, one direction and frame after the other."""
    hidden = inputs
    for i in range(LAYERS):
        layer = variables["params"][f"layer_{i}"]
        directions = []
        for d, step in enumerate((1, -1)):
            state = cell = jnp.zeros((len(inputs), UNITS))
            states = []
            for x in hidden.swapaxes(0, 1)[::step]:
                before = x @ layer["input_kernel"][d] + state @ layer["recurrent_kernel"][d]
                gates = jnp.split(before + layer["bias"][d][None], 4, -1)
                cell = nn.sigmoid(gates[1]) * cell + nn.sigmoid(gates[0]) * jnp.tanh(gates[2])
                state = nn.sigmoid(gates[3]) * jnp.tanh(cell)
                states.append(state)
            directions.append(jnp.stack(states[::step], 1))
        hidden = jnp.concatenate(directions, -1)
    return hidden


@pytest.mark.slow
def test_outputs_and_all_gradients_are_those_of_a_loop():
    found = _ours()
    assert found[0].shape == (BATCH, FRAMES, 2 * UNITS)
    _compare(found, _value_and_gradients(_loop))


class _FlaxLayers(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        for i in range(LAYERS):
            cells = [nn.OptimizedLSTMCell(UNITS, name=f"{way}_{i}") for way in ("ahead", "back")]
            inputs = nn.Bidirectional(*map(nn.RNN, cells))(inputs)
        return inputs


def _as_flax(variables):
    params = {}
    for i in range(LAYERS):
        layer = variables["params"][f"layer_{i}"]
        for d, way in enumerate(("ahead", "back")):
            cell = {}
            for k, gate in enumerate("ifgo"):
                part = slice(k * UNITS, (k + 1) * UNITS)
                cell[f"i{gate}"] = {"kernel": layer["input_kernel"][d][:, part]}
                recurrent = layer["recurrent_kernel"][d][:, part]
                cell[f"h{gate}"] = {"kernel": recurrent, "bias": layer["bias"][d][part]}
            params[f"{way}_{i}"] = cell
    return {"params": params}


def test_outputs_and_all_gradients_are_those_of_flax_s_cells():
    model = _FlaxLayers()
    expected = _value_and_gradients(lambda v, x: model.apply(_as_flax(v), x))
    _compare(_ours(), expected)


def _reference_lstm(x, h_0, c_0, weights, lengths, features, units, layers, dropout, bidirectional):
    """`jax.experimental.rnn.lstm` by the reference beside it, which runs without a GPU."""
    sizes = features, units, layers, bidirectional
    unpacked = rnn.unpack_lstm_weights(weights, *sizes)
    return rnn.lstm_ref(x, h_0, c_0, *unpacked, lengths, *sizes[:3], dropout, bidirectional)


@pytest.mark.slow
def test_cudnn_gets_the_same_parameters(monkeypatch):
    monkeypatch.setattr(rnn, "lstm", _reference_lstm)
    found = _value_and_gradients(BLSTM(UNITS, LAYERS, implementation="cudnn").apply)
    _compare(found, _ours())


def test_our_bias_is_the_first_of_cudnn_s_two():
    layer = _variables()["params"]["layer_0"]
    flat = cudnn_lstm.packed(layer["input_kernel"], layer["recurrent_kernel"], layer["bias"])
    assert flat.size == rnn.get_num_params_in_lstm(FEATURES, UNITS, 1, True)
    _, _, first, second = rnn.unpack_lstm_weights(flat, FEATURES, UNITS, 1, True)
    for d in (0, 1):
        np.testing.assert_array_equal(first[d], layer["bias"][d])
        assert not bool(jnp.any(second[d]))


def test_without_an_nvidia_device_auto_is_the_scan():
    assert not cudnn_lstm.has_cudnn()
    with pytest.raises(ValueError, match=r"implementation='torch'.*auto, scan, cudnn"):
        BLSTM(UNITS, implementation="torch").init(jax.random.key(0), _inputs())


# ---- transformations ----------------------------------------------------------------------------


def test_inference_computes_what_training_keeps():
    model = BLSTM(UNITS, LAYERS)
    _compare(jax.jit(model.apply)(_variables(), _inputs()), _ours()[0])


@pytest.mark.slow
def test_under_checkpoint_and_shard_map():
    apply = BLSTM(UNITS, LAYERS).apply
    inputs = _inputs(4, FRAMES, FEATURES)
    expected = _value_and_gradients(apply, inputs=inputs)
    _compare(_value_and_gradients(jax.checkpoint(apply), inputs=inputs), expected)
    mesh = Mesh(jax.devices()[:2], ("data",))
    rows = PartitionSpec("data")
    specs = {"in_specs": (PartitionSpec(), rows), "out_specs": rows, "check_vma": False}
    _compare(
        _value_and_gradients(jax.shard_map(apply, mesh=mesh, **specs), inputs=inputs), expected
    )


def test_a_single_frame():
    inputs = _inputs(BATCH, 1, FEATURES)
    found = _value_and_gradients(BLSTM(UNITS, LAYERS).apply, inputs=inputs)
    _compare(found, _value_and_gradients(_loop, inputs=inputs))


def test_a_step_of_the_loops_copies_neither_a_sequence_nor_a_matrix():
    # Written in place what the same loop reads, or matrices sliced inside of it: up to 40 times
    # slower at the size of the paper.
    frames, units = 400, 32
    shapes = (frames, 2, 16), (2, 16, 4 * units), (2, units, 4 * units), (2, 4 * units)
    arguments = [_inputs(*shape) for shape in shapes]
    gradients = jax.jit(jax.grad(lambda *x: bidirectional_lstm(*x).sum(), (0, 1, 2, 3)))
    text = gradients.lower(*arguments).compile().as_text()
    large = rf"f32\[({frames},2,\d+|{units},{4 * units}|{4 * units},{units})\]"
    made, bodies = re.compile(rf" = {large}\S* (?!get-tuple-element|bitcast)[a-z-]+\("), 0
    for computation in text.split("\n}\n"):
        if "(wide.arg_tuple" not in computation and "region" not in computation.split("(")[0]:
            continue
        bodies += "dynamic-update-slice" in computation
        for line in computation.splitlines():
            assert not made.search(line) or "dynamic-update-slice" in line, line
    assert bodies == 2


# ---- numbers ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_half_precision_stays_near():
    exact = _ours()
    near = _value_and_gradients(BLSTM(UNITS, LAYERS, dtype=jnp.bfloat16).apply)
    assert near[0].dtype == jnp.bfloat16
    assert 0 < float(jnp.abs(exact[0] - near[0]).max()) < 0.02
    inputs = _inputs(1, 2000, 1)
    layer = blstm._Layer(2).init(jax.random.key(0), 1)["params"]
    # With open gates the cell counts to 2000, which bfloat16 cannot.
    layer = {k: jnp.zeros_like(v) for k, v in layer.items()}
    layer["bias"] = jnp.full((2, 8), 20.0)

    def last_cell(dtype):
        x = inputs.astype(dtype).swapaxes(0, 1)
        _, _, cells = jax.jit(functools.partial(blstm._forward, keep=True))(x, **layer)
        return float(cells[0][-1, 0, 0])

    assert last_cell(jnp.bfloat16) == last_cell(jnp.float32) == 1999.0


def test_initial_values():
    variables = jax.jit(BLSTM(200, 2).init)(jax.random.key(0), jnp.zeros((1, 1, 100)))
    for name, inputs in (("layer_0", 100), ("layer_1", 400)):
        layer = variables["params"][name]
        for kernel, fan in (("input_kernel", inputs), ("recurrent_kernel", 200)):
            values = np.asarray(layer[kernel])
            std = np.sqrt(2 / (800 + fan))
            assert values.std() == pytest.approx(std, rel=0.01)
            assert np.abs(values).max() > 3.5 * std  # not truncated
            assert values[0].std() == pytest.approx(values[1].std(), rel=0.02)
        bias = np.asarray(layer["bias"]).reshape(2, 4, 200)
        assert np.all(bias[:, 1] == 2)
        assert not np.any(bias[:, [0, 2, 3]])


def test_dropout_lies_between_the_layers_alone():
    def outputs(layers, **options):
        model = BLSTM(UNITS, layers, dropout=0.5)
        variables = {
            "params": {k: _variables()["params"][k] for k in ("layer_0", "layer_1")[:layers]}
        }
        return jax.jit(functools.partial(model.apply, **options))(variables, _inputs())

    key = {"rngs": {"dropout": jax.random.key(3)}, "deterministic": False}
    np.testing.assert_array_equal(outputs(1, **key), outputs(1))
    dropped = outputs(2, **key)
    assert float(jnp.abs(dropped - outputs(2)).max()) > 1e-2
    assert bool(jnp.all(dropped != 0))
    other = outputs(2, rngs={"dropout": jax.random.key(4)}, deterministic=False)
    assert float(jnp.abs(dropped - other).max()) > 1e-2


@pytest.mark.parametrize("level", [0.0, 1e4])
def test_gradients_are_finite(level):
    found = _value_and_gradients(BLSTM(UNITS, LAYERS).apply, inputs=level * _inputs())
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(found))
