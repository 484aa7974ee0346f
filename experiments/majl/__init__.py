"""MAJL's tables on the built-in chorales, or on MIR-1K when its folder is given.

python -m experiments majl --table=main
python -m experiments majl --table=main --mir1k=/path/to/MIR-1K
"""

import argparse

from experiments.experiment import Data, DataSet, Experiment
from experiments.majl.tables import COLUMNS, SHOWN, TABLES

# Chorales with all labels: few, as in the paper's problem. And such as have half of them, each.
FEW, MANY = "--tracks=train=6,valid=16,test=37", "--tracks=train=24"


def data(options: argparse.Namespace) -> Data:
    """The built-in chorales, or the clips of `--mir1k`."""
    if options.mir1k is None:
        folder = options.data / "few"
        halves = ("chorales_stems", "chorales_pitch")
        sets = DataSet(("chorales",), folder, (FEW,)), DataSet(halves, folder, (MANY,))
        return Data("chorales", sets, {"data.directory": str(folder)})
    folder = options.data / "majl_mir1k"  # mir1k is the folder of that set
    names = ("mir1k_few", "mir1k_stems", "mir1k_pitch")
    fields = dict(zip(("data.labelled", "data.stems_only", "data.pitch_only"), names, strict=True))
    return Data(
        "mir1k",
        (DataSet(names, folder, (f"--source={options.mir1k}",)),),
        {
            "data.directory": str(folder),
            **fields,
            "data.target": "voice",
            "evaluation.test_tracks": 0,
        },
    )


KINDS = {"chorales": ("synthetic chorales", ""), "mir1k": ("MIR-1K", " --mir1k=FOLDER")}
SOURCES = {"mir1k": "folder of MIR-1K, instead of chorales"}
EXPERIMENT = Experiment("majl", "MAJL", TABLES, COLUMNS, SHOWN, data, KINDS, sources=SOURCES)
