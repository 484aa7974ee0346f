"""The stages of a recipe without its data, and their steps on shapes: nothing is trained."""

import dataclasses
import importlib
import pathlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax

from benchmarks.harness import blank_sets
from majl_jax.training import dry_run
from majl_jax.training.dry_run import Shapes
from majl_jax.training.stage import Stage

# Examples of a batch that is read for its shapes, on each device.
READ = 4
# Learns from records of the same shape as the other, which labels them.
LABELLED_BY = {"student": "teacher"}


@dataclasses.dataclass(frozen=True)
class StageOnShapes:
    """A stage of a config.

    Args:
        stage: the stage.
        example: the shapes of one example of its batches.
        examples: how many a batch has.
        least: how few a device can have: those that are mixed with each other are on one.
    """

    stage: Stage
    example: Shapes
    examples: int
    least: int

    def batch(self, examples: int | None = None) -> Shapes:
        """The shapes of a batch of so many examples; None: of as many as the config says."""
        size = self.examples if examples is None else examples
        return {
            name: jax.ShapeDtypeStruct((size, *one.shape), one.dtype)
            for name, one in self.example.items()
        }


def stages(config: Any, directory: pathlib.Path) -> Iterator[StageOnShapes]:
    """All stages that the recipe of a config has, started afresh on data sets of noise.

    Args:
        config: is changed.
        directory: gets the data sets.
    """
    blank_sets.write(config, directory)
    recipe: Any = importlib.import_module(f"majl_jax.recipes.{config.recipe}")
    config.data.update(directory=str(directory), reader="memory")
    config.run, examples = recipe.STAGES, {}
    for name, options in config.stages.items():
        options.start = ""
        if "batch_size" in options:
            examples[name] = options.batch_size
            options.batch_size = READ * jax.device_count()
        else:
            examples[name] = options.labelled + options.unlabelled
    shapes: dict[str, Shapes] = {}
    # Who asks for a stage here traces it.
    with mock.patch.object(dry_run, "trace_loss"):
        made = recipe.stages(config, directory)
    for stage in made:
        if stage.name in LABELLED_BY:
            shapes[stage.name] = shapes[LABELLED_BY[stage.name]]
        else:
            batch = next(stage.batches(None))
            shapes[stage.name] = {
                name: jax.ShapeDtypeStruct(value.shape[1:], value.dtype)
                for name, value in batch.items()
            }
        example = shapes[stage.name]
        least = _least(config, stage.name, example["stems"].shape[1])
        yield StageOnShapes(stage, example, examples[stage.name], least)


def _least(config: Any, name: str, stems: int) -> int:
    mixing = config.stages[name].get("mixing", "none")
    if mixing == "incoherent":
        return stems
    return 2 if mixing == "dynamic" or (config.recipe, name) == ("mixit", "pretrain") else 1
