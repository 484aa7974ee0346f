"""What a wrong config of SS-MPE is told before any stage trains."""

import types

import numpy as np
import pytest
import smoke_runs

from majl_jax.evaluation.examples import ForReport
from majl_jax.evaluation.rows import read_rows
from majl_jax.recipes import ss_mpe

pytestmark = pytest.mark.xdist_group("majl")  # whose worker makes the sets


def test_a_set_cannot_be_labelled_and_unlabelled(smoke, tmp_path):
    config = smoke.config("ss_mpe", data__unlabelled="drums: 1, chorales: 3")
    with pytest.raises(ValueError, match=r"labelled and config.data.unlabelled both have chorales"):
        smoke_runs.stages(config, tmp_path)
    for stage in config.stages.values():
        stage.update(labelled=4, unlabelled=0)
    ss_mpe.stages(config, tmp_path)


def test_a_later_stage_hears_other_crops(smoke, tmp_path):
    reference, finetune = smoke_runs.stages(smoke.config("ss_mpe", seed=3), tmp_path)
    first, later = (next(stage.batches(None)) for stage in (reference, finetune))
    for part in ("stems", "percussion"):
        assert first[part].shape == later[part].shape and np.any(first[part] != later[part])


def test_records_that_are_shorter_than_an_excerpt_are_refused(smoke, tmp_path):
    """Of training sets: what is scored is played whole."""
    config = smoke.config("ss_mpe", data__segment_samples=101 * 1024)
    config.evaluation.update(sets=("quartets",), test_sets=("quartets",))
    with pytest.raises(ValueError, match="records of 102400 samples, fewer than a segment of"):
        smoke_runs.stages(config, tmp_path)


def test_basic_pitch_is_refused_at_a_rate_that_it_does_not_hear():
    config = smoke_runs.load_config("ss_mpe", "smoke")
    config.evaluation.references = "basic_pitch"
    config.data.sample_rate_hz = 16_000
    message = r"references is basic_pitch, which hears 22050 Hz, and config.data.sample_rate_hz is"
    with pytest.raises(ValueError, match=message):
        ss_mpe._references(config)


def test_a_second_test_leaves_no_row_of_the_first(monkeypatch, tmp_path):
    config = smoke_runs.load_config("ss_mpe", "smoke")
    config.evaluation.test_sets = ("one", "two")

    def score_tracks(model, variables, tracks, *, system, report, **options):
        rows = [{"track": track, "system": system, "seconds": 1.0} for track in tracks]
        report.keep_rows(rows, beside=True)
        return {}

    monkeypatch.setattr(ss_mpe, "score_tracks", score_tracks)
    monkeypatch.setattr(ss_mpe.records, "read_tracks", lambda folder, split: iter("abc"))
    setting = types.SimpleNamespace(config=config, model=None, path=str)
    for config.evaluation.test_tracks in (2, 1):
        ss_mpe._Setting.score(setting, "main", {}, "test", report=ForReport(tmp_path))
    rows = read_rows(tmp_path / "tracks.jsonl")
    assert [(row["track"], row["system"]) for row in rows] == [("a", "main"), ("a", "main, two")]
