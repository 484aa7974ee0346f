"""What Transfer's tables compare: what comes first, augmentation, and what is fine-tuned."""

from typing import Any

from experiments.experiment import Column, Row, Run, Table

COLUMNS = {
    "si_sdr_db": Column("SI-SDR dB"),
    "si_sdr_db_median": Column("median dB"),
    "mixture/si_sdr_db": Column("mixture dB"),
}
# Those of differences and figures.
SHOWN = ("si_sdr_db", "si_sdr_db_median")

# Large sets; the paper's are MUSDB, Slakh and both.
PRETRAINING = {
    "chorales": "chorales: melody=soprano, rest=alto+tenor+bass",
    "band": "band: drums, other",
    "chorales and band": "chorales: bass, other=soprano+alto+tenor; band: bass, other=drums+other",
}
# What it is changed by: the paper's four conditions.
AUGMENTATION = {
    "none": {},
    "pitch": {"stages.pretrain.augmentation": "pitch"},
    "stretch": {"stages.pretrain.augmentation": "stretch"},
    "incoherent": {"stages.pretrain.mixing": "incoherent"},
}
# Small sets with other sources; the paper's are Bach10, Dagstuhl ChoirSet and Remixpacks. Their
# mixing in training and test.
DOWNSTREAM = {
    "ensemble": ("ensemble: flute, saxophone", "incoherent", "coherent"),
    "choir": ("choir: female, male", "coherent", "coherent"),
    "drum_kit": ("drum_kit: kick, snare, cymbals", "incoherent", "incoherent"),
}
MASK = {
    "stages.finetune.trained": "mask",
    "stages.finetune.weights.deep_clustering": 0.0,
    "stages.finetune.weights.mask_inference": 1.0,
}


def _task(stage: str, downstream: str) -> dict[str, Any]:
    data, training, test = DOWNSTREAM[downstream]
    return {
        f"stages.{stage}.data": data,
        f"stages.{stage}.mixing": training,
        "evaluation.mixing": test,
    }


def pretraining(on: str, augmentation: str) -> Run:
    """The run of a large set; the small ones borrow from it."""
    name = f"pretrain_{on.replace(' and ', '+')}_{augmentation}"
    return Run(
        name, ("pretrain",), {"stages.pretrain.data": PRETRAINING[on], **AUGMENTATION[augmentation]}
    )


def finetuning(downstream: str, on: str, augmentation: str, trained: str) -> Run:
    """Masks for a small set after pre-training."""
    lender = pretraining(on, augmentation)
    fields = {
        **lender.fields,
        **_task("finetune", downstream),
        **(MASK if trained == "mask" else {}),
    }
    name = f"{downstream}_{lender.name.removeprefix('pretrain_')}_{trained}"
    return Run(name, ("pretrain", "finetune"), fields, (lender, "pretrain"))


def scratch(downstream: str) -> Run:
    """The baseline, as many steps as both stages together."""
    return Run(f"{downstream}_scratch", ("scratch",), _task("scratch", downstream))


def short(downstream: str) -> Run:
    """The other baseline, as many steps as fine-tuning."""
    fields = {**_task("scratch", downstream), "stages.scratch.steps": 100}
    return Run(f"{downstream}_scratch_short", ("scratch",), fields)


def label(on: str, augmentation: str, trained: str) -> str:
    """Of a row."""
    return f"{on}, {augmentation}, {trained}"


def _table(downstream: str) -> Table:
    rows = [
        Row("scratch", scratch(downstream), "scratch"),
        Row("scratch, as many steps as fine-tuning", short(downstream), "scratch"),
    ]
    rows += [
        Row(
            label(on, augmentation, trained),
            finetuning(downstream, on, augmentation, trained),
            "finetune",
        )
        for trained in ("whole", "mask")
        for on in PRETRAINING
        for augmentation in AUGMENTATION
    ]
    return Table(
        f"{downstream}: fine-tuned against trained from nothing",
        "pre-trained models are ahead, most on the smallest set; the mask layer alone stays behind",
        tuple(rows),
    )


def _longer() -> tuple[Row, ...]:
    """The smallest set, five times the steps of pre-training and four of fine-tuning."""
    downstream, on, before, after = "ensemble", "chorales", 2000, 400
    pretrained = {**pretraining(on, "none").fields, "stages.pretrain.steps": before}
    lender = Run(f"pretrain_{on}_{before}_steps", ("pretrain",), pretrained)
    rows = []
    for steps in (after, before + after):
        fields = {**_task("scratch", downstream), "stages.scratch.steps": steps}
        run = Run(f"{downstream}_scratch_{steps}_steps", ("scratch",), fields)
        rows.append(Row(f"scratch, {steps} steps", run, "scratch"))
    for trained, more in (("whole", {}), ("mask", MASK)):
        fields = {**_task("finetune", downstream), **more, "stages.finetune.steps": after}
        run = Run(
            f"{downstream}_{on}_{before}_steps_{trained}",
            ("pretrain", "finetune"),
            {**pretrained, **fields},
            (lender, "pretrain"),
        )
        rows.append(Row(f"{before} steps before, {after} after, {trained}", run, "finetune"))
    return tuple(rows)


LONGER = Table(
    "ensemble: more steps of everything",
    "10,000 steps before, 2,000 after, of larger batches and longer excerpts: "
    "ahead of scratch, whole ahead of mask",
    _longer(),
)

TABLES = {**{downstream: _table(downstream) for downstream in DOWNSTREAM}, "longer": LONGER}
