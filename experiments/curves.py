"""What runs scored on the validation split while they were trained, as curves over the steps."""

import json
import pathlib
from collections.abc import Mapping

Lines = dict[int, list[dict[str, float]]]  # by step, of all seeds


def validation(folder: pathlib.Path, stage: str) -> Lines:
    """Step to the validation lines of all seeds of a stage of a run."""
    found: Lines = {}
    for path in sorted(folder.glob("seed*/metrics.jsonl")):
        for line in map(json.loads, path.read_text().splitlines()):
            if line["kind"] == "valid" and line["stage"] == stage:
                found.setdefault(line["step"], []).append(line)
    return found


def means(lines: Lines, score: str) -> dict[int, float]:
    """Step to the mean over the seeds that have the score; nan: none has."""
    found = {}
    for step in sorted(lines):
        values = [line[score] for line in lines[step] if line.get(score) is not None]
        found[step] = sum(values) / len(values) if values else float("nan")
    return found


def draw(
    curves: Mapping[str, Lines], score: str, path: pathlib.Path, *, x_label: str, y_label: str
) -> None:
    """One axis, a curve per label, mean over the seeds; runs that have not begun are left out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), dpi=110)
    axes = figure.subplots()
    for number, (label, lines) in enumerate(curves.items()):
        if lines:
            curve = means(lines, score)
            style = {"color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--"}
            axes.plot(list(curve), list(curve.values()), label=label, **style)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=7, bbox_to_anchor=(1.02, 1.0), loc="upper left")
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path)
