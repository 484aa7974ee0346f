"""results.jsonl to tables.md and figures: mean ± standard deviation over seeds, and differences."""

import math
import pathlib
import statistics
from collections.abc import Sequence

from experiments import drawing, results
from experiments.experiment import Column, Experiment, Table
from experiments.results import Line, scores
from majl_jax import atomic


def write(experiment: Experiment, path: pathlib.Path, workdir: pathlib.Path) -> None:
    """Writes tables.md and figures/*.png beside a results.jsonl.

    What needs the folders of runs stays as it is where none of them is there.

    Args:
        experiment: whose results these are.
        path: of results.jsonl.
        workdir: folder of the folders of runs of each kind of data.
    """
    with results.locked(path):
        _write(experiment, path, workdir)


def _write(experiment: Experiment, path: pathlib.Path, workdir: pathlib.Path) -> None:
    lines, folder = results.read(path), path.parent
    parts = [f"# {experiment.title}: tables", ""]
    parts += [
        f"Written by `python -m experiments {experiment.name} --redraw` from results.jsonl; "
        "do not edit.",
        "",
    ]
    for kind in experiment.kinds:
        for name, table in experiment.tables.items():
            found = [x for x in lines if (x["table"], x["data"]) == (name, kind)]
            if found:
                parts += _markdown(experiment, name, kind, found)
                shown = {score: experiment.columns[score] for score in experiment.shown}
                drawing.draw_rows(table, shown, found, folder / _figure(kind, name))
    parts += _not_run(experiment, lines)
    parts += _from_runs(experiment, folder, workdir)
    atomic.write_text(folder / "tables.md", "\n".join(parts))


def _figure(kind: str, name: str) -> str:
    return f"figures/{kind}_{name}.png"


def _not_run(experiment: Experiment, lines: Sequence[Line]) -> list[str]:
    """The rows without a result on the first kind of data."""
    first = next(iter(experiment.kinds))
    done = {(x["table"], x["row"]) for x in lines if x["data"] == first}
    missing = [
        f"- {name}: {row.label}"
        for name, table in experiment.tables.items()
        for row in table.rows
        if (name, row.label) not in done
    ]
    return [f"## Not run ({first})", "", *(missing or ["- none"]), ""]


def _from_runs(experiment: Experiment, folder: pathlib.Path, workdir: pathlib.Path) -> list[str]:
    """What the folders of runs give, drawn anew; without them, what tables.md had of it."""
    more = experiment.from_runs
    if more is None:
        return []
    names = [run.name for run in experiment.runs()]
    found = []
    for kind in experiment.kinds:
        if any((workdir / kind / name).exists() for name in names):
            found += more.draw(workdir / kind, folder / "figures")
    if found or not more.heading or not (folder / "tables.md").exists():
        return found
    _, heading, rest = (folder / "tables.md").read_text().partition(f"\n{more.heading}\n")
    return [more.heading, *rest.split("\n")] if heading else []


def _markdown(experiment: Experiment, name: str, kind: str, lines: Sequence[Line]) -> list[str]:
    """A table, its rows against one of them, and its figure."""
    table = experiment.tables[name]
    words, more = experiment.kinds[kind]
    steps, tracks = (sorted({line[key] for line in lines}) for key in ("steps", "tracks"))
    commits = sorted({str(line["commit"])[:7] for line in lines})
    # No stem's that these data do not have.
    columns = {
        score: column
        for score, column in experiment.columns.items()
        if any(score in line["metrics"] for line in lines)
    }
    base = table.rows[table.base].label
    shown = {score: experiment.columns[score] for score in experiment.shown}
    labels = [row.label for row in table.rows]
    # What was run under a label that the table has no more keeps its numbers.
    former = [label for label in dict.fromkeys(x["row"] for x in lines) if label not in labels]
    cells = {
        label if label in labels else f"{label} (no longer run)": [
            _cell(lines, label, score, column) for score, column in columns.items()
        ]
        for label in [*labels, *former]
    }
    of_their_own = any(row.against for row in table.rows)
    differences = {
        f"{row.label} (against {other})" if of_their_own else row.label: [
            _difference(lines, (row.label, other), score, column) for score, column in shown.items()
        ]
        for row in table.rows
        if (other := row.against or base) != row.label
    }
    return [
        f"## {table.title} ({words})",
        "",
        f"The paper: {table.claim}.",
        "",
        f"`python -m experiments {experiment.name} --table={name}{more}`; "
        f"seeds {sorted({line['seed'] for line in lines})}, "
        f"{steps} steps per stage, {tracks} test tracks, commit {', '.join(commits)}. "
        "Mean over tracks; then mean ± standard deviation over seeds.",
        "",
        *markdown_table([column.heading for column in columns.values()], cells),
        "",
        *_missing(table, lines),
        f"Against {'another row' if of_their_own else f'“{base}”'}, seed by seed:",
        "",
        *markdown_table([column.heading for column in shown.values()], differences),
        "",
        f"![{table.title}]({_figure(kind, name)})",
        "",
    ]


def _missing(table: Table, lines: Sequence[Line]) -> list[str]:
    """Rows that lack seeds which others have; nothing where none does."""
    seeds = {line["seed"] for line in lines}
    lacking = []
    for row in table.rows:
        left = sorted(seeds - {line["seed"] for line in lines if line["row"] == row.label})
        if left:
            which = "" if len(left) == len(seeds) else f" (seed {', '.join(map(str, left))})"
            lacking.append(f"{row.label}{which}")
    return [f"Not run yet: {'; '.join(lacking)}.", ""] if lacking else []


def markdown_table(
    headings: Sequence[str], rows: dict[str, list[str]], corner: str = ""
) -> list[str]:
    """A Markdown table: cells of each row by its label."""
    head = f"| {corner} |" if corner else "| |"
    out = [f"{head} " + " | ".join(headings) + " |", "|---" * (len(headings) + 1) + "|"]
    return out + [f"| {label} | " + " | ".join(cells) + " |" for label, cells in rows.items()]


def _cell(lines: Sequence[Line], row: str, score: str, column: Column) -> str:
    found = list(scores(lines, row, score).values())
    if not found:
        return "–"
    mean = f"{column.factor * statistics.mean(found):.{column.digits}f}"
    if len(found) == 1 or not all(map(math.isfinite, found)):
        return mean
    return f"{mean} ± {column.factor * statistics.stdev(found):.{column.digits}f}"


def _difference(lines: Sequence[Line], rows: tuple[str, str], score: str, column: Column) -> str:
    """Of the first row to the second: the mean, and that of every seed."""
    ours, other = (scores(lines, row, score) for row in rows)
    seeds = sorted(ours.keys() & other.keys())
    differences = [column.factor * (ours[seed] - other[seed]) for seed in seeds]
    if not differences:
        return "–"
    shown = ", ".join(f"{d:+.{column.digits}f}" for d in differences)
    return f"{statistics.mean(differences):+.{column.digits}f} ({shown})"
