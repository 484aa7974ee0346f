"""The Chimera network from the state dictionary of nussl's `SeparationModel` (nussl/nussl)."""

import re

import numpy as np

from majl_jax.weights.filling import Tensors, Variables, WeightsError, fill, nest, same

_RECURRENT = "recurrent_stack.rnn."
_NORM = "normalization.batch_norm."
_DIRECTIONS = ("", "_reverse")
_HEADS = ("embedding", "mask")
_NORM_NAMES = {
    "params/norm/scale": "weight",
    "params/norm/bias": "bias",
    "batch_stats/norm/mean": "running_mean",
    "batch_stats/norm/var": "running_var",
}


def convert_chimera(tensors: Tensors) -> Variables:
    """Variables of `Chimera`; the sizes, the norm and which heads exist follow from the file.

    Without batch normalisation they are those of `norm="instance"`. The two biases of PyTorch's
    LSTM become their sum.
    """
    tensors = _named_once(tensors)
    heads = [head for head in _HEADS if f"{head}.linear.weight" in tensors]
    expected = _expected_shapes(tensors, heads)
    filled = fill(expected, {key: (key, same) for key in expected}, tensors)
    arrays = {}
    for i in range(_layers(tensors)):

        def both(name: str, layer: int = i) -> np.ndarray:
            keys = [f"{_RECURRENT}{name}_l{layer}{direction}" for direction in _DIRECTIONS]
            return np.stack([filled[key].T for key in keys])

        layer = f"params/blstm/layer_{i}"
        arrays[f"{layer}/input_kernel"] = both("weight_ih")
        arrays[f"{layer}/recurrent_kernel"] = both("weight_hh")
        arrays[f"{layer}/bias"] = both("bias_ih") + both("bias_hh")
    for head in heads:
        arrays[f"params/{head}/kernel"] = filled[f"{head}.linear.weight"].T
        arrays[f"params/{head}/bias"] = filled[f"{head}.linear.bias"]
    for path, name in _NORM_NAMES.items():
        if _NORM + name in filled:
            arrays[path] = filled[_NORM + name].reshape(())
    return nest(arrays)


def _named_once(tensors: Tensors) -> dict[str, np.ndarray]:
    """nussl's checkpoints hold a state_dict that names every array twice, as `layers.x` and as
    `x`: x alone.
    """
    named: dict[str, np.ndarray] = {}
    for key, array in tensors.items():
        name = key.removeprefix("state_dict.").removeprefix("layers.")
        if name.endswith(".num_batches_tracked"):  # which evaluation does not need
            continue
        if name in named and not np.array_equal(named[name], array):
            raise WeightsError(f"{key} and the array of the same name without `layers.` differ.")
        named[name] = array
    return named


def _layers(tensors: Tensors) -> int:
    pattern = re.compile(re.escape(_RECURRENT) + r"weight_ih_l(\d+)")
    found = [int(match[1]) for match in map(pattern.fullmatch, tensors) if match]
    return max(found, default=-1) + 1


def _expected_shapes(tensors: Tensors, heads: list[str]) -> dict[str, tuple[int, ...]]:
    """Original key -> shape; frequency bins, units and the sizes of the heads as the first layers
    have them.
    """
    first = f"{_RECURRENT}weight_ih_l0", f"{_RECURRENT}weight_hh_l0"
    for key in first:
        if np.ndim(tensors.get(key, 0)) != 2:
            raise WeightsError(f"the weights have no matrix {key}, which Chimera needs.")
    bins, units = (tensors[key].shape[1] for key in first)
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(_layers(tensors)):
        for end in (f"_l{layer}{direction}" for direction in _DIRECTIONS):
            shapes[f"{_RECURRENT}weight_ih{end}"] = (4 * units, bins if layer == 0 else 2 * units)
            shapes[f"{_RECURRENT}weight_hh{end}"] = (4 * units, units)
            for name in ("bias_ih", "bias_hh"):
                shapes[f"{_RECURRENT}{name}{end}"] = (4 * units,)
    for head in heads:
        rows = len(tensors[f"{head}.linear.weight"])
        if rows == 0 or rows % bins:
            raise WeightsError(
                f"{head}.linear.weight has {rows} rows, expected a multiple of the {bins} frequency"
                " bins."
            )
        shapes[f"{head}.linear.weight"] = (rows, 2 * units)
        shapes[f"{head}.linear.bias"] = (rows,)
    if any(key.startswith(_NORM) for key in tensors):
        shapes |= {_NORM + name: (1,) for name in _NORM_NAMES.values()}
    return shapes
