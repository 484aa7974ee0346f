"""What MAJL's tables compare: runs (one training each) and the rows that their stages give."""

from collections.abc import Iterator
from typing import Any

from experiments.experiment import Column, Row, Run, Table

COLUMNS = {
    "sdr_db": Column("SDR dB"),
    "nsdr_db": Column("NSDR dB"),
    "rpa": Column("RPA %", 100, 1),
    "rca": Column("RCA %", 100, 1),
    "oa": Column("OA %", 100, 1),
}
# Those of differences and figures.
SHOWN = ("sdr_db", "rpa")
PIPELINE, NAIVE, TEACHER, STUDENT = "pipeline", "naive_joint", "teacher", "student"


BASELINES = Run("baselines", (NAIVE, PIPELINE))
MAJL = Run("majl", (TEACHER, STUDENT))
# Without dynamic weights stage I is the naive joint cascade, step for step.
UNWEIGHTED = Run(
    "without_dwhs", (TEACHER, STUDENT), {"dwhs.objective": "none"}, borrows=(BASELINES, NAIVE)
)

MAIN = Table(
    "Main comparison",
    "+0.92 dB SDR and +2.71 % RPA over the state of the art "
    "(abstract; other data, full-size networks)",
    (
        Row("pipeline: trained apart", BASELINES, PIPELINE),
        Row("naive joint: one stage, equal weights", BASELINES, NAIVE),
        Row("MAJL without two stages (stage I)", MAJL, TEACHER),
        Row("MAJL without DWHS", UNWEIGHTED, STUDENT),
        Row("MAJL", MAJL, STUDENT),
    ),
    base=-1,
)

_THRESHOLDS = {
    threshold: Run(
        f"threshold_{threshold:g}",
        (TEACHER, STUDENT),
        {"pseudo_labels.threshold": threshold},
        borrows=(MAJL, TEACHER),
    )
    for threshold in (0.5, 0.9)
} | {0.7: MAJL}

THRESHOLD = Table(
    "Confidence threshold of the pseudo labels",
    "0.7 is best",
    tuple(
        Row(f"threshold {threshold:g}", _THRESHOLDS[threshold], STUDENT, x=threshold)
        for threshold in sorted(_THRESHOLDS)
    ),
    x_label="confidence threshold",
    base=1,
)

_CASE_3 = Run("dwhs_case3", (TEACHER,), {"dwhs.exponents": ((0, 0), (0, 0), (1, 0), (0, 0))})

OBJECTIVES = Table(
    "Objective of the weight module (stage I)",
    "dynamic weights help; how their module is trained is not in what was available to us",
    (
        Row("regularised", MAJL, TEACHER),
        *(
            Row(name, Run(f"dwhs_{name}", (TEACHER,), {"dwhs.objective": name}), TEACHER)
            for name in ("supervised", "adversarial", "fixed")
        ),
        Row("regularised, case 3 only (what is attested)", _CASE_3, TEACHER),
        Row("none: equal weights", BASELINES, NAIVE),
    ),
    base=-1,
)


def _shorter(steps: int, batch_size: int) -> dict[str, Any]:
    names = (NAIVE, PIPELINE, TEACHER, STUDENT)
    return {f"stages.{n}.steps": steps for n in names} | {
        f"stages.{n}.batch_size": batch_size for n in names
    }


def _modules() -> Iterator[Row]:
    for separator in ("unet", "resunet", "light"):
        for pitch in ("crepe", "harmof0"):
            # These networks take three to six times as long a step: fewer and smaller ones for all.
            fields = {"separator": separator, "pitch": pitch, **_shorter(200, 4)}
            fields["evaluation.test_tracks"] = 8
            run = Run(f"{separator}_{pitch}", (TEACHER, STUDENT), fields)
            yield Row(f"{separator} + {pitch}: stage I", run, TEACHER)
            yield Row(f"{separator} + {pitch}: MAJL", run, STUDENT)


MODULES = Table(
    "Other modules",
    "MAJL helps whichever are joined (U-Net, ResUNetDecouple+; CREPE, HarmoF0)",
    tuple(_modules()),
)


def _wrong_pitch() -> Iterator[Row]:
    for curve, whole in (("without DWHS", UNWEIGHTED), ("with DWHS", MAJL)):
        yield Row(f"{curve}, none wrong", whole, STUDENT, x=0.0, curve=curve)
        for percent in (25, 50):
            fields = {**whole.fields, "pseudo_labels.wrong_pitch": percent / 100}
            name = f"wrong_{percent}_{curve.replace(' ', '_').lower()}"
            run = Run(name, (TEACHER, STUDENT), fields, borrows=whole.borrows or (whole, TEACHER))
            yield Row(f"{curve}, {percent} % wrong", run, STUDENT, x=percent, curve=curve)


WRONG_PITCH = Table(
    "Wrong pitch pseudo labels (half octaves, half random)",
    "an open question of the paper",
    tuple(_wrong_pitch()),
    x_label="wrong pitch pseudo labels, %",
)

_BASS = {"data.target": "bass", **_shorter(300, 8)}
_BASS_BASELINES = Run("bass_baselines", (NAIVE, PIPELINE), _BASS)
_BASS_MAJL = Run("bass_majl", (TEACHER, STUDENT), _BASS)

BASS = Table(
    "Another target: the bass",
    "instruments other than the voice are an open question of the paper",
    (
        Row("pipeline", _BASS_BASELINES, PIPELINE),
        Row("naive joint", _BASS_BASELINES, NAIVE),
        Row("MAJL without two stages (stage I)", _BASS_MAJL, TEACHER),
        Row("MAJL", _BASS_MAJL, STUDENT),
    ),
    base=-1,
)

TABLES = {
    "main": MAIN,
    "threshold": THRESHOLD,
    "objectives": OBJECTIVES,
    "modules": MODULES,
    "wrong_pitch": WRONG_PITCH,
    "bass": BASS,
}
