"""results.jsonl to tables.md and figures: mean ± standard deviation over seeds, and differences."""

import collections
import math
import pathlib
import shlex
import statistics
import zlib
from collections.abc import Mapping, Sequence

from experiments import drawing, results
from experiments.experiment import Column, Experiment, Table
from experiments.results import Line, scores
from majl_jax import atomic, formats


def write(experiment: Experiment, path: pathlib.Path, workdir: pathlib.Path) -> None:
    """Writes tables.md and figures/*.png beside a results.jsonl.

    What needs the folders of runs stays as it is where one of them is not there, which is said.

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
            for changes in sorted({results.changes(line) for line in found}):
                some = [line for line in found if results.changes(line) == changes]
                figure = _figure(kind, name, changes)
                parts += _markdown(experiment, name, some, figure)
                shown = {score: experiment.columns[score] for score in experiment.shown}
                drawing.draw_rows(table, shown, results.alike(some)[0], folder / figure)
    parts += _not_run(experiment, lines)
    parts += _from_runs(experiment, lines, folder, workdir)
    atomic.write_text(folder / "tables.md", "\n".join(parts))


def _figure(kind: str, name: str, changes: Sequence[str]) -> str:
    mark = f"_{zlib.crc32(shlex.join(changes).encode()):08x}" if changes else ""
    return f"figures/{kind}_{name}{mark}.png"


def _not_run(experiment: Experiment, lines: Sequence[Line]) -> list[str]:
    """The rows without a result, as the table has them, on the kind of data that has most; of none
    the first.
    """
    as_declared = [line for line in lines if not results.changes(line)]
    of_kind = collections.Counter(line["data"] for line in as_declared)
    kind = max(experiment.kinds, key=lambda name: of_kind[name])
    done = {(x["table"], x["row"]) for x in as_declared if x["data"] == kind}
    missing = [
        f"- {name}: {row.label}"
        for name, table in experiment.tables.items()
        for row in table.rows
        if (name, row.label) not in done
    ]
    return [f"## Not run ({kind})", "", *(missing or ["- none"]), ""]


def _from_runs(
    experiment: Experiment, lines: Sequence[Line], folder: pathlib.Path, workdir: pathlib.Path
) -> list[str]:
    """What the folders of runs give, drawn anew; where not all are there, what tables.md had."""
    more = experiment.from_runs
    if more is None:
        return []
    found, kept = [], False
    for kind in experiment.kinds:
        runs = workdir / kind
        if gone := _gone(experiment, [line for line in lines if line["data"] == kind], runs):
            kept = True
            what = f"{more.heading.strip('# ')} and figures" if more.heading else "figures"
            print(
                f"{experiment.name}: {what} of runs on {kind} stay as they were: {len(gone)} of"
                f" the results have no folder below {runs}, as {gone[0]}",
                flush=True,
            )
        elif any((runs / run.name).exists() for run in experiment.runs()):
            found += more.draw(runs, folder / "figures")
    if not more.heading or (found and not kept) or not (folder / "tables.md").exists():
        return found
    _, heading, rest = (folder / "tables.md").read_text().partition(f"\n{more.heading}\n")
    return [more.heading, *rest.split("\n")] if heading else []


def _gone(experiment: Experiment, lines: Sequence[Line], runs: pathlib.Path) -> list[str]:
    """The runs and seeds of the tables' rows whose folders are not there, or are of other runs."""
    rows = {
        (name, row.label): row for name, table in experiment.tables.items() for row in table.rows
    }
    gone = {}
    for line in lines:
        row = rows.get((line["table"], line["row"]))
        if row is not None:
            name = f"{row.run.name}/seed{line['seed']}"
            needed = row.run.stages[: row.run.stages.index(row.stage) + 1]
            paths = [runs / name / stage / "result.json" for stage in needed]
            if not all(path.exists() for path in paths) or _scores_in(paths[-1]) != line["metrics"]:
                gone[name] = None
    return list(gone)


def _scores_in(path: pathlib.Path) -> Line:
    return formats.read(path, formats.RUN, needs=("metrics",))["metrics"]


def _markdown(experiment: Experiment, name: str, lines: Sequence[Line], figure: str) -> list[str]:
    """A table, its rows against one of them, and its figure; of lines of the same changes."""
    table, kind, changes = experiment.tables[name], lines[0]["data"], results.changes(lines[0])
    words, more = experiment.kinds[kind]
    steps, tracks = (sorted({line[key] for line in lines}) for key in ("steps", "tracks"))
    commits = sorted({one for line in lines for one in results.short(line["commit"]).split(", ")})
    # No stem's that these data do not have.
    columns = {
        score: column
        for score, column in experiment.columns.items()
        if any(score in line["metrics"] for line in lines)
    }
    shown = {score: experiment.columns[score] for score in experiment.shown}
    alike = results.alike(lines)
    of_their_own = any(row.against for row in table.rows)
    base = table.rows[table.base].label
    left_out = "; rows of other data are in no difference, nor in the figure"
    return [
        f"## {table.title} ({', '.join((words, *changes))})",
        "",
        f"The paper: {table.claim}.",
        "",
        f"`python -m experiments {experiment.name} --table={name}{more}"
        f"{''.join(f' {shlex.quote(one)}' for one in changes)}`; "
        f"seeds {sorted({line['seed'] for line in lines})}, "
        f"{steps} steps per stage, {tracks} test tracks, commit {', '.join(commits)}. "
        "Mean over tracks; then mean ± standard deviation over seeds.",
        "",
        *markdown_table(
            [column.heading for column in columns.values()], _cells(table, alike, columns)
        ),
        "",
        *_missing(table, lines),
        f"Against {'another row' if of_their_own else f'“{base}”'}, seed by seed"
        f"{left_out if alike[1:] else ''}:",
        "",
        *markdown_table(
            [column.heading for column in shown.values()], _differences(table, alike[0], shown)
        ),
        "",
        f"![{table.title}]({figure})",
        "",
    ]


def _cells(
    table: Table, alike: Sequence[Sequence[Line]], columns: Mapping[str, Column]
) -> dict[str, list[str]]:
    """The scores of all rows, a label and its cells for each of the groups that have it."""
    labels = [row.label for row in table.rows]
    ran = [list(dict.fromkeys(line["row"] for line in lines)) for lines in alike]
    # A row that has not run has its place in the first group.
    ran[0] += [label for label in labels if not any(label in some for some in ran)]
    cells = {}
    for number, (lines, some) in enumerate(zip(alike, ran, strict=True)):
        other = f" (other data{f' {number}' if number > 1 else ''})" if number else ""
        # What was run under a label that the table has no more keeps its numbers.
        former = [label for label in some if label not in labels]
        for label in [*(label for label in labels if label in some), *former]:
            name = f"{label}{' (no longer run)' if label in former else ''}{other}"
            cells[name] = [_cell(lines, label, *pair) for pair in columns.items()]
    return cells


def _differences(
    table: Table, lines: Sequence[Line], shown: Mapping[str, Column]
) -> dict[str, list[str]]:
    """Each row minus the one that it is compared with."""
    base = table.rows[table.base].label
    of_their_own = any(row.against for row in table.rows)
    return {
        f"{row.label} (against {other})" if of_their_own else row.label: [
            _difference(lines, (row.label, other), score, column) for score, column in shown.items()
        ]
        for row in table.rows
        if (other := row.against or base) != row.label
    }


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
