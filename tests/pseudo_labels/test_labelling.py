"""What a teacher's labels look like on disk: the sum stays the mixture, only the trusted is a
label.
"""

import dataclasses
import json

import jax.numpy as jnp
import made_music
import numpy as np
import pytest

from majl_jax.audio.pitch import CREPE_BIN_CENTS
from majl_jax.datasets import builder, records
from majl_jax.inference.segments import Segmenting, SegmentModel
from majl_jax.pseudo_labels import filtering, labelling
from majl_jax.pseudo_labels import teacher as teachers
from majl_jax.training.manifest import write_manifest

NOTE_HZ = 440.0


def _teacher(sureness, gain: float = 0.5) -> SegmentModel:
    """Hears 440 Hz, as sure as told (for all or each of the 128 frames), and takes half of the
    mixture.
    """
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


VARIABLES = {"params": {"w": np.ones(2, np.float32)}}


def _write(source, tmp_path, model, *, labels="pitch", target="soprano", workdir=None, **changes):
    """Labels, by a filter with the fields in `changes`."""
    teacher = teachers.Teacher(
        model,
        changes.pop("variables", VARIABLES),
        Segmenting(overlap=changes.pop("overlap", 0.5), batch_size=4),
        step=changes.pop("teacher_step", None),
    )
    return labelling.write(
        source,
        tmp_path / "labels",
        labels=labels,
        teacher=teacher,
        target=target,
        kept=filtering.Filter(**({"threshold": 0.7} | changes)),
        file_format="tfrecord",
        workdir=workdir,
    )


def _said(tmp_path):
    return json.loads((tmp_path / "labels/source.json").read_text())


def test_pitch_of_the_target_only(source, tmp_path):
    directory = _write(source, tmp_path, _teacher(0.9))
    for before, after in zip(
        records.read_tracks(source, "train"), records.read_tracks(directory, "train"), strict=True
    ):
        np.testing.assert_array_equal(before["stems"], after["stems"])
        np.testing.assert_allclose(after["f0_hz"][:, 0], NOTE_HZ, rtol=0.006)  # half a bin
        assert after["has_pitch"][:, 0].all()
        np.testing.assert_array_equal(before["f0_hz"][:, 1], after["f0_hz"][:, 1])


def test_a_track_whose_target_is_unknown_gets_no_pitch_and_is_counted(tmp_path):
    tracks = [made_music.tones("x"), made_music.tones("y", has_stems=False, has_pitch=False)]
    cut = [r for track in tracks for r in records.cut(track, made_music.LAYOUT)]
    builder.write_dataset(tmp_path / "source", {"train": cut}, layout=made_music.LAYOUT)
    directory = _write(tmp_path / "source", tmp_path, _teacher(0.9))
    known, unknown = records.read_tracks(directory, "train")
    assert known["has_pitch"][:, 0].all()
    assert not unknown["has_pitch"][:, 0].any() and not unknown["f0_hz"][:, 0].any()
    assert (_said(tmp_path)["seen"], _said(tmp_path)["kept"]) == (320, 160)
    assert _said(tmp_path)["voiced_kept"] == 160


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


def test_notes_of_unknown_octave_go_where_the_teacher_hears_them(tmp_path):
    layout = dataclasses.replace(made_music.LAYOUT, octave_known=False)
    track = made_music.tones("x")
    track["f0_hz"][:, 0] = 880.0  # heard an octave lower
    track["f0_hz"][40:80, 0] = 500.0  # heard in no octave
    track["f0_hz"][80:90, 0] = 0.0
    cut = list(records.cut(track, layout))
    builder.write_dataset(tmp_path / "source", {"train": cut}, layout=layout)
    directory = _write(tmp_path / "source", tmp_path, _teacher(0.9), labels="stems", threshold=0.6)
    labelled = next(records.read_tracks(directory, "train"))
    f0_hz, known = labelled["f0_hz"][:, 0], labelled["has_pitch"][:, 0]
    assert records.open_prepared(directory).layout.octave_known
    np.testing.assert_allclose(f0_hz[:40], NOTE_HZ)
    assert known[:40].all() and not known[40:80].any()
    assert known[80:90].all() and not f0_hz[80:90].any()  # unvoiced stays known
    assert _said(tmp_path)["notes_settled"] == _said(tmp_path)["notes"] - 1
    # Of the first record 80 of 118 voiced frames are heard, with 0.9: 0.61 in all, so it stays.
    assert next(records.read_records(directory, "train"))["has_stems"].tolist() == [True, False]


