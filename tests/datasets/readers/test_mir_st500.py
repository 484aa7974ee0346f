"""MIR-ST500: made-up copies in both layouts, the label clock by sound, and what is wrong with
files.
"""

import json
import pathlib

import numpy as np
import pytest
from made_copies.mir_st500 import NOTES, write_copy

from majl_jax.audio import libav
from majl_jax.datasets import track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS, mir_st500
from majl_jax.datasets.track import BadTrack
from majl_jax.prepare import __main__ as prepare

RATE, HOP = 16000, 320
GRID = Grid(RATE, HOP)
PLACES = ("train/7/Mixture.wav", "train/7/Mixture.flac", "audio/7.wav", "audio/7.flac")


def load_only(folder: pathlib.Path):
    (one,) = mir_st500.tracks(str(folder), grid=GRID)
    recording = one.load()
    track.check(recording)
    return recording


def heard_hz(mixture: np.ndarray, frame: int) -> float:
    """The strongest frequency in 40 ms around a frame; 0 in silence."""
    window = mixture[max(frame * HOP - 320, 0) : frame * HOP + 320]
    middle = window[len(window) // 2 - 40 :][:80]
    if np.abs(middle).max() < 0.02:
        return 0.0
    spectrum = np.abs(np.fft.rfft(window * np.hanning(len(window)), 1 << 15))
    return float(np.argmax(spectrum)) * RATE / (1 << 15)


@pytest.mark.parametrize("place", PLACES)
def test_the_label_clock_agrees_with_the_sound(tmp_path, place):
    recording = load_only(write_copy(tmp_path, place))
    labels = recording.f0_hz[:, 1]
    heard = np.array([heard_hz(recording.audio[:, 0, 0], k) for k in range(len(labels))])
    for onset_s, offset_s, midi in NOTES:
        sounding = np.flatnonzero(np.abs(heard - 440 * 2 ** ((midi - 69) / 12)) < 8)
        labelled = np.flatnonzero(np.isclose(labels, 440 * 2 ** ((midi - 69) / 12), rtol=1e-5))
        assert abs(sounding[0] - labelled[0]) <= 1 and abs(sounding[-1] - labelled[-1]) <= 1
        assert (labelled[0], labelled[-1]) == (round(onset_s / 0.02), round(offset_s / 0.02))
        assert len(labelled) == labelled[-1] - labelled[0] + 1
    outside = np.ones(len(labels), bool)
    for onset_s, offset_s, _ in NOTES:
        outside[round(onset_s / 0.02) : round(offset_s / 0.02) + 1] = False
    assert not labels[outside].any() and recording.has_pitch[:, 1].all()


def test_the_mixture_is_all_that_is_known_of_the_stems(tmp_path):
    recording = load_only(write_copy(tmp_path, PLACES[0]))
    assert recording.stems == ("accompaniment", "voice") == READERS["mir_st500"].stems
    assert recording.audio.shape == (32000, 2, 1) and not recording.has_stems.any()
    inside_the_first_note = recording.audio[int(0.35 * RATE) : int(0.75 * RATE), 0]
    assert np.abs(inside_the_first_note).max() == pytest.approx(0.5, abs=1e-3)
    assert not recording.audio[:, 1].any() and not recording.has_pitch[:, 0].any()
    assert [len(notes) for notes in recording.notes] == [0, 2]
    np.testing.assert_allclose(recording.notes[1][1], [0.85, 1.357, 329.62756], rtol=1e-6)


def test_frames_of_a_long_song_do_not_drift():
    rows = np.array([[1000.004, 1000.5, 69.0]])
    f0_hz, known = mir_st500.frames_of(rows, frames=90000, grid=Grid(22050, 256))
    on = np.flatnonzero(f0_hz)
    assert (on[0], on[-1]) == (86133, 86176) and known.all()  # 1000.004 s * 22050 / 256 = 86133.2


def test_the_split_is_by_number(tmp_path):
    numbers = (1, 360, 361, 400, 401, 500)
    places = [f"{'test' if n > 400 else 'train'}/{n}/Mixture.wav" for n in numbers]
    write_copy(tmp_path, *places, labels={str(n): NOTES for n in numbers})
    found = {one.id: one.split for one in mir_st500.tracks(str(tmp_path), grid=GRID)}
    assert found == {
        **dict.fromkeys(("001", "360"), "train"),
        **dict.fromkeys(("361", "400"), "valid"),
        **dict.fromkeys(("401", "500"), "test"),
    }


def test_songs_that_are_all_of_another_format_are_read(tmp_path):
    write_copy(tmp_path, "audio/7.flac")
    (tmp_path / "audio/7.flac").rename(tmp_path / "audio/7.opus")
    (song,) = mir_st500.tracks(str(tmp_path), grid=GRID)
    assert song.paths[-1].name == "7.opus" and not song.left_out


def test_the_lossless_copy_comes_first_and_m4a_takes_pyav(tmp_path, monkeypatch):
    monkeypatch.setattr(libav, "is_installed", lambda: False)
    write_copy(tmp_path, "audio/7.flac", labels={"7": NOTES, "8": NOTES, "9": NOTES})
    for place in ("train/7/Mixture.mp3", "audio/7.m4a", "audio/8.m4a"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    seven, eight, nine = mir_st500.tracks(str(tmp_path), grid=GRID)
    assert seven.paths[-1].name == "7.flac" and not seven.left_out
    assert eight.left_out.startswith(".m4a files are read with PyAV, which is not installed: pip")
    assert nine.left_out == mir_st500.NO_AUDIO
    for one, message in (
        (eight, r"8\.m4a: \.m4a files are read with PyAV"),
        (nine, "song 9: no audio"),
    ):
        with pytest.raises(BadTrack, match=message):
            one.load()


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ([], r"song 7: notes of shape \(0,\)"),
        ([[0.1, 0.2]], r"notes of shape \(1, 2\)"),
        ([[0.1, 0.2, 60], [0.3, 0.4]], "its notes are not rows of numbers"),
        ([[0.1, 0.2, "C4"]], "its notes are not rows of numbers"),
        (None, r"notes of shape \(\)"),
        ({"a": 1}, "its notes are not rows of numbers"),
        ([[0.1, 0.2, 60], [0.5, 0.4, 60]], r"note 2: \[0.5, 0.4, 60.0\]; expected 0 <= onset_s"),
        ([[-0.1, 0.2, 60]], "note 1: .*expected 0 <= onset_s"),
        ([[0.1, 0.2, 440]], "note 1: .*a MIDI number from 20 to 110"),
        ([[0.1, float("nan"), 60]], "note 1: .*nan"),
        ([[0.1, 0.2, 60], [30.0, 40.0, 60]], r"2\.0 s long, but .*, song 7 has a note until 40\.0"),
    ],
)
def test_bad_notes_are_refused_when_the_song_loads(tmp_path, notes, message):
    write_copy(tmp_path, PLACES[0], labels={"7": notes})
    with pytest.raises(BadTrack, match=message):
        load_only(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"MIR-ST500_corrected\.json: not JSON"),
        ("[[0.1, 0.2, 60]]", 'holds a list of no songs; expected {"1": '),
        ("{}", "holds a dict of no songs"),
        ('{"one": []}', "song 'one' is not a number from 1 to 500"),
        ('{"501": []}', "song '501' is not a number"),
    ],
)
def test_a_label_file_of_another_kind_is_refused(tmp_path, text, message):
    write_copy(tmp_path, PLACES[0])
    (tmp_path / mir_st500.LABEL_FILE).write_text(text)
    with pytest.raises(ValueError, match=message):
        mir_st500.tracks(str(tmp_path), grid=GRID)


