"""results.jsonl to tables.md and figures: mean ± standard deviation over seeds, and differences seed by seed."""

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from grid import Row, Table

Line = dict[str, Any]
Column = tuple[str, float, int]  # heading, factor, digits


@dataclasses.dataclass(frozen=True)
class Report:
    """tables.md and figures of a paper's experiments.

    data: for each value of a line's "data", what it is in words and what its command has besides.
    """

    title: str
    folder: str
    tables: Mapping[str, Table]
    columns: Mapping[str, Column]  # by score
    shown: tuple[str, str]  # the two scores of differences and figures
    data: Mapping[str, tuple[str, str]]

    def write(self, results: pathlib.Path, folder: pathlib.Path) -> None:
        """Writes tables.md and figures/*.png from all lines of results.jsonl."""
        lines = [json.loads(text) for text in results.read_text().splitlines()]
        parts = [f"# {self.title}: tables", ""]
        parts += ["Written by `run.py` from results.jsonl; do not edit.", ""]
        for data in self.data:
            for name, table in self.tables.items():
                found = [x for x in lines if (x["table"], x["data"]) == (name, data)]
                if found:
                    parts += _markdown(self, name, data, found)
                    draw(self, table, found, folder / "figures" / f"{data}_{name}.png")
        first = next(iter(self.data))
        done = {(x["table"], x["row"]) for x in lines if x["data"] == first}
        missing = [
            f"- {name}: {row.label}"
            for name, table in self.tables.items()
            for row in table.rows
            if (name, row.label) not in done
        ]
        parts += [f"## Not run ({first})", "", *(missing or ["- none"]), ""]
        (folder / "tables.md").write_text("\n".join(parts))


def values(lines: Sequence[Line], row: str, score: str) -> dict[int, float]:
    """Seed to score of one row, where it has that score."""
    found = {x["seed"]: x["metrics"].get(score) for x in lines if x["row"] == row}
    return {seed: value for seed, value in found.items() if value is not None}


def _markdown(report: Report, name: str, data: str, lines: Sequence[Line]) -> list[str]:
    table = report.tables[name]
    columns = {  # no stem's that these data do not have
        score: column
        for score, column in report.columns.items()
        if any(score in line["metrics"] for line in lines)
    }
    seeds = sorted({line["seed"] for line in lines})
    steps = sorted({line["steps"] for line in lines})
    tracks = sorted({line["tracks"] for line in lines})
    commits = sorted({str(line["commit"])[:7] for line in lines})
    words, more = report.data[data]
    out = [
        f"## {table.title} ({words})",
        "",
        f"The paper: {table.claim}.",
        "",
        f"`python experiments/{report.folder}/run.py --table={name}{more}`; seeds {seeds}, "
        f"{steps} steps per stage, {tracks} test tracks, commit {', '.join(commits)}. "
        "Mean over tracks; then mean ± standard deviation over seeds.",
        "",
        "| | " + " | ".join(heading for heading, _, _ in columns.values()) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row in table.rows:
        cells = [
            _cell(list(values(lines, row.label, score).values()), columns[score])
            for score in columns
        ]
        out.append(f"| {row.label} | " + " | ".join(cells) + " |")
    base = table.rows[table.base].label
    out += [
        "",
        f"Against “{base}”, seed by seed:",
        "",
        "| | " + " | ".join(report.columns[score][0] for score in report.shown) + " |",
        "|---|---|---|",
    ]
    for row in table.rows:
        if row.label != base:
            cells = [
                _difference(lines, row.label, base, score, report.columns[score])
                for score in report.shown
            ]
            out.append(f"| {row.label} | " + " | ".join(cells) + " |")
    return [*out, "", f"![{table.title}](figures/{data}_{name}.png)", ""]


def _cell(found: Sequence[float], column: Column) -> str:
    _, factor, digits = column
    if not found:
        return "–"
    mean = f"{factor * statistics.mean(found):.{digits}f}"
    if len(found) == 1:
        return mean
    return f"{mean} ± {factor * statistics.stdev(found):.{digits}f}"


def _difference(lines: Sequence[Line], ours: str, other: str, score: str, column: Column) -> str:
    _, factor, digits = column
    a, b = values(lines, ours, score), values(lines, other, score)
    differences = [factor * (a[seed] - b[seed]) for seed in sorted(a.keys() & b.keys())]
    if not differences:
        return "–"
    shown = ", ".join(f"{d:+.{digits}f}" for d in differences)
    return f"{statistics.mean(differences):+.{digits}f} ({shown})"


def draw(report: Report, table: Table, lines: Sequence[Line], path: pathlib.Path) -> None:
    """Two scores of every row, with a dot per seed; along an axis where the rows stand on a scale."""
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(9, 0.32 * len(table.rows) + 1.3 if not table.x_label else 3.2), dpi=110
    )
    axes = figure.subplots(1, 2)
    for ax, score in zip(axes, report.shown, strict=True):
        heading, factor, _ = report.columns[score]
        if table.x_label:
            _curves(ax, table, lines, score, factor)
            ax.set_xlabel(table.x_label)
            ax.set_ylabel(heading)
        else:
            _bars(ax, table, lines, score, factor, labels=ax is axes[0])
            ax.set_xlabel(heading)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.3)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _bars(
    ax: Any, table: Table, lines: Sequence[Line], score: str, factor: float, *, labels: bool
) -> None:
    for place, row in enumerate(reversed(table.rows)):
        found = [factor * v for v in values(lines, row.label, score).values()]
        ax.plot(found, [place] * len(found), "o", color="#1f77b4", alpha=0.5, markersize=5)
        if found:
            ax.plot(statistics.mean(found), place, "|", color="black", markersize=14)
    ax.set_ylim(-0.6, len(table.rows) - 0.4)
    ax.set_yticks(range(len(table.rows)))
    ax.set_yticklabels([row.label for row in reversed(table.rows)] if labels else [])


def _curves(ax: Any, table: Table, lines: Sequence[Line], score: str, factor: float) -> None:
    curves: dict[str, list[Row]] = {}
    for row in table.rows:
        curves.setdefault(row.curve, []).append(row)
    for number, (name, rows) in enumerate(curves.items()):
        points = [(row.x, list(values(lines, row.label, score).values())) for row in rows]
        color = f"C{number}"
        ax.plot(
            [x for x, found in points if found],
            [factor * statistics.mean(found) for _, found in points if found],
            color=color,
            label=name or None,
        )
        for x, found in points:
            ax.plot([x] * len(found), [factor * v for v in found], "o", color=color, alpha=0.5)
    if len(curves) > 1:
        ax.legend(frameon=False)
