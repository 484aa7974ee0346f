"""Jukebox's tables on built-in music: a VQ-VAE of other music, of a stem, and a second encoder that finds the stem in the mixture.

    python experiments/jukebox/run.py --table=main,codebook,start,loss,coded

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
from tables import COLUMNS, ENCODER, TABLES  # noqa: E402

GRID = ("--sample_rate_hz=8000", "--hop_samples=64")


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Prepares the data and returns the config fields that name them."""
    folder = options.data / "jukebox"
    grid.prepare("chorales,band", folder, "--tracks=train=40,valid=4,test=8", *GRID)
    return {"data.directory": str(folder)}


def draw_curves(options: argparse.Namespace) -> None:
    """SDR on the validation songs over the steps of the second encoder, as the paper's figure 2."""
    runs = {row.run.name: row.run for table in TABLES.values() for row in table.rows}
    found = {
        name.replace("_", " "): curves.validation(options.workdir / options.on / name, ENCODER)
        for name in runs
    }
    where = HERE / "figures" / "checkpoints.png"
    x_label, y_label = "step of the second encoder", "SDR dB, validation"
    curves.draw(found, "sdr_db", where, x_label=x_label, y_label=y_label)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares, trains, collects, draws."""
    parser = grid.parser(
        __doc__ or "", config="configs/jukebox.py:experiment", folder=HERE, on="jukebox"
    )
    options = grid.parse(parser, TABLES, arguments)
    report = summary.Report(
        "Jukebox",
        "jukebox",
        TABLES,
        COLUMNS,
        shown=("usdr_db", "si_sdr_db"),
        data={"jukebox": ("synthetic songs, their drums", "")},
    )

    def summarize(results: pathlib.Path) -> None:
        report.write(results, HERE)
        draw_curves(options)

    grid.run_tables(options, TABLES, prepare(options), summarize)
    return 0


if __name__ == "__main__":
    sys.exit(main())
