"""The paper's figures and its Table 2 with our runs: models compared excerpt by excerpt, one-sided Wilcoxon signed-rank tests at p < .001."""

import argparse
import json
import pathlib
import statistics
from collections.abc import Sequence

import tables
from grid import Run

SIGNIFICANT = 1e-3
Scores = dict[str, float]  # excerpt to SI-SDR in dB, the mean over seeds

# Table 2 of the paper, SI-SDR of mask-models minus whole-models in dB: our large set stands for theirs, our small set for theirs.
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


def read_scores(options: argparse.Namespace, run: Run, stage: str) -> Scores:
    """What the seeds of a run that are done scored on each excerpt; none: an empty table."""
    found: dict[str, list[float]] = {}
    for path in sorted(
        (options.workdir / options.on / run.name).glob(f"seed*/{stage}/tracks.jsonl")
    ):
        for row in map(json.loads, path.read_text().splitlines()):
            if row["system"] == stage and row["si_sdr_db"] is not None:
                found.setdefault(row["track"], []).append(row["si_sdr_db"])
    return {track: statistics.mean(values) for track, values in found.items()}


def differences(ours: Scores, other: Scores) -> list[float]:
    """Ours minus other, of the excerpts that both have."""
    return [ours[track] - other[track] for track in sorted(ours.keys() & other.keys())]


def p_value(pairs: Sequence[float]) -> float:
    """Of the one-sided Wilcoxon signed-rank test that the differences are above zero."""
    from scipy.stats import wilcoxon

    return float(wilcoxon(pairs, alternative="greater").pvalue)


def write(options: argparse.Namespace, folder: pathlib.Path) -> None:
    """Draws figures/*.png and adds the paired tests to tables.md, as far as the runs are there."""
    (folder / "figures").mkdir(exist_ok=True)
    parts = [
        "",
        "## Paired tests",
        "",
        "`*`: p < .001, one-sided Wilcoxon signed-rank test over the test excerpts.",
        "",
    ]
    parts += _against_scratch(options, folder / "figures" / "pretraining.png")
    parts += _augmentation(options, folder / "figures" / "augmentation.png")
    parts += _mask_against_whole(options)
    draw_curves(options, folder / "figures" / "curves.png")
    with (folder / "tables.md").open("a") as file:
        file.write("\n".join(parts))


def _starred(pairs: Sequence[float]) -> str:
    if not pairs:
        return "–"
    return f"{statistics.mean(pairs):+.2f}{'*' if p_value(pairs) < SIGNIFICANT else ''}"


def _against_scratch(options: argparse.Namespace, picture: pathlib.Path) -> list[str]:
    """Figure 1: whole models without augmentation, and the baseline."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), dpi=110)
    axes = figure.subplots(1, len(tables.DOWNSTREAM))
    out = [
        "### Fine-tuned (whole, no augmentation) minus scratch, dB",
        "",
        _heading("pre-trained on"),
        _rule(),
    ]
    cells: dict[str, list[str]] = {on: [] for on in tables.PRETRAINING}
    for ax, downstream in zip(axes, tables.DOWNSTREAM, strict=True):
        base = read_scores(options, tables.scratch(downstream), "scratch")
        bars = {"scratch": (base, False)}
        for on in tables.PRETRAINING:
            ours = _finetuned(options, downstream, on, "none", "whole")
            pairs = differences(ours, base)
            cells[on].append(_starred(pairs))
            bars[on] = (ours, bool(pairs) and p_value(pairs) < SIGNIFICANT)
        for place, (name, (values, star)) in enumerate(bars.items()):
            if values:
                ax.bar(
                    place,
                    statistics.mean(values.values()),
                    color="#999999" if name == "scratch" else "#1f77b4",
                )
                ax.text(place, statistics.mean(values.values()), "*" * star, ha="center")
        ax.set_xticks(range(len(bars)))
        ax.set_xticklabels(list(bars), rotation=20, fontsize=7)
        ax.set_title(downstream, fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("SI-SDR dB")
    figure.tight_layout()
    figure.savefig(picture)
    return [*out, *(f"| {on} | " + " | ".join(row) + " |" for on, row in cells.items()), ""]


def _augmentation(options: argparse.Namespace, picture: pathlib.Path) -> list[str]:
    """Figure 2: how much an augmentation in pre-training changes whole models."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), dpi=110)
    ax = figure.subplots()
    out = [
        "### Augmentation in pre-training: minus none (whole), dB",
        "",
        _heading("augmentation, set"),
        _rule(),
    ]
    boxes, labels = [], []
    for augmentation in list(tables.AUGMENTATION)[1:]:
        for on in tables.PRETRAINING:
            cells = []
            for downstream in tables.DOWNSTREAM:
                none = _finetuned(options, downstream, on, "none", "whole")
                pairs = differences(
                    _finetuned(options, downstream, on, augmentation, "whole"), none
                )
                cells.append(_starred(pairs))
                if pairs:
                    boxes.append(pairs)
                    labels.append(f"{augmentation}\n{on}\n{downstream}")
            out.append(f"| {augmentation}, {on} | " + " | ".join(cells) + " |")
    if boxes:
        ax.boxplot(boxes, showfliers=False)
        ax.set_xticklabels(labels, rotation=90, fontsize=5)
    ax.axhline(0, color="black", linewidth=0.5)
    ax.set_ylabel("SI-SDR dB, minus none")
    figure.tight_layout()
    figure.savefig(picture)
    return [*out, ""]


