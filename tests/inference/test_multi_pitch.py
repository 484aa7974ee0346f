"""Whole tracks: windows against one pass, peaks, scores against mir_eval, rows that the report
reads.
"""

import functools
import json
import math

import jax
import jax.numpy as jnp
import mir_eval
import numpy as np
import pytest
import tiny_multi_pitch as tiny

from majl_jax.audio import files, harmonic_cqt
from majl_jax.evaluation.examples import ForReport
from majl_jax.evaluation.multi_pitch import score_track, score_tracks, sounding_frames
from majl_jax.evaluation.rows import read_rows, text_table
from majl_jax.inference import decoding, multi_pitch
from majl_jax.metrics import pitch
from majl_jax.models.timbre_trap import TimbreTrap
from majl_jax.report import run_page

GAIN = {"gain": np.float32(1.0)}


def sound(samples, seed=0):
    """Louder and louder, so that the largest magnitude lies in the last window."""
    rng = np.random.default_rng(seed)
    envelope = 0.1 + np.arange(samples) / 20_000
    return (rng.uniform(-1, 1, samples) * envelope).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def one_pass(model, variables, audio):
    features = harmonic_cqt.unit_decibels(model.apply_magnitudes(audio[None]))
    return model.apply_features(variables, features, jnp.ones(features.shape[:2], bool))[0]


MODEL, WEIGHTS = tiny.make(), tiny.weights()


@pytest.mark.parametrize("samples", [1, 64, 2047, 20_001])
def test_windows_give_what_one_pass_gives(samples):
    audio = sound(samples)
    found = multi_pitch.transcribe(MODEL, WEIGHTS, audio, batch_size=3)
    assert found.shape == (1 + samples // tiny.HOP, 25)
    np.testing.assert_allclose(found, one_pass(MODEL, WEIGHTS, audio), atol=1e-5)


def test_too_little_context_reach_or_reference_would_be_seen():
    audio = sound(20_001)
    whole = one_pass(MODEL, WEIGHTS, audio)
    for changes in ({"context_frames": 6}, {"reach_samples": 64}):
        found = multi_pitch.transcribe(tiny.make(**changes), WEIGHTS, audio, batch_size=3)
        assert np.abs(found - whole).max() > 1e-3, changes
    half = multi_pitch.transcribe(MODEL, WEIGHTS, audio[:6000], batch_size=3)
    assert np.abs(half[:80] - whole[:80]).max() > 1e-3  # another largest magnitude


def test_magnitudes_that_are_not_kept_are_computed_again(monkeypatch):
    audio = sound(20_001)
    kept = multi_pitch.transcribe(MODEL, WEIGHTS, audio, batch_size=3)
    monkeypatch.setattr(multi_pitch, "KEPT_BYTES", 0)
    again = multi_pitch.transcribe(MODEL, WEIGHTS, audio, batch_size=3)
    np.testing.assert_array_equal(again, kept)


def test_all_devices_of_the_process_give_the_numbers_of_one():
    audio, devices = sound(20_001), jax.local_devices()
    one = multi_pitch.transcribe(MODEL, WEIGHTS, audio, devices=devices[:1])
    assert len(devices) == 4
    np.testing.assert_allclose(multi_pitch.transcribe(MODEL, WEIGHTS, audio), one, atol=1e-5)


def test_every_length_runs_the_same_compiled_programs():
    traced = []

    def counted(variables, features, frame_mask):
        traced.append(features.shape)
        return tiny.network(variables, features, frame_mask)

    model = tiny.make(counted)
    for samples in (100, 5000, 30_000):
        stretches = list(multi_pitch.stream(model, tiny.weights(), sound(samples), batch_size=2))
        assert max(map(len, stretches)) <= 2 * model.new_frames
    assert len(traced) == 1


@pytest.mark.slow
def test_the_network_of_the_paper_in_windows_gives_what_one_pass_gives():
    front_end = harmonic_cqt.HarmonicCqt(
        sample_rate_hz=8000, hop_samples=128, fmin_hz=220.0, bins=46, bins_per_octave=12,
        harmonics=(1.0, 2.0), method="direct",
    )  # fmt: skip
    net = TimbreTrap(bins=46, harmonics=2, complexity=1, latent=8)

    def apply(variables, features, frame_mask):
        return jax.nn.sigmoid(net.apply(variables, features, frame_mask))

    model = multi_pitch.MultiPitchModel(
        apply_magnitudes=front_end.magnitudes,
        apply_features=apply,
        sample_rate_hz=8000,
        hop_samples=128,
        bin_hz=front_end.frequencies_hz[0],
        reach_samples=512,
        window_frames=160,
    )
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 4, 46, 2)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype("f4"), shapes)
    audio = sound(24_001)
    found = multi_pitch.transcribe(model, variables, audio, batch_size=1)
    whole = np.asarray(one_pass(model, variables, audio))
    np.testing.assert_allclose(found, whole, atol=1e-5)
    assert whole.std() > 1e-3  # not a constant


