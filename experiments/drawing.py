"""The figures: two scores of every row of a table, and validation over the steps of runs."""

import dataclasses
import pathlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.experiment import Column, Row, Table
from experiments.results import Line, scores
from majl_jax import formats

Curve = dict[int, float]  # by step
Lines = dict[int, list[dict[str, float]]]  # by step, of all seeds


# ---- rows of a table ----------------------------------------------------------------------------


def draw_rows(
    table: Table, columns: Mapping[str, Column], lines: Sequence[Line], path: pathlib.Path
) -> None:
    """Every row with a dot per seed; along an axis where the rows stand on a scale."""
    from matplotlib.figure import Figure

    height = 3.2 if table.x_label else 0.32 * len(table.rows) + 1.3
    figure = Figure(figsize=(9, height), dpi=110)
    axes = figure.subplots(1, len(columns))
    for ax, (score, column) in zip(axes, columns.items(), strict=True):
        found = {
            row.label: [column.factor * v for v in scores(lines, row.label, score).values()]
            for row in table.rows
        }
        if table.x_label:
            _joined(ax, _placed(table, lines), found)
            ax.set_xlabel(table.x_label)
            if table.logarithmic:
                ax.set_xscale("log")
            ax.set_ylabel(column.heading)
        else:
            _listed(ax, found, labels=ax is axes[0])
            ax.set_xlabel(column.heading)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.3)
    save(figure, path)


def save(figure: Any, path: pathlib.Path) -> None:
    """Writes a figure, and the folder where there is none."""
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _listed(ax: Any, found: dict[str, list[float]], *, labels: bool) -> None:
    for place, values in enumerate(reversed(found.values())):
        ax.plot(values, [place] * len(values), "o", color="#1f77b4", alpha=0.5, markersize=5)
        if values:
            ax.plot(statistics.mean(values), place, "|", color="black", markersize=14)
    ax.set_ylim(-0.6, len(found) - 0.4)
    ax.set_yticks(range(len(found)))
    ax.set_yticklabels(list(reversed(found)) if labels else [])


def _placed(table: Table, lines: Sequence[Line]) -> list[Row]:
    """The rows at their places on the axis, those that the lines tell where they do."""
    told = {line["row"]: line[table.x_from] for line in lines if table.x_from in line}
    return [dataclasses.replace(row, x=told.get(row.label, row.x)) for row in table.rows]


def _joined(ax: Any, rows: Sequence[Row], found: Mapping[str, Sequence[float]]) -> None:
    curves: dict[str, list[Row]] = {}
    for row in rows:
        curves.setdefault(row.curve, []).append(row)
    for number, (name, some) in enumerate(curves.items()):
        points = [(row.x, found[row.label]) for row in some if found[row.label]]
        if not points:
            continue
        color = f"C{number}"
        means = [statistics.mean(values) for _, values in points]
        ax.plot([x for x, _ in points], means, color=color, label=name or None)
        for x, values in points:
            ax.plot([x] * len(values), values, "o", color=color, alpha=0.5)
    if len(curves) > 1 and ax.get_legend_handles_labels()[1]:
        # Many curves leave no room inside.
        outside = {"bbox_to_anchor": (1.02, 1.0), "loc": "upper left"} if len(curves) > 4 else {}
        ax.legend(frameon=False, fontsize=7 if outside else None, **outside)


# ---- steps of runs ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Panel:
    """Curves by their labels; an empty one, of a run that has not begun, is left out."""

    curves: Mapping[str, Curve]
    title: str = ""


def validation(folder: pathlib.Path, stage: str) -> Lines:
    """Step to the validation lines of all seeds of a stage of a run."""
    found: Lines = {}
    for path in sorted(folder.glob("seed*/metrics.jsonl")):
        for line in formats.read_lines(path, needs=("stage", "step", "kind")):
            if line["kind"] == "valid" and line["stage"] == stage:
                found.setdefault(line["step"], []).append(line)
    return found


def means(lines: Lines, score: str) -> Curve:
    """Step to the mean over the seeds that have the score; nan: none has."""
    found = {}
    for step in sorted(lines):
        values = [
            formats.score_from_json(x[score]) for x in lines[step] if x.get(score) is not None
        ]
        found[step] = sum(values) / len(values) if values else float("nan")
    return found


def stage_curves(
    runs: pathlib.Path, stages: Iterable[tuple[str, str]], score: str
) -> dict[str, Curve]:
    """The curves of (run, stage), labelled by the runs' names in words."""
    return {
        run.replace("_", " "): means(validation(runs / run, stage), score) for run, stage in stages
    }


def draw_curves(
    panels: Sequence[Sequence[Panel]],
    path: pathlib.Path,
    *,
    size: tuple[float, float] = (8, 4),
    x_label: str,
    y_label: str = "",
    from_zero: bool = False,
) -> None:
    """Rows of panels over the same steps, the legend beside the first row.

    Args:
        panels: by row and column.
        path: of the picture.
        size: of the whole picture, in inches.
        x_label: below the last row.
        y_label: left of the first panel of every row.
        from_zero: the lower end of the scores.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110)
    axes = figure.subplots(len(panels), len(panels[0]), sharex=len(panels) > 1, squeeze=False)
    for ax, panel in zip(axes.flat, (panel for row in panels for panel in row), strict=True):
        for number, (label, curve) in enumerate(panel.curves.items()):
            if curve:
                style = {"color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--"}
                ax.plot(list(curve), list(curve.values()), label=label, **style)
        ax.set_title(panel.title, fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.3)
        if from_zero:
            ax.set_ylim(bottom=0)
    for row in axes:
        row[0].set_ylabel(y_label)
    for ax in axes[-1]:
        ax.set_xlabel(x_label)
    if any(curve for curve in panels[0][-1].curves.values()):
        axes[0][-1].legend(frameon=False, fontsize=7, bbox_to_anchor=(1.02, 1.0), loc="upper left")
    save(figure, path)
