"""MedleyDB: a made-up copy, which tracks and which annotations are taken, and the label clock by
sound.
"""

import pathlib
import shutil

import numpy as np
import pytest
import soundfile
from made_copies.medleydb import (
    ANNOTATION_HOP_S,
    CHANGE_S,
    END_S,
    FILE_RATE,
    truth,
    write_rows,
    write_track,
)

from majl_jax.datasets import curves, track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS, medleydb
from majl_jax.datasets.splits import read_split
from majl_jax.datasets.track import BadTrack
from majl_jax.prepare import __main__ as prepare

RATE, HOP = 16000, 160
GRID = Grid(RATE, HOP)


def load_only(root: pathlib.Path):
    (one,) = medleydb.tracks(str(root), grid=GRID)
    recording = one.load()
    track.check(recording)
    return recording


def heard_hz(voice: np.ndarray, frame: int) -> float:
    """The frequency of the strongest partial in 40 ms around a frame; 0 in silence."""
    window = voice[max(frame * HOP - 320, 0) : frame * HOP + 320]
    if np.abs(window[len(window) // 2 - 80 :][:160]).max() < 0.01:
        return 0.0
    spectrum = np.abs(np.fft.rfft(window * np.hanning(len(window)), 1 << 15))
    return float(np.argmax(spectrum)) * RATE / (1 << 15)


def test_voice_and_accompaniment_sum_to_the_stems(tmp_path):
    write_track(tmp_path, "Amy_One")
    recording = load_only(tmp_path)
    assert recording.stems == ("accompaniment", "voice") == READERS["medleydb"].stems
    assert recording.has_stems.all() and recording.audio.shape == (32000, 2, 1)
    given = sorted((tmp_path / "Audio/Amy_One/Amy_One_STEMS").glob("*.wav"))
    total = sum(soundfile.read(path)[0].mean(1) for path in given)
    spectra = [
        np.fft.rfft(audio)[: 7000 * 2] / len(audio)
        for audio in (total, recording.audio.sum(1)[:, 0])
    ]
    np.testing.assert_allclose(spectra[1], spectra[0], atol=2e-5)
    tone = 0.4 * 0.75  # mean of the two channels
    assert np.abs(recording.audio[:20000, 1]).max() == pytest.approx(tone, abs=0.01)
    assert np.abs(recording.audio[25600:, 1]).max() < 1e-3
    assert recording.audio[25600:, 0].std() > 0.03


@pytest.mark.parametrize("kind", ["pitch", "MELODY1", "MELODY2"])
def test_the_label_clock_agrees_with_the_sound(tmp_path, kind):
    write_track(tmp_path, "Amy_One", pitch=kind)
    recording = load_only(tmp_path)
    labels, voice = recording.f0_hz[:, 1], recording.audio[:, 1, 0]
    assert not recording.has_pitch[:, 0].any()
    known = recording.has_pitch[:, 1]
    assert known.all() if kind == "pitch" else known[:-1].all()
    heard = np.array([heard_hz(voice, frame) for frame in range(len(labels))])
    for time_s in (CHANGE_S, END_S):
        # Where the heard pitch changes, the label changes, give or take a frame of 10 ms.
        near = slice(int(time_s * 100) - 10, int(time_s * 100) + 12)
        sound = np.flatnonzero(np.abs(np.diff(heard[near])) > 50)
        label = np.flatnonzero(np.diff(labels[near]))
        assert len(sound) == len(label) == 1 and abs(sound[0] - label[0]) <= 1
    steady = np.abs(np.arange(len(labels)) / 100 - CHANGE_S) > 0.03
    steady &= np.abs(np.arange(len(labels)) / 100 - END_S) > 0.03
    np.testing.assert_allclose(heard[steady], labels[steady], atol=3)
    np.testing.assert_array_equal(labels[:-1], truth(nearest_row_s(len(labels))[:-1]))


def nearest_row_s(frames: int) -> np.ndarray:
    return np.round(np.arange(frames) * HOP / RATE / ANNOTATION_HOP_S) * ANNOTATION_HOP_S


def test_frames_of_a_long_track_do_not_drift():
    rows = np.arange(60000) * ANNOTATION_HOP_S  # 348 s
    rows = np.stack([rows, 100 + rows], axis=1)  # f0 tells the time
    f0_hz, known = curves.on_frames(rows, voiced_only=False, frames=17000, grid=Grid(RATE, 320))
    assert known.all()
    error_s = f0_hz - 100 - np.arange(17000) * 0.02
    assert np.abs(error_s).max() <= ANNOTATION_HOP_S / 2 + 1e-4


def test_what_is_not_annotated_is_unvoiced_or_unknown():
    rows = np.array([[0.02, 100.0], [0.02 + ANNOTATION_HOP_S, 100.0]])
    for voiced_only, expected in ((True, [True] * 4), (False, [False, True, False, False])):
        f0_hz, known = curves.on_frames(
            rows, voiced_only=voiced_only, frames=4, grid=Grid(RATE, 320)
        )
        assert f0_hz.tolist() == [0, 100, 0, 0] and known.tolist() == expected
    f0_hz, _ = curves.on_frames(rows[:1], voiced_only=True, frames=3, grid=Grid(RATE, 320))
    assert f0_hz.tolist() == [0, 100, 0]


def test_pitch_comes_before_melody_and_the_repository_names_are_known(tmp_path):
    pitch = write_track(tmp_path, "Amy_One")
    rows = np.array([[0.0, 0.0], [ANNOTATION_HOP_S, 0.0]])
    folder = tmp_path / "Annotations/Melody_Annotations"
    second = write_rows(folder / "MELODY2", "Amy_One_MELODY2", rows)
    first = write_rows(folder / "MELODY1", "Amy_One_MELODY1", rows)

    def found() -> pathlib.Path:
        (one,) = medleydb.tracks(str(tmp_path), grid=GRID)
        return one.paths[-1]

    for path in (pitch, first, second):
        assert found() == path
        path.unlink()
    for sub, name in (("Melody/Melody2", "Amy_One_MELODY2"), ("Pitch", "Amy_One_STEM_02")):
        path = write_rows(tmp_path / "Annotations" / sub, name, rows)
        assert found() == path
    shutil.move(
        tmp_path / "Audio/Amy_One/Amy_One_METADATA.yaml", tmp_path / "Amy_One_METADATA.yaml"
    )
    (tmp_path / "Metadata").mkdir()
    shutil.move(tmp_path / "Amy_One_METADATA.yaml", tmp_path / "Metadata")
    (one,) = medleydb.tracks(str(tmp_path), grid=GRID)
    assert not one.left_out


def test_other_tracks_are_left_out_with_the_reason(tmp_path):
    write_track(tmp_path, "A_Sung", ((["male singer", "vocalists"], "melody"), ("piano", "bass")))
    write_track(tmp_path, "B_Violin", (("violin", "melody"), ("piano", "")))
    write_track(tmp_path, "C_Two", (("male singer", "melody"), ("female singer", "melody")))
    write_track(tmp_path, "D_AndViolin", (("male singer", "melody"), ("violin", "melody")))
    write_track(tmp_path, "E_Mixed", ((["male singer", "piano"], "melody"), ("piano", "")))
    write_track(tmp_path, "F_None", (("male singer", ""), ("piano", "")), pitch="")
    write_track(tmp_path, "G_NoPitch", pitch="")
    write_track(tmp_path, "H_Solo", (("male singer", "melody"),))
    write_track(tmp_path, "I_NoYaml")
    write_track(tmp_path, "J_BadYaml")
    write_track(tmp_path, "K_OtherYaml")
    (tmp_path / "Audio/I_NoYaml/I_NoYaml_METADATA.yaml").unlink()
    (tmp_path / "Audio/J_BadYaml/J_BadYaml_METADATA.yaml").write_text("stems: [}")
    (tmp_path / "Audio/K_OtherYaml/K_OtherYaml_METADATA.yaml").write_text("stems: {S01: {a: b}}")
    found = {one.id: one for one in medleydb.tracks(str(tmp_path), grid=GRID)}
    left_out = {name: one.left_out for name, one in found.items()}
    assert left_out.pop("A_Sung") == ""
    assert "J_BadYaml_METADATA.yaml: not YAML" in left_out.pop("J_BadYaml")
    assert "K_OtherYaml_METADATA.yaml: KeyError 'instrument'" in left_out.pop("K_OtherYaml")
    other = dict.fromkeys(("B_Violin", "C_Two", "D_AndViolin", "E_Mixed", "F_None"))
    assert left_out == {
        **dict.fromkeys(other, medleydb.OTHER_MELODY),
        "G_NoPitch": medleydb.NO_ANNOTATION,
        "H_Solo": "no stem besides the voice",
        "I_NoYaml": medleydb.NO_METADATA,
    }
    with pytest.raises(BadTrack, match="no annotation of the pitch"):
        found["G_NoPitch"].load()


def test_no_artist_is_in_two_splits(tmp_path):
    rows = read_split(medleydb.SPLIT_LIST)
    artists = [artist for artist, _ in rows]
    assert len(set(artists)) == len(artists) == 13
    for artist in (*artists, "Somebody"):
        for song in ("One", "Two"):
            (tmp_path / f"Audio/{artist}_{song}/{artist}_{song}_STEMS").mkdir(parents=True)
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/any.csv").touch()
    found = medleydb.tracks(str(tmp_path), grid=GRID)
    pairs = {(one.group, one.split) for one in found}
    assert pairs == {*map(tuple, rows), ("Somebody", "train")}
    assert {split for _, split in pairs} == {"train", "valid", "test"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no lines"),
        ("0.0,high\n", r"line 1: '0.0,high'; expected time_s,f0_hz"),
        ("0.0\n", "line 1: '0.0'; expected"),
        ("0.0,220.0\n0.1,-5\n", "line 2: '0.1,-5' is out of range"),
        ("0.0,220.0\n0.1,nan\n", "line 2: '0.1,nan' is out of range"),
        ("0.2,220.0\n0.1,220.0\n", "line 2: its time 0.1 s is not after"),
    ],
)
def test_bad_annotations_are_refused(tmp_path, text, message):
    write_track(tmp_path, "Amy_One").write_text(text)
    with pytest.raises(BadTrack, match=message):
        load_only(tmp_path)


def test_a_third_column_is_not_used(tmp_path):
    write_track(tmp_path, "Amy_One").write_text("0.0,220.0,[1] \n0.005805,221.0\n")
    assert load_only(tmp_path).f0_hz[0, 1] == 220


def test_a_stem_that_is_cut_off_is_named(tmp_path):
    write_track(tmp_path, "Amy_One")
    path = tmp_path / "Audio/Amy_One/Amy_One_STEMS/Amy_One_STEM_03.wav"
    soundfile.write(path, np.full((22050, 2), 0.1), FILE_RATE)
    with pytest.raises(BadTrack, match=r"Amy_One_STEM_03\.wav: 0\.50 s, while .* 2\.00 s"):
        load_only(tmp_path)


def test_a_folder_that_is_no_copy_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no copy of MedleyDB: expected Audio/TRACK/"):
        medleydb.tracks(str(tmp_path), grid=GRID)
    with pytest.raises(ValueError, match="--source is missing: the folder of MedleyDB"):
        medleydb.tracks(None, grid=GRID)
    shutil.rmtree(write_track(tmp_path, "Amy_One").parent)
    with pytest.raises(FileNotFoundError, match="has no annotations; expected"):
        medleydb.tracks(str(tmp_path), grid=GRID)


def test_prepare_skips_bad_tracks_and_counts_what_is_left_out(tmp_path, capsys):
    copy = tmp_path / "copy"
    write_track(copy, "Amy_One")
    write_track(copy, "Bob_One").write_text("no numbers\n")
    write_track(copy, "Cid_One", (("violin", "melody"), ("piano", "")))
    prepare.main(
        [
            *("--dataset=medleydb", f"--source={copy}", f"--output={tmp_path / 'out'}"),
            *("--record_seconds=1", "--processes=1", "--max_bad_fraction=0.6"),
        ]
    )
    report = (tmp_path / "out/medleydb/report.json").read_text()
    assert "Bob_One" in report and "line 1: 'no numbers'" in report
    assert medleydb.OTHER_MELODY in report and "Cid_One" in report
    assert "Bob_One" in capsys.readouterr().out
