"""Metrics against closed forms, frozen museval numbers and mir_eval."""

import functools
import json

import mir_eval
import numpy as np
import pytest
from places import RECORDINGS

from majl_jax.metrics import pitch, separation

MUSDB18 = RECORDINGS / "musdb18_7s"


def _pair(*shape, seed=0):
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal(shape)
    return reference + 0.1 * rng.standard_normal(shape), reference


# Every global score ----------------------------------------------------------------------------


def test_sdr_is_the_formula_with_its_floors():
    reference = np.array([0.5, -0.5, 0.5, -0.5])
    assert separation.sdr_db(0.9 * reference, reference) == pytest.approx(20.0)
    assert separation.sdr_db(reference, reference) == pytest.approx(10 * np.log10(0.25 / 1e-8))
    assert separation.sdr_db(np.zeros(4), 1e-6 * reference) == pytest.approx(
        0.0
    )  # both at the floor
    assert separation.sdr_db(0 * reference, reference) == pytest.approx(0.0)


def test_si_sdr_ignores_scale_not_noise():
    estimate, reference = _pair(2000, 2)
    value = separation.si_sdr_db(estimate, reference)
    assert value == pytest.approx(20.0, abs=0.3)
    assert separation.si_sdr_db(-3 * estimate, 0.1 * reference) == pytest.approx(value)
    assert separation.si_sdr_db(2 * reference, reference) == np.inf
    assert separation.si_sdr_db(1e-9 * estimate, reference) == pytest.approx(value)


def test_si_sdr_of_orthogonal_noise_is_exact():
    reference = np.array([1.0, 1, -1, -1])
    noise = 0.1 * np.array([1.0, -1, 1, -1])
    assert separation.si_sdr_db(reference + noise, reference) == pytest.approx(20.0)
    offset = separation.si_sdr_db(reference + noise + 7, reference + 3, zero_mean=True)
    assert offset == pytest.approx(20.0)
    assert separation.si_sdr_db(reference + noise + 7, reference) < 0


def test_both_definitions_of_usdr():
    reference = np.stack([np.full(100, 1.0), np.full(100, 0.1)], 1)
    estimate = reference + np.array([0.1, 0.1])
    together = 10 * np.log10((100 + 1) / (1 + 1))
    assert separation.usdr_db(estimate, reference) == pytest.approx(together)
    assert separation.usdr_db(estimate, reference, channel_mean=True) == pytest.approx((20 + 0) / 2)


GLOBAL = [separation.sdr_db, separation.si_sdr_db, separation.usdr_db]


@pytest.mark.parametrize("score", GLOBAL)
@pytest.mark.parametrize(
    ("estimate", "reference", "words"),
    [
        (np.ones(5), np.ones(4), "same length"),
        (np.ones((4, 1)), np.ones(4), "same length"),
        (np.array([1, np.nan, 1, 1]), np.ones(4), "estimate has 1 samples that are NaN"),
        (np.ones(4), np.array([1, np.inf, np.nan, 1]), "reference has 2 samples"),
        (np.ones(0), np.ones(0), "empty"),
    ],
)
def test_bad_audio_is_named(score, estimate, reference, words):
    with pytest.raises(ValueError, match=words):
        score(estimate, reference)


@pytest.mark.parametrize(
    ("score", "silent", "equal"),
    [
        (separation.sdr_db, 0.0, 80 + 10 * np.log10(0.25)),
        (separation.si_sdr_db, -np.inf, np.inf),
        (functools.partial(separation.si_sdr_db, zero_mean=True), -np.inf, np.inf),
        (separation.usdr_db, 0.0, 10 * np.log10(2 / 1e-8 + 1)),
        (functools.partial(separation.usdr_db, channel_mean=True), 0.0, 80.0),
    ],
)
def test_what_silence_and_equal_signals_get(score, silent, equal):
    reference = 0.5 * np.array([[1.0, -1], [-1, 1], [1, -1], [-1, 1]])
    assert score(0 * reference, reference) == silent
    assert score(reference, reference) == pytest.approx(equal)
    for estimate in (reference, 0 * reference):
        assert np.isnan(score(estimate, 0 * reference))


def test_what_is_constant_is_silent_without_its_mean():
    reference, constant = np.array([0.5, -0.1, 0.3, 0.2, 0.1, -0.4]), np.full(6, 0.1)
    assert constant.mean() != 0.1, "rounding leaves something of it"
    assert separation.si_sdr_db(constant, reference, zero_mean=True) == -np.inf
    assert np.isnan(separation.si_sdr_db(reference, constant, zero_mean=True))
    assert np.isfinite(separation.si_sdr_db(constant, reference))


