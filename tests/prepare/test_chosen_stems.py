"""Sums of stems by --stems: at one gain with the others, and not those of before."""

import dataclasses
import json

import numpy as np
import soundfile

from majl_jax.audio import int16
from majl_jax.datasets import records, stem_groups, track
from majl_jax.datasets.grid import Grid
from majl_jax.prepare import __main__ as prepare
from majl_jax.prepare import chosen_stems

GRID = Grid(8000, 80)
STEMS = ("vocals", "drums", "bass", "other")
SUMS = "vocals,accompaniment=bass+drums+other"


def loud() -> track.Recording:
    """Four unrelated stems with peaks of 0.7."""
    audio = np.random.default_rng(0).uniform(-0.7, 0.7, (8000, 4, 1)).astype(np.float32)
    f0_hz, has_pitch = track.no_pitch(8000, stems=4, grid=GRID)
    return track.Recording(audio, STEMS, np.ones(4, bool), f0_hz, has_pitch, GRID)


def chosen(text: str, load=loud) -> np.ndarray:
    groups = stem_groups.parse_sources(text)
    (one,) = chosen_stems.choose([track.Track("a", "train", load)], groups)
    return one.load().audio[:, :, 0]


def test_a_sum_beyond_full_scale_turns_all_stems_down_alike():
    audio = loud().audio[:, :, 0]
    expected = np.stack([audio[:, 0], audio[:, 1:].sum(axis=1)], axis=1)
    assert np.abs(expected).max() > 1.5
    found = chosen(SUMS)
    np.testing.assert_allclose(found, expected / np.abs(expected).max(), atol=1e-6)
    at_full_scale = np.abs(int16.from_float(found).astype(int)) >= int16.HIGHEST
    assert np.count_nonzero(at_full_scale) == 1, "the peak alone"


def quiet() -> track.Recording:
    one = loud()
    return dataclasses.replace(one, audio=one.audio / 4)


def test_other_stems_stay_as_loud_as_they_are():
    np.testing.assert_array_equal(chosen("bass,vocals"), loud().audio[:, [2, 0], 0])
    audio = quiet().audio[:, :, 0]
    expected = np.stack([audio[:, 0], audio[:, [2, 1, 3]].sum(axis=1)], axis=1)
    np.testing.assert_array_equal(chosen(SUMS, quiet), expected)


def test_sets_with_sums_of_before_are_told_and_no_others(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for stem in STEMS:
        (tmp_path / "source/song").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / f"source/song/{stem}.wav", rng.uniform(-0.7, 0.7, 8000), 8000)
    flags = ["--dataset=stems_coherent", f"--source={tmp_path / 'source'}", "--processes=1"]
    flags += ["--sample_rate_hz=8000", "--hop_samples=80", "--record_seconds=1"]
    for name, stems, code in (("all", "", 0), ("some", "vocals,low=bass", 0), ("sums", SUMS, 1)):
        call = [*flags, "--file_format=array_record", f"--output={tmp_path / name}"]
        call += [f"--stems={stems}"] * bool(stems)
        assert prepare.main(call) == 0
        path = tmp_path / name / "stems_coherent" / records.INDEX_FILE
        index = json.loads(path.read_text())
        del index["options"]["sums_version"]
        path.write_text(json.dumps(index))
        assert prepare.main(call) == code
    assert "(sums_version=0 then, 1 now)" in capsys.readouterr().err