def test_silence_has_features_of_zero():
    found = multi_pitch.transcribe(tiny.make(tiny.first_harmonic), GAIN, np.zeros(5000, np.float32))
    assert found.shape == (79, 25) and not found.any()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        multi_pitch.transcribe(tiny.make(), {}, np.zeros(0, np.float32))
    with pytest.raises(ValueError, match="reach_samples is 100"):
        tiny.make(reach_samples=100)
    with pytest.raises(ValueError, match="more than twice the context"):
        tiny.make(window_frames=16)
    with pytest.raises(ValueError, match="salience of"):
        wrong = tiny.make(tiny.first_harmonic, bin_hz=tiny.BIN_HZ[:-1])
        multi_pitch.transcribe(wrong, GAIN, sound(1000))


# Peaks and scores --------------------------------------------------------------------------------


def test_picked_are_strict_maxima_that_reach_the_threshold():
    rows = np.array([[0.9, 0.2, 0.6], [0.5, 0.7, 0.6], [0.6, 0.1, 0.2], [0.4, 0.8, 0.9]]).T
    picked = decoding.pick_pitches(rows.astype(np.float32), threshold=0.5)
    np.testing.assert_array_equal(picked.T > 0, [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 1]])
    exact = decoding.pick_pitches(np.array([[0.5, 0.0, 0.4]], np.float32), threshold=0.5)
    np.testing.assert_array_equal(exact, np.array([[0.5, 0.0, 0.0]], np.float32))
    hz = decoding.pitches_hz(picked, np.array([100.0, 200.0, 300.0, 400.0]))
    assert [frame.tolist() for frame in hz] == [[100, 300], [200, 400], [400]]
    many = np.random.default_rng(0).uniform(size=(2050, 7)).astype(np.float32)
    whole = decoding.pick_pitches(many, threshold=0.3)
    np.testing.assert_array_equal(decoding.pick_pitches(many[:1500], threshold=0.3), whole[:1500])


def golden():
    """Times and pitches whose scores the authors' evaluation gives as P .4, R .5, F1 .44444."""
    truth = [np.array([440.0, 220.0])] * 6 + [np.zeros(0)] * 4
    guess = [np.array([445.0])] * 4 + [np.array([440.0, 660.0])] * 5
    return np.arange(9) * 256 / 22050, guess, np.arange(10) * 0.01, truth


def test_scores_are_those_of_the_authors_evaluation():
    found = pitch.multi_pitch_scores(*golden())
    expected = {"precision": 0.4, "recall": 0.5, "f1": 0.44444, "accuracy": 0.28571}
    assert found == pytest.approx(expected, abs=5e-6)


def test_scores_are_those_of_mir_eval():
    rng = np.random.default_rng(3)
    times = np.arange(60) * 0.01
    truth = [440 * 2 ** rng.uniform(-1, 1, rng.integers(0, 4)) for _ in times]
    guess = [frame * 2 ** rng.uniform(-0.08, 0.08, len(frame)) for frame in truth]
    ours = pitch.multi_pitch_scores(times + 0.002, guess, times, truth)
    theirs = mir_eval.multipitch.evaluate(times, truth, times + 0.002, guess)
    for name in ("Precision", "Recall", "Accuracy"):
        assert 0.2 < ours[name.lower()] < 1 and ours[name.lower()] == pytest.approx(theirs[name])