def test_of_mixtures_alone_both_are_labelled_where_the_teacher_is_sure(tmp_path):
    tracks = [made_music.tones(name, has_stems=False, has_pitch=False) for name in ("x", "y")]
    cut = [r for track in tracks for r in records.cut(track, made_music.LAYOUT)]
    builder.write_dataset(tmp_path / "source", {"train": cut}, layout=made_music.LAYOUT)
    sure = jnp.where(jnp.arange(128) < 96, 0.9, 0.6)  # the mean of voiced frames is 0.825
    for threshold, good in ((0.7, True), (0.85, False)):
        how = {"labels": "both", "threshold": threshold, "overlap": 0.0}
        directory = _write(tmp_path / "source", tmp_path, _teacher(sure), **how)
        pairs = zip(cut, records.read_records(directory, "train"), strict=True)
        for before, after in pairs:
            sums = [r["stems"].astype(np.int32).sum(1) for r in (before, after)]
            np.testing.assert_array_equal(*sums)
            # Half of the mixture, as the teacher separates.
            np.testing.assert_allclose(after["stems"][:, 0] * 2, sums[0], atol=2)
            assert after["has_stems"].tolist() == [good, False]
            assert after["has_pitch"][:128, 0].tolist() == [True] * 96 + [False] * 32
            assert not after["has_pitch"][:, 1].any()
            kept = after["f0_hz"][after["has_pitch"][:, 0], 0]
            np.testing.assert_allclose(kept, NOTE_HZ, rtol=0.006)
        said = _said(tmp_path)
        assert said["labels"] == "both" and said["unit"] == "frames"
        assert (said["records"], said["records_kept"]) == (len(cut), good * len(cut))
        assert said["kept"] + said["masked"] == said["seen"] == 160 * len(cut)


