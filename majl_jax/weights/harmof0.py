"""HarmoF0 from the state dictionary of WX-Wei/HarmoF0."""

import numpy as np

from majl_jax.models.harmof0 import HARMONICS, PUBLISHED_CHANNELS
from majl_jax.weights.filling import Table, Tensors, Variables, WeightsError, fill, same

_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_WINDOW = "waveform_to_logspecgram."  # constants of the front end


def convert_harmof0(
    tensors: Tensors, *, channels: tuple[int, ...] = PUBLISHED_CHANNELS
) -> Variables:
    """Variables of `HarmoF0(channels)`; use them with `swapped_interpolation` and
    `floor_per_batch`, as they were trained.
    """
    tensors = {
        key: value
        for key, value in _stacked_harmonics(tensors).items()
        if not key.startswith(_WINDOW) and not key.endswith(".num_batches_tracked")
    }
    table, shapes, inputs = {}, {}, 1
    for i, features in enumerate(channels, start=1):
        taps = HARMONICS if i == 1 else 3
        _add(table, f"conv{i}", f"block_{i}.0", lambda w: w.transpose(2, 3, 1, 0))
        _add(table, f"dilated{i}", f"block_{i}.2", same if i == 1 else _taps)
        for name, original in _NORM.items():
            collection = "batch_stats" if name in ("mean", "var") else "params"
            table[f"{collection}/norm{i}/{name}"] = (f"block_{i}.4.{original}", same)
            shapes[f"{collection}/norm{i}/{name}"] = (features,)
        shapes[f"params/conv{i}/kernel"] = (3, 3, inputs, features)
        shapes[f"params/dilated{i}/kernel"] = (taps, features, features)
        shapes[f"params/conv{i}/bias"] = (features,)
        shapes[f"params/dilated{i}/bias"] = (taps, features) if i == 1 else (features,)
        inputs = features
    for name, sizes in (("conv5", (inputs, inputs // 2)), ("conv6", (inputs // 2, 1))):
        _add(table, name, f"conv_{name[-1]}", lambda w: w[:, :, 0, 0].T)
        shapes[f"params/{name}/kernel"], shapes[f"params/{name}/bias"] = sizes, sizes[1:]
    return fill(shapes, table, tensors)


def _add(table: Table, ours: str, original: str, change) -> None:
    table[f"params/{ours}/kernel"] = (f"{original}.weight", change)
    table[f"params/{ours}/bias"] = (f"{original}.bias", same)


def _taps(weight: np.ndarray) -> np.ndarray:
    """(out, in, 1, tap) -> (tap, in, out)."""
    return weight[:, :, 0].transpose(2, 1, 0)


def _stacked_harmonics(tensors: Tensors) -> dict[str, np.ndarray]:
    """The twelve 1 x 1 convolutions of the harmonics as one array of kernels and one of biases."""
    prefix = "block_1.2.conv_list."
    out = {key: value for key, value in tensors.items() if not key.startswith(prefix)}
    if len(out) == len(tensors):
        return out
    expected = {f"{prefix}{i}.{n}" for i in range(HARMONICS) for n in ("weight", "bias")}
    if missing := sorted(expected - set(tensors)):
        raise WeightsError(f"{len(missing)} keys of the harmonics are missing: {missing[:8]}.")
    if extra := sorted({k for k in tensors if k.startswith(prefix)} - expected):
        raise WeightsError(f"{len(extra)} keys of the harmonics are unknown: {extra[:8]}.")
    kernels = [np.asarray(tensors[f"{prefix}{i}.weight"]) for i in range(HARMONICS)]
    if any(kernel.ndim != 4 or kernel.shape != kernels[0].shape for kernel in kernels):
        raise WeightsError(
            f"{prefix}*.weight have the shapes {[k.shape for k in kernels]}; expected twelve times"
            " (out, in, 1, 1)."
        )
    out["block_1.2.weight"] = np.stack([kernel[:, :, 0, 0].T for kernel in kernels])
    out["block_1.2.bias"] = np.stack([tensors[f"{prefix}{i}.bias"] for i in range(HARMONICS)])
    return out
