"""Whole tracks: joints without clicks, every length, constant memory, and scores that are right."""

import json
import math

import jax
import numpy as np
import pytest

from majl_jax.audio import files
from majl_jax.evaluation import target
from majl_jax.evaluation.examples import ForReport
from majl_jax.evaluation.rows import read_rows
from majl_jax.inference import decoding, segments
from majl_jax.metrics import separation

HOP, SEGMENT, RATE_HZ = 32, 256, 1000
BINS = 1997.3794 + 20.0 * np.arange(60)


def identity(variables, audio):
    """The input as the only stem; the sample at each frame's centre as the salience of all bins."""
    centres = audio.reshape(audio.shape[0], -1, HOP, audio.shape[2])[:, :, 0]
    return {
        "stems": variables["gain"] * audio[:, :, None],
        "salience": centres.mean(2, keepdims=True).repeat(len(BINS), 2),
    }


def make_model(apply=identity, **changes):
    grid = {"sample_rate_hz": RATE_HZ, "segment_samples": SEGMENT, "hop_samples": HOP}
    return segments.SegmentModel(
        **{"apply": apply, **grid, "stems": ("voice",), "bin_cents": BINS, **changes}
    )


MODEL = make_model()
UNITY = {"gain": np.float32(1)}


def noise(samples, channels=1):
    return np.random.default_rng(samples).uniform(-1, 1, (samples, channels)).astype(np.float32)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75, 0.9])
def test_an_identity_separator_returns_its_input_at_every_length(overlap):
    for samples in (1, 31, 32, 33, 255, 256, 257, 383, 384, 385, 511, 512, 513, 1000, 5000):
        audio = noise(samples)
        out = segments.apply_track(MODEL, UNITY, audio, overlap=overlap, batch_size=4)
        assert out["stems"].shape == (samples, 1, 1)
        np.testing.assert_allclose(out["stems"][:, 0], audio, atol=3e-7)
        assert out["salience"].shape == (math.ceil(samples / HOP), len(BINS))
        np.testing.assert_allclose(out["salience"][:, 7], audio[::HOP, 0], atol=3e-7)