def test_what_lies_beyond_the_end_of_a_clip_is_not_judged(tmp_path):
    track = made_music.tones("x", has_stems=False, has_pitch=False)
    record = next(records.cut(track, made_music.LAYOUT))
    half = {**record, "valid_samples": record["valid_samples"] // 2}
    builder.write_dataset(tmp_path / "source", {"train": [half]}, layout=made_music.LAYOUT)
    sure_of_the_rest = jnp.where(jnp.arange(128) < 80, 0.6, 0.9)
    how = {"labels": "both", "threshold": 0.7, "overlap": 0.0}
    directory = _write(tmp_path / "source", tmp_path, _teacher(sure_of_the_rest), **how)
    (labelled,) = records.read_records(directory, "train")
    assert not labelled["has_pitch"].any() and not labelled["has_stems"].any()
    assert _said(tmp_path)["seen"] == 80


def test_labels_are_made_once_per_teacher_and_threshold(source, tmp_path):
    first = _write(source, tmp_path, _teacher(0.9))
    stamp = (first / "index.json").stat().st_mtime_ns
    assert _write(source, tmp_path, _teacher(0.9)) == first
    assert (first / "index.json").stat().st_mtime_ns == stamp
    assert _write(source, tmp_path, _teacher(0.9), threshold=0.9) != first
    assert "overlap" not in _said(tmp_path)


def test_the_overlap_of_the_teacher_s_segments_is_part_of_the_labels_name(source, tmp_path):
    usual = _write(source, tmp_path, _teacher(0.9))
    other = _write(source, tmp_path, _teacher(0.9), overlap=0.25)
    assert other.name == f"{usual.name}-overlap0.25"
    assert _said(tmp_path)["overlap"] == 0.25


def test_an_unknown_target_is_named(source, tmp_path):
    with pytest.raises(ValueError, match=r"^target is 'alto'.*soprano, bass"):
        _write(source, tmp_path, _teacher(0.9), target="alto")


def test_a_target_may_go_by_several_names(source, tmp_path):
    prepared = records.open_prepared(source)
    assert labelling.stem_number(prepared, ("voice", "soprano")) == 0
    assert labelling.stem_number(prepared, ["bass"]) == 1
    with pytest.raises(ValueError, match=r"\('voice', 'vocals'\); the stems of .* soprano, bass$"):
        labelling.stem_number(prepared, ("voice", "vocals"))
    with pytest.raises(ValueError, match=r"soprano, bass .several of them match"):
        labelling.stem_number(prepared, ("soprano", "bass"))
    directory = _write(source, tmp_path, _teacher(0.9), target=("voice", "soprano"))
    assert next(records.read_tracks(directory, "train"))["has_pitch"][:, 0].all()
    assert _said(tmp_path)["target"] == "soprano"


# ---- what a filter keeps, and what is said about it ----------------------------------------------


@pytest.mark.parametrize("granularity", ["frame", "segment", "song"])
@pytest.mark.parametrize("labels", ["pitch", "stems"])
def test_the_statistics_add_up_and_higher_thresholds_keep_less(
    source, tmp_path, labels, granularity
):
    teacher = _teacher(jnp.linspace(0.05, 0.95, 128))
    directory = _write(
        source,
        tmp_path,
        teacher,
        labels=labels,
        granularity=granularity,
        threshold=0.6,
        overlap=0.0,
    )
    said = _said(tmp_path)
    assert said["kept"] + said["masked"] == said["seen"] and said["granularity"] == granularity
    shares = said["kept_share_at"]
    assert list(shares) == [f"{k / 20:.2f}" for k in range(21)]
    assert shares["0.00"] == 1.0 and shares["1.00"] == 0.0
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert shares["0.60"] == pytest.approx(said["kept"] / said["seen"], abs=1e-4)
    assert said["minutes"] == pytest.approx(2 * 3.2 / 60, abs=0.005)
    written = list(records.read_tracks(directory, "train"))
    if labels == "pitch":
        f0_hz, has_pitch = (
            np.concatenate([t[key][:, 0] for t in written]) for key in ("f0_hz", "has_pitch")
        )
        assert said["seen"] == len(f0_hz) == 320 and said["kept"] == has_pitch.sum()
        assert said["voiced_kept"] == (f0_hz > 0).sum()
        assert said["unvoiced_kept"] == (has_pitch & (f0_hz == 0)).sum()
        # A song of 160 frames: the ramp, whose trust goes down to 0.5, and a quarter of it again.
        ramp = np.linspace(0.05, 0.95, 128)
        trust = np.maximum(ramp, 1 - ramp)
        expected = (trust.sum() + trust[:32].sum()) / 160
        assert said["mean_confidence"] == pytest.approx(expected, abs=0.01)
    else:
        kept = sum(r["has_stems"][0] for r in records.read_records(directory, "train"))
        assert said["kept"] == kept and said["seen"] == 2
        assert "voiced_kept" not in said


def test_the_length_of_a_segment_is_part_of_the_labels_name(source, tmp_path):
    teacher = _teacher(0.9)
    names = {
        _write(source, tmp_path, teacher, granularity="segment", segment_frames=frames).name
        for frames in (None, 128, 50)
    }
    assert sorted(name.rsplit("-", 1)[-1] for name in names) == ["segment128", "segment50"]


def test_a_song_is_kept_for_the_records_that_have_a_voice(tmp_path):
    """Three records: one heard well, one not at all, and one without a voiced label."""
    track = made_music.tones("x", frames=480)
    frames = made_music.LAYOUT.record_samples // made_music.HOP_SAMPLES
    track["f0_hz"][:, 0] = NOTE_HZ
    track["f0_hz"][frames : 2 * frames, 0] = 660.0
    track["f0_hz"][2 * frames :, 0] = 0.0
    pieces = list(records.cut(track, made_music.LAYOUT))
    other = [{**piece, "track": "y"} for piece in pieces[1:2]]
    assert len(pieces) == 3
    for granularity, threshold, expected in (
        ("frame", 0.44, [True, False, False, False]),
        ("segment", 0.44, [True, False, False, False]),
        ("song", 0.44, [True, True, True, False]),
        ("song", 0.46, [False] * 4),
    ):
        counts = filtering.Counts()
        labelled = teachers.label_stems(
            [*pieces, *other],
            teachers.Teacher(_teacher(0.9), VARIABLES),
            target=0,
            kept=filtering.Filter(threshold, granularity),
            counts=counts,
        )
        assert [bool(r["has_stems"][0]) for r in labelled] == expected
        assert (counts.seen, counts.kept) == (4, sum(expected))
        assert counts.samples == (3 + 2) * made_music.LAYOUT.record_samples  # y begins at 3.2 s


def test_a_filter_that_there_is_not_is_refused(source, tmp_path):
    with pytest.raises(ValueError, match=r"granularity is 'track'; expected one of frame, segment"):
        _write(source, tmp_path, _teacher(0.9), granularity="track")
    with pytest.raises(ValueError, match="labels is 'notes'; expected pitch, stems or both"):
        _write(source, tmp_path, _teacher(0.9), labels="notes")


def test_lost_statistics_come_back_from_the_labels(source, tmp_path):
    _write(source, tmp_path, _teacher(0.9))
    before = _said(tmp_path)
    (tmp_path / "labels/source.json").unlink()  # killed between the two
    _write(source, tmp_path, _teacher(0.9))
    assert _said(tmp_path) == before and before["kept"] == 320
    _write(source, tmp_path, _teacher(0.9), threshold=0.95)
    assert _said(tmp_path)["kept"] == 0
    _write(source, tmp_path, _teacher(0.9))
    assert _said(tmp_path) == before


# ---- the manifest of the run ---------------------------------------------------------------------


def test_the_manifest_names_the_teacher_and_a_resumed_run_keeps_it(source, tmp_path):
    config = {"stage": {"steps": 2}}
    write_manifest(tmp_path, config, seed=0)

    def entry(**changes):
        directory = _write(source, tmp_path, _teacher(0.9), workdir=tmp_path, **changes)
        found = json.loads((tmp_path / "config.json").read_text())["pseudo_labels"]["source"]
        assert tmp_path / found["folder"] == directory
        return found

    first = entry(teacher_step=300)
    assert len(first["teacher"]) == 8 and first["teacher"] in first["folder"]
    assert (first["teacher_step"], first["threshold"], first["granularity"]) == (300, 0.7, "frame")
    manifest = write_manifest(tmp_path, config, seed=0)  # the second start
    assert manifest["pseudo_labels"]["source"] == first and len(manifest["starts"]) == 2
    stamp = (tmp_path / "config.json").stat().st_mtime_ns
    assert entry(teacher_step=300) == first
    assert (tmp_path / "config.json").stat().st_mtime_ns == stamp
    other = entry(variables={"params": {"w": np.zeros(2, np.float32)}})
    assert other["teacher"] != first["teacher"] and "teacher_step" not in other
    manifest = json.loads((tmp_path / "config.json").read_text())
    assert list(manifest["pseudo_labels"]) == ["source"] and len(manifest["starts"]) == 2


# ---- labels made wrong on purpose ----------------------------------------------------------------


def test_the_labels_on_disk_are_wrong_as_often_as_their_file_says(source, tmp_path):
    right = _write(source, tmp_path, _teacher(0.9), wrong_pitch=0.0, seed=5)
    assert right.name.endswith("-0.7-frame")
    assert "wrong_share" not in _said(tmp_path)
    directory = _write(source, tmp_path, _teacher(0.9), wrong_pitch=0.4, seed=5)
    assert directory.name.endswith("-0.7-frame-wrong0.4-seed5")
    tracks = list(records.read_tracks(directory, "train"))
    f0_hz = np.concatenate([t["f0_hz"][:, 0] for t in tracks])
    wrong = np.abs(f0_hz / NOTE_HZ - 1) > 0.01
    octave = np.abs(np.abs(np.log2(f0_hz / NOTE_HZ)) - 1) < 0.01
    said = _said(tmp_path)
    assert 0 < wrong.sum() < len(wrong)
    assert said["wrong_kept"] == wrong.sum() and said["wrong_octaves_kept"] <= octave.sum()
    assert said["wrong_share"] == pytest.approx(wrong.mean(), abs=1e-4)
    assert (said["wrong_pitch"], said["wrong_pitch_seed"]) == (0.4, 5)
    other = _write(source, tmp_path, _teacher(0.9), wrong_pitch=0.4, seed=6)
    assert other != directory
    # Stems have no pitch to make wrong.
    stems = _write(source, tmp_path, _teacher(0.9), labels="stems", wrong_pitch=0.4, threshold=0.5)
    assert "wrong" not in stems.name
    with pytest.raises(ValueError, match=r"wrong_pitch is 40.0; expected a share"):
        _write(source, tmp_path, _teacher(0.9), wrong_pitch=40.0)


def test_which_labels_are_wrong_does_not_depend_on_the_threshold(source, tmp_path):
    def labels(threshold):
        directory = _write(
            source, tmp_path, _teacher(0.9), wrong_pitch=0.5, seed=1, threshold=threshold
        )
        return [t["f0_hz"] for t in records.read_tracks(directory, "train")]

    for one, other in zip(labels(0.5), labels(0.8), strict=True):
        np.testing.assert_array_equal(one, other)
