"""What a teacher's labels look like on disk: the sum stays the mixture, only the trusted is a label."""

import jax.numpy as jnp
import made_music
import numpy as np
import pytest

from majl_jax import pseudo_labels
from majl_jax.audio.pitch import CREPE_BIN_CENTS
from majl_jax.datasets import builder, records
from majl_jax.evaluate import SegmentModel

NOTE_HZ = 440.0


def _teacher(sureness: float, gain: float = 0.5) -> SegmentModel:
    """Hears 440 Hz in every frame, as sure as told, and takes half of the mixture for the voice."""
    near = np.abs(CREPE_BIN_CENTS - 1200 * np.log2(NOTE_HZ / 10)).argmin()

    def apply(variables, audio):
        del variables
        salience = jnp.zeros((audio.shape[0], 128, 360)).at[..., near].set(sureness)
        return {"stems": gain * audio[:, :, None], "salience": salience}

    return SegmentModel(apply, 16_000, 40_960, 320, stems=("soprano",), bin_cents=CREPE_BIN_CENTS)


@pytest.fixture
def source(tmp_path):
    tracks = [made_music.tones(name) for name in ("x", "y")]
    cut = [r for track in tracks for r in records.cut(track, made_music.LAYOUT)]
    builder.write_dataset(tmp_path / "source", {"train": cut}, layout=made_music.LAYOUT)
    return tmp_path / "source"


def _write(source, tmp_path, model, **changes):
    options = {"threshold": 0.7, "granularity": "frame", "labels": "pitch", "target": "soprano"}
    return pseudo_labels.write(
        source,
        tmp_path / "labels",
        model=model,
        variables={"params": {"w": np.ones(2, np.float32)}},
        overlap=0.5,
        batch_size=4,
        file_format="tfrecord",
        **(options | changes),
    )


def test_pitch_of_the_target_only(source, tmp_path):
    directory = _write(source, tmp_path, _teacher(0.9))
    for before, after in zip(
        records.read_tracks(source, "train"), records.read_tracks(directory, "train"), strict=True
    ):
        np.testing.assert_array_equal(before["stems"], after["stems"])
        np.testing.assert_allclose(after["f0_hz"][:, 0], NOTE_HZ, rtol=0.006)  # half a bin
        assert after["has_pitch"][:, 0].all()
        np.testing.assert_array_equal(before["f0_hz"][:, 1], after["f0_hz"][:, 1])


def test_an_unsure_teacher_labels_nothing(source, tmp_path):
    directory = _write(source, tmp_path, _teacher(0.6))
    assert not any(r["has_pitch"][:, 0].any() for r in records.read_tracks(directory, "train"))


@pytest.mark.parametrize("gain", [0.5, -3.0, 4.0])  # the loud ones clip
def test_stems_still_sum_to_the_mixture(source, tmp_path, gain):
    directory = _write(source, tmp_path, _teacher(0.9, gain), labels="stems")
    pairs = zip(
        records.read_records(source, "train"), records.read_records(directory, "train"), strict=True
    )
    for before, after in pairs:
        sums = [r["stems"].astype(np.int32).sum(1) for r in (before, after)]
        np.testing.assert_array_equal(*sums)


def test_stems_are_labels_where_the_labelled_pitch_is_heard(source, tmp_path):
    heard = _write(source, tmp_path, _teacher(0.9), labels="stems")
    for record in records.read_records(heard, "train"):
        # The teacher says 440 Hz throughout: a record is trusted by how long its label agrees.
        f0_hz = record["f0_hz"][:, 0]
        voiced = f0_hz > 0
        near = np.abs(1200 * np.log2(f0_hz[voiced] / NOTE_HZ)) <= 50
        assert record["has_stems"].tolist() == [bool(near.mean() * 0.9 >= 0.7), False]


def test_labels_are_made_once_per_teacher_and_threshold(source, tmp_path):
    first = _write(source, tmp_path, _teacher(0.9))
    stamp = (first / "index.json").stat().st_mtime_ns
    assert _write(source, tmp_path, _teacher(0.9)) == first
    assert (first / "index.json").stat().st_mtime_ns == stamp
    assert _write(source, tmp_path, _teacher(0.9), threshold=0.9) != first


def test_an_unknown_target_is_named(source, tmp_path):
    with pytest.raises(ValueError, match=r"config.data.target is 'alto'.*soprano, bass"):
        _write(source, tmp_path, _teacher(0.9), target="alto")