# BSS Eval v4 -----------------------------------------------------------------------------------


def _noise(seed: int, count: int) -> np.ndarray:
    """Park and Miller's generator: the same numbers on every machine and version."""
    state, values = seed, np.empty(count)
    for i in range(count):
        state = (48271 * state) % 2147483647
        values[i] = state / 2147483647 - 0.5
    return values


@pytest.fixture(scope="module")
def stems():
    """Two stereo stems of which the second has a silent part, and estimates of them."""
    n = np.arange(12000)
    noise = [_noise(seed, len(n)) for seed in range(1, 9)]
    references = np.stack(
        [
            np.stack([noise[0] + np.sin(0.05 * n), 0.7 * noise[0] + noise[1]], 1),
            np.stack([noise[2] * np.cos(0.001 * n), noise[3] - 0.3 * noise[2]], 1),
        ]
    )
    estimates = 0.8 * references + 0.3 * np.roll(references, 3, axis=1) + 0.2 * references[::-1]
    estimates[0] += 0.1 * np.stack(noise[4:6], 1)
    estimates[1] += 0.05 * np.stack(noise[6:8], 1)
    references[1, 4000:8000] = 0.0
    return estimates, references


# Made once with bss_eval of museval 0.4.1 (museval/metrics.py alone, NumPy 2.4, SciPy 1.17) on the
# signals above: compute_permutation=False and the window, hop and filters_len given here.
NAN = float("nan")
MUSEVAL = {
    (4000, 4000, 512): {
        "sdr_db": [[12.657205, NAN, 12.567261], [4.664368, NAN, 4.450886]],
        "isr_db": [[13.255401, NAN, 13.198612], [8.325871, NAN, 7.942917]],
        "sir_db": [[23.278935, NAN, 23.821342], [5.035634, NAN, 5.523554]],
        "sar_db": [[27.372387, NAN, 27.357198], [15.11554, NAN, 15.039227]],
    },
    (5000, 2500, 32): {
        "sdr_db": [[12.688138, 12.687125, 12.668165], [2.464569, -3.953965, -2.970334]],
        "isr_db": [[13.326263, 13.311791, 13.288264], [9.260295, 9.06806, 9.174962]],
        "sir_db": [[24.043852, 27.141322, 26.720701], [3.804523, -0.040585, 0.792561]],
        "sar_db": [[25.668265, 22.618271, 22.961997], [9.266534, 1.066028, 1.92947]],
    },
}


@pytest.mark.parametrize("sizes", MUSEVAL)
def test_bss_eval_agrees_with_museval(stems, sizes):
    window, hop, taps = sizes
    found = separation.bss_eval_v4(*stems, window_samples=window, hop_samples=hop, filter_taps=taps)
    assert found.keys() == MUSEVAL[sizes].keys()
    for name, expected in MUSEVAL[sizes].items():
        np.testing.assert_allclose(found[name], expected, atol=2e-6, err_msg=name)


def test_bss_eval_without_filters_gives_the_same_sdr(stems):
    found = separation.bss_eval_v4(*stems, window_samples=4000, sdr_only=True)
    assert list(found) == ["sdr_db"]
    np.testing.assert_allclose(found["sdr_db"], MUSEVAL[4000, 4000, 512]["sdr_db"], atol=2e-6)


def test_a_window_longer_than_the_track_is_the_track(stems):
    whole = separation.bss_eval_v4(*stems, window_samples=10**6, sdr_only=True)["sdr_db"]
    assert whole.shape == (2, 1)
    estimates, references = stems
    noise = ((estimates[0] - references[0]) ** 2).sum()
    assert whole[0, 0] == pytest.approx(10 * np.log10((references[0] ** 2).sum() / noise))


def test_medians_leave_silent_windows_out(stems):
    medians = separation.median_over_windows(
        separation.bss_eval_v4(*stems, window_samples=4000, sdr_only=True)
    )
    assert medians["sdr_db"][0] == pytest.approx((12.657205 + 12.567261) / 2, abs=1e-5)
    nothing = separation.median_over_windows({"sdr_db": np.full((2, 3), np.nan)})
    assert np.all(np.isnan(nothing["sdr_db"]))


def test_bss_eval_of_band_limited_stems_is_finite():
    # Hardly any treble: the correlation matrix is singular up to rounding.
    t = np.arange(3000)[:, None]
    references = np.stack([np.sin(0.01 * t) + np.sin(0.03 * t), np.sin(0.02 * t)])
    estimates = references + 0.1 * references[::-1]
    found = separation.bss_eval_v4(estimates, references, window_samples=1000, filter_taps=64)
    assert all(np.all(np.isfinite(values)) for values in found.values())
    np.testing.assert_allclose(found["sdr_db"][0], 20, atol=6)


