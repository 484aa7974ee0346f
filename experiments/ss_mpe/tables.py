"""What SS-MPE's tables compare: which terms and remedies, on labelled music alone and with unlabelled music of another kind."""

from typing import Any

from grid import Row, Run, Table

COLUMNS = {  # score: heading, factor, digits
    "f1_chorales": ("F1 %, labelled kind", 100, 1),
    "recall_chorales": ("recall %", 100, 1),
    "f1_quartets": ("F1 %, other kind", 100, 1),
    "precision_quartets": ("precision %", 100, 1),
    "recall_quartets": ("recall %", 100, 1),
    "activation_mass_quartets": ("activity", 1, 2),
    "silent_share_quartets": ("silent %", 100, 0),
}
REFERENCE, FINETUNE = "reference", "finetune"
MOST = 8  # unlabelled items beside 4 labelled ones: the paper's 16 beside 8


WARM = Run("warm", (REFERENCE,))  # labels alone, for all the others


def _after_labels(name: str, **fields: Any) -> Run:
    """The second stage, from the parameters that labels alone gave; `__` in a field stands for a point."""
    named = {key.replace("__", "."): value for key, value in fields.items()}
    return Run(name, (REFERENCE, FINETUNE), named, (WARM, REFERENCE))


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
    (
        Row("labels only", SUPERVISED, FINETUNE),
        *(
            Row(f"+ {label}", _after_labels("+".join(terms), **_only(*terms)), FINETUNE)
            for label, terms in _CLOSED.items()
        ),
        Row("+ all three", ALL, FINETUNE),
    ),
    base=0,
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
    base=0,
)

ENERGY = Table(
    "Energy and sparsity on the unlabelled items",
    "they keep the output from going blank, at a lower F1",
    (
        Row("no energy terms", OPEN_RUN, FINETUNE),
        Row("+ energy", _open("energy", weights__energy=1.0), FINETUNE),
        Row(
            "+ energy and sparsity",
            _open("energy+sparsity", weights__energy=1.0, weights__sparsity=1.0),
            FINETUNE,
        ),
    ),
    base=0,
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
    (Row("reference", ALL, FINETUNE), Row("fine-tuned", _FINETUNED, FINETUNE)),
    base=0,
)

_STOP = {"self_supervision__stop_gradient": True}
_TEACHER = {"self_supervision__teacher_decay": 0.99}
_STOPPED = _after_labels(
    "all_stop_gradient", **_STOP
)  # what of a cure is not the unlabelled music's
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
    (
        Row("labels only", SUPERVISED, FINETUNE),
        Row("+ all three, no unlabelled", ALL, FINETUNE),
        Row("+ all three, stop gradient, no unlabelled", _STOPPED, FINETUNE),
        Row("unlabelled, no remedy", OPEN_RUN, FINETUNE),
        *(
            Row(
                label,
                _open("cure_" + label.replace(",", "").replace(" ", "_"), **fields),
                FINETUNE,
            )
            for label, fields in _REMEDIES.items()
        ),
    ),
    base=0,
)

TABLES = {
    "closed": CLOSED,
    "open": OPEN,
    "energy": ENERGY,
    "finetuning": FINETUNING,
    "cure": CURE,
}
