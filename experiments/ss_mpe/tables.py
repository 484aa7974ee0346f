"""What SS-MPE's tables compare: terms and remedies, labelled music alone or with other music."""

from typing import Any

from experiments.experiment import Column, Row, Run, Table, changed, rows_of

COLUMNS = {
    "f1_chorales": Column("F1 %, labelled kind", 100, 1),
    "recall_chorales": Column("recall %", 100, 1),
    "f1_quartets": Column("F1 %, other kind", 100, 1),
    "precision_quartets": Column("precision %", 100, 1),
    "recall_quartets": Column("recall %", 100, 1),
    "activation_mass_quartets": Column("activity"),
    "silent_share_quartets": Column("silent %", 100, 0),
}
# Those of differences and figures.
SHOWN = ("f1_chorales", "f1_quartets")
REFERENCE, FINETUNE = "reference", "finetune"
# Unlabelled items beside 4 labelled ones: the paper's 16 beside 8.
MOST = 8

# Labels alone, for all the others.
WARM = Run("warm", (REFERENCE,))


def _after_labels(name: str, **fields: Any) -> Run:
    """The second stage, from the parameters that labels alone gave."""
    return changed(name, REFERENCE, FINETUNE, borrows=(WARM, REFERENCE), **fields)


def _only(*terms: str) -> dict[str, Any]:
    return {f"weights__{t}": 0.0 for t in ("timbre", "geometric", "percussion") if t not in terms}


SUPERVISED = _after_labels("supervised", stages__finetune__self_supervised=0.0)
ALL = _after_labels("all")

_CLOSED = {
    "timbre": ("timbre",),
    "geometric": ("geometric",),
    "percussion": ("percussion",),
    "timbre and geometric": ("timbre", "geometric"),
    "timbre and percussion": ("timbre", "percussion"),
    "geometric and percussion": ("geometric", "percussion"),
}

CLOSED = Table(
    "Closed conditions: labelled music only",
    "every self-supervised term improves on labels alone, all three together the most",
    rows_of(
        FINETUNE,
        {
            "labels only": SUPERVISED,
            **{
                f"+ {label}": _after_labels("+".join(terms), **_only(*terms))
                for label, terms in _CLOSED.items()
            },
            "+ all three": ALL,
        },
    ),
)


def _open(name: str, unlabelled: int = MOST, **fields: Any) -> Run:
    return _after_labels(name, stages__finetune__unlabelled=unlabelled, **fields)


_NUMBERS = {number: _open(f"open_{number}", number) for number in (1, 2, 4)}
OPEN_RUN = _open(f"open_{MOST}")

OPEN = Table(
    "Open conditions: unlabelled music of another kind beside it",
    "the output goes blank on all kinds but the labelled one, less so with fewer unlabelled items",
    (
        Row("labels only", SUPERVISED, FINETUNE),
        Row("+ all three, no unlabelled", ALL, FINETUNE, x=0),
        *(
            Row(f"+ {number} unlabelled beside 4", run, FINETUNE, x=number)
            for number, run in {**_NUMBERS, MOST: OPEN_RUN}.items()
        ),
    ),
)

ENERGY = Table(
    "Energy and sparsity on the unlabelled items",
    "they keep the output from going blank, at a lower F1",
    rows_of(
        FINETUNE,
        {
            "no energy terms": OPEN_RUN,
            "+ energy": _open("energy", weights__energy=1.0),
            "+ energy and sparsity": _open(
                "energy+sparsity", weights__energy=1.0, weights__sparsity=1.0
            ),
        },
    ),
)

_FINETUNED = Run(
    "finetuned",
    (REFERENCE, FINETUNE),
    {"stages.finetune.unlabelled": MOST, "stages.finetune.learning_rate": 2e-4},
    (ALL, FINETUNE),
)
FINETUNING = Table(
    "Fine-tuning the reference with unlabelled items",
    "it goes blank as well",
    rows_of(FINETUNE, {"reference": ALL, "fine-tuned": _FINETUNED}),
)

_STOP = {"self_supervision__stop_gradient": True}
_TEACHER = {"self_supervision__teacher_decay": 0.99}
# What of a cure is not the unlabelled music's.
_STOPPED = _after_labels("all_stop_gradient", **_STOP)
_ANCHORED, _ACTIVITY = {"weights__anchored": 1.0}, {"weights__activity": 1.0}
_REMEDIES = {
    "stop gradient": _STOP,
    "moving-average teacher": _TEACHER,
    "Jensen-Shannon divergence": {"self_supervision__consistency": "divergence"},
    "categorical with silence": {"self_supervision__consistency": "categorical"},
    "anchored mixing": _ANCHORED,
    "activity prior": _ACTIVITY,
    "variance": {"weights__variance": 1.0},
    "strict positives": {"weights__strict_positive": 1.0},
    "anchored, stop gradient": {**_ANCHORED, **_STOP},
    "anchored, activity prior": {**_ANCHORED, **_ACTIVITY},
    "anchored, activity prior, teacher": {**_ANCHORED, **_ACTIVITY, **_TEACHER},
}

CURE = Table(
    f"Remedies, with {MOST} unlabelled items beside 4 labelled ones",
    "an open question of the paper",
    rows_of(
        FINETUNE,
        {
            "labels only": SUPERVISED,
            "+ all three, no unlabelled": ALL,
            "+ all three, stop gradient, no unlabelled": _STOPPED,
            "unlabelled, no remedy": OPEN_RUN,
            **{
                label: _open("cure_" + label.replace(",", "").replace(" ", "_"), **fields)
                for label, fields in _REMEDIES.items()
            },
        },
    ),
)

TABLES = {
    "closed": CLOSED,
    "open": OPEN,
    "energy": ENERGY,
    "finetuning": FINETUNING,
    "cure": CURE,
}
