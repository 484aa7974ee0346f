"""Train every stage of a recipe, evaluate it, report.

    python -m majl_jax.main --config=configs/majl.py:quickstart --workdir=runs/majl

The same command goes on where a killed run stopped. --print_config prints all fields and ends;
--dry_run checks all that can be checked before training, writes nothing and ends. Several hosts:
start it once per process, with --distributed where JAX knows the cluster (Slurm, TPU pods,
Kubernetes, Open MPI), else with --coordinator, --processes and --process_id.
"""

import importlib
import json
import logging as standard_logging
import pathlib
import re
import runpy
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from majl_jax import formats, terminal
from majl_jax.evaluation.rows import read_rows, text_table

RECIPES = ("majl", "ss_mpe", "transfer", "mixit", "jukebox")  # modules of majl_jax.recipes

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="configs/NAME.py:PRESET, or NAME:PRESET of the package"
)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run: checkpoints, metrics, report")
_PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "print all fields of the config, and end")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "check config, data, grid, a batch, memory and disk, write nothing, and end"
)
_TRACKER = flags.DEFINE_string(
    "tracker", None, "file of Python whose tracker(workdir, config) gives what is told all scores"
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "several hosts, as JAX detects the cluster")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "several hosts: HOST:PORT of process 0")
_PROCESSES = flags.DEFINE_integer("processes", None, "several hosts: how many processes")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "several hosts: which one this is")
_DEBUG = flags.DEFINE_bool("debug", False, terminal.DEBUG_HELP)


def train(arguments: list[str]) -> None:
    """Run the recipe that the config names."""
    if len(arguments) > 1:
        raise ValueError(f"unknown arguments: {' '.join(arguments[1:])}")
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step of every save
    if not _DEBUG.value:
        _hush_orbax()
    config = _CONFIG.value
    if config.get("recipe") not in RECIPES:
        raise ValueError(f"config.recipe is {config.get('recipe')!r}; expected one of {RECIPES}")
    if _PRINT_CONFIG.value:
        _print_config(config)
        return
    if _WORKDIR.value is None:
        raise ValueError("flag --workdir is missing: the folder of the run")
    if _TRACKER.value and not pathlib.Path(_TRACKER.value).is_file():
        raise FileNotFoundError(f"--tracker: {_TRACKER.value} is no file")

    from majl_jax import console, parallel

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
    data = records.contents(config.data.directory, records.words(config.to_dict()))
    noted = {"seed": config.seed, "data": data}
    manifest.check_manifest(workdir, config, **noted)
    loop.check_steps(stages, workdir)
    if _DRY_RUN.value:
        _dry_run(config, recipe, stages, data, workdir)
        return
    if not_kept := parallel.cache_compilations():
        console.say(not_kept)
    evaluated_with = manifest.mark(config.get("evaluation", {}))
    tracker = _tracker(workdir, config) if parallel.is_first_process() else None
    options = loop.Options(**config.train.to_dict(), evaluated_with=evaluated_with, tracker=tracker)
    loop.run(
        stages,
        workdir,
        jax.random.key(config.seed),
        options,
        begin=lambda: manifest.write_manifest(workdir, config, **noted),
    )
    if parallel.is_first_process():
        _report(workdir, [stage.name for stage in stages])


def _report(workdir: pathlib.Path, stages: list[str]) -> None:
    """Prints the scores of the held-out tracks, and writes the page of the run."""
    from majl_jax.report import run_page

    if rows := _held_out(workdir, stages):
        print(f"\nheld-out tracks, means\n{text_table(rows)}")
    print(f"report: {run_page.write_report(workdir)}")


def _tracker(workdir: pathlib.Path, config: Any) -> Any:
    """What the file of --tracker gives for this run; None without one."""
    if _TRACKER.value is None:
        return None
    make = runpy.run_path(_TRACKER.value).get("tracker")
    if make is None:
        raise ValueError(f"--tracker: {_TRACKER.value} has no function tracker(workdir, config)")
    return make(workdir, config.to_dict())


def _print_config(config: Any) -> None:
    """Prints all fields as YAML, tuples as lists."""
    import yaml

    plain = json.loads(json.dumps(config.to_dict()))
    print(yaml.safe_dump(plain, sort_keys=False, default_flow_style=None).rstrip())


