"""The paper's figures and its Table 2 with our runs, models compared excerpt by excerpt.

The tests are one-sided Wilcoxon signed-rank tests over the pieces that the excerpts are of; the
paper's are over excerpts, at p < .001.
"""

import functools
import pathlib
import statistics
from collections.abc import Callable, Mapping

from experiments import drawing
from experiments.experiment import Run
from experiments.summary import markdown_table
from experiments.transfer import tables
from majl_jax import formats

HEADING = "## Paired tests"

# Of 8 pieces none gives less than 1 / 256.
SIGNIFICANT = 1e-2
# Excerpt to SI-SDR in dB, the mean over seeds.
Scores = dict[str, float]

# Table 2 of the paper, SI-SDR of mask-models minus whole-models in dB: our large set stands for
# theirs, our small set for theirs.
THEIRS = {"chorales": "MUSDB", "band": "Slakh", "chorales and band": "MUSDB+Slakh"}
STANDS_FOR = {"drum_kit": "Remixpacks", "choir": "Dagstuhl", "ensemble": "Bach10"}
PAPER = {
    ("none", "MUSDB"): (-4.04, -1.27, -5.05),
    ("none", "Slakh"): (-2.32, -1.76, -3.43),
    ("none", "MUSDB+Slakh"): (-4.78, -3.03, -4.94),
    ("pitch", "MUSDB"): (-5.34, 1.16, -3.78),
    ("pitch", "Slakh"): (-2.80, -2.29, -4.72),
    ("pitch", "MUSDB+Slakh"): (-2.38, -2.02, -4.91),
    ("stretch", "MUSDB"): (-4.08, 0.85, -4.68),
    ("stretch", "Slakh"): (-3.33, -0.34, -3.60),
    ("stretch", "MUSDB+Slakh"): (-1.69, -2.17, -3.99),
    ("incoherent", "MUSDB"): (-4.50, 0.69, -4.57),
    ("incoherent", "Slakh"): (-3.40, -0.10, -2.32),
    ("incoherent", "MUSDB+Slakh"): (-1.75, -0.63, -4.85),
}


def read_scores(runs: pathlib.Path, run: Run, stage: str) -> Scores:
    """What the seeds of a run that are done scored on each excerpt; none: an empty table."""
    found: dict[str, list[float]] = {}
    for path in sorted((runs / run.name).glob(f"seed*/{stage}/tracks.jsonl")):
        for row in formats.read_lines(path, needs=("track", "system")):
            if row["system"] == stage and row["si_sdr_db"] is not None:
                score = formats.score_from_json(row["si_sdr_db"])
                found.setdefault(row["track"], []).append(score)
    return {track: statistics.mean(values) for track, values in found.items()}


def differences(ours: Scores, other: Scores) -> Scores:
    """Ours minus other, of the excerpts that both have."""
    return {track: ours[track] - other[track] for track in sorted(ours.keys() & other.keys())}


def by_piece(pairs: Scores) -> list[float]:
    """The mean difference of each piece, which its excerpts share.

    An excerpt is called piece@second, with " + " between them where each source is of another
    piece: then the overall mean, and what each source adds to it where it is of that piece.
    """
    sources: list[dict[str, list[float]]] = []
    for track, value in pairs.items():
        for place, part in enumerate(track.split(" + ")):
            sources += [{}] * (place == len(sources))
            sources[place].setdefault(part.rpartition("@")[0] or part, []).append(value)
    overall = statistics.mean(pairs.values())
    return [
        overall + sum(statistics.mean(of[piece]) - overall for of in sources if piece in of)
        for piece in sorted({piece for of in sources for piece in of})
    ]


def p_value(pairs: Scores) -> float:
    """Of the one-sided Wilcoxon signed-rank test over pieces that the differences are above zero.

    Excerpts of one piece overlap, and differ less than those of two: they are no tests of their
    own.
    """
    from scipy.stats import wilcoxon

    return float(wilcoxon(by_piece(pairs), alternative="greater").pvalue)