def test_blank_estimates_and_blank_references():
    grid, guess, times, truth = golden()
    blank = pitch.multi_pitch_scores(grid, [np.zeros(0)] * 9, times, truth)
    assert blank == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 0.0}
    nothing = pitch.multi_pitch_scores(grid, guess, times, [np.zeros(0)] * 10)
    assert all(math.isnan(value) for value in nothing.values())
    empty = np.zeros(0)
    assert math.isnan(pitch.multi_pitch_scores(grid, guess, empty, [])["f1"])
    far = [np.append(frame, [10.0, 6000.0]) for frame in guess]  # beyond what mir_eval takes
    assert pitch.multi_pitch_scores(grid, far, times, truth)["precision"] == pytest.approx(0.4)
    with pytest.raises(ValueError, match="estimate has 1 pitches that are NaN"):
        pitch.multi_pitch_scores(grid, [*guess[:-1], np.array([np.nan])], times, truth)
    with pytest.raises(ValueError, match="reference has 9 times, but 10 lists"):
        pitch.multi_pitch_scores(grid, guess, times[:9], truth)
    with pytest.raises(ValueError, match="do not increase"):
        pitch.multi_pitch_scores(grid[::-1], guess, times, truth)


def test_sounding_frames_are_those_of_librosa():
    import librosa

    audio = sound(5000) * (np.arange(5000) > 2500) * 0.06
    rms = librosa.feature.rms(y=audio, frame_length=2048, hop_length=64)[0]
    found = sounding_frames(audio, len(rms), hop_samples=64)
    np.testing.assert_array_equal(found, rms > 0.01)
    assert found.any() and not found.all()


def test_detectors_of_a_track():
    model = tiny.make(tiny.first_harmonic)
    salience = np.zeros((100, 25), np.float32)
    salience[:40, 3], salience[:40, 10], salience[40:60, 5] = 0.9, 0.6, 0.4
    audio = tiny.tones(3, 10, seconds=0.8)[: 99 * tiny.HOP]
    audio[70 * tiny.HOP :] = 0.0  # sounds up to frame 70, and 1024 samples = 16 frames beyond
    f0_hz = np.zeros((99, 3), np.float32)
    f0_hz[:80, :2] = tiny.BIN_HZ[[3, 10]]
    has_pitch = np.ones((99, 3), bool)
    has_pitch[60:] = False  # 60 labelled frames
    found = score_track(model, salience, audio, f0_hz, has_pitch)
    assert found == pytest.approx(
        {
            "precision": 1.0,
            "recall": 40 / 60,
            "f1": 0.8,
            "accuracy": 40 / 60,
            "average_precision": 80 / 120,
            # In logits above silence, -13.8: 40, 20 and 26 of the sounding frames.
            "contrast": (40 * np.log(9.0) + 20 * np.log(2 / 3) + 60 * np.log(999_999)) / 86,
            "activation_mass": (40 * 1.5 + 20 * 0.4) / 100,
            "polyphony": 0.8,
            "silent_share": 46 / 86,
        }
    )
    low = score_track(model, salience, audio, f0_hz, has_pitch, threshold=0.4)
    assert low["precision"] == pytest.approx(80 / 100) and low["silent_share"] == 26 / 86
    has_pitch[:, 2] = False  # a voice without labels: the set of pitches is not known
    blind = score_track(model, salience, audio, f0_hz, has_pitch)
    assert math.isnan(blind["f1"]) and blind["polyphony"] == 0.8


def record(name, *numbers, channels=1, seconds=1.0, labelled=True):
    """A track of one stem that holds tones; labels are right, whatever the stem is."""
    audio = tiny.tones(*numbers, seconds=seconds)
    frames = len(audio) // tiny.HOP
    f0_hz = np.zeros((frames, 3), np.float32)
    f0_hz[:, : len(numbers)] = tiny.BIN_HZ[list(numbers)]
    return {
        "track": name,
        "stems": np.repeat((8000 * audio).astype(np.int16)[:, None, None], channels, axis=2),
        "has_stems": np.array([True]),
        "f0_hz": f0_hz,
        "has_pitch": np.full((frames, 3), labelled),
    }


