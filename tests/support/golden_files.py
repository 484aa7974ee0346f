"""Inputs and outputs of the original code, and the weights that made them.

Those made here are in tests/golden; others in ../shared/golden beside the checkout, where that is.
"""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from places import GOLDEN, SHARED

FOLDERS = (GOLDEN, SHARED / "golden")


def find(name: str) -> pathlib.Path:
    """The file of a fixture. Skips the test where it is not there."""
    for folder in FOLDERS:
        if (path := folder / f"{name}.npz").exists():
            return path
    return pytest.skip(f"{name}.npz is not there: it is not ours to hand on, only to test with")


def read(name: str) -> tuple[dict, dict, dict, dict]:
    """(state, input, output, config) of a fixture; keys without their prefix. Skips the test where
    it is not there.
    """
    with np.load(find(name), allow_pickle=False) as file:
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
