"""What MAJL says of sets that its student or its networks cannot learn from, before the teacher
trains.
"""

import dataclasses
import re

import made_music
import numpy as np
import pytest
import smoke_runs

from majl_jax.datasets import builder, records
from majl_jax.recipes import majl

pytestmark = pytest.mark.xdist_group("majl")


def _write(folder, *, known=True, file_format="tfrecord", **layout):
    """A training set of tones, with so many channels or stems, or records as long."""
    channels, stems = layout.get("channels", 1), layout.get("stems", ("soprano", "bass"))
    layout = dataclasses.replace(made_music.LAYOUT, **layout)
    track = made_music.tones("e", has_stems=known)
    track["stems"] = np.repeat(track["stems"][:, : len(stems)], channels, axis=2)
    track["has_stems"] = track["has_stems"][: len(stems)]
    for key in ("f0_hz", "has_pitch"):
        track[key] = track[key][:, : len(stems)]
    cut = {"train": list(records.cut(track, layout))}
    builder.write_dataset(folder, cut, layout=layout, file_format=file_format)


def _config(smoke, tmp_path, **fields):
    """The student's config, on sets that lie in `tmp_path` as well."""
    for one in smoke.data("majl").iterdir():
        if not (tmp_path / one.name).exists():
            (tmp_path / one.name).symlink_to(one)
    return smoke.config("majl", run=("teacher", "student"), data__directory=str(tmp_path), **fields)


@pytest.mark.parametrize(
    ("field", "made", "message"),
    [
        ("stems_only", {"channels": 2}, "channels = 2, and the networks of majl hear one: prepare"),
        ("unlabelled", {"channels": 2}, "channels = 2, and the networks of majl hear one: prepare"),
        (
            "pitch_only",
            {"stems": ("soprano",)},
            "pitch_only is other, which has the stem soprano",
        ),
        (
            "unlabelled",
            {"stems": ("soprano",)},
            "unlabelled is other, which has the stem soprano",
        ),
        (
            "pitch_only",
            {"record_samples": 32_000},
            "records of 32000 samples, fewer than a seg",
        ),
    ],
)
def test_sets_that_a_student_could_not_use_are_refused(smoke, tmp_path, field, made, message):
    _write(tmp_path / "other", **made)
    config = _config(smoke, tmp_path, **{f"data__{field}": "other"})
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        smoke_runs.stages(config, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_voice_alone_and_mixtures_of_unknown_stems_are_as_good_as_any(smoke, tmp_path):
    """Vocadito has one stem, whose pitch is asked for; UltraStar's mixture stands in one of two;
    the teacher's labels are written in the reader's format.
    """
    _write(tmp_path / "alone", stems=("soprano",), file_format="array_record")
    _write(tmp_path / "songs", known=False)
    fields = {"data__stems_only": "alone", "data__pitch_only": "songs"}
    teacher, student = smoke_runs.stages(_config(smoke, tmp_path, **fields), tmp_path / "run")
    assert (teacher.name, student.name) == ("teacher", "student")


def test_the_labelled_set_has_to_be_in_the_reader_s_format(smoke, tmp_path):
    sets = {
        split: list(records.read_records(smoke.data("majl") / "chorales", split))
        for split in ("train", "valid", "test")
    }
    layout = made_music.LAYOUT
    builder.write_dataset(tmp_path / "chorales", sets, layout=layout, file_format="array_record")
    with pytest.raises(ValueError, match=r"chorales is in array_record format, and config\.data\."):
        smoke_runs.stages(_config(smoke, tmp_path), tmp_path / "run")


@pytest.mark.parametrize("pitch", ["crepe", "harmof0"])
def test_a_rate_that_no_pitch_estimator_hears_is_refused(pitch):
    config = smoke_runs.load_config("majl")
    config.pitch, config.data.sample_rate_hz = pitch, 22_050
    with pytest.raises(ValueError, match=r"config\.data\.sample_rate_hz is 22050; expected 16000"):
        majl.build(config)
