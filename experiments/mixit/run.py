"""MixIT's tables on built-in music: separation learnt from mixtures, then from few songs with stems.

    python experiments/mixit/run.py --table=main,amount,assignment,size
    python experiments/mixit/run.py --table=main --fretsonfire=/usr/share/games/fretsonfire/data/songs

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

import curves  # noqa: E402
import grid  # noqa: E402
import summary  # noqa: E402
from tables import COLUMNS, SCRATCH, SUPERVISED, TABLES  # noqa: E402

GRID = ("--sample_rate_hz=8000", "--hop_samples=128")


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Prepares the data and returns the config fields that name them."""
    folder = options.data / "mixit"
    if options.fretsonfire is not None:
        source = f"--source={options.fretsonfire}"
        grid.prepare("fretsonfire", folder, source, *GRID)
        few = "--tracks=train=2,valid=1,test=2"
        grid.prepare("fretsonfire", folder / "few", source, few, *GRID)
        return {
            "data.directory": str(folder),
            "data.unlabelled": "fretsonfire",
            "data.labelled": "few/fretsonfire: guitar, rest",
        }
    grid.prepare("band", folder, "--tracks=train=46,valid=4,test=1", *GRID)
    grid.prepare("band", folder / "few", "--tracks=train=4,valid=6,test=10", *GRID)
    return {"data.directory": str(folder)}


def draw_curves(options: argparse.Namespace) -> None:
    """Loss on the validation songs with stems over the steps, of models from nothing and after pre-training."""
    found = {}
    for row in (row for table in TABLES.values() for row in table.rows):
        if row.stage in (SCRATCH, SUPERVISED):
            folder = options.workdir / options.on / row.run.name
            found[row.run.name.replace("_", " ")] = curves.validation(folder, row.stage)
    where = HERE / "figures" / f"{options.on}_steps.png"
    x_label, y_label = "step with stems", "thresholded SNR dB, validation"
    curves.draw(found, "minus_loss", where, x_label=x_label, y_label=y_label)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares, trains, collects, draws."""
    parser = grid.parser(
        __doc__ or "", config="configs/mixit.py:experiment", folder=HERE, on="mixit"
    )
    parser.add_argument(
        "--fretsonfire", type=pathlib.Path, help="folder of the game's songs, instead of band"
    )
    options = grid.parse(parser, TABLES, arguments)
    if options.fretsonfire is not None:
        options.on, options.fretsonfire = "fretsonfire", options.fretsonfire.resolve()
        if "amount" in options.table:
            parser.error("--table=amount is about the songs of band, not of --fretsonfire")
    report = summary.Report(
        "MixIT",
        "mixit",
        TABLES,
        COLUMNS,
        shown=("usdr_db", "csdr_db_median"),
        data={
            "mixit": ("synthetic songs of bass, drums and other", ""),
            "fretsonfire": ("real songs of guitar and rest", " --fretsonfire=FOLDER"),
        },
    )

    def summarize(results: pathlib.Path) -> None:
        report.write(results, HERE)
        draw_curves(options)

    grid.run_tables(options, TABLES, prepare(options), summarize)
    return 0


if __name__ == "__main__":
    sys.exit(main())
