"""The `smoke` run of each recipe, trained once a session for every test of what a run leaves."""

import importlib
import importlib.util
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import made_music
from places import ROOT

from majl_jax.training import loop
from majl_jax.training.manifest import write_manifest

SETS = {
    "ss_mpe": made_music.prepare_multi_pitch,
    "transfer": made_music.prepare_transfer,
    "mixit": made_music.prepare_mixit,
    "jukebox": made_music.prepare_jukebox,
}
"""Who makes the data of a recipe; another one gets those of `majl`, a voice and a bass with
pitch.
"""


class Run(NamedTuple):
    """A finished run: not to be changed."""

    workdir: pathlib.Path
    config: Any
    results: dict[str, dict[str, float]]


def load_config(name: str, preset: str = "smoke") -> Any:
    """The config of a preset of configs/NAME.py."""
    spec = importlib.util.spec_from_file_location(f"{name}_config", ROOT / f"configs/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(preset)


def stages(config: Any, workdir: pathlib.Path) -> tuple[Any, ...]:
    """The stages of the recipe that the config names."""
    return importlib.import_module(f"majl_jax.recipes.{config.recipe}").stages(config, workdir)


def train(config: Any, workdir: pathlib.Path, of: Any = None, devices: int = 1) -> dict[str, Any]:
    """Train the config's stages, or `of`, on so many devices."""
    return loop.run(
        of or stages(config, workdir),
        workdir,
        jax.random.key(0),
        loop.Options(**config.train.to_dict()),
        devices=jax.devices()[:devices],
    )


def breaking(batches):
    """The same batches, but the second one does not come; the first stands in a checkpoint by
    then.
    """

    def broken(previous):
        inner = batches(previous)

        class Broken:
            def __iter__(self):
                return self

            def __next__(self):
                if inner.step:
                    raise RuntimeError("power cut")
                return next(inner)

            def save(self):
                return inner.save()

            def restore(self, state):
                inner.restore(state)

        return Broken()

    return broken


class SmokeRuns:
    """Data, configs and runs of the recipes, each made when it is first asked for."""

    def __init__(self, make_folder: Callable[[str], pathlib.Path]) -> None:
        self._make_folder = make_folder
        self._data: dict[str, pathlib.Path] = {}
        self._runs: dict[str, Run] = {}

    def data(self, name: str) -> pathlib.Path:
        """The prepared sets of a recipe."""
        prepare = SETS.get(name, made_music.prepare)
        if prepare.__name__ not in self._data:
            self._data[prepare.__name__] = prepare(self._make_folder("prepared"))
        return self._data[prepare.__name__]

    def config(self, name: str, preset: str = "smoke", **fields: Any) -> Any:
        """A config on the recipe's data; `stages__teacher__steps=3` sets a field of a group."""
        config = load_config(name, preset)
        config.data.directory = str(self.data(name))
        if name == "ss_mpe":  # with the labelled one, three sets at once
            config.data.unlabelled = "quartets_unlabelled: 3, drums: 1"
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
        return config

    def run(self, name: str) -> Run:
        """The whole run of a recipe's smoke preset."""
        if name not in self._runs:
            workdir = self._make_folder("runs") / name
            config = self.config(name)
            write_manifest(workdir, config, seed=0)
            self._runs[name] = Run(workdir, config, train(config, workdir))
        return self._runs[name]