def draw(runs: pathlib.Path, figures: pathlib.Path) -> list[str]:
    """Draws three figures; the lines of the paired tests, as far as the runs are there."""
    _draw_pretraining(runs, figures / "pretraining.png")
    _draw_augmentation(runs, figures / "augmentation.png")
    _draw_steps(runs, figures / "curves.png")
    return [
        HEADING,
        "",
        f"`*`: p < {SIGNIFICANT:g}, one-sided Wilcoxon signed-rank test over the means of the test "
        "pieces (that the difference is above 0; of mask layers alone, below). The paper's own "
        "test, at p < .001, takes the excerpts, which overlap and are not independent.",
        "",
        *_against_scratch(runs),
        *_augmentation(runs),
        *_mask_against_whole(runs),
        *_longer(runs),
    ]


def _starred(pairs: Scores, *, below: bool = False) -> str:
    """Their mean, with a star where it is significantly above 0, or below."""
    if not pairs:
        return "–"
    signed = {track: -x for track, x in pairs.items()} if below else pairs
    return f"{statistics.mean(pairs.values()):+.2f}{'*' if p_value(signed) < SIGNIFICANT else ''}"


def _finetuned(
    runs: pathlib.Path, downstream: str, on: str, augmentation: str = "none", trained: str = "whole"
) -> Scores:
    return read_scores(runs, tables.finetuning(downstream, on, augmentation, trained), "finetune")


def _by_task(corner: str, rows: Mapping[str, Callable[[str], str]]) -> list[str]:
    """A table with a column per small set, its cells from functions of that set."""
    found = {label: [cell(name) for name in tables.DOWNSTREAM] for label, cell in rows.items()}
    return [*markdown_table(list(tables.DOWNSTREAM), found, corner), ""]


BASELINES = {
    "scratch, as many steps in all": tables.scratch,
    "scratch, as many steps as fine-tuning": tables.short,
}


# ---- lines of tables.md -------------------------------------------------------------------------


def _against_scratch(runs: pathlib.Path) -> list[str]:
    """Whole models without augmentation minus the baselines."""
    out = []
    for words, baseline in BASELINES.items():

        def cell(on: str, downstream: str, baseline: Callable[[str], Run] = baseline) -> str:
            scratch = read_scores(runs, baseline(downstream), "scratch")
            return _starred(differences(_finetuned(runs, downstream, on), scratch))

        rows = {on: functools.partial(cell, on) for on in tables.PRETRAINING}
        out += [f"### Fine-tuned (whole, no augmentation) minus {words}, dB", ""]
        out += _by_task("pre-trained on", rows)
    return out


def _changes(runs: pathlib.Path, downstream: str, on: str, augmentation: str) -> Scores:
    """By how much an augmentation in pre-training changes whole models, excerpt by excerpt."""
    changed = _finetuned(runs, downstream, on, augmentation)
    return differences(changed, _finetuned(runs, downstream, on))


def _augmentation(runs: pathlib.Path) -> list[str]:
    """How much an augmentation in pre-training changes whole models."""

    def cell(on: str, augmentation: str, downstream: str) -> str:
        return _starred(_changes(runs, downstream, on, augmentation))

    rows = {
        f"{augmentation}, {on}": functools.partial(cell, on, augmentation)
        for augmentation in list(tables.AUGMENTATION)[1:]
        for on in tables.PRETRAINING
    }
    out = ["### Augmentation in pre-training: minus none (whole), dB", ""]
    return out + _by_task("augmentation, set", rows)


