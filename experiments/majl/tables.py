"""What MAJL's tables compare: runs (one training each) and the rows that their stages give."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

PIPELINE, NAIVE, TEACHER, STUDENT = "pipeline", "naive_joint", "teacher", "student"


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: the stages of a config with some fields changed.

    `borrows` is another run whose teacher this one takes over, so that only its student trains.
    """

    name: str
    stages: tuple[str, ...]
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    borrows: "Run | None" = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a table: what a stage of a run scores on the test split."""

    label: str
    run: Run
    stage: str
    x: float | None = None  # where it stands on the figure's axis, if that is a scale
    curve: str = ""  # which points of the figure are joined


@dataclasses.dataclass(frozen=True)
class Table:
    """A question, what the paper says about it, and the rows that answer it."""

    title: str
    claim: str
    rows: tuple[Row, ...]
    x_label: str = ""

    def runs(self) -> Iterator[Run]:
        """The runs it needs, a borrowed one before its borrower, each once."""
        seen = set()
        for row in self.rows:
            for run in (row.run.borrows, row.run):
                if run is not None and run.name not in seen:
                    seen.add(run.name)
                    yield run


JOINT = Run("joint", (PIPELINE, NAIVE, TEACHER, STUDENT))
UNWEIGHTED = Run("without_dwhs", (TEACHER, STUDENT), {"dwhs.objective": "none"})

MAIN = Table(
    "Main comparison",
    "+0.92 dB SDR and +2.71 % RPA over the state of the art (abstract; other data, full-size networks)",
    (
        Row("pipeline: trained apart", JOINT, PIPELINE),
        Row("naive joint: one stage, equal weights", JOINT, NAIVE),
        Row("MAJL without two stages (stage I)", JOINT, TEACHER),
        Row("MAJL without DWHS", UNWEIGHTED, STUDENT),
        Row("MAJL", JOINT, STUDENT),
    ),
)

_THRESHOLDS = {
    threshold: Run(
        f"threshold_{threshold:g}",
        (TEACHER, STUDENT),
        {"pseudo_labels.threshold": threshold},
        borrows=JOINT,
    )
    for threshold in (0.5, 0.9)
} | {0.7: JOINT}

THRESHOLD = Table(
    "Confidence threshold of the pseudo labels",
    "0.7 is best",
    tuple(
        Row(f"threshold {threshold:g}", _THRESHOLDS[threshold], STUDENT, x=threshold)
        for threshold in sorted(_THRESHOLDS)
    ),
    x_label="confidence threshold",
)

OBJECTIVES = Table(
    "Objective of the weight module (stage I)",
    "dynamic weights help; how their module is trained is not in what was available to us",
    (
        Row("none: equal weights", UNWEIGHTED, TEACHER),
        Row("regularised", JOINT, TEACHER),
        *(
            Row(name, Run(f"dwhs_{name}", (TEACHER,), {"dwhs.objective": name}), TEACHER)
            for name in ("supervised", "adversarial", "fixed")
        ),
    ),
)


def _modules() -> Iterator[Row]:
    for separator in ("unet", "resunet", "light"):
        for pitch in ("crepe", "harmof0"):
            run = JOINT
            if (separator, pitch) != ("unet", "crepe"):
                fields = {"separator": separator, "pitch": pitch}
                run = Run(f"{separator}_{pitch}", (TEACHER, STUDENT), fields)
            yield Row(f"{separator} + {pitch}: stage I", run, TEACHER)
            yield Row(f"{separator} + {pitch}: MAJL", run, STUDENT)


MODULES = Table(
    "Other modules",
    "MAJL helps whichever are joined (U-Net, ResUNetDecouple+; CREPE, HarmoF0)",
    tuple(_modules()),
)


def _wrong_pitch() -> Iterator[Row]:
    for curve, whole in (("without DWHS", UNWEIGHTED), ("with DWHS", JOINT)):
        yield Row(f"{curve}, none wrong", whole, STUDENT, x=0.0, curve=curve)
        for percent in (25, 50):
            fields = {**whole.fields, "pseudo_labels.wrong_pitch": percent / 100}
            name = f"wrong_{percent}_{curve.replace(' ', '_').lower()}"
            run = Run(name, (TEACHER, STUDENT), fields, borrows=whole)
            yield Row(f"{curve}, {percent} % wrong", run, STUDENT, x=percent, curve=curve)


WRONG_PITCH = Table(
    "Wrong pitch pseudo labels (half octaves, half random)",
    "an open question of the paper",
    tuple(_wrong_pitch()),
    x_label="wrong pitch pseudo labels, %",
)

_BASS = Run("bass", (PIPELINE, NAIVE, TEACHER, STUDENT), {"data.target": "bass"})

BASS = Table(
    "Another target: the bass",
    "instruments other than the voice are an open question of the paper",
    (
        Row("pipeline", _BASS, PIPELINE),
        Row("naive joint", _BASS, NAIVE),
        Row("MAJL without two stages (stage I)", _BASS, TEACHER),
        Row("MAJL", _BASS, STUDENT),
    ),
)

TABLES = {
    "main": MAIN,
    "threshold": THRESHOLD,
    "objectives": OBJECTIVES,
    "modules": MODULES,
    "wrong_pitch": WRONG_PITCH,
    "bass": BASS,
}
