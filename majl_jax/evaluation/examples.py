"""Example files for the report: what was played in, what came out, what was asked for."""

import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from majl_jax.audio import files

Stems = Float[np.ndarray, "time stem channel"]


def write_example(
    folder: pathlib.Path,
    estimate: Stems,
    truth: Stems,
    *,
    stems: Sequence[str],
    sample_rate_hz: int,
) -> None:
    """mixture.wav, and <stem>_estimate.wav and <stem>_truth.wav of each stem, for the report."""
    folder.mkdir(parents=True, exist_ok=True)
    signals = {"mixture": truth.sum(1)}
    for number, stem in enumerate(stems):
        signals[f"{stem}_estimate"] = estimate[:, number]
        signals[f"{stem}_truth"] = truth[:, number]
    for name, audio in signals.items():
        path = folder / f"{files.safe_name(name)}.wav"
        limited = np.clip(np.nan_to_num(audio), -1.0, 1.0)
        files.write_wav(path, limited, sample_rate_hz=sample_rate_hz)
