"""The converter of nussl's state dictionaries."""

import jax
import numpy as np
import pytest
from golden_files import read

from majl_jax import weights
from majl_jax.models.chimera import Chimera
from majl_jax.weights.__main__ import main
from majl_jax.weights.filling import WeightsError, flat

RNN = "layers.recurrent_stack.rnn"
NORM = "layers.normalization.batch_norm"


def _state():
    return read("chimera")[0]


def _without(*starts):
    return {key: value for key, value in _state().items() if not key.startswith(starts)}


def _assert_equal(found, expected):
    found, expected = flat(found), flat(expected)
    assert set(found) == set(expected)
    for path, array in found.items():
        np.testing.assert_array_equal(array, expected[path])


def _shapes(variables):
    return {path: np.shape(array) for path, array in flat(variables).items()}


@pytest.mark.parametrize(
    ("left_out", "fields"),
    [
        ((), {"sources": 2}),
        (("layers.mask.",), {}),
        (("layers.embedding.",), {"sources": 2, "embedding": None}),
        ((NORM,), {"sources": 2, "norm": "instance"}),
    ],
)
def test_heads_and_norm_follow_from_the_file(left_out, fields):
    found = weights.convert("chimera", _without(*left_out))
    model = Chimera(**{"frequency_bins": 17, "units": 6, "embedding": 5, **fields})
    magnitude = jax.ShapeDtypeStruct((1, 1, 17), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), magnitude)
    assert _shapes(found) == _shapes(shapes)


def test_sizes_follow_from_the_file():
    state = {k: v for k, v in _without("layers.mask.").items() if "_l2" not in k and "_l3" not in k}
    state |= {
        "layers.mask.linear.weight": np.ones((51, 12)),
        "layers.mask.linear.bias": np.ones(51),
    }
    found = weights.convert("chimera", state)["params"]
    assert set(found["blstm"]) == {"layer_0", "layer_1"}
    assert found["mask"]["kernel"].shape == (12, 3 * 17)


def test_the_two_biases_are_added():
    state = _state()
    found = weights.convert("chimera", state)["params"]["blstm"]["layer_2"]["bias"]
    for d, end in enumerate(("", "_reverse")):
        both = state[f"{RNN}.bias_ih_l2{end}"] + state[f"{RNN}.bias_hh_l2{end}"]
        np.testing.assert_allclose(found[d], both, rtol=1e-6)


def test_names_of_nussl_s_files_give_the_same():
    expected = weights.convert("chimera", _state())
    short = {key.removeprefix("layers."): value for key, value in _state().items()}
    for state in (short, _state() | short):
        _assert_equal(weights.convert("chimera", state), expected)
        nested = {f"state_dict.{key}": value for key, value in state.items()}
        _assert_equal(weights.convert("chimera", nested), expected)


def test_the_command_converts_a_file(tmp_path, capsys):
    source, output = tmp_path / "original.npz", tmp_path / "chimera.npz"
    np.savez(source, **_state())
    arguments = ["--architecture=chimera", f"--source={source}", f"--output={output}"]
    assert main(arguments) == 0
    # Two directions of four layers with a bias of 24, the heads, scale and offset of the norm.
    count = 2 * (24 * 24 + 3 * 24 * 19) + 13 * 17 * (5 + 2) + 2
    assert f"chimera, {count:,} parameters" in capsys.readouterr().out
    _assert_equal(weights.load(output), weights.convert("chimera", _state()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(f"{RNN}.weight_ih_l0"), "no matrix recurrent_stack.rnn.weight_ih_l0"),
        (lambda s: s.pop(f"{RNN}.bias_hh_l1_reverse"), "1 keys are missing.*bias_hh_l1_reverse"),
        (lambda s: s.pop(f"{RNN}.weight_ih_l1"), "1 keys are missing.*weight_ih_l1"),
        (lambda s: s.pop("layers.mask.linear.bias"), "1 keys are missing.*mask.linear.bias"),
        (lambda s: s.pop("layers.mask.linear.weight"), "1 are unknown.*mask.linear.bias"),
        (lambda s: s.pop(f"{NORM}.running_var"), "1 keys are missing.*running_var"),
        (lambda s: s.update(other=np.ones(3)), "1 are unknown.*other"),
        (
            lambda s: s.update({"layers.mask.linear.weight": np.ones((35, 12))}),
            "mask.linear.weight has 35 rows, expected a multiple of the 17",
        ),
        (
            lambda s: s.update({f"{RNN}.weight_hh_l2": np.ones((24, 5))}),
            r"weight_hh_l2 has shape \(24, 5\)",
        ),
        (
            lambda s: s.update({f"{RNN}.weight_ih_l3": np.full((24, 12), np.nan)}),
            "weight_ih_l3.*not finite",
        ),
        (
            lambda s: s.update({"mask.linear.bias": np.ones(34)}),
            "mask.linear.bias and the array of the same name",
        ),
    ],
)
def test_a_wrong_state_dictionary_is_refused_by_key(change, message):
    state = _state()
    change(state)
    with pytest.raises(WeightsError, match=message):
        weights.convert("chimera", state)