@pytest.mark.parametrize("reach", [HOP, 70, 3 * HOP])
@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.5, 0.9])
def test_a_frame_hears_its_song_not_the_end_of_its_segment(overlap, reach):
    def loudness(variables, audio):
        """The energy of `reach` samples at either side of a frame's centre, zeros outside."""
        padded = np.pad(np.asarray(audio[..., 0]), ((0, 0), (reach, reach)))
        starts = range(0, audio.shape[1], HOP)
        energies = [np.square(padded[:, start : start + 2 * reach]).sum(1) for start in starts]
        return np.stack(energies, 1)[..., None].repeat(len(BINS), 2).astype(np.float32)

    def apply(variables, audio):
        shape = jax.ShapeDtypeStruct((*audio.shape[:1], audio.shape[1] // HOP, len(BINS)), "f4")
        return {"salience": jax.pure_callback(loudness, shape, variables, audio)}

    model = make_model(apply, stems=(), frame_reach_samples=reach)
    for samples in (1, 255, 257, 400, 1000, 5000):
        audio = noise(samples)
        out = segments.apply_track(model, UNITY, audio, overlap=overlap, batch_size=4)
        frames = math.ceil(samples / HOP)
        whole = np.pad(audio, ((0, frames * HOP - samples), (0, 0)))
        expected = loudness(UNITY, whole[None])[0]
        np.testing.assert_allclose(out["salience"], expected, rtol=1e-4)


def test_a_segment_in_which_no_frame_is_heard_whole_is_refused():
    with pytest.raises(ValueError, match="segment_samples is 256; a frame reaches 128 samples"):
        make_model(frame_reach_samples=128)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_channels_stay_apart(channels):
    audio = noise(1234, channels)
    out = segments.apply_track(make_model(channels=channels), UNITY, audio)
    np.testing.assert_allclose(out["stems"][:, 0], audio, atol=3e-7)


def test_segments_that_disagree_are_faded_into_each_other_without_a_click():
    def loudness(variables, audio):  # every segment gives a constant of its own
        level = variables["gain"] * abs(audio).max((1, 2), keepdims=True)
        return {"stems": (level * (0 * audio + 1))[:, :, None]}

    audio = np.linspace(0, 1, 4000, dtype=np.float32)[:, None] ** 4
    model = make_model(loudness, bin_cents=None)
    out = segments.apply_track(model, UNITY, audio)["stems"][:, 0, 0]
    levels = [audio[s : s + SEGMENT].max() for s in range(0, 4000 - SEGMENT, SEGMENT // 2)]
    largest_step = np.max(np.diff(levels))
    # sin^2 over 128 samples rises by at most pi / 2 / 128 of the difference per sample.
    assert np.abs(np.diff(out)).max() < largest_step * 1.6 / (SEGMENT // 2)
    hard = segments.apply_track(model, UNITY, audio, overlap=0.0)["stems"][:, 0, 0]
    assert np.abs(np.diff(hard)).max() > largest_step  # what the fade is there for


def test_without_a_crossfade_segments_are_averaged_where_they_overlap():
    def numbered(variables, audio):  # the value of each segment's first sample
        return {"stems": (0 * audio + audio[:, :1])[:, :, None] * variables["gain"]}

    audio = np.arange(4 * SEGMENT, dtype=np.float32)[:, None]
    model = make_model(numbered, bin_cents=None, crossfade=False)
    out = segments.apply_track(model, UNITY, audio)["stems"][:, 0, 0]
    half = SEGMENT // 2
    starts = half * np.arange(7)
    expected = [0.0, *(starts[1:] + starts[:-1]) / 2, starts[-1]]
    np.testing.assert_allclose(out, np.repeat(expected, half), rtol=1e-6)


def test_streaming_in_blocks_of_any_size_equals_the_whole():
    audio = noise(3001)
    whole = segments.apply_track(MODEL, UNITY, audio, batch_size=4)
    for size in (1, 7, 100, 256, 1000, 5000):
        blocks = (audio[first : first + size] for first in range(0, len(audio), size))
        parts = list(segments.stream(MODEL, UNITY, blocks, batch_size=4))
        for name, value in whole.items():
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), value)


@pytest.mark.parametrize("name", segments.OUTPUTS)
def test_what_is_not_wanted_is_not_computed(name):
    audio = noise(1000)
    whole = segments.apply_track(MODEL, UNITY, audio)
    parts = list(segments.stream(MODEL, UNITY, [audio], wanted=(name,)))
    assert all(set(part) == {name} for part in parts)
    np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])
    # The gain is of the stems alone.
    program = segments._program(MODEL, tuple(jax.local_devices()[:1]), frozenset({name}))
    lowered = program.lower(UNITY, np.zeros((1, SEGMENT, 1), np.float32))
    assert ("multiply" in lowered.as_text()) == (name == "stems")


def test_memory_and_compilations_do_not_depend_on_the_length():
    shapes, ahead, sizes = [], [], []

    def traced(variables, audio):
        shapes.append(audio.shape)
        return identity(variables, audio)

    model = make_model(traced)
    for blocks in (3, 300):
        given = 0

        def feed(blocks=blocks):
            nonlocal given
            for number in range(blocks):
                given += 100
                yield noise(100 + number)[:100]

        taken = 0
        for part in segments.stream(model, UNITY, feed(), batch_size=4):
            ahead.append(given - taken)
            taken += len(part["stems"])
            sizes.append(len(part["stems"]))
        assert taken == 100 * blocks
    assert len(set(shapes)) == 1 and len(shapes) == 1  # traced, so compiled, once for both lengths
    assert max(ahead) <= 4 * SEGMENT + 100 and max(sizes) <= 4 * SEGMENT


def test_rows_that_fill_up_the_batch_do_not_count():
    def sums(variables, audio):  # silent rows give something loud
        return {"stems": variables["gain"] * (audio + (abs(audio).max((1, 2), keepdims=True) == 0))}

    def with_stem_axis(variables, audio):
        return {"stems": sums(variables, audio)["stems"][:, :, None]}

    audio = noise(300)
    model = make_model(with_stem_axis, bin_cents=None)
    for batch_size in (1, 3, 8, 16):
        out = segments.apply_track(model, UNITY, audio, batch_size=batch_size)["stems"]
        np.testing.assert_allclose(out[:, 0], audio, atol=3e-7)


def test_all_devices_of_the_process_give_the_numbers_of_one():
    audio = noise(4000)

    def fft(variables, audio):
        return {"stems": jax.numpy.fft.irfft(jax.numpy.fft.rfft(audio, axis=1), axis=1)[:, :, None]}

    model = make_model(fft, bin_cents=None)
    one = segments.apply_track(model, UNITY, audio, devices=jax.local_devices()[:1])
    four = segments.apply_track(model, UNITY, audio, devices=jax.local_devices())
    assert len(jax.local_devices()) == 4
    np.testing.assert_allclose(four["stems"], one["stems"], atol=1e-6)


def test_silence_gives_silence():
    out = segments.apply_track(MODEL, UNITY, np.zeros((1000, 1), np.float32))
    assert not out["stems"].any() and not out["salience"].any()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="no samples"):
        segments.apply_track(MODEL, UNITY, np.zeros((0, 1), np.float32))
    with pytest.raises(ValueError, match=r"\[time, 1\]"):
        segments.apply_track(MODEL, UNITY, noise(100, 2))
    with pytest.raises(ValueError, match="overlap is 1"):
        segments.apply_track(MODEL, UNITY, noise(100), overlap=1.0)
    with pytest.raises(ValueError, match="multiple of hop_samples"):
        make_model(segment_samples=250)
    with pytest.raises(ValueError, match="stems of shape"):
        short = make_model(lambda v, a: {"stems": a[:, :-1, None]}, bin_cents=None)
        segments.apply_track(short, UNITY, noise(100))
    with pytest.raises(ValueError, match="gives no"):
        segments.apply_track(make_model(lambda v, a: {}), UNITY, noise(100))