def _mask_against_whole(options: argparse.Namespace) -> list[str]:
    """Table 2, ours with the paper's in brackets."""
    out = [
        "### Mask layer alone minus whole model, dB (in brackets the paper's, on the set that ours stands for)",
        "",
    ]
    out += [_heading("augmentation, set"), _rule()]
    for augmentation in tables.AUGMENTATION:
        for on in tables.PRETRAINING:
            cells = []
            for downstream in tables.DOWNSTREAM:
                whole = _finetuned(options, downstream, on, augmentation, "whole")
                mask = _finetuned(options, downstream, on, augmentation, "mask")
                column = list(STANDS_FOR).index(downstream)
                paper = PAPER[augmentation, THEIRS[on]][column]
                cells.append(f"{_starred(differences(mask, whole))} ({paper:+.2f})")
            out.append(f"| {augmentation}, {on} | " + " | ".join(cells) + " |")
    return [*out, ""]


def draw_curves(options: argparse.Namespace, picture: pathlib.Path) -> None:
    """Figure 3: validation SI-SDR over the steps on the small set."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), dpi=110)
    axes = figure.subplots(1, len(tables.DOWNSTREAM))
    for ax, downstream in zip(axes, tables.DOWNSTREAM, strict=True):
        runs = {"scratch": (tables.scratch(downstream), "scratch")}
        for on in tables.PRETRAINING:
            runs[on] = (tables.finetuning(downstream, on, "none", "whole"), "finetune")
        for name, (run, stage) in runs.items():
            steps, values = _validation(options, run, stage)
            ax.plot(steps, values, label=name)
        ax.set_title(downstream, fontsize=9)
        ax.set_xlabel("steps on the small set")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("validation SI-SDR dB")
    axes[-1].legend(frameon=False, fontsize=7)
    figure.tight_layout()
    figure.savefig(picture)


def _validation(options: argparse.Namespace, run: Run, stage: str) -> tuple[list[int], list[float]]:
    found: dict[int, list[float]] = {}
    for path in sorted((options.workdir / options.on / run.name).glob("seed*/metrics.jsonl")):
        for line in map(json.loads, path.read_text().splitlines()):
            if (line["kind"], line["stage"]) == ("valid", stage):
                found.setdefault(line["step"], []).append(line["si_sdr_db"])
    steps = sorted(found)
    return steps, [statistics.mean(found[step]) for step in steps]


def _finetuned(
    options: argparse.Namespace, downstream: str, on: str, augmentation: str, trained: str
) -> Scores:
    return read_scores(
        options, tables.finetuning(downstream, on, augmentation, trained), "finetune"
    )


def _heading(first: str) -> str:
    return f"| {first} | " + " | ".join(tables.DOWNSTREAM) + " |"


def _rule() -> str:
    return "|---" * (len(tables.DOWNSTREAM) + 1) + "|"
