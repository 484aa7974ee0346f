"""Why a stem's uSDR is below silence's 0 dB: its level in the mixture, the level, direction and
best possible gain of its estimate.

    python -m experiments.mixit.levels --data=data/prepared/mixit/few/band \\
        --run=runs/experiments/mixit/scratch/seed0 --stage=scratch
"""

import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from majl_jax import terminal
from majl_jax.audio import int16
from majl_jax.datasets import records
from majl_jax.evaluation.rows import text_table
from majl_jax.inference.segments import apply_track
from majl_jax.separate import loading


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the means over tracks of what `levels` finds."""
    parser = terminal.Parser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="prepared data set")
    parser.add_argument("--split", default="test")
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--stage", required=True)
    options = parser.parse_args(arguments)
    model, variables = loading.load_run(options.run, stage=options.stage)[:2]
    rows = []
    rate_hz = model.sample_rate_hz
    for record in records.read_tracks(options.data, options.split):
        truth = int16.to_float(record["stems"])
        estimate = apply_track(model, variables, truth.sum(axis=1))["stems"]
        for number, stem in enumerate(model.stems):
            found = levels(estimate[:, number], truth[:, number], truth.sum(axis=1))
            row = {"track": record["track"], "system": stem, "seconds": len(truth) / rate_hz}
            rows.append(row | found)
    print(f"{options.stage} of {options.run} on the {options.split} split of {options.data}")
    print(text_table(rows))
    return 0


def levels(
    estimate: Float[np.ndarray, "time channel"],
    truth: Float[np.ndarray, "time channel"],
    mixture: Float[np.ndarray, "time channel"],
) -> dict[str, float]:
    """In dB: the stem's level to the mixture's, the estimate's to the stem's, uSDR, and uSDR after
    the best gain, -10 log10(1 - c^2); c is the cosine of estimate and stem, the gain itself the
    fifth.
    """
    power = {
        name: float(np.sum(np.square(x, dtype=np.float64)))
        for name, x in (("estimate", estimate), ("truth", truth), ("mixture", mixture))
    }
    product = float(np.sum(estimate.astype(np.float64) * truth))
    cosine = product / np.sqrt(power["estimate"] * power["truth"])
    error = power["truth"] - 2 * product + power["estimate"]
    return {
        "stem_in_mixture_db": _db(power["truth"] / power["mixture"]),
        "estimate_to_stem_db": _db(power["estimate"] / power["truth"]),
        "usdr_of_estimate_db": _db(power["truth"] / error),
        "usdr_at_best_gain_db": -_db(1 - cosine**2),
        "best_gain_db": 2 * _db(max(product, 0.0) / power["estimate"]),
    }


def _db(ratio: float) -> float:
    return float(10 * np.log10(max(ratio, 1e-12)))


if __name__ == "__main__":
    sys.exit(main())