def salience_of(f0_hz, strength=0.9):
    """Salience whose local average is f0_hz; voiced where it is not 0."""
    cents = 1200 * np.log2(np.maximum(f0_hz, 1) / 10)
    nearness = np.exp(-0.5 * ((BINS - cents[:, None]) / 25) ** 2)
    return (strength * nearness * (f0_hz > 0)[:, None]).astype(np.float32)


def test_decoding_is_the_same_for_every_number_of_frames():
    f0_hz = np.geomspace(40, 60, 3000)
    salience = salience_of(f0_hz)
    found_hz, confidence = decoding.decode_pitch(salience, BINS)
    np.testing.assert_allclose(1200 * np.log2(found_hz / f0_hz), 0, atol=1.0)
    assert confidence.min() > 0.8 and confidence.max() <= 0.9
    for frames in (0, 1, 1023, 1024, 1025):
        some_hz, _ = decoding.decode_pitch(salience[:frames], BINS)
        np.testing.assert_allclose(some_hz, found_hz[:frames], rtol=1e-6)


def record(name, samples=2000, *, voice=True, has_stems=True, has_pitch=True, f0_hz=50.0):
    time = np.arange(samples) / RATE_HZ
    stems = np.zeros((samples, 2, 1), np.int16)
    stems[:, 0, 0] = voice * 8000 * np.sin(2 * np.pi * 50 * time)
    stems[:, 1, 0] = 8000 * np.random.default_rng(1).uniform(-1, 1, samples)
    frames = samples // HOP
    return {
        "track": name,
        "stems": stems,
        "has_stems": np.array([has_stems, has_stems]),
        "f0_hz": np.full((frames, 2), f0_hz, np.float32),
        "has_pitch": np.full((frames, 2), has_pitch),
    }


def half(variables, audio):
    """The mixture times the gain as the voice; always 50 Hz."""
    frames = audio.shape[1] // HOP
    salience = jax.numpy.asarray(salience_of(np.full(frames, 50.0)))
    return {
        "stems": variables["gain"] * audio[:, :, None],
        "salience": jax.numpy.broadcast_to(salience, (audio.shape[0], *salience.shape)),
    }