def _mask_against_whole(runs: pathlib.Path) -> list[str]:
    """Table 2, ours with the paper's in brackets."""

    def cell(on: str, augmentation: str, downstream: str) -> str:
        whole = _finetuned(runs, downstream, on, augmentation)
        mask = _finetuned(runs, downstream, on, augmentation, "mask")
        paper = PAPER[augmentation, THEIRS[on]][list(STANDS_FOR).index(downstream)]
        return f"{_starred(differences(mask, whole), below=True)} ({paper:+.2f})"

    rows = {
        f"{augmentation}, {on}": functools.partial(cell, on, augmentation)
        for augmentation in tables.AUGMENTATION
        for on in tables.PRETRAINING
    }
    heading = "### Mask layer alone minus whole model, dB"
    out = [f"{heading} (in brackets the paper's, on the set that ours stands for)", ""]
    return out + _by_task("augmentation, set", rows)


def _longer(runs: pathlib.Path) -> list[str]:
    """The rows of the table `longer` against each other."""
    rows = tables.LONGER.rows
    scores = {row.label: read_scores(runs, row.run, row.stage) for row in rows}
    cells = {
        name: [
            "" if other is ours else _starred(differences(ours, other)) for other in scores.values()
        ]
        for name, ours in scores.items()
    }
    out = ["### More steps of everything: row minus column, dB", ""]
    return [*out, *markdown_table(list(scores), cells), ""]


# ---- figures ------------------------------------------------------------------------------------


def _draw_pretraining(runs: pathlib.Path, picture: pathlib.Path) -> None:
    """Figure 1: whole models without augmentation, and the baselines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), dpi=110)
    axes = figure.subplots(1, len(tables.DOWNSTREAM))
    for ax, downstream in zip(axes, tables.DOWNSTREAM, strict=True):
        bars = {
            words.replace(", ", ",\n"): read_scores(runs, baseline(downstream), "scratch")
            for words, baseline in BASELINES.items()
        }
        bars |= {on: _finetuned(runs, downstream, on) for on in tables.PRETRAINING}
        for place, (name, values) in enumerate(bars.items()):
            if values:
                color = "#999999" if name.startswith("scratch") else "#1f77b4"
                ax.bar(place, statistics.mean(values.values()), color=color)
        ax.set_xticks(range(len(bars)))
        ax.set_xticklabels(list(bars), rotation=35, ha="right", fontsize=6)
        ax.set_title(downstream, fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("SI-SDR dB")
    drawing.save(figure, picture)


def _draw_augmentation(runs: pathlib.Path, picture: pathlib.Path) -> None:
    """Figure 2: how much an augmentation in pre-training changes whole models."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), dpi=110)
    ax = figure.subplots()
    boxes = {
        f"{augmentation}\n{on}\n{downstream}": list(pairs.values())
        for augmentation in list(tables.AUGMENTATION)[1:]
        for on in tables.PRETRAINING
        for downstream in tables.DOWNSTREAM
        if (pairs := _changes(runs, downstream, on, augmentation))
    }
    if boxes:
        ax.boxplot(list(boxes.values()), showfliers=False)
        ax.set_xticklabels(list(boxes), rotation=90, fontsize=5)
    ax.axhline(0, color="black", linewidth=0.5)
    ax.set_ylabel("SI-SDR dB, minus none")
    drawing.save(figure, picture)


def _draw_steps(runs: pathlib.Path, picture: pathlib.Path) -> None:
    """Figure 3: validation SI-SDR over the steps on the small set."""

    def curve(run: Run, stage: str) -> drawing.Curve:
        return drawing.means(drawing.validation(runs / run.name, stage), "si_sdr_db")

    panels = []
    for downstream in tables.DOWNSTREAM:
        curves = {"scratch": curve(tables.scratch(downstream), "scratch")}
        for on in tables.PRETRAINING:
            curves[on] = curve(tables.finetuning(downstream, on, "none", "whole"), "finetune")
        panels.append(drawing.Panel(curves, downstream))
    drawing.draw_curves(
        [panels],
        picture,
        size=(9, 2.8),
        x_label="steps on the small set",
        y_label="validation SI-SDR dB",
    )
