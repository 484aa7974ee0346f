"""The model that comes with the package: where nothing else is asked for, within its size."""

import json

import numpy as np
import pytest
import smoke_runs
from halving import read, write

import majl_jax
from majl_jax.separate import __main__ as separate
from majl_jax.separate import loading


def test_it_is_small_and_its_card_says_what_it_is():
    path = loading.SHIPPED / "voice.safetensors"
    assert path.stat().st_size < 12e6
    info = majl_jax.load("voice").info
    assert (info.recipe, info.stems, info.pitch) == ("majl", ("voice",), "one")
    assert info.data == {"mir1k": "real"} and not info.synthetic
    assert info.licence and info.commit and info.scores["sdr_db"] == pytest.approx(6.626, abs=1e-3)
    assert info.config["data"]["directory"] == ""


def test_it_is_what_its_preset_trains():
    card = majl_jax.load("voice").info.config
    preset = json.loads(json.dumps(smoke_runs.load_config("majl", "voice").to_dict()))
    assert card["stages"]["teacher"] == preset["stages"]["teacher"]
    groups = ("unet", "crepe", "losses", "weights", "balance", "dwhs", "augmentation", "optimizer")
    for name in ("separator", "pitch", "seed", *groups):
        later = {"match_levels": False} if name == "augmentation" else {}
        assert ({**later, **card[name]} if later else card[name]) == preset[name], name
    for name in ("labelled", "target", "sample_rate_hz", "hop_samples", "segment_samples"):
        assert card["data"][name] == preset["data"][name], name


@pytest.mark.slow
def test_it_separates_where_no_model_is_named(tmp_path, capsys):
    audio = write(tmp_path / "a.wav", seconds=2.0, rate_hz=22_050, channels=2, subtype="FLOAT")
    words = [str(tmp_path / "a.wav"), f"--output={tmp_path / 'out'}", "--no_picture"]
    assert separate.main(words) == 0
    assert (
        "voice.safetensors, trained on mir1k (real); gives voice, pitch" in capsys.readouterr().out
    )
    voice, rate_hz = read(tmp_path / "out/a/voice.wav")
    rest, _ = read(tmp_path / "out/a/accompaniment.wav")
    assert rate_hz == 22_050 and voice.shape == audio.shape and np.isfinite(voice).all()
    np.testing.assert_allclose(voice + rest, audio, atol=1e-4)