def test_a_folder_that_is_no_copy_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no copy of MIR-ST500: expected MIR-ST500_corr"):
        mir_st500.tracks(str(tmp_path), grid=GRID)
    with pytest.raises(ValueError, match="--source is missing: the folder of MIR-ST500"):
        mir_st500.tracks(None, grid=GRID)
    write_copy(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"no audio of any of its 1 songs; expected .*train/N"
    ):
        mir_st500.tracks(str(tmp_path), grid=GRID)


def test_prepare_goes_on_without_the_audio_that_is_missing(tmp_path):
    copy = write_copy(
        tmp_path / "copy",
        *("audio/7.wav", "audio/10.wav"),
        labels={"7": NOTES, "8": NOTES, "9": NOTES, "10": [[0.5, 0.1, 60]]},
    )
    prepare.main(
        [
            *("--dataset=mir_st500", f"--source={copy}", f"--output={tmp_path / 'out'}"),
            *("--record_seconds=1", "--processes=1", "--max_bad_fraction=0.6"),
        ]
    )
    report = json.loads((tmp_path / "out/mir_st500/report.json").read_text())
    assert report["left_out"] == {mir_st500.NO_AUDIO: ["008", "009"]}
    assert list(report["skipped"]) == ["010"] and "note 1" in report["skipped"]["010"]
