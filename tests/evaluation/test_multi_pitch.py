"""Scores of all pitches of whole tracks: what is undefined is counted under every name."""

import math

import numpy as np
import tiny_multi_pitch as tiny

from majl_jax.evaluation.multi_pitch import Judging, score_tracks


def test_an_estimate_that_is_not_finite_counts_in_the_tuned_scores_too():
    audio = tiny.tones(2)
    frames = len(audio) // tiny.HOP
    track = {
        "track": "one",
        "stems": (8000 * audio).astype(np.int16)[:, None, None],
        "has_stems": np.array([True]),
        "f0_hz": np.full((frames, 1), tiny.BIN_HZ[2], np.float32),
        "has_pitch": np.ones((frames, 1), bool),
    }
    model, broken = tiny.make(tiny.first_harmonic), {"gain": np.float32(np.nan)}
    found = score_tracks(model, broken, [track], judging=Judging(tuned_threshold=0.4))
    for name in ("precision_tuned", "recall_tuned", "f1_tuned"):
        assert math.isnan(found[name]) and found[f"{name}_skipped"] == 1
    assert "f1_tuned" not in score_tracks(model, broken, [track])
