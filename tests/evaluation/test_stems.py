"""Scores of all stems of whole tracks, with systems whose answers are known."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.audio import files
from majl_jax.evaluation.examples import ForReport
from majl_jax.evaluation.stems import score, score_stems
from majl_jax.inference.segments import SegmentModel
from majl_jax.metrics import separation

RATE_HZ, SECONDS = 4000, 5
STEMS = ("bass", "drums", "voice")


def _record(name, silent=()):
    rng = np.random.default_rng(sum(name.encode()))
    audio = rng.normal(0, 3000, (SECONDS * RATE_HZ, 4, 2)).astype(np.int16)
    for number in silent:
        audio[:, number] = 0
    return {"track": name, "stems": audio, "has_stems": np.full(4, True)}


def _model(weights, stems=STEMS):
    def apply(variables, audio):
        return {"stems": audio[:, :, None, :] * jnp.asarray(weights)[None, None, :, None]}

    return SegmentModel(
        apply,
        sample_rate_hz=RATE_HZ,
        segment_samples=4000,
        hop_samples=400,
        channels=2,
        stems=stems,
    )


def test_each_stem_is_judged_by_its_own_column(tmp_path):
    tracks = [_record("a"), _record("b")]
    columns = (3, 0, 2)
    found = score_stems(
        _model([0.5, 0.3, 0.1]), {}, tracks, columns=columns, report=ForReport(tmp_path, 1)
    )
    rows = [json.loads(line) for line in (tmp_path / "tracks.jsonl").read_text().splitlines()]
    assert [(row["track"], row["system"]) for row in rows] == [
        (track, system) for track in "ab" for system in ("model", "mixture")
    ]
    truth = tracks[0]["stems"].astype(np.float64)[:, list(columns)] / 32768
    mixture = truth.sum(1)
    for number, (stem, weight) in enumerate(zip(STEMS, (0.5, 0.3, 0.1), strict=True)):
        one = separation.usdr_db(weight * mixture, truth[:, number])
        np.testing.assert_allclose(rows[0][f"usdr_db_{stem}"], one, atol=1e-4)
        one = separation.usdr_db(weight * mixture, truth[:, number], channel_mean=True)
        np.testing.assert_allclose(rows[0][f"usdr_channels_db_{stem}"], one, atol=1e-4)
        chunks = [
            10 * np.log10(np.sum(t**2) / np.sum((t - weight * m) ** 2))
            for t, m in zip(
                np.split(truth[:, number], SECONDS), np.split(mixture, SECONDS), strict=True
            )
        ]
        np.testing.assert_allclose(rows[0][f"csdr_db_{stem}"], np.median(chunks), atol=1e-4)
    mean = np.mean([rows[0][f"usdr_db_{stem}"] for stem in STEMS])
    np.testing.assert_allclose(rows[0]["usdr_db"], mean)
    np.testing.assert_allclose(found["usdr_db"], (rows[0]["usdr_db"] + rows[2]["usdr_db"]) / 2)
    assert "mixture/usdr_db" in found
    audio, _ = files.read(tmp_path / "examples/a/voice_truth.wav")
    np.testing.assert_allclose(audio, truth[:, 2], atol=1e-4)


def test_the_published_csdr_is_the_mean_over_stems_of_the_medians_over_tracks(tmp_path):
    tracks = [_record("a"), _record("b", silent=[0]), _record("c")]
    for number, record in enumerate(tracks):  # the order of the tracks differs from stem to stem
        record["stems"] = np.roll(record["stems"], number, axis=1)
    found = score_stems(
        _model([0.5, 0.3, 0.1]), {}, tracks, columns=(3, 0, 2), report=ForReport(tmp_path)
    )
    rows = [json.loads(line) for line in (tmp_path / "tracks.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["system"] == "model"]
    each = {s: [r[f"csdr_db_{s}"] for r in rows if r[f"csdr_db_{s}"] is not None] for s in STEMS}
    expected = np.mean([np.median(values) for values in each.values()])
    np.testing.assert_allclose(found["csdr_db_median"], expected)
    assert abs(expected - np.median([row["csdr_db"] for row in rows])) > 1e-6
    alone = score_stems(_model([0.5], stems=("voice",)), {}, tracks, columns=(3,))
    assert not any(name.startswith("mixture/") for name in alone)


def test_a_silent_stem_has_no_score_and_spoils_no_mean():
    truth = _record("c", silent=[1])["stems"].astype(np.float32)[:, :3] / 32768
    row = score(0.9 * truth + 1e-3, truth, stems=STEMS, sample_rate_hz=RATE_HZ)
    assert row["usdr_db_drums"] is None and "silent" in row["skipped"]["usdr_db_drums"]
    np.testing.assert_allclose(row["usdr_db"], (row["usdr_db_bass"] + row["usdr_db_voice"]) / 2)
    assert row["csdr_db_bass"] > 15
    bad = np.where(np.arange(3)[:, None] == 2, np.nan, truth)
    row = score(bad, truth, stems=STEMS, sample_rate_hz=RATE_HZ)
    assert row["usdr_db_voice"] is None and "not finite" in row["skipped"]["usdr_db_voice"]
    row = score(0 * truth, 0 * truth, stems=STEMS, sample_rate_hz=RATE_HZ)
    assert row["usdr_db"] is None and row["skipped"]["usdr_db"] == "no stem has this score"


def test_a_stem_that_is_not_known_has_no_score_and_spoils_no_mean(tmp_path):
    tracks = [_record("a"), _record("b"), _record("c")]
    tracks[1]["has_stems"] = np.array([True, True, True, False])
    tracks[2]["has_stems"] = np.full(4, False)
    columns, report = (3, 0, 2), ForReport(tmp_path, 3)
    found = score_stems(_model([0.5, 0.3, 0.1]), {}, tracks, columns=columns, report=report)
    rows = [json.loads(line) for line in (tmp_path / "tracks.jsonl").read_text().splitlines()]
    one, partly, none = (row for row in rows if row["system"] == "model")
    assert partly["usdr_db_bass"] is None and partly["usdr_db_drums"] is not None
    assert partly["skipped"]["csdr_db_bass"] == "the stem is not annotated"
    assert none["usdr_db"] is None and none["skipped"]["usdr_db"] == "no stem has this score"
    assert found["usdr_db"] == pytest.approx((one["usdr_db"] + partly["usdr_db"]) / 2)
    assert found["usdr_db_skipped"] == 1 and found["usdr_db_bass_skipped"] == 2
    assert [path.name for path in (tmp_path / "examples").iterdir()] == ["a"]


def test_a_silent_estimate_is_punished():
    truth = _record("c")["stems"].astype(np.float32)[:, :3] / 32768
    row = score(truth * np.array([0.9, 0.0, 0.9])[:, None], truth, stems=STEMS, sample_rate_hz=4000)
    assert row["si_sdr_db_drums"] == row["si_sdr_db"] == -np.inf
    assert row["usdr_db_drums"] == row["csdr_db_drums"] == 0.0 and row["csdr_db_bass"] > 15
    assert "skipped" not in row


def test_mono_songs_and_no_songs():
    record = _record("d")
    record["stems"] = record["stems"][:, :, :1]
    found = score_stems(_model([0.3, 0.3, 0.3]), {}, [record], columns=(0, 1, 2))
    np.testing.assert_allclose(found["usdr_db"], found["usdr_channels_db"], atol=1e-6)
    with pytest.raises(ValueError, match="no track to evaluate"):
        score_stems(_model([0.3, 0.3, 0.3]), {}, [], columns=(0, 1, 2))
