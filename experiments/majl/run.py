"""MAJL's tables on the built-in chorales, or on MIR-1K when its folder is given.

    python experiments/majl/run.py --table=main
    python experiments/majl/run.py --table=main --mir1k=/path/to/MIR-1K

Every row is trained with every seed, each run by `majl_jax.main` in a process of its own, several at a time. A killed run goes on
where it stopped. Results: results.jsonl, tables.md and figures/ beside this file.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import grid  # noqa: E402
import summary  # noqa: E402
from tables import COLUMNS, TABLES  # noqa: E402

FEW = "train=6,valid=6,test=37"  # chorales with all labels: few, as in the paper's problem
MANY = "train=24"  # chorales that have half of them, each


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Prepares the data and returns the config fields that name them."""
    if options.mir1k is None:
        folder = options.data / "few"
        grid.prepare("chorales", folder, f"--tracks={FEW}")
        grid.prepare("chorales_stems,chorales_pitch", folder, f"--tracks={MANY}")
        return {"data.directory": str(folder)}
    folder = options.data / "mir1k"
    names = ("mir1k_few", "mir1k_stems", "mir1k_pitch")
    grid.prepare(",".join(names), folder, f"--source={options.mir1k}")
    fields = dict(zip(("data.labelled", "data.stems_only", "data.pitch_only"), names, strict=True))
    return {"data.directory": str(folder), **fields, "data.target": "voice"}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = grid.parser(__doc__ or "", config="configs/majl.py:experiment", folder=HERE)
    parser.add_argument("--mir1k", type=pathlib.Path, help="folder of MIR-1K, instead of chorales")
    options = grid.parse(parser, TABLES, arguments)
    options.on = "chorales" if options.mir1k is None else "mir1k"
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares, trains, collects, draws."""
    options = parse(arguments)
    report = summary.Report(
        "MAJL",
        "majl",
        TABLES,
        COLUMNS,
        shown=("sdr_db", "rpa"),
        data={"chorales": ("synthetic chorales", ""), "mir1k": ("MIR-1K", " --mir1k=FOLDER")},
    )
    grid.run_tables(options, TABLES, prepare(options), lambda path: report.write(path, HERE))
    return 0


if __name__ == "__main__":
    sys.exit(main())
