"""What MixIT's tables compare: from nothing against pre-trained on mixtures, how many mixtures, how outputs are assigned, and sizes."""

from typing import Any

from grid import Row, Run, Table

COLUMNS = {  # score: heading, factor, digits
    "usdr_db": ("uSDR dB", 1, 2),
    "csdr_db_median": ("cSDR dB", 1, 2),
    "usdr_db_bass": ("bass", 1, 2),
    "usdr_db_drums": ("drums", 1, 2),
    "usdr_db_other": ("other", 1, 2),
    "usdr_db_guitar": ("guitar", 1, 2),
    "usdr_db_rest": ("rest", 1, 2),
    "mixture/usdr_db": ("mixture", 1, 2),
}
PRETRAIN, SUPERVISED, SCRATCH = "pretrain", "supervised", "scratch"
NOT_SCORED: dict[str, Any] = {"evaluation.pretrained": False}  # before it is supervised


def supervised(lender: Run) -> Run:
    """Few songs with stems, after a pre-training."""
    name = lender.name.replace("pretrain", "supervised")
    return Run(name, (PRETRAIN, SUPERVISED), lender.fields, (lender, PRETRAIN))


PRETRAINED = Run("pretrain", (PRETRAIN,))
FROM_NOTHING = Run("scratch", (SCRATCH,))
LONGER = Run(
    "scratch_longer",
    (SCRATCH,),
    {
        "stages.scratch.steps": 1800,
        "stages.scratch.decay_from": 900,
        "stages.scratch.decay_every": 90,
    },
)

MAIN = Table(
    "From nothing, and pre-trained on mixtures",
    "pre-training helps (abstract; its tables were not available to us)",
    (
        Row("from nothing", FROM_NOTHING, SCRATCH),
        Row("from nothing, as many steps in all", LONGER, SCRATCH),
        Row("mixtures alone, outputs chosen", PRETRAINED, PRETRAIN),
        Row("pre-trained, then supervised", supervised(PRETRAINED), SUPERVISED),
    ),
    base=0,
)

_FEW = Run("pretrain_few", (PRETRAIN,), {"data.unlabelled": "few/band", **NOT_SCORED})
AMOUNT = Table(
    "Amount of unlabelled music",
    "it takes FMA from small to full; its results were not available to us",
    (
        Row("none: from nothing", FROM_NOTHING, SCRATCH, x=0),
        Row("the 4 labelled songs", supervised(_FEW), SUPERVISED, x=4),
        Row("46 songs", supervised(PRETRAINED), SUPERVISED, x=46),
    ),
    x_label="songs without stems",
    base=0,
)

_LEAST_SQUARES = Run(
    "pretrain_least_squares", (PRETRAIN,), {"stages.pretrain.assignment": "least_squares"}
)
ASSIGNMENT = Table(
    "Assignment of outputs to mixtures",
    "it takes least squares, which is cheap; whether that is worse is open",
    (
        Row("exhaustive", supervised(PRETRAINED), SUPERVISED),
        Row("least squares", supervised(_LEAST_SQUARES), SUPERVISED),
        Row("exhaustive, mixtures alone", PRETRAINED, PRETRAIN),
        Row("least squares, mixtures alone", _LEAST_SQUARES, PRETRAIN),
    ),
    base=0,
)


_TWO_LAYERS = {"network.layers": 2}
SIZE = Table(
    "Size of the network",
    "it has three sizes; its results were not available to us",
    (
        Row("one layer, from nothing", FROM_NOTHING, SCRATCH),
        Row("one layer, pre-trained", supervised(PRETRAINED), SUPERVISED),
        Row("two layers, from nothing", Run("scratch_large", (SCRATCH,), _TWO_LAYERS), SCRATCH),
        Row(
            "two layers, pre-trained",
            supervised(Run("pretrain_large", (PRETRAIN,), {**_TWO_LAYERS, **NOT_SCORED})),
            SUPERVISED,
        ),
    ),
    base=2,
)

TABLES = {"main": MAIN, "amount": AMOUNT, "assignment": ASSIGNMENT, "size": SIZE}
