"""Fills the variables of a model from arrays under foreign names, and tells what does not fit."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Tensors = Mapping[str, np.ndarray]
"""Arrays of a weight file under the names of the original code."""
Variables = dict[str, Any]
"""Nested dictionaries of arrays: `{"params": ..., "batch_stats": ...}`."""
Table = dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]]
"""Path of each of our arrays, such as `params/conv1/kernel` -> original key and change of
layout.
"""


class WeightsError(ValueError):
    """Weights that do not fit the architecture; the message names the keys."""


def same(array: np.ndarray) -> np.ndarray:
    """The array itself, for a `Table` whose layouts agree."""
    return array


def fill(shapes: Mapping[str, tuple[int, ...]], table: Table, tensors: Tensors) -> Variables:
    """Our variables as float32; `shapes` holds what each path of `table` must have.

    A missing or left-over key, a shape that differs and a value that is not finite are
    WeightsErrors.
    """
    expected = {key for key, _ in table.values()}
    missing, extra = sorted(expected - set(tensors)), sorted(set(tensors) - expected)
    if missing or extra:
        raise WeightsError(
            f"the weights do not belong to this architecture: {len(missing)} keys are missing "
            f"{missing[:8]}, {len(extra)} are unknown {extra[:8]}."
        )
    filled = {}
    for path, (key, change) in table.items():
        original = np.asarray(tensors[key])
        try:
            array = change(original)
        except (ValueError, IndexError):  # another number of axes
            array = original
        if array.shape != shapes[path]:
            raise WeightsError(
                f"{key} has shape {original.shape}, which gives {array.shape}; {path} needs "
                f"{shapes[path]}. Is it another capacity or width?"
            )
        with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite
            filled[path] = np.ascontiguousarray(array, np.float32)
        if not np.all(np.isfinite(filled[path])):
            raise WeightsError(f"{key} has values that are not finite as float32.")
    return nest(filled)


def nest(flat: Mapping[str, Any]) -> Variables:
    """{"a/b": x} -> {"a": {"b": x}}."""
    nested: Variables = {}
    for path, array in flat.items():
        *parents, name = path.split("/")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = array
    return nested


def flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    """{"a": {"b": x}} -> {"a/b": x}."""
    pairs = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            pairs |= {f"{name}/{path}": leaf for path, leaf in flat(value).items()}
        else:
            pairs[name] = value
    return pairs
