"""The fixtures of tests/golden: inputs and outputs of the original code, and the weights that made them."""

import json

import jax.numpy as jnp
import numpy as np
from places import GOLDEN

FOLDER = GOLDEN


def read(name: str) -> tuple[dict, dict, dict, dict]:
    """(state, input, output, config) of a fixture; keys without their prefix."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
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