def _dry_run(
    config: Any, recipe: Any, stages: Any, data: Mapping[str, Any], workdir: pathlib.Path
) -> None:
    """Prints what is found of the data and by `preflight.check`; raises where training would."""
    import jax

    from majl_jax import console
    from majl_jax.datasets import records, sounds
    from majl_jax.training import loop, preflight

    console.say(f"config: {config.recipe}, stages {', '.join(config.run)}, seed {config.seed}")
    learnt = sounds.of(recipe.data_sets(config)) if hasattr(recipe, "data_sets") else {}
    for name in data:
        prepared = records.open_prepared(pathlib.Path(config.data.directory) / name)
        grid = prepared.layout
        splits = ", ".join(
            f"{split} {len(set(one.track))} tracks ({len(one)} records)"
            for split, one in prepared.splits.items()
        )
        console.say(
            f"data: {name} ({learnt.get(name, 'scored only')}): {splits}; {grid.sample_rate_hz} Hz,"
            f" {grid.channels} channel{'s' * (grid.channels > 1)}, labels every"
            f" {1000 * grid.hop_samples / grid.sample_rate_hz:.4g} ms"
        )
    options = loop.Options(**config.train.to_dict())
    for line in preflight.check(stages, workdir, jax.random.key(config.seed), options):
        console.say(line)
    console.say("dry run: nothing is in the way, and nothing was written")


def _hush_orbax() -> None:
    """Leaves out the tracebacks of a save that fails: the run ends with the reason, in a line."""
    logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)
    # Of futures that nobody asked any more, in the end.
    standard_logging.getLogger("asyncio").setLevel(standard_logging.CRITICAL)
    shown = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        # TensorStore's threads print it once for each array.
        if str(unraisable.exc_value) != "Event loop is closed":
            shown(unraisable)

    sys.unraisablehook = hook


def _held_out(workdir: pathlib.Path, stages: list[str]) -> list[dict[str, Any]]:
    """The rows of every stage's own system, and of the references as the last stage has them."""
    rows = []
    for name in stages:
        path = workdir / name / "tracks.jsonl"
        found = read_rows(path) if path.exists() else []
        rows += [row for row in found if row["system"] == name or name == stages[-1]]
    return rows


# ---- the command line ----------------------------------------------------------------------------


def _parsed(arguments: Sequence[str]) -> list[str]:
    """Reads the flags and the config; ValueError says in a line what is wrong with them."""
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        # A config file that fails comes with a whole traceback, whose last line tells why.
        text = str(error).strip()
        if "Traceback (most recent call last)" in text:
            text = text.splitlines()[-1].partition(": ")[2] or text.splitlines()[-1]
        raise ValueError(text) from error
    except (AttributeError, KeyError) as error:
        raise ValueError(_no_such_field(str(error), arguments)) from error


def _no_such_field(text: str, arguments: Sequence[str]) -> str:
    """The flag that names a field which the config does not have, and what is near."""
    name = (re.findall(r"\w+", text) or [""])[0]
    given = [one for one in arguments if name in re.split(r"[.=-]", one.partition("=")[0])]
    near = re.search(r"Did you mean .*?\?", text)
    fault = f"{' '.join(given)}: the config has no field {name!r}. "
    return fault + (near[0] if near else "Its fields stand in the file that --config names")


def _with_config_file(arguments: Sequence[str]) -> list[str]:
    """The arguments, where `--config=majl:quickstart` names a file of the package by its path.

    FileNotFoundError where --config names no file, with the configs that there are.
    """
    found = list(arguments)
    for place, argument in enumerate(arguments):
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or name != "config":
            continue
        given = value if equals else (found[place + 1] if place + 1 < len(found) else "")
        path, colon, preset = given.partition(":")
        if pathlib.Path(path).is_file():
            continue
        packaged = formats.CONFIGS / f"{path}.py"
        if not path.isidentifier() or not packaged.is_file():
            known = ", ".join(sorted(one.stem for one in formats.CONFIGS.glob("*.py")))
            raise FileNotFoundError(
                f"--config names {path}, which is no file; expected configs/NAME.py:PRESET, or "
                f"NAME:PRESET of those in the package: {known}"
            )
        text = f"{packaged}{colon}{preset}"
        if equals:
            found[place] = f"--config={text}"
        else:
            found[place + 1] = text
    return found


def _last_of_each(arguments: Sequence[str]) -> list[str]:
    """Of fields of the config that are given twice only the last; absl would join tuples."""
    kept: list[tuple[str, list[str]]] = []
    waiting = list(arguments)
    while waiting:
        words = [waiting.pop(0)]
        name, equals, _ = words[0].partition("=")
        field = f"--{name.lstrip('-')}" if re.match("--?config[.]", name) else ""
        if field and not equals and waiting and not waiting[0].startswith("-"):
            words.append(waiting.pop(0))
        if field and field in dict(kept):
            print(f"{field} is given twice: the last one counts", file=sys.stderr)
            kept = [one for one in kept if one[0] != field]
        kept.append((field, words))
    return [word for _, words in kept for word in words]


@terminal.command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    if arguments is not None:
        # Where ml_collections looks for fields of the config.
        sys.argv[1:] = arguments
    if {"--help", "-h", "-help"} & set(sys.argv[1:]):
        # absl's own help ends with 1.
        print(f"{__doc__}\n{flags.FLAGS.module_help(sys.modules[__name__])}")
        return 0
    sys.argv[:] = _with_config_file(_last_of_each(terminal.one_spelling(sys.argv)))
    flags.mark_flag_as_required("config")
    app.run(train, flags_parser=_parsed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
