"""Tables of comparisons, printed and as lines of JSON."""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

Report = dict[str, Any]
# Heading, the least that a ratio to it says something, digits behind the point.
COLUMNS = {"ms": ("ms", 1e-3, 1), "cpu_ms": ("CPU ms", 1e-3, 1), "mib": ("MiB", 1, 0)}
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "scipy", "torch")


def medians(found: Mapping[str, Sequence[Report]], reference: str) -> dict[str, Report]:
    """Of each case the medians over its turns, and their ratios to one case's."""
    merged = {}
    for case, turns in found.items():
        merged[case] = {**turns[-1], "agrees": all(one["agrees"] for one in turns)}
        merged[case]["timings"] = {
            kind: {
                column: statistics.median(one["timings"][kind][column] for one in turns)
                for column in COLUMNS
            }
            for kind in turns[0]["timings"]
            if all(kind in one["timings"] for one in turns)
        }
    base = merged[reference]["timings"]
    for one in merged.values():
        one["ratios"] = {
            kind: {
                column: timings[column] / base[kind][column]
                if base[kind][column] >= least
                else None
                for column, (_, least, _) in COLUMNS.items()
            }
            for kind, timings in one["timings"].items()
            if kind in base
        }
    return merged


def lines(found: Mapping[str, Report], results: Sequence[str] | Mapping[str, float]) -> list[str]:
    """The table of each kind of call, and a table of plans and disagreements.

    Args:
        found: of each case, what `medians` gives.
        results: names of what was compared.
    """
    out = []
    for kind in dict.fromkeys(kind for one in found.values() for kind in one["timings"]):
        heads = "".join(f"{head:>10}{'ratio':>7}" for head, *_ in COLUMNS.values())
        out.append(f"{kind:<30}{heads}")
        for case, one in found.items():
            if kind in one["timings"]:
                out.append(f"{case:<30}" + _cells(one, kind))
    heads = "".join(f"{name:>12}" for name in ("compile s", "planned MiB", "parameters"))
    out.append(f"{'disagreement':<30}{heads}   {', '.join(results)}")
    for case, one in found.items():
        planned = "" if one["planned_mib"] is None else f"{one['planned_mib']:.0f}"
        parameters = "" if one["parameters"] is None else f"{one['parameters']:,}"
        errors = "  ".join(f"{error:.1e}" for error in one["errors"].values())
        row = f"{case:<30}{one['compile_s']:>12.1f}{planned:>12}{parameters:>12}   {errors}"
        out.append(row if one["agrees"] else f"{row}  too much: not timed")
    return out


def _cells(one: Report, kind: str) -> str:
    cells = ""
    for column, (*_, digits) in COLUMNS.items():
        ratio = one["ratios"].get(kind, {}).get(column)
        cells += f"{one['timings'][kind][column]:>10.{digits}f}"
        cells += f"{'':>7}" if ratio is None else f"{ratio:>7.2f}"
    return cells


def add_json(path: pathlib.Path, options: argparse.Namespace, found: Mapping[str, Report]) -> None:
    """Adds a line: the command, where and with what it ran, and what every case took."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    revision = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(
        revision, capture_output=True, text=True, check=False, cwd=pathlib.Path(__file__).parent
    ).stdout.strip()
    skipped = ("command", "json", "child", "folder", "run", "list", "debug")
    line = {
        "command": ["python", "-m", "benchmarks", *options.command],
        "options": {k: v for k, v in vars(options).items() if k not in skipped},
        "commit": commit or None,
        "machine": {"processor": platform.machine(), "cores": len(os.sched_getaffinity(0))},
        "versions": {"python": platform.python_version(), **versions},
        "cases": found,
    }
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