def wrong_pitch(variables, audio):
    salience = jax.numpy.asarray(salience_of(np.full(audio.shape[1] // HOP, 43.0)))
    return {"salience": jax.numpy.broadcast_to(salience, (audio.shape[0], *salience.shape))}


@pytest.mark.slow
def test_scores_of_tracks_are_written_aggregated_and_right(tmp_path):
    tracks = [record("one"), record("two/..", 3000), record("three", 1000)]
    result = target.score_tracks(
        make_model(half),
        {"gain": np.float32(0.5)},
        tracks,
        system="majl",
        target=target.Target(pitch_model=make_model(wrong_pitch, stems=()), bss_eval=True),
        report=ForReport(tmp_path, example_count=2),
    )
    rows = read_rows(tmp_path / "tracks.jsonl")
    assert [(r["track"], r["system"]) for r in rows[:3]] == [
        ("one", "majl"),
        ("one", "mixture"),
        ("one", "true stem"),
    ]
    assert len(rows) == 9 and [r["seconds"] for r in rows[::3]] == [2.0, 3.0, 1.0]
    float_stems = [t["stems"][..., 0] / 32768 for t in tracks]
    sdrs = [separation.sdr_db(0.5 * s.sum(1), s[:, 0]) for s in float_stems]
    mixture = [separation.sdr_db(s.sum(1), s[:, 0]) for s in float_stems]
    np.testing.assert_allclose([r["sdr_db"] for r in rows[::3]], sdrs, atol=1e-4)
    np.testing.assert_allclose([r["sdr_db"] for r in rows[1::3]], mixture, atol=1e-4)
    assert result["sdr_db_mean"] == pytest.approx(np.mean(sdrs), abs=1e-4)
    assert result["sdr_db_std"] == pytest.approx(np.std(sdrs), abs=1e-4)
    assert result["sdr_db_median"] == pytest.approx(np.median(sdrs), abs=1e-4)
    weighted = np.average(sdrs, weights=[2, 3, 1])
    assert result["sdr_db_weighted"] == pytest.approx(weighted, abs=1e-4)
    assert result["nsdr_db_mean"] == pytest.approx(np.mean(sdrs) - np.mean(mixture), abs=1e-4)
    assert rows[1]["nsdr_db"] == pytest.approx(0, abs=1e-9)
    assert result["mixture/sdr_db_mean"] == pytest.approx(np.mean(mixture), abs=1e-4)
    assert result["rpa_mean"] == 1.0 and result["oa_mean"] == 1.0
    assert result["true_stem/rpa_mean"] == 0.0 and result["mixture/rpa_mean"] == 0.0
    assert all(r["vfa"] is None and "unvoiced" in r["skipped"]["vfa"] for r in rows)
    assert result["vfa_skipped"] == 3 and math.isnan(result["vfa_mean"])
    assert {"sdr_v4_db", "isr_v4_db", "sir_v4_db", "sar_v4_db"} <= set(rows[0]) & set(rows[1])
    folders = sorted(p.name for p in (tmp_path / "examples").iterdir())
    assert folders == ["one", "two_"] and not (tmp_path.parent / "pitch.csv").exists()
    names = sorted(p.name for p in (tmp_path / "examples/one").iterdir())
    assert names == ["estimate.wav", "mixture.wav", "pitch.csv", "truth.wav"]
    truth, _ = files.read(tmp_path / "examples/one/truth.wav")
    np.testing.assert_array_equal(truth[:, 0], float_stems[0][:, 0].astype(np.float32))
    lines = (tmp_path / "examples/one/pitch.csv").read_text().splitlines()
    assert lines[0] == "time,truth_hz,estimate_hz,confidence" and len(lines) == 2000 // HOP + 1
    time_s, truth_hz, estimate_hz, confidence = map(float, lines[2].split(","))
    assert (time_s, truth_hz) == (0.032, 50.0)
    assert estimate_hz == pytest.approx(50, abs=0.01) and 0.8 < confidence < 0.9


def test_undefined_scores_are_counted_with_a_reason_not_averaged(tmp_path):
    tracks = [
        record("good"),
        record("silent voice", voice=False),
        record("no stems", has_stems=False),
        record("no pitch", has_pitch=False),
        record("nothing sung", f0_hz=0.0),
    ]
    gain = {"gain": np.float32(0.5)}
    result = target.score_tracks(make_model(half), gain, tracks, report=ForReport(tmp_path))
    rows = {r["track"]: r for r in read_rows(tmp_path / "tracks.jsonl") if r["system"] == "model"}
    assert rows["silent voice"]["sdr_db"] is None
    assert rows["silent voice"]["skipped"]["sdr_db"] == "the true stem is silent"
    assert "not annotated" in rows["no stems"]["skipped"]["si_sdr_db"]
    assert "not annotated" in rows["no pitch"]["skipped"]["rpa"]
    assert rows["nothing sung"]["rpa"] is None and rows["nothing sung"]["vfa"] == 1.0
    assert "voiced" in rows["nothing sung"]["skipped"]["rpa_mirex"]
    assert result["sdr_db_skipped"] == 2 and result["rpa_skipped"] == 2
    good = [rows[name]["sdr_db"] for name in ("good", "no pitch", "nothing sung")]
    assert result["sdr_db_mean"] == pytest.approx(np.mean(good))
    assert result["rpa_mean"] == 1.0
    assert all(math.isfinite(v) for v in result.values())


def test_a_threshold_is_chosen_and_scores_at_it_stand_beside_the_others(tmp_path):
    tracks = [record("one"), record("nothing sung", f0_hz=0.0), record("no pitch", has_pitch=False)]

    def unsure(variables, audio):
        """Right, with a confidence of about 0.3."""
        found = half(variables, audio)
        return {**found, "salience": found["salience"] / 3}

    chosen = target.score_tracks(
        make_model(unsure), UNITY, tracks[:1], target=target.Target(choose_threshold=True)
    )
    assert chosen["threshold_best"] <= 0.3 and chosen["oa_best"] > chosen["oa_mean"]
    tuned = target.Target(tuned_threshold=0.25)
    found = target.score_tracks(
        make_model(unsure), UNITY, tracks, target=tuned, report=ForReport(tmp_path)
    )
    assert found["vr_mean"] == 0.0 and found["vr_tuned_mean"] == 1.0
    rows = {r["track"]: r for r in read_rows(tmp_path / "tracks.jsonl") if r["system"] == "model"}
    assert rows["one"]["oa"] == rows["nothing sung"]["vfa"] == 0.0
    assert rows["one"]["oa_tuned"] == rows["nothing sung"]["vfa_tuned"] == 1.0
    assert rows["no pitch"]["oa_tuned"] is None


def test_a_silent_voice_is_punished_in_every_score(tmp_path):
    tracks = [record("one"), record("two", 3000)]
    result = target.score_tracks(
        make_model(half),
        {"gain": np.float32(0.0)},
        tracks,
        target=target.Target(bss_eval=True),
        report=ForReport(tmp_path),
    )
    rows = [r for r in read_rows(tmp_path / "tracks.jsonl") if r["system"] == "model"]
    for row in rows:
        assert row["sdr_db"] == row["usdr_db"] == row["sdr_v4_db"] == row["isr_v4_db"] == 0.0
        assert row["si_sdr_db"] == row["sir_v4_db"] == row["sar_v4_db"] == -math.inf
        assert not {name for name in row.get("skipped", {}) if name.endswith("_db")}
    assert result["si_sdr_db_mean"] == -math.inf and result["si_sdr_db_infinite"] == 2
    assert "si_sdr_db_skipped" not in result


def test_a_model_that_gives_nan_is_reported_as_skips(tmp_path):
    broken = {"gain": np.float32(np.nan)}
    result = target.score_tracks(
        make_model(half), broken, [record("one")], report=ForReport(tmp_path)
    )
    assert result["sdr_db_skipped"] == 1 and math.isnan(result["sdr_db_mean"])
    text = (tmp_path / "tracks.jsonl").read_text()
    assert (
        "NaN" not in text and "not finite" in json.loads(text.splitlines()[0])["skipped"]["sdr_db"]
    )


def test_stereo_records_are_mixed_down_for_a_mono_model(tmp_path):
    track = record("wide")
    track["stems"] = np.repeat(track["stems"], 2, axis=2)
    mono = target.score_tracks(make_model(half), {"gain": np.float32(0.5)}, [record("wide")])
    stereo = target.score_tracks(make_model(half), {"gain": np.float32(0.5)}, [track])
    assert mono == stereo


def test_no_tracks_and_labels_on_another_grid_are_errors():
    with pytest.raises(ValueError, match="split is empty"):
        target.score_tracks(MODEL, UNITY, [])
    track = record("other hop")
    for key in ("f0_hz", "has_pitch"):
        track[key] = np.repeat(track[key], 2, axis=0)
    with pytest.raises(ValueError, match="other hop has 124 frames"):
        target.score_tracks(MODEL, UNITY, [track])
