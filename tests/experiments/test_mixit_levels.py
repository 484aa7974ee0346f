"""Whether a stem's uSDR below 0 dB is a matter of level or of direction."""

import dataclasses
import re

import made_music
import numpy as np
import pytest

from experiments.mixit.levels import NAMES, levels, main, over_level
from majl_jax.datasets import builder, records
from majl_jax.inference.segments import SegmentModel
from majl_jax.separate import loading

RNG = np.random.default_rng(0)
TRUTH, NOISE = RNG.normal(size=(2, 1000, 1))
# Orthogonal to the truth, and as strong.
NOISE -= TRUTH * np.sum(TRUTH * NOISE) / np.sum(TRUTH**2)
NOISE *= np.sqrt(np.sum(TRUTH**2) / np.sum(NOISE**2))


def test_an_estimate_that_is_only_too_loud_is_right_after_its_gain():
    found = levels(3 * TRUTH, TRUTH, TRUTH + NOISE)
    assert found["usdr_of_estimate_db"] == pytest.approx(-6.02, abs=0.01)
    assert found["usdr_at_best_gain_db"] > 100
    assert found["best_gain_db"] == pytest.approx(-9.54, abs=0.01)
    assert found["estimate_to_stem_db"] == pytest.approx(9.54, abs=0.01)
    assert found["stem_in_mixture_db"] == pytest.approx(-3.01, abs=0.01)


def test_the_mixture_as_estimate_is_halved():
    found = levels(TRUTH + NOISE, TRUTH, TRUTH + NOISE)
    assert found["usdr_of_estimate_db"] == pytest.approx(0, abs=0.01)
    assert found["best_gain_db"] == pytest.approx(-6.02, abs=0.01)
    half = 10 * np.log10(np.sum(TRUTH**2) / np.sum((TRUTH - (TRUTH + NOISE) / 2) ** 2))
    assert found["usdr_at_best_gain_db"] == pytest.approx(half, abs=0.01)


def test_of_an_estimate_of_something_else_silence_is_best():
    found = levels(NOISE, TRUTH, TRUTH + NOISE)
    assert found["usdr_of_estimate_db"] == pytest.approx(-3.01, abs=0.01)
    assert found["usdr_at_best_gain_db"] == pytest.approx(0, abs=0.01)
    assert found["best_gain_db"] < -100


def test_silence_is_undefined():
    found = levels(TRUTH, 0 * TRUTH, NOISE)
    assert [*found] == [*NAMES] and np.isnan([*found.values()]).all()


def test_an_error_of_one_level_is_a_line_of_slope_one():
    rows = [{NAMES[0]: x, NAMES[2]: x + 7.0} for x in (-16.0, -9.0, -4.0)]
    rows.append(dict.fromkeys(NAMES, np.nan))
    said = over_level(rows)
    assert "by 1.00 dB per dB" in said and "3 tracks), 0 dB at -7.0 dB" in said
    assert over_level(rows[1:]) == "too few tracks for a line"


def test_silence_is_in_no_mean(tmp_path, monkeypatch, capsys):
    layout = made_music.LAYOUT
    loud, silent = (made_music.tones(name, layout=layout) for name in "ab")
    silent["stems"] = silent["stems"] * np.array([1, 0], np.int16)[:, None]
    cut = [record for track in (loud, silent) for record in records.cut(track, layout)]
    builder.write_dataset(tmp_path / "data", {"test": cut}, layout=layout)
    grid = {"sample_rate_hz": layout.sample_rate_hz, "hop_samples": layout.hop_samples}
    model = SegmentModel(
        lambda variables, audio: {"stems": audio[:, :, None].repeat(2, axis=2) / 2},
        segment_samples=20 * layout.hop_samples,
        stems=layout.stems,
        **grid,
    )
    monkeypatch.setattr(loading, "load_run", lambda run, stage: (model, {}, None))
    call = [f"--data={tmp_path / 'data'}", "--run=run", "--stage=stage"]
    assert main(call) == 0
    said = capsys.readouterr().out
    assert "nan" not in said and re.search(r"not in the means: bass: .* of 1 of 2", said)
    monkeypatch.setattr(
        loading,
        "load_run",
        lambda run, stage: (dataclasses.replace(model, sample_rate_hz=8_000), {}, None),
    )
    with pytest.raises(ValueError, match=r"data has 16000 Hz, a hop of 320, --run=run has 8000 Hz"):
        main(call)
