"""Jukebox's tables on built-in music: other music, a stem, and an encoder that finds it in the mix.

python -m experiments jukebox --table=main,codebook,start,loss,coded
"""

import argparse
import pathlib

from experiments import drawing
from experiments.experiment import Data, DataSet, Experiment, FromRuns
from experiments.jukebox.tables import COLUMNS, ENCODER, SHOWN, TABLES


def data(options: argparse.Namespace) -> Data:
    """Songs whose drums are to be found, and chorales."""
    folder = options.data / "jukebox"
    grid = "--tracks=train=40,valid=4,test=8", "--sample_rate_hz=8000", "--hop_samples=64"
    sets = (DataSet(("chorales", "band"), folder, grid),)
    return Data("jukebox", sets, {"data.directory": str(folder)})


def draw_curves(runs: pathlib.Path, figures: pathlib.Path) -> list[str]:
    """SDR on the validation songs over the steps of the second encoder, as the paper's figure 2."""
    stages = [(row.run.name, ENCODER) for table in TABLES.values() for row in table.rows]
    drawing.draw_curves(
        [[drawing.Panel(drawing.stage_curves(runs, stages, "sdr_db"))]],
        figures / "checkpoints.png",
        x_label="step of the second encoder",
        y_label="SDR dB, validation",
    )
    return []


KINDS = {"jukebox": ("synthetic songs, their drums", "")}
EXPERIMENT = Experiment(
    "jukebox", "Jukebox", TABLES, COLUMNS, SHOWN, data, KINDS, from_runs=FromRuns(draw_curves)
)
