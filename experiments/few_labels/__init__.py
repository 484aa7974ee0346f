"""Few labels on MIR-1K: what the rest is good for, by each paper's way of using it.

python -m experiments few_labels --table=main --mir1k=/path/to/MIR-1K
python -m experiments few_labels --table=main --mir1k=/path/to/MIR-1K --runs=jukebox,jukebox_3 \\
    --seeds=0 --jobs=1

With --stems=FOLDER deep clustering learns from songs in stems, else from the built-in chorales.
"""

import argparse

from experiments.experiment import Data, DataSet, Experiment
from experiments.few_labels.tables import AMOUNTS, COLUMNS, MIXTURES, REST, SHOWN, TABLES

CHORALES = "chorales: soprano, accompaniment=alto+tenor+bass"
WITH_STEMS = "few_labels_stems"
SONGS = "stems_coherent: vocals, accompaniment=bass+drums+other"


def data(options: argparse.Namespace) -> Data:
    """The clips with labels, all of them as mixtures, and other music in stems."""
    if options.mir1k is None and not options.redraw:
        raise ValueError("--mir1k is missing: the folder of MIR-1K, which nothing stands in for")
    folder, source = options.data / "few_labels", f"--source={options.mir1k}"
    clips = DataSet((*AMOUNTS.values(), MIXTURES, *REST.values()), folder, (source,))
    if options.stems is None:
        other = DataSet(("chorales",), folder, ("--tracks=train=60,valid=4,test=2",))
    else:
        other = DataSet(("stems_coherent",), folder, (f"--source={options.stems}",))
    kind, music = ("few_labels", CHORALES) if options.stems is None else (WITH_STEMS, SONGS)
    fields = {"data.directory": str(folder)}
    return Data(kind, (clips, other), fields, words={"other_music": music})


KINDS = {
    "few_labels": ("MIR-1K", " --mir1k=FOLDER"),
    WITH_STEMS: ("MIR-1K, beside songs in stems", " --mir1k=FOLDER --stems=FOLDER"),
}
SOURCES = {
    "mir1k": "folder of MIR-1K",
    "stems": "folder of songs in stems (vocals, bass, drums, other), instead of chorales",
}
EXPERIMENT = Experiment(
    "few_labels",
    "Few labels",
    TABLES,
    COLUMNS,
    SHOWN,
    data,
    KINDS,
    sources=SOURCES,
    config="configs/majl.py:experiment",
)
