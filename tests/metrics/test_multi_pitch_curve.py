"""Average precision and thresholds against scikit-learn and mir_eval; a shift of calibration and a
blank output told apart.
"""

import numpy as np
import pytest
import tiny_multi_pitch as tiny
from sklearn.metrics import average_precision_score

from majl_jax.evaluation.multi_pitch import score_track
from majl_jax.inference import decoding
from majl_jax.metrics import multi_pitch_curve, pitch

FRAMES, BINS = 200, 25


def _truth(seed=0):
    """Labels of 2 voices, five bins or more apart."""
    rng = np.random.default_rng(seed)
    low = rng.integers(1, 10, FRAMES)
    return np.stack([low, low + 5 + rng.integers(0, 8, FRAMES)], axis=1)


def _logits(truth, skill, seed=1):
    """Noise, and `skill` where the pitches are."""
    logits = np.random.default_rng(seed).normal(-3.0, 1.0, (FRAMES, BINS))
    np.put_along_axis(logits, truth, np.take_along_axis(logits, truth, 1) + skill, 1)
    return logits


def _salience(logits):
    return (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)


def _scores(logits, truth, **options):
    f0_hz = tiny.BIN_HZ[truth].astype(np.float32)
    audio = np.full(FRAMES * tiny.HOP, 0.5, np.float32)
    return score_track(
        tiny.make(threshold=0.5),
        _salience(logits),
        audio,
        f0_hz,
        np.ones(truth.shape, bool),
        **options,
    )


def _curve(logits, truth):
    peaks = decoding.pick_pitches(_salience(logits), threshold=0.0)
    return multi_pitch_curve.ranked_candidates(peaks, tiny.BIN_HZ, list(tiny.BIN_HZ[truth]))


def test_average_precision_is_that_of_scikit_learn():
    curve = _curve(_logits(_truth(), 3.0), _truth())
    reached = curve.hit.sum() / curve.pitches
    expected = reached * average_precision_score(curve.hit, curve.salience)
    assert 0.3 < expected < 0.99
    assert multi_pitch_curve.average_precision(curve) == pytest.approx(expected, abs=1e-12)
    tied = curve._replace(salience=np.round(curve.salience, 1))
    order = np.argsort(-tied.salience, kind="stable")
    tied = multi_pitch_curve.Curve(tied.salience[order], tied.hit[order], tied.pitches)
    expected = reached * average_precision_score(tied.hit, tied.salience)
    assert multi_pitch_curve.average_precision(tied) == pytest.approx(expected, abs=1e-12)


def test_f1_at_a_threshold_is_that_of_mir_eval():
    truth = _truth()
    logits = _logits(truth, 3.0)
    curve, times = _curve(logits, truth), np.arange(FRAMES) * 0.01
    for threshold in (0.1, 0.3, 0.5):
        picked = decoding.pick_pitches(_salience(logits), threshold=threshold)
        found = decoding.pitches_hz(picked, tiny.BIN_HZ)
        expected = pitch.multi_pitch_scores(times, found, times, list(tiny.BIN_HZ[truth]))["f1"]
        (f1,) = multi_pitch_curve.f1_at(curve, np.array([threshold]))
        assert f1 == pytest.approx(expected, abs=1e-9)


def test_a_pitch_is_found_once_and_only_within_the_window():
    peaks = np.zeros((3, BINS))
    peaks[0, [4, 5]] = 0.9, 0.8  # a semitone apart: the second has no pitch of its own
    peaks[1, 6] = 0.7  # a semitone from the truth
    truth = [tiny.BIN_HZ[[4]], tiny.BIN_HZ[[7]], tiny.BIN_HZ[[2]]]
    curve = multi_pitch_curve.ranked_candidates(peaks, tiny.BIN_HZ, truth)
    np.testing.assert_allclose(curve.salience, [0.9, 0.8, 0.7])
    np.testing.assert_array_equal(curve.hit, [True, False, False])
    assert curve.pitches == 3
    assert multi_pitch_curve.average_precision(curve) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="3 frames of peaks and 2 of pitches"):
        multi_pitch_curve.ranked_candidates(peaks, tiny.BIN_HZ, truth[:2])


def test_a_shift_of_calibration_and_a_blank_output_are_told_apart():
    """Both lower F1 at 0.5 alike; only the second is beyond the help of a threshold."""
    truth = _truth()
    logits = _logits(truth, 6.0)
    sound = _scores(logits, truth)
    shifted = _scores(logits - 5.0, truth)
    blank = _scores(0.05 * _logits(truth, 0.3) - 4.0, truth)
    assert sound["f1"] > 0.8 and max(shifted["f1"], blank["f1"]) < 0.3
    assert shifted["silent_share"] > 0.5 and blank["silent_share"] > 0.5, (
        "what was looked at before"
    )
    assert shifted["average_precision"] == pytest.approx(sound["average_precision"], abs=0.01)
    assert shifted["contrast"] == pytest.approx(sound["contrast"], rel=0.01)
    assert blank["average_precision"] < 0.5 * sound["average_precision"]
    assert blank["contrast"] < 0.1 * sound["contrast"]
    verdicts = [multi_pitch_curve.verdict(sound, now) for now in (sound, shifted, blank)]
    assert verdicts == ["sound", "shifted", "degenerate"]


def test_the_threshold_chosen_on_other_tracks_undoes_a_shift():
    chosen, _ = multi_pitch_curve.best_threshold(
        [_curve(_logits(_truth(seed), 6.0, seed + 9) - 5.0, _truth(seed)) for seed in (3, 4)]
    )
    truth = _truth()
    sound = _scores(_logits(truth, 6.0), truth)
    shifted = _scores(_logits(truth, 6.0) - 5.0, truth, tuned_threshold=chosen)
    assert shifted["f1"] < 0.5 * sound["f1"] and shifted["f1_tuned"] > 0.95 * sound["f1"]
    assert chosen in multi_pitch_curve.THRESHOLDS and 0.5 in multi_pitch_curve.THRESHOLDS


def test_tracks_without_pitches_say_nothing():
    empty = multi_pitch_curve.Curve(np.array([0.5]), np.array([False]), 0)
    assert np.isnan(multi_pitch_curve.average_precision(empty))
    assert np.isnan(multi_pitch_curve.best_threshold([empty])).all()
    silent = multi_pitch_curve.contrast(np.ones((2, 3)), np.zeros(2, bool))
    assert np.isnan(silent)
    nothing = multi_pitch_curve.Curve(np.zeros(0), np.zeros(0, bool), 4)
    assert multi_pitch_curve.average_precision(nothing) == 0.0
