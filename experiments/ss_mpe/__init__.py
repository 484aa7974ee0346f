"""SS-MPE's tables on built-in music: chorales with labels, quartets of other instruments without.

python -m experiments ss_mpe --table=closed,open,energy,finetuning,cure
"""

import argparse
import pathlib

from experiments import drawing
from experiments.experiment import Data, DataSet, Experiment, FromRuns
from experiments.ss_mpe.tables import COLUMNS, FINETUNE, MOST, SHOWN, TABLES, WARM

# Score: its heading.
CURVES = {
    "activation_mass": "active bins",
    "silent_share": "blank frames",
    "recall": "recall",
    "average_precision": "average precision",
}
SETS = {"chorales": "labelled kind", "quartets": "unlabelled kind"}


def data(options: argparse.Namespace) -> Data:
    """Chorales and quartets, and drums to mix in."""
    folder = options.data / "multi_pitch"
    grid = "--tracks=train=16,valid=4,test=8", "--sample_rate_hz=22050", "--hop_samples=1024"
    names = ("chorales", "quartets", "quartets_unlabelled", "drums")
    return Data("ss_mpe", (DataSet(names, folder, grid),), {"data.directory": str(folder)})


def draw_curves(runs: pathlib.Path, figures: pathlib.Path) -> list[str]:
    """Activity, silence and recall of both kinds of music, of the open runs and the remedies."""
    names = ["supervised", "all", f"open_{MOST}", "energy+sparsity"]
    names += [row.run.name for row in TABLES["cure"].rows if row.run.name.startswith("cure_")]
    start = drawing.validation(runs / WARM.name, WARM.stages[-1])
    start = {0: start[max(start)]} if start else {}
    found = {}
    for name in names:
        lines = drawing.validation(runs / name, FINETUNE)
        label = name.removeprefix("cure_").replace("_", " ")
        found[label] = {**start, **lines} if lines else {}
    panels = [
        [
            drawing.Panel(
                {
                    label: drawing.means(lines, f"{score}_{data_set}")
                    for label, lines in found.items()
                },
                f"{heading}, {words}",
            )
            for score, heading in CURVES.items()
        ]
        for data_set, words in SETS.items()
    ]
    drawing.draw_curves(
        panels,
        figures / "degeneration.png",
        size=(11, 6),
        x_label="step after labels alone",
        from_zero=True,
    )
    return []


KINDS = {"ss_mpe": ("synthetic chorales and quartets", "")}
EXPERIMENT = Experiment(
    "ss_mpe", "SS-MPE", TABLES, COLUMNS, SHOWN, data, KINDS, from_runs=FromRuns(draw_curves)
)
