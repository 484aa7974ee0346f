"""What MixIT's tables compare: from nothing or pre-trained, how many mixtures, assignment, size."""

from typing import Any

from experiments.experiment import Column, Row, Run, Table

COLUMNS = {
    "usdr_db": Column("uSDR dB"),
    "csdr_db_median": Column("cSDR dB"),
    "usdr_db_bass": Column("bass"),
    "usdr_db_drums": Column("drums"),
    "usdr_db_other": Column("other"),
    "usdr_db_guitar": Column("guitar"),
    "usdr_db_rest": Column("rest"),
    "mixture/usdr_db": Column("mixture"),
}
# Those of differences and figures.
SHOWN = ("usdr_db", "csdr_db_median")
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
