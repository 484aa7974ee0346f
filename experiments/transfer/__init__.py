"""Transfer's tables on built-in music: deep clustering on large sets, masks for small ones.

python -m experiments transfer --table=ensemble,choir,drum_kit,longer --seeds=0
"""

import argparse

from experiments.experiment import Data, DataSet, Experiment, FromRuns
from experiments.transfer import figures
from experiments.transfer.tables import COLUMNS, SHOWN, TABLES

# The small sets are small in training alone.
TRACKS = {
    ("chorales", "band"): "train=60,valid=4,test=1",
    ("ensemble",): "train=2,valid=3,test=8",
    ("choir",): "train=4,valid=3,test=8",
    ("drum_kit",): "train=4,valid=3,test=8",
}


def data(options: argparse.Namespace) -> Data:
    """Two large sets and three small ones."""
    folder = options.data / "transfer"
    grid = "--sample_rate_hz=8000", "--hop_samples=128"
    sets = [DataSet(names, folder, (f"--tracks={n}", *grid)) for names, n in TRACKS.items()]
    return Data("transfer", tuple(sets), {"data.directory": str(folder)})


KINDS = {"transfer": ("synthetic chorales, band, quartets' ensemble, choir and drums", "")}
EXPERIMENT = Experiment(
    "transfer",
    "Transfer",
    TABLES,
    COLUMNS,
    SHOWN,
    data,
    KINDS,
    from_runs=FromRuns(figures.draw, figures.HEADING),
)
