"""Transfer's tables on built-in music: deep clustering on large sets, masks for small ones.

    python experiments/transfer/run.py --table=ensemble,choir,drum_kit,longer --seeds=0

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

import figures  # noqa: E402
import grid  # noqa: E402
import summary  # noqa: E402
from tables import COLUMNS, TABLES  # noqa: E402

TRACKS = {  # the small sets are small in training alone
    "chorales,band": "train=60,valid=4,test=1",
    "ensemble": "train=2,valid=3,test=8",
    "choir": "train=4,valid=3,test=8",
    "drum_kit": "train=4,valid=3,test=8",
}


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Prepares the data and returns the config fields that name them."""
    folder = options.data / "transfer"
    for names, tracks in TRACKS.items():
        grid.prepare(
            names, folder, f"--tracks={tracks}", "--sample_rate_hz=8000", "--hop_samples=128"
        )
    return {"data.directory": str(folder)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares, trains, collects, draws."""
    parser = grid.parser(
        __doc__ or "", config="configs/transfer.py:experiment", folder=HERE, on="transfer"
    )
    options = grid.parse(parser, TABLES, arguments)
    report = summary.Report(
        "Transfer",
        "transfer",
        TABLES,
        COLUMNS,
        shown=("si_sdr_db", "si_sdr_db_median"),
        data={"transfer": ("synthetic chorales, band, quartets' ensemble, choir and drums", "")},
    )

    def summarize(results: pathlib.Path) -> None:
        report.write(results, HERE)
        figures.write(options, HERE)

    grid.run_tables(options, TABLES, prepare(options), summarize)
    return 0


if __name__ == "__main__":
    sys.exit(main())
