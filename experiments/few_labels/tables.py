"""What few labels are compared by: rows of labels alone, and of what each paper does with the rest.

The rest are mixtures without labels; deep clustering has other music in stems. A run that goes on
from another paper's first stage has that one's network as its separator, and is held against the
same network with labels alone.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from experiments.experiment import Column, Row, Run, Table

COLUMNS = {
    "sdr_db": Column("SDR dB"),
    "si_sdr_db": Column("SI-SDR dB"),
    "rpa": Column("RPA %", 100, 1),
    "rca": Column("RCA %", 100, 1),
    "oa": Column("OA %", 100, 1),
}
# Those of differences and the figure.
SHOWN = ("sdr_db", "rpa")
AMOUNTS = {3: "mir1k_3", 12: "mir1k_12", 50: "mir1k_50", 100: "mir1k"}  # percent of the clips
MIXTURES = "mir1k_mixtures"
REST = {percent: f"mir1k_rest_{percent}" for percent in AMOUNTS if percent < 100}
TEACHER, STUDENT = "teacher", "student"
# Meant to be 20 minutes of a core each, by what steps of these networks took elsewhere.
STEPS = {"U-Net": 3000, "Locoformer": 750, "Chimera": 3000, "VQ-VAE": 600}
FIRST_STEPS = {"mixit": 1500, "deep_clustering": 3000, "jukebox": 900}
SEGMENT, WINDOW, OUTPUTS = 20_480, 1024, 4
# Of Chimera, whose first stage wants an even number of hops in it.
CHIMERA_WINDOW = 1280
BANDS = (4,) * 16 + (8,) * 16 + (16,) * 12 + (64, 65)

# ---- MAJL's cascade, by its separator -----------------------------------------------------------

MAJL: dict[str, Any] = {
    "data.target": "voice",
    "data.stems_only": "",
    "data.pitch_only": "",
    "augmentation.others": 0.5,
    "augmentation.gain_db": 4.0,
    "evaluation.test_tracks": 0,
    "evaluation.select_best": True,
    **{f"stages.{stage}.learning_rate": 1e-3 for stage in (TEACHER, STUDENT)},
}
SEPARATORS: dict[str, dict[str, Any]] = {
    "U-Net": {"separator": "unet"},
    "Locoformer": {"separator": "locoformer", "locoformer.outputs": OUTPUTS},
    "Chimera": {"separator": "chimera", "chimera.window_samples": CHIMERA_WINDOW},
    "VQ-VAE": {"separator": "vqvae", "vqvae.multiplier": 1},
}

# ---- first stages of the other papers -----------------------------------------------------------

GRID = {"data.sample_rate_hz": 16_000, "data.hop_samples": 320, "data.segment_samples": SEGMENT}
OFTEN = {"train.evaluate_every_steps": 250, "train.checkpoint_every_steps": 250}
MIXIT = Run(
    "mixit",
    ("pretrain",),
    {
        **GRID,
        **OFTEN,
        "data.unlabelled": MIXTURES,
        "data.labelled": "mir1k: accompaniment, voice",
        "window_samples": WINDOW,
        "network.bands": BANDS,
        "network.outputs": OUTPUTS,
        "network.layers": 2,
        "stages.pretrain.steps": FIRST_STEPS["mixit"],
        "evaluation.segment_samples": 2 * SEGMENT,
        "evaluation.pretrained": False,
    },
    config="configs/mixit.py:experiment",
)
DEEP_CLUSTERING = Run(
    "deep_clustering",
    ("pretrain",),
    {
        **GRID,
        **OFTEN,
        "data.segment_samples": 2 * SEGMENT,
        "stages.pretrain.data": "{other_music}",
        "stages.pretrain.steps": FIRST_STEPS["deep_clustering"],
        "window_samples": CHIMERA_WINDOW,
    },
    config="configs/transfer.py:experiment",
)
JUKEBOX = Run(
    "jukebox",
    ("music",),
    {
        **GRID,
        **OFTEN,
        "data.music": MIXTURES,
        "data.labelled": "mir1k",
        "data.stem": "voice",
        "stages.music.steps": FIRST_STEPS["jukebox"],
    },
    config="configs/jukebox.py:experiment",
)
FIRST = {
    "Locoformer": ("MixIT first", MIXIT),
    "Chimera": ("deep clustering first", DEEP_CLUSTERING),
    "VQ-VAE": ("Jukebox first", JUKEBOX),
}

# ---- rows ---------------------------------------------------------------------------------------


def _name(text: str) -> str:
    return text.lower().replace("-", "_").replace(" ", "_")


def _rows() -> Iterator[Row]:
    for percent, labelled in AMOUNTS.items():
        for network, fields in SEPARATORS.items():
            alone = {**MAJL, **fields, **_length(STEPS[network]), "data.labelled": labelled}
            run = Run(f"{_name(network)}_{percent}", (TEACHER,), alone)
            of_row = _place(percent, network, "")
            yield Row(run=run, stage=TEACHER, **of_row)
            if network == "U-Net":
                yield from _students(run, percent, network, "")
            if network in FIRST:
                words, before = FIRST[network]
                start = {"stages.teacher.start": f"separator={{{before.name}}}:{before.stages[0]}"}
                run = Run(
                    f"{before.name}_{percent}", (TEACHER,), {**alone, **start}, after=(before,)
                )
                yield Row(run=run, stage=TEACHER, **_place(percent, network, words))
                if before is MIXIT:
                    yield from _students(run, percent, network, words)


def _length(steps: int) -> dict[str, int]:
    """So many steps for both stages, six validations each."""
    often = {"train.evaluate_every_steps": steps // 6, "train.checkpoint_every_steps": steps // 12}
    return {**often, **{f"stages.{stage}.steps": steps for stage in (TEACHER, STUDENT)}}


def _students(teacher: Run, percent: int, network: str, words: str) -> Iterator[Row]:
    """MAJL's second stage, where there is a rest that the teacher can label."""
    if percent == 100:
        return
    fields: Mapping[str, Any] = {**teacher.fields, "data.unlabelled": REST[percent]}
    start = teacher.fields.get("stages.teacher.start", "")
    run = Run(
        f"{teacher.name.removesuffix(f'_{percent}')}_pseudo_{percent}",
        (TEACHER, STUDENT),
        {**fields, "stages.student.start": start},
        borrows=(teacher, TEACHER),
        after=teacher.after,
    )
    words = f"{words} + pseudo labels" if words else "MAJL's pseudo labels"
    yield Row(run=run, stage=STUDENT, **_place(percent, network, words))


def _place(percent: int, network: str, words: str) -> dict[str, Any]:
    """Where a row stands: its label, its curve, and the row that it is held against."""
    alone = f"{percent} %: {network}, labels alone"
    curve = f"{network}, {words or 'labels alone'}"
    label = f"{percent} %: {curve}"
    return {"label": label, "curve": curve, "x": float(percent), "against": alone}


MAIN = Table(
    "Few labels",
    "(all five) what is learnt from cheap data spares labels; none compares with the others",
    tuple(_rows()),
    x_label="fully labelled minutes of training",
    x_from="labelled_minutes",
    logarithmic=True,
)
TABLES = {"main": MAIN}