def test_tracks_are_scored_written_and_shown_in_the_report(tmp_path):
    model = tiny.make(tiny.first_harmonic, threshold=0.97)
    folder = tmp_path / "run" / "main"
    tracks = [
        record("low", 2),
        record("two", 2, 20, channels=2),
        record("no labels", 9, labelled=False),
        record("silence"),
    ]
    listen = lambda audio: (np.arange(2) * 0.1, [tiny.BIN_HZ[[2]]] * 2)  # noqa: E731
    options = {"system": "ss_mpe", "references": {"Basic Pitch": listen}}
    options |= {"report": ForReport(folder, example_count=2, example_seconds=0.5)}
    found = score_tracks(model, GAIN, tracks, **options)
    rows = read_rows(folder / "tracks.jsonl")
    assert [row["track"] for row in rows if row["system"] == "ss_mpe"] == [
        t["track"] for t in tracks
    ]
    assert len(rows) == 8 and rows[0]["seconds"] == 1.0
    # In the frame at sample 0 the tone fills half of the filters.
    assert rows[0]["f1"] > 0.99 and rows[2]["f1"] > 0.99
    assert rows[4]["skipped"]["f1"] == "no pitch is annotated" == rows[6]["skipped"]["recall"]
    assert rows[6]["skipped"]["silent_share"] == "the track is silent"
    assert found["f1"] > 0.99 and found["f1_skipped"] == 2
    assert found["polyphony"] == pytest.approx((1 + 2 + 1 + 0) / 4, abs=0.05)
    assert found["silent_share"] == pytest.approx(0.0, abs=0.02)
    assert found["silent_share_skipped"] == 1 and found["activation_mass"] > 0
    assert found["Basic_Pitch/precision"] == 1.0
    assert found["Basic_Pitch/recall"] == pytest.approx((13 / 125 + 13 / 250) / 2, rel=0.05)

    audio, rate_hz = files.read(folder / "examples/two/mixture.wav")
    assert len(audio) == pytest.approx(0.5 * rate_hz, rel=0.1)
    assert {path.name for path in (folder / "examples").iterdir()} == {"low", "two"}

    more = {"system": "ss_mpe", "report": ForReport(folder)}
    score_tracks(model, GAIN, [record("low", 3), record("new", 1)], **more)
    again = read_rows(folder / "tracks.jsonl")
    assert len(again) == 9 and {row["track"] for row in again} > {"new", "two"}
    (tmp_path / "run" / "config.json").write_text(json.dumps({"config": {"recipe": "ss_mpe"}}))
    page = run_page.write_report(tmp_path / "run").read_text()
    assert "sounding frames without a pitch" in page and "Basic Pitch" in page
    assert "F1 %" in text_table(again)
    assert (
        'src="main/examples/two/picture.png"' in page
        and 'src="main/examples/low/mixture.wav"' in page
    )


def test_a_blank_or_broken_model_is_told_apart():
    tracks = [record("one", 2), record("two", 8, 16)]
    blank = score_tracks(tiny.make(tiny.first_harmonic), {"gain": 0.1}, tracks)
    assert blank["recall"] == blank["f1"] == blank["polyphony"] == 0.0
    assert blank["silent_share"] == 1.0 and blank["activation_mass"] > 0
    broken = score_tracks(tiny.make(tiny.first_harmonic), {"gain": np.float32(np.nan)}, tracks)
    assert math.isnan(broken["f1"]) and broken["f1_skipped"] == 2


def test_no_tracks_and_labels_on_another_grid_are_errors():
    model = tiny.make(tiny.first_harmonic)
    with pytest.raises(ValueError, match="split is empty"):
        score_tracks(model, GAIN, [])
    other = record("other hop", 2)
    for key in ("f0_hz", "has_pitch"):
        other[key] = np.repeat(other[key], 2, axis=0)
    with pytest.raises(ValueError, match="other hop has 250 frames"):
        score_tracks(model, GAIN, [other])
