"""Why a stem's uSDR is below silence's 0 dB: its level in the mixture, the level, direction and
best possible gain of its estimate; and how uSDR goes with that level over the tracks.

    python -m experiments.mixit.levels --data=data/prepared/mixit/few/band \\
        --run=runs/experiments/mixit/scratch/seed0 --stage=scratch
"""

import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments import rates
from majl_jax import terminal
from majl_jax.audio import int16
from majl_jax.datasets import records
from majl_jax.evaluation.rows import text_table
from majl_jax.inference.segments import apply_track
from majl_jax.metrics import separation
from majl_jax.separate import loading

NAMES = (
    "stem_in_mixture_db",
    "estimate_to_stem_db",
    "usdr_of_estimate_db",
    "usdr_at_best_gain_db",
    "best_gain_db",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the means over tracks of what `levels` finds, and `over_level` of each stem."""
    parser = terminal.Parser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="prepared data set")
    parser.add_argument("--split", default="test")
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--stage", required=True)
    options = parser.parse_args(arguments)
    model, variables = loading.load_run(options.run, stage=options.stage)[:2]
    layout = records.open_prepared(options.data).layout
    rates.check({f"--data={options.data}": layout, f"--run={options.run}": model})
    columns = [layout.stems.index(stem) for stem in model.stems]
    rows = []
    for record in records.read_tracks(options.data, options.split):
        if not record["has_stems"][columns].all():
            continue
        truth = int16.to_float(record["stems"])[:, columns]
        mixture = truth.sum(axis=1)
        estimate = apply_track(model, variables, mixture)["stems"]
        seconds = len(truth) / model.sample_rate_hz
        for number, stem in enumerate(model.stems):
            found = levels(estimate[:, number], truth[:, number], mixture)
            known = {k: None if math.isnan(value) else value for k, value in found.items()}
            rows.append({"track": record["track"], "system": stem, "seconds": seconds} | known)
    print(f"{options.stage} of {options.run} on the {options.split} split of {options.data}")
    print(text_table(rows))
    for stem in model.stems:
        print(f"{stem}: {over_level([row for row in rows if row['system'] == stem])}")
    return 0


def levels(
    estimate: Float[np.ndarray, "time channel"],
    truth: Float[np.ndarray, "time channel"],
    mixture: Float[np.ndarray, "time channel"],
) -> dict[str, float]:
    """In dB: the stem's level to the mixture's, the estimate's to the stem's, uSDR, uSDR after the
    best gain, -10 log10(1 - c^2), c the cosine of estimate and stem, and that gain; NaN where stem
    or estimate is silent.
    """
    one, other = (x.astype(np.float64) for x in (estimate, truth))
    product, own, true = np.sum(one * other), np.sum(one**2), np.sum(other**2)
    if not own or not true:
        return dict.fromkeys(NAMES, math.nan)
    values = (
        _db(true / np.sum(mixture.astype(np.float64) ** 2)),
        _db(own / true),
        separation.usdr_db(estimate, truth),
        -_db(1 - product**2 / (own * true)),
        2 * _db(max(product, 0.0) / own),
    )
    return dict(zip(NAMES, values, strict=True))


def over_level(rows: Sequence[Mapping[str, Any]]) -> str:
    """The straight line of uSDR over the stem's level in the mixture, a point per track."""
    points = np.array([[row[NAMES[0]], row[NAMES[2]]] for row in rows], np.float64)
    level, usdr = points[np.isfinite(points).all(axis=1)].T
    if len(level) < 3:
        return "too few tracks for a line"
    slope, begin = np.polyfit(level, usdr, 1)
    correlation = np.corrcoef(level, usdr)[0, 1]
    return (
        f"uSDR grows by {slope:.2f} dB per dB of its level (correlation {correlation:.2f},"
        f" {len(level)} tracks), 0 dB at {-begin / slope:.1f} dB"
    )


def _db(ratio: float) -> float:
    return float(10 * np.log10(max(ratio, 1e-12)))


if __name__ == "__main__":
    sys.exit(main())
