"""SS-MPE's tables on built-in music: chorales with labels, quartets of other instruments without.

    python experiments/ss_mpe/run.py --table=closed,open,energy,finetuning,cure

Every row is trained with every seed, each run by `majl_jax.main` in a process of its own, several at a time. A killed run goes on
where it stopped. Results: results.jsonl, tables.md and figures/ beside this file.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import curves  # noqa: E402
import grid  # noqa: E402
import summary  # noqa: E402
from tables import COLUMNS, MOST, TABLES, WARM  # noqa: E402

CURVES = {  # detector: heading
    "activation_mass": "active bins per frame",
    "silent_share": "sounding frames without a pitch",
    "recall": "recall",
    "average_precision": "average precision",
}
SETS = {"chorales": "labelled kind", "quartets": "unlabelled kind"}


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Prepares the data and returns the config fields that name them."""
    folder = options.data / "multi_pitch"
    grid_of_labels = ("--sample_rate_hz=22050", "--hop_samples=1024")
    names = "chorales,quartets,quartets_unlabelled,drums"
    grid.prepare(names, folder, "--tracks=train=16,valid=4,test=8", *grid_of_labels)
    return {"data.directory": str(folder)}


def draw_curves(options: argparse.Namespace) -> None:
    """Activity, silence and recall of both kinds of music over the steps of the open runs and the remedies."""
    from matplotlib.figure import Figure

    names = ["supervised", "all", f"open_{MOST}", "energy+sparsity"]
    names += [row.run.name for row in TABLES["cure"].rows if row.run.name.startswith("cure_")]
    figure = Figure(figsize=(11, 6), dpi=110)
    axes = figure.subplots(len(SETS), len(CURVES), sharex=True, squeeze=False)
    start = curves.validation(options.workdir / options.on / WARM.name, WARM.stages[-1])
    start = {0: start[max(start)]} if start else {}
    for number, name in enumerate(names):
        rows = curves.validation(options.workdir / options.on / name, "finetune")
        if not rows:
            continue
        rows = {**start, **rows}
        for (place, data_set), (column, (score, heading)) in (
            (a, b) for a in enumerate(SETS) for b in enumerate(CURVES.items())
        ):
            ax = axes[place][column]
            curve = curves.means(rows, f"{score}_{data_set}")
            style = {"color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--"}
            ax.plot(
                list(curve),
                list(curve.values()),
                label=name.removeprefix("cure_").replace("_", " "),
                **style,
            )
            ax.set_title(f"{heading}, {SETS[data_set]}", fontsize=9)
            ax.spines[["top", "right"]].set_visible(False)
            ax.grid(alpha=0.3)
    for ax in axes.flat:
        ax.set_ylim(bottom=0)
    for ax in axes[-1]:
        ax.set_xlabel("step after labels alone")
    axes[0][-1].legend(frameon=False, fontsize=6, bbox_to_anchor=(1.02, 1.0), loc="upper left")
    figure.tight_layout()
    (HERE / "figures").mkdir(exist_ok=True)
    figure.savefig(HERE / "figures" / "degeneration.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares, trains, collects, draws."""
    parser = grid.parser(
        __doc__ or "", config="configs/ss_mpe.py:experiment", folder=HERE, on="ss_mpe"
    )
    options = grid.parse(parser, TABLES, arguments)
    report = summary.Report(
        "SS-MPE",
        "ss_mpe",
        TABLES,
        COLUMNS,
        shown=("f1_chorales", "f1_quartets"),
        data={"ss_mpe": ("synthetic chorales and quartets", "")},
    )

    def summarize(results: pathlib.Path) -> None:
        report.write(results, HERE)
        draw_curves(options)

    grid.run_tables(options, TABLES, prepare(options), summarize)
    return 0


if __name__ == "__main__":
    sys.exit(main())
