"""Train every stage of a recipe, evaluate it, report.

    python -m majl_jax.main --config=configs/majl.py:quickstart --workdir=runs/majl

The same command goes on where a killed run stopped. Several hosts: start it once per process, with
--distributed where JAX knows the cluster (Slurm, TPU pods, Kubernetes, Open MPI), else with
--coordinator, --processes and --process_id.
"""

import importlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from majl_jax.evaluation.rows import read_rows, text_table

RECIPES = ("majl", "ss_mpe", "transfer", "mixit", "jukebox")  # modules of majl_jax.recipes

_CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/NAME.py:PRESET")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of the run: checkpoints, metrics, report", required=True
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "several hosts, as JAX detects the cluster")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "several hosts: HOST:PORT of process 0")
_PROCESSES = flags.DEFINE_integer("processes", None, "several hosts: how many processes")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "several hosts: which one this is")


def main(arguments: list[str]) -> None:
    """Run the recipe that the config names."""
    if len(arguments) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(arguments[1:])}")
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step of every save
    config = _CONFIG.value
    if config.get("recipe") not in RECIPES:
        raise app.UsageError(
            f"config.recipe is {config.get('recipe')!r}; expected one of {RECIPES}"
        )

    from majl_jax import parallel

    parallel.initialize(
        coordinator=_COORDINATOR.value,
        processes=_PROCESSES.value,
        process_id=_PROCESS_ID.value,
        auto=_DISTRIBUTED.value,
    )
    import jax

    from majl_jax.datasets import records
    from majl_jax.training import loop, manifest

    workdir = pathlib.Path(_WORKDIR.value).resolve()
    recipe = importlib.import_module(f"majl_jax.recipes.{config.recipe}")
    stages = recipe.stages(config, workdir)  # what is wrong with the config comes out here
    data = records.contents(config.data.directory, _words(config.to_dict()))
    manifest.write_manifest(workdir, config, seed=config.seed, data=data)
    parallel.cache_compilations(workdir / "compiled")  # for the next start of this run
    evaluated_with = manifest.mark(config.get("evaluation", {}))
    options = loop.Options(**config.train.to_dict(), evaluated_with=evaluated_with)
    loop.run(stages, workdir, jax.random.key(config.seed), options)
    if parallel.is_first_process():
        from majl_jax.report import run_page

        rows = _held_out(workdir, [stage.name for stage in stages])
        if rows:
            print(f"\nheld-out tracks, means\n{text_table(rows)}")
        print(f"report: {run_page.write_report(workdir)}")


def _words(field: Any) -> Iterator[str]:
    """What stands in the texts of a config, names of data sets among it."""
    match field:
        case str():
            yield from re.findall(r"[\w./-]+", field)
        case dict():
            yield from _words(list(field.values()))
        case list() | tuple():
            for one in field:
                yield from _words(one)


def _held_out(workdir: pathlib.Path, stages: list[str]) -> list[dict[str, Any]]:
    """The rows of every stage's own system, and of the references as the last stage has them."""
    rows = []
    for name in stages:
        path = workdir / name / "tracks.jsonl"
        found = read_rows(path) if path.exists() else []
        rows += [row for row in found if row["system"] == name or name == stages[-1]]
    return rows


def run() -> None:
    """The command line."""
    flags.mark_flag_as_required("config")
    app.run(main)


if __name__ == "__main__":
    run()
