"""The papers' tables: data prepared, every row trained with every seed, results collected, drawn.

    python -m experiments --list
    python -m experiments majl --table=main
    python -m experiments majl --table=main --dry_run
    python -m experiments majl --redraw
    python -m experiments compare runs/majl runs/mixit --data=data/prepared/mir1k --target=voice

Each run is trained by `majl_jax.main` in a process of its own, several at a time, or as a job of a
cluster: --launcher=slurm --launch=slurm_partition=gpu. A killed run goes on where it stopped.
Results: results.jsonl, tables.md and figures/ in the paper's folder; with
--results=FOLDER/results.jsonl all of them in that folder.
"""

import argparse
import importlib
import pathlib
import sys
from collections.abc import Iterator, Sequence

from experiments import compare, grid, launching, results, summary
from experiments.experiment import Experiment, Run
from majl_jax import terminal

COMPARE = "compare"
HERE = pathlib.Path(__file__).resolve().parent


def experiments() -> dict[str, Experiment]:
    """Those of all papers, by their names: the folders beside this file that declare one."""
    names = sorted(path.parent.name for path in HERE.glob("*/__init__.py"))
    return {name: importlib.import_module(f"experiments.{name}").EXPERIMENT for name in names}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, its lists split and its folders absolute."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = terminal.Parser(prog="python -m experiments", description=__doc__, formatter_class=raw)
    parser.add_argument("--list", action="store_true", help="the tables of all papers")
    parser.add_argument("--debug", action="store_true", help=terminal.DEBUG_HELP)
    papers = parser.add_subparsers(dest="paper", metavar="PAPER")
    for name, experiment in experiments().items():
        words = sys.modules[f"experiments.{name}"].__doc__ or ""
        paper = papers.add_parser(
            name, help=words.partition("\n")[0], description=words, formatter_class=raw
        )
        _add_options(paper, experiment)
    words = compare.__doc__ or ""
    other = papers.add_parser(
        COMPARE, help=words.partition("\n")[0], description=words, formatter_class=raw
    )
    compare.add_options(other)
    # As with the papers: it stands here too.
    other.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help=terminal.DEBUG_HELP
    )
    options = parser.parse_args(arguments)
    if not options.list and options.paper is None:
        parser.error(f"which paper? There are {', '.join(papers.choices)}; or --list")
    if options.paper not in (None, COMPARE):
        _check(options, papers.choices[options.paper])
    return options


def _add_options(parser: argparse.ArgumentParser, experiment: Experiment) -> None:
    """Those that all papers have, and the paper's own sources."""
    names, runs = ", ".join(experiment.tables), grid.ROOT / "runs" / "experiments"
    results_file = HERE / experiment.name / "results.jsonl"
    add = parser.add_argument
    add("--table", default="", help=f"one or more of {names}, with commas")
    add("--runs", default="", help="only these runs of the tables, with commas")
    add("--seeds", default="0,1,2", help="with commas (default: 0,1,2)")
    add("--jobs", type=int, default=2, help="trainings at a time")
    add("--launcher", choices=launching.LAUNCHERS, default="local", help="slurm: by submitit")
    add(
        "--launch",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="parameters of submitit, as timeout_min=240, gpus_per_node=1, slurm_partition=gpu",
    )
    add("--config", default=experiment.preset, help=f"default: {experiment.preset}")
    add("--set", action="append", default=[], help="--set=--config.FIELD=VALUE")
    add(
        "--data",
        type=pathlib.Path,
        default=grid.ROOT / "data" / "prepared",
        help="where data sets are, or are prepared (default: data/prepared)",
    )
    add(
        "--workdir",
        type=pathlib.Path,
        default=runs,
        help="of the folders of runs (default: runs/experiments)",
    )
    add("--results", type=pathlib.Path, default=results_file, help="tables.md goes beside it")
    add("--dry_run", action="store_true", help="print commands and what is missing, run nothing")
    # Here it is no default, which would take back what stands before the paper.
    add("--debug", action="store_true", default=argparse.SUPPRESS, help=terminal.DEBUG_HELP)
    add("--redraw", action="store_true", help="tables.md and figures anew, train nothing")
    for name, words in experiment.sources.items():
        add(f"--{name}", type=pathlib.Path, help=words)
    parser.set_defaults(experiment=experiment)


