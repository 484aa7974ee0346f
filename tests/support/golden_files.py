"""Inputs and outputs of the original code, and the weights that made them.

Small ones are in tests/golden; others in ../shared/golden beside the checkout, where that is.
"""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from places import GOLDEN, SHARED

FOLDER = GOLDEN
BESIDE = SHARED / "golden"


def read(name: str) -> tuple[dict, dict, dict, dict]:
    """(state, input, output, config) of a fixture; keys without their prefix. Skips the test where
    it is not there.
    """
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        path = BESIDE / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"{path} is not there: the fixture is too large for tests/golden")
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    parts = [
        {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        for prefix in ("state/", "input/", "output/")
    ]
    state, inputs, output = parts
    inputs = {key: jnp.asarray(value) for key, value in inputs.items()}
    return state, inputs, output, json.loads(arrays["config"].item())


def relative_error(found, expected) -> float:
    """||a - b|| / ||b|| over the whole array."""
    difference = np.asarray(found, np.complex128) - np.asarray(expected, np.complex128)
    return float(np.linalg.norm(difference) / np.linalg.norm(expected))