def test_bss_eval_refuses_what_it_cannot_score(stems):
    estimates, references = stems
    with pytest.raises(ValueError, match="same length"):
        separation.bss_eval_v4(estimates[:, 1:], references, window_samples=4000)
    with pytest.raises(ValueError, match="must be positive"):
        separation.bss_eval_v4(estimates, references, window_samples=0)


def test_bss_eval_of_silence(stems):
    """An estimate that is silent throughout is punished, and leaves the other stem as it is."""
    estimates, references = stems
    found = separation.bss_eval_v4(estimates * [[[1]], [[0]]], references, window_samples=4000)
    for name, (first, _) in MUSEVAL[4000, 4000, 512].items():
        np.testing.assert_allclose(found[name][0], first, atol=2e-6)
    for name, value in {"sdr": 0.0, "isr": 0.0, "sir": -np.inf, "sar": -np.inf}.items():
        np.testing.assert_allclose(found[f"{name}_db"][1], [value, NAN, value], atol=1e-9)
    part = estimates.copy()
    part[1, :4000] = 0.0
    found = separation.bss_eval_v4(part, references, window_samples=4000, sdr_only=True)
    assert np.isnan(found["sdr_db"][:, :2]).all() and np.isfinite(found["sdr_db"][:, 2]).all()
    nothing = separation.bss_eval_v4(estimates, references * [[[1]], [[0]]], window_samples=4000)
    assert all(np.isnan(values).all() for values in nothing.values())
    equal = separation.bss_eval_v4(references, references, window_samples=4000, sdr_only=True)
    np.testing.assert_array_equal(equal["sdr_db"][:, 0], np.inf)


def test_bss_eval_on_music_agrees_with_the_published_reference():
    """The public regression test: noise as estimates of an excerpt of MUSDB18."""
    av = pytest.importorskip("av", reason="decoding .stem.mp4 needs PyAV")
    if not MUSDB18.is_dir():
        pytest.skip("the MUSDB18 excerpt is not beside this checkout")
    recording = next(MUSDB18.glob("train/*.stem.mp4"))
    _, drums, bass, other, vocals = (_decode(av, recording, stream) for stream in range(5))
    references = np.stack([vocals, drums + bass + other])
    generator = np.random.RandomState(0)
    estimates = np.stack([generator.random_sample(vocals.shape) for _ in range(2)])
    found = separation.bss_eval_v4(estimates, references, window_samples=44100)
    published = json.loads(next(MUSDB18.glob("*.museval_reference.json")).read_text())
    for row, target in enumerate(published["targets"]):
        for name in ("SDR", "ISR", "SIR", "SAR"):
            expected = [frame["metrics"][name] for frame in target["frames"]]
            # The filters reach into the last bit of what each AAC decoder makes of the treble.
            tolerance = 1e-4 if name == "SDR" else 0.15
            values = found[f"{name.lower()}_db"][row]
            np.testing.assert_allclose(values, expected, atol=tolerance, err_msg=name)


def _decode(av, path, stream):
    with av.open(str(path)) as container:
        frames = [f.to_ndarray() for f in container.decode(container.streams.audio[stream])]
    samples = np.concatenate(frames, axis=1).T.astype(np.float64)
    return np.clip(np.round(samples * 32768), -32768, 32767) / 32768  # the reference was 16 bit


# Melody ----------------------------------------------------------------------------------------


def _curves():
    rng = np.random.default_rng(0)
    truth = np.where(rng.random(400) < 0.3, 0.0, 200 * 2 ** rng.random(400))
    guess = np.where(truth > 0, truth, 300.0) * 2 ** (rng.normal(0, 40, 400) / 1200)
    guess *= np.where(rng.random(400) < 0.1, 2.0, 1.0)  # octave errors
    confidence = np.clip(np.where(truth > 0, 0.7, 0.35) + rng.normal(0, 0.2, 400), 0, 1)
    return guess, confidence, truth


@pytest.mark.parametrize("mode", ["thresholded", "mirex"])
def test_melody_scores_are_those_of_mir_eval(mode):
    guess, confidence, truth = _curves()
    voiced = confidence >= 0.5
    unvoiced = 0.0 if mode == "thresholded" else -guess  # mir_eval's sign for a guess
    times = np.arange(400) * 0.02
    expected = mir_eval.melody.evaluate(times, truth, times, np.where(voiced, guess, unvoiced))
    found = pitch.melody_scores(guess, confidence, truth, rpa_mode=mode)
    names = {
        "rpa": "Raw Pitch Accuracy",
        "rca": "Raw Chroma Accuracy",
        "oa": "Overall Accuracy",
        "vr": "Voicing Recall",
        "vfa": "Voicing False Alarm",
    }
    assert found == pytest.approx({key: expected[name] for key, name in names.items()})


