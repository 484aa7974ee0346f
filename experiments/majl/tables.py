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
# The plain sum of both losses, PE hearing estimates only: DJCM's naive joint training, and
# `:paper`'s balance.
_PLAIN = {"balance.method": "none", "weights.pitch_on_target": 0.0}
PLAIN = Run("plain_sum", (NAIVE,), _PLAIN)
# Without dynamic weights stage I is the joint cascade, step for step.
UNWEIGHTED = Run(
    "without_dwhs", (TEACHER, STUDENT), {"dwhs.objective": "none"}, borrows=(BASELINES, NAIVE)
)

MAIN = Table(
    "Main comparison",
    "+0.92 dB SDR and +2.71 % RPA over the state of the art "
    "(abstract; other data, full-size networks)",
    (
        Row("pipeline: trained apart", BASELINES, PIPELINE),
        Row("naive joint: one stage, 1 : 1", PLAIN, NAIVE),
        Row("joint: one stage, balanced", BASELINES, NAIVE),
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
_FRAMES = Run("dwhs_frames", (TEACHER,), {"dwhs.grain": "frame"})

OBJECTIVES = Table(
    "Objective of the weight module (stage I)",
    "dynamic weights help; how their module is trained is not in what was available to us",
    (
        Row("robust: hard samples count more", MAJL, TEACHER),
        *(
            Row(label, Run(f"dwhs_{name}", (TEACHER,), {"dwhs.objective": name}), TEACHER)
            for name, label in (
                ("exact", "exact: the same without a module"),
                ("self_paced", "self-paced: easy samples count more"),
                ("fixed", "fixed: all that is raised counts twice"),
            )
        ),
        Row("robust, by frame", _FRAMES, TEACHER),
        Row("robust, case 3 only (what is attested)", _CASE_3, TEACHER),
        Row("none: equal weights", BASELINES, NAIVE),
    ),
    base=-1,
)


def _balance() -> Iterator[Row]:
    yield Row("pipeline: trained apart", BASELINES, PIPELINE)
    for name, label, fields in (
        ("plain_sum", "1 : 1 (DJCM)", _PLAIN),
        ("plain_sum_on_target", "1 : 1, PE on the true source too", {"balance.method": "none"}),
        ("stopped", "no pitch gradient in the separator", {"stop_gradient_between": True}),
        ("uncertainty", "uncertainty", {"balance.method": "uncertainty"}),
        ("ratio", "fixed ratio 0.01", {"balance.method": "ratio", "balance.pitch_share": 0.01}),
    ):
        yield Row(label, Run(name, (NAIVE,), fields), NAIVE)
    for share in (0.1, 0.3, 1.0):
        fields = {"balance.method": "gradient_norm", "balance.pitch_share": share}
        yield Row(f"norms, share {share:g}", Run(f"share_{share:g}", (NAIVE,), fields), NAIVE)


BALANCE = Table(
    "Balance of the two tasks at the waveform (one stage)",
    "joint training is better than training apart",
    tuple(_balance()),
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
    "balance": BALANCE,
    "modules": MODULES,
    "wrong_pitch": WRONG_PITCH,
    "bass": BASS,
}
