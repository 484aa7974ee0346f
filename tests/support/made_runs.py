"""The folder of a MAJL run as training leaves it, with random parameters: nothing is trained."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
from smoke_runs import load_config

from majl_jax import parallel
from majl_jax.recipes import majl
from majl_jax.training import checkpoint, manifest
from majl_jax.training.step import TrainState

STAGES = ("teacher", "student")


def make_run(folder: pathlib.Path, **fields: Any) -> pathlib.Path:
    """A run of the smoke preset, each stage of which stands at step 7 with other parameters."""
    config = load_config("majl")
    config.run = STAGES
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    manifest.write_manifest(folder, config, seed=0)
    for index, stage in enumerate(STAGES):
        save_stage(folder, stage, random_variables(config, seed=index), index=index)
    return folder


def save_stage(
    folder: pathlib.Path, stage: str, variables: dict[str, Any], *, index: int = 0
) -> None:
    """A complete stage of a run, which hands these variables over."""
    mutables = {name: tree for name, tree in variables.items() if name != "params"}
    moments = jax.tree.map(np.zeros_like, variables["params"])
    state = TrainState(np.int32(7), variables["params"], mutables, moments, jax.random.key(0))
    state = parallel.replicate(state, parallel.mesh(jax.devices()[:1]))
    with checkpoint.Checkpoints(folder / stage, keep_last=1) as saves:
        saves.save(state, {"stage": stage, "stage_index": index, "best": None}, (b"", 0))
    result = {"format": 1, "metrics": {"sdr_db": 7.0 + index}, "step": 7, "steps": [7]}
    (folder / stage / "result.json").write_text(json.dumps(result))


def random_variables(config: Any, *, seed: int) -> dict[str, Any]:
    """Of the shapes of the recipe's networks; all above 0, as variances are."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(majl.build(config).init, jax.random.key(0))
    return jax.tree.map(lambda s: rng.uniform(0.01, 0.3, s.shape).astype(s.dtype), shapes)
