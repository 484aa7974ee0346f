"""Scores on fixed excerpts with systems whose answers are known."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import made_music
import numpy as np
import pytest

from majl_jax.audio import files, stft
from majl_jax.datasets import records, stem_groups
from majl_jax.evaluation.excerpt_scores import Evaluator
from majl_jax.evaluation.excerpts import fixed_excerpts
from majl_jax.evaluation.rows import read_rows, text_table
from majl_jax.metrics import separation

SAMPLES, SIZES = 8192, {"window_samples": 256, "hop_samples": 64}
GROUPS = stem_groups.parse("chorales: drone=alto, melody=soprano, noise=tenor")["chorales"]
LOW = np.arange(129) * 8000 / 256 < 1000.0  # Hz: tones and a drone below, noise above as well


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_music.prepare_transfer(tmp_path_factory.mktemp("judged")) / "chorales"


def _low_and_high(audio):
    """Two "sources": below and above a frequency."""
    spectrum = stft.scaled_stft(audio, **SIZES)
    low = LOW[None, None]
    parts = jnp.stack([spectrum * low, spectrum * ~low], axis=1)
    return jnp.moveaxis(_inverse(parts), 1, -1)


_inverse = functools.partial(stft.scaled_istft, **SIZES, length_samples=SAMPLES)


def _embed(variables, audio):
    spectrum = stft.scaled_stft(audio, **SIZES)
    low = LOW[None, None] * jnp.ones((*spectrum.shape[:2], 1))
    return jnp.stack([1.0 * ~(low > 0), low], axis=-1), spectrum


def _evaluator(folder, **changes):
    groups = stem_groups.parse("chorales: low=soprano+alto, noise=tenor+bass")["chorales"]
    evaluator = Evaluator(
        "ours",
        {folder: groups},
        loss=lambda variables, sources: jnp.mean(sources**2, axis=(1, 2)),
        estimate=lambda variables, audio: _low_and_high(audio),
        embed=_embed,
        inverse=_inverse,
        samples=SAMPLES,
        sample_rate_hz=8000,
        valid_excerpts=3,
        test_excerpts=3,
        clustering_excerpts=3,
        batch_size=2,
        threshold_db=-45.0,
        coherent=True,
        examples=1,
    )
    return dataclasses.replace(evaluator, **changes)


def _rows(folder):
    return [json.loads(line) for line in (folder / "tracks.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_validation_is_the_mean_over_the_excerpts(folder):
    evaluator = _evaluator(folder)
    found = evaluator.validate({})
    excerpts = list(
        fixed_excerpts(folder, "valid", evaluator.folders[folder], count=3, samples=SAMPLES, seed=1)
    )
    loss = np.mean([np.mean(one.sources**2) for one in excerpts])
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-5)
    assert found["minus_loss"] == -found["loss"]
    ratios = []
    for one in excerpts:
        parts = np.asarray(_low_and_high(jnp.asarray(one.sources.sum(1))[None]))[0]
        ratios += [
            separation.si_sdr_db(parts[:, i], one.sources[:, i], zero_mean=True) for i in range(2)
        ]
    np.testing.assert_allclose(found["si_sdr_db"], np.mean(ratios), rtol=1e-4)
    assert "si_sdr_db" not in _evaluator(folder, estimate=None).validate({})


def test_rows_means_and_examples_of_masks(folder, tmp_path):
    found = _evaluator(folder).test({}, tmp_path)
    rows = _rows(tmp_path)
    assert [row["system"] for row in rows].count("ours") == 3 and len(rows) == 6
    ours = [row for row in rows if row["system"] == "ours"]
    np.testing.assert_allclose(found["si_sdr_db"], np.mean([row["si_sdr_db"] for row in ours]))
    np.testing.assert_allclose(
        ours[0]["si_sdr_db"], (ours[0]["si_sdr_db_low"] + ours[0]["si_sdr_db_noise"]) / 2
    )
    assert found["si_sdr_db"] > found["mixture/si_sdr_db"] + 3
    (example,) = (tmp_path / "examples").iterdir()
    names = {path.stem for path in example.iterdir()}
    assert names == {"mixture", "low_estimate", "low_truth", "noise_estimate", "noise_truth"}
    audio, rate_hz = files.read(example / "mixture.wav")
    assert rate_hz == 8000 and len(audio) == SAMPLES


def test_clusters_are_put_in_the_order_of_the_sources(folder, tmp_path):
    """The embedding is that of the masks above, with its dimensions exchanged."""
    by_masks = _evaluator(folder).test({}, tmp_path / "masks")
    clustered = _evaluator(folder, estimate=None).test({}, tmp_path / "clusters")
    systems = {row["system"] for row in _rows(tmp_path / "clusters")}
    assert systems == {"ours", "ours, binary masks", "mixture"}
    binary = clustered["ours,_binary_masks/si_sdr_db"]
    np.testing.assert_allclose(binary, by_masks["si_sdr_db"], atol=1e-3)
    assert clustered["mixture/si_sdr_db"] == by_masks["mixture/si_sdr_db"]


def test_a_silent_estimate_has_minus_infinity(folder, tmp_path):
    evaluator = _evaluator(folder, estimate=lambda variables, audio: jnp.zeros((*audio.shape, 2)))
    found = evaluator.test({}, tmp_path)
    assert found["si_sdr_db"] == -np.inf and found["si_sdr_db_infinite"] == 3
    (row, *_) = [row for row in _rows(tmp_path) if row["system"] == "ours"]
    assert row["si_sdr_db"] == "-inf" and "skipped" not in row, "JSON has no infinity"


def test_several_sets_give_as_many_excerpts_each(folder, tmp_path):
    other = folder.parent / "ensemble"
    groups = stem_groups.parse("ensemble: low=flute+trumpet, noise=guitar+saxophone")["ensemble"]
    evaluator = _evaluator(folder)
    evaluator = dataclasses.replace(
        evaluator, folders={**evaluator.folders, other: groups}, test_excerpts=4
    )
    evaluator.test({}, tmp_path)
    names = [row["track"] for row in _rows(tmp_path) if row["system"] == "ours"]
    assert [name[:3] for name in names] == ["cho", "cho", "ens", "ens"]
    assert records.open_prepared(other).layout.stems[0] == "flute" and jax.devices()


def test_excerpts_whose_estimate_is_silent_are_in_the_mean_and_counted(folder, tmp_path):
    """Their SI-SDR is minus infinity, and so is the mean; the median tells of the others."""

    def quiet_at_times(variables, audio):
        loud = jnp.mean(audio**2, axis=1, keepdims=True)[..., None]
        return _low_and_high(audio) * (loud > variables)

    excerpts = [
        one.sources.sum(1)
        for one in fixed_excerpts(
            folder, "test", _evaluator(folder).folders[folder], count=3, samples=SAMPLES, seed=2
        )
    ]
    levels = sorted(float(np.mean(x.astype(np.float64) ** 2)) for x in excerpts)
    evaluator = _evaluator(folder, estimate=quiet_at_times)
    found = evaluator.test((levels[0] + levels[1]) / 2, tmp_path)
    assert found["si_sdr_db"] == -np.inf and found["si_sdr_db_infinite"] == 1
    assert np.isfinite(found["si_sdr_db_median"])
    rows = read_rows(tmp_path / "tracks.jsonl")
    text = text_table([row for row in rows if row["system"] == "ours"])
    assert text.splitlines()[1].split() == ["ours", "-inf"]
    said = "infinite, and so the means (-inf: a silent estimate): ours: SI-SDR dB of 1 of 3"
    assert text.splitlines()[2:] == [said]
    valid = evaluator.validate(1e9)
    assert valid["si_sdr_db"] == -np.inf and valid["si_sdr_db_infinite"] == 3
    assert "si_sdr_db_infinite" not in evaluator.validate(-1.0)
