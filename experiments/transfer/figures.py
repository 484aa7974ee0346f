"""The paper's figures and its Table 2 with our runs: models compared excerpt by excerpt, one-sided Wilcoxon signed-rank tests at p < .001."""

import argparse
import json
import pathlib
import statistics
from collections.abc import Sequence

import curves
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
        "`*`: p < .001, one-sided Wilcoxon signed-rank test over the test excerpts (that the difference is above 0; of mask layers alone, below).",
        "",
    ]
    parts += _against_scratch(options, folder / "figures" / "pretraining.png")
    parts += _augmentation(options, folder / "figures" / "augmentation.png")
    parts += _mask_against_whole(options)
    parts += _longer(options)
    draw_curves(options, folder / "figures" / "curves.png")
    with (folder / "tables.md").open("a") as file:
        file.write("\n".join(parts))


def _starred(pairs: Sequence[float], *, below: bool = False) -> str:
    """Their mean, with a star where it is significantly above 0, or below."""
    if not pairs:
        return "–"
    signed = [-x for x in pairs] if below else pairs
    return f"{statistics.mean(pairs):+.2f}{'*' if p_value(signed) < SIGNIFICANT else ''}"


def _against_scratch(options: argparse.Namespace, picture: pathlib.Path) -> list[str]:
    """Figure 1: whole models without augmentation, and the baselines."""
    from matplotlib.figure import Figure

    baselines = {
        "scratch, as many steps in all": tables.scratch,
        "scratch, as many steps as fine-tuning": tables.short,
    }
    figure = Figure(figsize=(9, 3), dpi=110)
    axes = figure.subplots(1, len(tables.DOWNSTREAM))
    out = []
    for words, baseline in baselines.items():
        out += [f"### Fine-tuned (whole, no augmentation) minus {words}, dB", ""]
        out += [_heading("pre-trained on"), _rule()]
        for on in tables.PRETRAINING:
            cells = [
                _starred(
                    differences(
                        _finetuned(options, downstream, on, "none", "whole"),
                        read_scores(options, baseline(downstream), "scratch"),
                    )
                )
                for downstream in tables.DOWNSTREAM
            ]
            out.append(f"| {on} | " + " | ".join(cells) + " |")
        out.append("")
    for ax, downstream in zip(axes, tables.DOWNSTREAM, strict=True):
        bars = {
            words.replace(", ", ",\n"): read_scores(options, baseline(downstream), "scratch")
            for words, baseline in baselines.items()
        }
        for on in tables.PRETRAINING:
            bars[on] = _finetuned(options, downstream, on, "none", "whole")
        for place, (name, values) in enumerate(bars.items()):
            if values:
                color = "#999999" if name.startswith("scratch") else "#1f77b4"
                ax.bar(place, statistics.mean(values.values()), color=color)
        ax.set_xticks(range(len(bars)))
        ax.set_xticklabels(list(bars), rotation=35, ha="right", fontsize=6)
        ax.set_title(downstream, fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("SI-SDR dB")
    figure.tight_layout()
    figure.savefig(picture)
    return out


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
                cells.append(f"{_starred(differences(mask, whole), below=True)} ({paper:+.2f})")
            out.append(f"| {augmentation}, {on} | " + " | ".join(cells) + " |")
    return [*out, ""]


def _longer(options: argparse.Namespace) -> list[str]:
    """The rows of the table `longer` against each other."""
    rows = tables.LONGER.rows
    scores = {row.label: read_scores(options, row.run, row.stage) for row in rows}
    out = ["### More steps of everything: row minus column, dB", ""]
    out += ["| | " + " | ".join(scores) + " |", "|---" * (len(scores) + 1) + "|"]
    for name, ours in scores.items():
        cells = [
            _starred(differences(ours, other)) if other is not ours else ""
            for other in scores.values()
        ]
        out.append(f"| {name} | " + " | ".join(cells) + " |")
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
            folder = options.workdir / options.on / run.name
            curve = curves.means(curves.validation(folder, stage), "si_sdr_db")
            ax.plot(list(curve), list(curve.values()), label=name)
        ax.set_title(downstream, fontsize=9)
        ax.set_xlabel("steps on the small set")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("validation SI-SDR dB")
    axes[-1].legend(frameon=False, fontsize=7)
    figure.tight_layout()
    figure.savefig(picture)


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