def _check(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Splits lists, makes folders absolute, and refuses what is not there."""
    experiment = options.experiment
    options.seeds = tuple(int(seed) for seed in options.seeds.split(","))
    options.table = options.table.split(",") if options.table else []
    options.runs = options.runs.split(",") if options.runs else []
    for name in ("workdir", "data", "results", *experiment.sources):
        if getattr(options, name) is not None:
            setattr(options, name, getattr(options, name).resolve())
    options.launch = dict(_parameter(text, parser) for text in options.launch)
    if options.launch and options.launcher == "local":
        parser.error("--launch is of a cluster's launcher: give --launcher=slurm as well")
    there = ", ".join(experiment.tables)
    if not options.table and not options.redraw:
        parser.error(f"--table is missing; there are {there}")
    if unknown := sorted(set(options.table) - set(experiment.tables)):
        parser.error(f"unknown table {', '.join(unknown)}; there are {there}")
    known = {run.name for name in options.table for run in experiment.tables[name].runs()}
    if unknown := sorted(set(options.runs) - known):
        parser.error(f"unknown run {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    try:
        options.trained_on = experiment.data(options)
    except ValueError as error:
        parser.error(str(error))


def _parameter(text: str, parser: argparse.ArgumentParser) -> tuple[str, int | str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        parser.error(f"--launch={text}: expected NAME=VALUE, as timeout_min=240")
    return name, int(value) if value.isdigit() else value


def listing() -> Iterator[str]:
    """A line per paper and table: rows, runs, and the question."""
    for name, experiment in experiments().items():
        yield f"{name}: {experiment.title}"
        for key, table in experiment.tables.items():
            size = f"{len(table.rows)} rows, {len(list(table.runs()))} runs"
            yield f"  --table={key:<12} {size:<18} {table.title}"


def _wanted(options: argparse.Namespace, name: str) -> list[Run]:
    """The runs of a table that are asked for."""
    runs = options.experiment.tables[name].runs()
    return [run for run in runs if not options.runs or run.name in options.runs]


def _changes(options: argparse.Namespace) -> list[str]:
    """The options by which runs are others than the tables'."""
    other = options.config != options.experiment.preset
    return [f"--config={options.config}"] * other + [f"--set={one}" for one in options.set]


def _plan(options: argparse.Namespace, how: grid.Grid) -> None:
    """Prints what would be done."""
    for line in grid.plan_data(options.trained_on.sets):
        print(line)
    for name in options.table:
        print(f"--table={name}")
        for line in how.plan(_wanted(options, name)):
            print(f"  {line}")


@terminal.command
def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares, trains, collects, draws; the exit status."""
    options = parse(arguments)
    if options.paper is None:
        print("\n".join(listing()))
        return 0
    if options.paper == COMPARE:
        return compare.main(options)
    experiment, data = options.experiment, options.trained_on
    how = grid.Grid(
        config=options.config,
        data=data,
        folder=options.workdir / data.kind,
        compiled=options.workdir / "compiled",
        seeds=options.seeds,
        jobs=options.jobs,
        changes=tuple(options.set),
    )
    if options.dry_run:
        _plan(options, how)
        return 0
    if options.redraw:
        summary.write(experiment, options.results, options.workdir)
        return 0
    grid.prepare(data.sets)
    for name in options.table:
        try:
            if options.launcher == "local":
                how.train_all(_wanted(options, name))
            else:
                launched = {"launcher": options.launcher, "parameters": options.launch}
                launching.train_all(how, _wanted(options, name), **launched)
        finally:  # what has run is kept, whatever failed
            lines = results.collect(how, name, experiment.tables[name], changes=_changes(options))
            results.write(options.results, lines)
            summary.write(experiment, options.results, options.workdir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