def test_modes_differ_in_pitch_only():
    curves = _curves()
    hard, soft = (pitch.melody_scores(*curves, rpa_mode=m) for m in ("thresholded", "mirex"))
    assert soft["rpa"] > hard["rpa"] and soft["rca"] > hard["rca"] > hard["rpa"]
    assert all(soft[name] == hard[name] for name in ("oa", "vr", "vfa"))


def test_threshold_and_labels_choose_frames():
    truth, guess = np.array([100.0, 100, 0, 0]), np.array([100.0, 150, 100, 100])
    confidence = np.array([0.6, 0.9, 0.2, 0.6])
    found = pitch.melody_scores(guess, confidence, truth)
    assert found == {"rpa": 0.5, "rca": 0.5, "oa": 0.5, "vr": 1.0, "vfa": 0.5}
    strict = pitch.melody_scores(guess, confidence, truth, pitch_threshold=0.7)
    assert strict == {"rpa": 0.0, "rca": 0.0, "oa": 0.5, "vr": 0.5, "vfa": 0.0}
    labelled = np.array([True, False, True, False])
    part = pitch.melody_scores(guess, confidence, truth, labelled=labelled)
    assert part == {"rpa": 1.0, "rca": 1.0, "oa": 1.0, "vr": 1.0, "vfa": 0.0}


def test_the_best_voicing_threshold_is_that_of_a_search_with_mir_eval():
    guess, confidence, truth = _curves()
    half = len(truth) // 2
    tracks = [(guess[part], confidence[part], truth[part]) for part in (np.s_[:half], np.s_[half:])]
    accuracies = [
        np.mean([pitch.melody_scores(*one, pitch_threshold=at)["oa"] for one in tracks])
        for at in pitch.VOICING_THRESHOLDS
    ]
    threshold, accuracy = pitch.best_voicing_threshold(tracks)
    assert accuracy == pytest.approx(max(accuracies))
    best = np.flatnonzero(np.isclose(accuracies, max(accuracies), atol=1e-12))
    assert threshold in pitch.VOICING_THRESHOLDS[best]
    assert 0.3 < threshold < 0.7 and max(accuracies) > min(accuracies) + 0.1
    assert np.isnan(pitch.best_voicing_threshold([])).all()


def test_scores_without_frames_are_nan():
    guess, confidence = np.full(4, 100.0), np.ones(4)
    silent = pitch.melody_scores(guess, confidence, np.zeros(4))
    assert all(np.isnan(silent[name]) for name in ("rpa", "rca", "vr")) and silent["vfa"] == 1.0
    assert silent["oa"] == 0.0
    assert np.isnan(pitch.melody_scores(guess, confidence, guess)["vfa"])


@pytest.mark.parametrize("mode", ["thresholded", "mirex"])
def test_an_estimate_without_pitch_and_one_that_is_right(mode):
    truth = np.array([100.0, 200, 0, 0])
    blank = pitch.melody_scores(np.zeros(4), np.zeros(4), truth, rpa_mode=mode)
    assert blank == {"rpa": 0.0, "rca": 0.0, "oa": 0.5, "vr": 0.0, "vfa": 0.0}
    right = pitch.melody_scores(truth, np.ones(4), truth, rpa_mode=mode)
    assert right == {"rpa": 1.0, "rca": 1.0, "oa": 1.0, "vr": 1.0, "vfa": 0.0}


def test_multi_pitch_of_nothing_and_of_what_is_right():
    times_s = np.arange(3) * 0.1
    truth, nothing = [np.array([100.0, 200.0]), np.array([300.0]), np.array([])], [np.array([])] * 3
    blank = pitch.multi_pitch_scores(times_s, nothing, times_s, truth)
    right = pitch.multi_pitch_scores(times_s, truth, times_s, truth)
    assert set(blank.values()) == {0.0} and right == pytest.approx(dict.fromkeys(right, 1.0))
    undefined = pitch.multi_pitch_scores(times_s, truth, times_s, nothing)
    assert all(map(np.isnan, undefined.values()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reference_f0_hz": np.zeros(3)}, "one frame grid"),
        ({"confidence": np.array([0, 1, np.nan, 0])}, "confidence has 1 values"),
        ({"labelled": np.zeros(4, bool)}, "no labelled frame"),
    ],
)
def test_bad_curves_are_named(change, words):
    curves = {name: np.ones(4) for name in ("estimate_f0_hz", "confidence", "reference_f0_hz")}
    with pytest.raises(ValueError, match=words):
        pitch.melody_scores(**(curves | change))
