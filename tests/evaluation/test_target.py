"""Scores of one stem, with estimates whose answers are known."""

import numpy as np
import pytest

from majl_jax.evaluation.examples import ForReport
from majl_jax.evaluation.rows import read_rows
from majl_jax.evaluation.target import Target, score_tracks
from majl_jax.inference.segments import SegmentModel
from majl_jax.metrics import separation

GAIN = 0.5


def _heard(variables, audio):
    """What a network hears of whose input the mixture is scaled."""
    del variables
    return {"stems": GAIN * audio[:, :, None]}


def test_the_gain_of_the_mixture_is_in_the_mixture_that_an_estimate_is_compared_with(tmp_path):
    stems = np.random.default_rng(0).integers(-8000, 8000, (2048, 2, 1)).astype(np.int16)
    labels = {"f0_hz": np.zeros((64, 2), np.float32), "has_pitch": np.zeros((64, 2), bool)}
    track = {"track": "one", "stems": stems, "has_stems": np.ones(2, bool), **labels}
    grid = {"sample_rate_hz": 1000, "segment_samples": 256, "hop_samples": 32}
    model = SegmentModel(_heard, **grid, stems=("voice",))
    target, report = Target(mixture_gain=GAIN), ForReport(tmp_path)
    found = score_tracks(model, {}, [track], target=target, report=report)
    of_model, of_mixture = read_rows(tmp_path / "tracks.jsonl")
    scaled = stems[..., 0].astype(np.float32) / 32768
    expected = separation.sdr_db(GAIN * scaled.sum(1), scaled[:, 0])
    assert of_mixture["sdr_db"] == pytest.approx(expected, abs=1e-4)
    assert of_model["nsdr_db"] == pytest.approx(0.0, abs=1e-4)
    assert found["mixture/sdr_db_mean"] == pytest.approx(found["sdr_db_mean"], abs=1e-4)
