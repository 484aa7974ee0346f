"""From files to pitches, notes and pictures: what is written, what other programs read of it, bad
files.
"""

import errno
import json
import pathlib

import mir_eval
import numpy as np
import pandas
import pretty_midi
import pytest
import soundfile
import tiny_multi_pitch as tiny

from majl_jax import atomic
from majl_jax.audio import files
from majl_jax.inference import multi_pitch
from majl_jax.plotting.salience import Picture
from majl_jax.separate import __main__ as separate
from majl_jax.separate import notes as separate_notes
from majl_jax.separate import outputs, pitches
from majl_jax.separate.pitches import transcribe_file
from majl_jax.training import restore

GAIN = {"gain": np.float32(1.0)}
MODEL = tiny.make(tiny.first_harmonic, threshold=0.97)
HOP_S = tiny.HOP / tiny.RATE_HZ


def write(path, audio=None, *, rate_hz=tiny.RATE_HZ, channels=1):
    """Half a second of bin 4, then half a second of bins 4 and 16."""
    if audio is None:
        audio = tiny.tones(4, seconds=1.0)
        audio[4000:] += tiny.tones(16, seconds=0.5)
        audio *= 0.2
    if rate_hz != tiny.RATE_HZ:
        import soxr

        audio = soxr.resample(audio, tiny.RATE_HZ, rate_hz)
    soundfile.write(path, np.repeat(audio[:, None], channels, 1), rate_hz, subtype="FLOAT")


def options(**changes):
    return outputs.Options(**{"threshold": MODEL.threshold, **changes})


@pytest.mark.parametrize(("rate_hz", "channels"), [(8000, 1), (22_050, 2)])
def test_pitches_notes_and_picture(tmp_path, rate_hz, channels):
    write(tmp_path / "a.wav", rate_hz=rate_hz, channels=channels)
    seconds = []
    result = transcribe_file(
        tmp_path / "a.wav", tmp_path / "out", MODEL, GAIN, progress=seconds.append
    )
    names = ["pitches.csv", "pitches.txt", "pitches.mid", "picture.png"]
    assert [p.name for p in result.paths] == names
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in result.paths}
    assert sum(seconds) == pytest.approx(126 * HOP_S)
    times_s, pitches = mir_eval.io.load_ragged_time_series(tmp_path / "out/pitches.txt")
    np.testing.assert_allclose(times_s, np.arange(126) * HOP_S, atol=1e-6)
    assert result.frames == 126 and result.pitched_frames >= 120
    np.testing.assert_allclose(np.concatenate(pitches[5:55]), tiny.BIN_HZ[4], rtol=1e-5)
    np.testing.assert_allclose(pitches[70:120], [tiny.BIN_HZ[[4, 16]]] * 50, rtol=1e-5)
    table = pandas.read_csv(tmp_path / "out/pitches.csv")
    assert list(table.columns) == ["time", "frequency", "confidence"]
    np.testing.assert_allclose(table["frequency"], np.concatenate(pitches), atol=1e-3)
    np.testing.assert_array_equal(table["time"], np.repeat(times_s, [*map(len, pitches)]))
    assert table["confidence"].between(MODEL.threshold - 1e-4, 1).all()
    notes = pretty_midi.PrettyMIDI(str(tmp_path / "out/pitches.mid")).instruments[0].notes
    assert [note.pitch for note in notes] == [73, 85] and result.notes == 2
    assert notes[0].start < 0.05 and notes[0].end == pytest.approx(1.0, abs=0.05)
    assert notes[1].start == pytest.approx(0.5, abs=0.05) and notes[1].velocity > 120
    assert (tmp_path / "out/picture.png").read_bytes().startswith(b"\x89PNG")


def test_channels_are_averaged(tmp_path):
    audio = tiny.tones(4, seconds=0.5)
    both = np.stack([audio + 0.5 * tiny.tones(16, seconds=0.5), -audio], 1)
    soundfile.write(tmp_path / "a.wav", 0.3 * both, tiny.RATE_HZ, subtype="FLOAT")
    transcribe_file(tmp_path / "a.wav", tmp_path / "out", MODEL, GAIN)
    _, pitches = mir_eval.io.load_ragged_time_series(tmp_path / "out/pitches.txt")
    np.testing.assert_allclose(np.concatenate(pitches[5:55]), tiny.BIN_HZ[16], rtol=1e-5)


def test_channels_that_cancel_each_other_are_heard_all_the_same(tmp_path):
    audio = 0.3 * tiny.tones(4, seconds=0.5)
    soundfile.write(tmp_path / "a.wav", np.stack([audio, -audio], 1), tiny.RATE_HZ, subtype="FLOAT")
    with pytest.warns(files.AudioFileWarning, match="cancel each other"):
        transcribe_file(tmp_path / "a.wav", tmp_path / "out", MODEL, GAIN)
    _, pitches = mir_eval.io.load_ragged_time_series(tmp_path / "out/pitches.txt")
    np.testing.assert_allclose(np.concatenate(pitches[5:55]), tiny.BIN_HZ[4], rtol=1e-5)


def test_the_whole_track_is_scaled_to_a_peak_of_one(tmp_path, monkeypatch):
    heard = []
    stream = multi_pitch.stream

    def listen(model, variables, audio, **kind):
        heard.append(np.abs(audio).max())
        return stream(model, variables, audio, **kind)

    monkeypatch.setattr(multi_pitch, "stream", listen)
    write(tmp_path / "a.wav", 1e-4 * tiny.tones(4))
    result = transcribe_file(tmp_path / "a.wav", tmp_path / "out", MODEL, GAIN)
    assert heard == [1.0] and result.pitched_frames > 100


def test_silence_has_no_pitch_whatever_the_network_says(tmp_path):
    write(tmp_path / "a.wav", np.zeros(8000))
    everything = tiny.make(lambda v, features, mask: 0.9 + 0 * features[..., 0])
    with pytest.warns(files.AudioFileWarning, match="every sample is zero"):
        result = transcribe_file(tmp_path / "a.wav", tmp_path / "out", everything, GAIN)
    assert (result.frames, result.pitched_frames, result.notes) == (126, 0, 0)
    times_s, pitches = mir_eval.io.load_ragged_time_series(tmp_path / "out/pitches.txt")
    assert len(times_s) == 126 and not any(map(len, pitches))


def test_bad_input_and_broken_models_leave_nothing(tmp_path):
    bad = tiny.tones(4)
    bad[100] = np.nan
    write(tmp_path / "nan.wav", bad)
    write(tmp_path / "good.wav")
    with pytest.raises(files.AudioFileError, match="sample 100"):
        transcribe_file(tmp_path / "nan.wav", tmp_path / "out", MODEL, GAIN)
    with pytest.raises(ValueError, match="not finite: check the checkpoint"):
        broken = {"gain": np.float32(np.nan)}
        transcribe_file(tmp_path / "good.wav", tmp_path / "out", MODEL, broken)
    assert not (tmp_path / "out").exists()


def test_all_files_are_put_in_place_or_none(tmp_path, monkeypatch):
    write(tmp_path / "a.wav")
    real = pathlib.Path.replace

    def replace(self, target):
        if target.suffix == ".mid":
            raise OSError(errno.EIO, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(pathlib.Path, "replace", replace)
    with pytest.raises(atomic.WriteError, match=r"could not write .*/pitches.mid"):
        transcribe_file(tmp_path / "a.wav", tmp_path / "out", MODEL, GAIN)
    assert not (tmp_path / "out").exists()


def test_a_fault_while_writing_keeps_earlier_results(tmp_path, monkeypatch):
    write(tmp_path / "a.wav")

    def full(*arguments, **kind):
        raise OSError("the disk is full")

    monkeypatch.setattr(pitches, "write_midi", full)
    with pytest.raises(OSError, match="disk is full"):
        transcribe_file(tmp_path / "a.wav", tmp_path / "out", MODEL, GAIN)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/pitches.csv").write_text("earlier")
    with pytest.raises(OSError, match="disk is full"):
        transcribe_file(tmp_path / "a.wav", tmp_path / "out", MODEL, GAIN, options(overwrite=True))
    assert [p.read_text() for p in (tmp_path / "out").iterdir()] == ["earlier"]


# Notes -------------------------------------------------------------------------------------------


GRID_S = 1024 / 22_050  # of configs/ss_mpe.py:quickstart
FINE_S = 256 / 22_050  # of its :paper


def frames_of(*midi_of_frames):
    hz = [440 * 2 ** ((np.array(m, float) - 69) / 12) for m in midi_of_frames]
    return hz, [np.full(len(m), 0.5) for m in midi_of_frames]


def notes_of(frames, **options):
    return separate_notes.notes(*frames_of(*frames), **{"frame_s": 0.02, **options})


def test_pitches_that_go_on_are_one_note():
    frames = [[60.0, 67.0]] * 5 + [[60.2, 67.0]] * 5 + [[67.0]] * 2 + [[67.0, 72.0]] * 6
    found = notes_of(frames)
    assert [(n.first, n.end) for n in found] == [(0, 10), (0, 18), (12, 18)]
    assert [n.midi for n in found] == pytest.approx([60.1, 67.0, 72.0])
    assert all(n.strength == pytest.approx(0.5) for n in found)
    assert found[0].curve == pytest.approx([60.0] * 5 + [60.2] * 5)


def test_gaps_and_steps_end_a_note_and_short_ones_are_dropped():
    frames = [[60.0]] * 6 + [[]] + [[60.0]] * 6 + [[61.0]] * 6 + [[70.0]] * 4
    found = notes_of(frames, shortest_s=0.1)
    assert [(n.first, n.end) for n in found] == [(0, 6), (7, 13), (13, 19)]
    assert len(notes_of(frames, shortest_s=0.08)) == 4
    assert separate_notes.notes([], [], frame_s=0.02) == []


def test_the_nearest_pitch_continues_a_note():
    found = notes_of([[60.0, 60.4]] * 3 + [[60.3]] * 3, shortest_s=0.02)
    assert [(n.first, n.end) for n in found] == [(0, 3), (0, 6)]
    assert found[1].midi == pytest.approx(60.35)


@pytest.mark.parametrize(
    ("frame_s", "least"), [(GRID_S, 2), (FINE_S, 6), (0.02, 3), (0.06, 1), (0.0601, 1), (0.0599, 2)]
)
def test_no_note_is_shorter_than_60_ms(frame_s, least):
    for count in (least - 1, least):
        assert len(notes_of([[60.0]] * count, frame_s=frame_s)) == (count == least)


def steady(onsets_s, midi, frame_s, *, end_s, curve=lambda times_s: 0.0):
    """The pitch in the middle of every frame of notes that follow each other."""
    times_s = np.arange(round(end_s / frame_s) + 1) * frame_s
    number = np.searchsorted(onsets_s, times_s, side="right") - 1
    moved = np.asarray(midi, float)[number] + curve(times_s)
    return [
        [m] if n >= 0 and t < end_s else [] for m, n, t in zip(moved, number, times_s, strict=True)
    ]


@pytest.mark.parametrize("frame_s", [GRID_S, FINE_S])
@pytest.mark.parametrize("rate_hz", [4.5, 5.5, 7.0])
def test_a_vibrato_is_one_note_and_steps_of_a_semitone_are_heard_in_it(frame_s, rate_hz):
    for phase in np.linspace(0, 2 * np.pi, 7):

        def vibrato(times_s, phase=phase):
            swung = 0.6 * np.sin(2 * np.pi * rate_hz * times_s + phase)
            return np.round(swung * 3) / 3  # as bins of 33 cents have it

        (one,) = notes_of(steady([0.0], [60], frame_s, end_s=2.0, curve=vibrato), frame_s=frame_s)
        assert one.end - one.first > 1.9 / frame_s and one.midi == pytest.approx(60, abs=0.1)
        scale = steady([0.0, 0.6, 1.2], [60, 61, 63], frame_s, end_s=2.0, curve=vibrato)
        found = notes_of(scale, frame_s=frame_s)
        assert [round(n.midi) for n in found] == [60, 61, 63]
        begins = [n.seconds(frame_s)[0] for n in found]
        # The place of a step may be off by what the vibrato hides of it.
        np.testing.assert_allclose(begins, [0.0, 0.6, 1.2], atol=0.1)


@pytest.mark.parametrize("frame_s", [GRID_S, 0.02, FINE_S])
def test_semitones_in_a_row_are_notes_from_150_ms_on(frame_s):
    midi = 60 + np.array([0, 1, 2, 1, 0, 1, 0, 1, 2, 3, 4, 3])
    frames = steady(0.011 + 0.15 * np.arange(12), midi, frame_s, end_s=1.811)
    assert [round(n.midi) for n in notes_of(frames, frame_s=frame_s)] == midi.tolist()


def test_onsets_are_within_half_a_frame(tmp_path):
    rng = np.random.default_rng(0)
    onsets_s = 0.3 + np.cumsum(rng.uniform(0.15, 0.5, 60))
    midi = 60 + np.cumsum(rng.choice([-2, -1, 1, 2], 60)) % 24
    frames = steady(onsets_s, midi, GRID_S, end_s=onsets_s[-1] + 0.4)
    found = notes_of(frames, frame_s=GRID_S)
    separate_notes.write_midi(tmp_path / "a.mid", found, frame_s=GRID_S)
    played = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid")).instruments[0].notes
    spans = np.stack([onsets_s, np.append(onsets_s[1:], onsets_s[-1] + 0.4)], 1)
    found_spans = np.array([(note.start, note.end) for note in played])
    scores = mir_eval.transcription.precision_recall_f1_overlap(
        spans,
        440 * 2 ** ((midi - 69) / 12),
        found_spans,
        np.array([440 * 2 ** ((note.pitch - 69) / 12) for note in played]),
        onset_tolerance=0.03,
        offset_ratio=None,
    )
    assert scores[2] == 1.0
    # By turns too early and too late, not late on the whole.
    late_s = np.sort(found_spans[:, 0]) - onsets_s
    assert np.abs(late_s).max() < GRID_S / 2 + 0.003 and abs(late_s.mean()) < 0.005


@pytest.mark.slow
def test_a_drone_of_an_hour_is_cut_at_once():
    (one,) = notes_of([[60.0]] * 100_000)
    assert one.end == 100_000


def test_notes_on_one_key_are_joined_where_they_overlap(tmp_path):
    made = [
        separate_notes.Note(0, 10, 60.1, 0.5),
        separate_notes.Note(5, 20, 59.8, 0.9),
        separate_notes.Note(30, 40, 60.0, 0.001),
        separate_notes.Note(0, 10, 64.0, 2.0),
    ]
    separate_notes.write_midi(tmp_path / "a.mid", made, frame_s=0.1)
    notes = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid")).instruments[0].notes
    found = sorted((n.pitch, round(n.start, 2), round(n.end, 2), n.velocity) for n in notes)
    assert found == [(60, 0.0, 1.95, 114), (60, 2.95, 3.95, 1), (64, 0.0, 0.95, 127)]


def test_pitch_bends_follow_the_frames(tmp_path):
    curve = [60.0, 60.5, 60.5, 59.0, 63.0]
    made = [
        separate_notes.Note(4, 9, 60.2, 0.5, tuple(curve)),
        separate_notes.Note(6, 8, 67.0, 0.5, (67.0, 67.0)),
        separate_notes.Note(9, 10, 72.0, 0.5, (72.25,)),
    ]
    separate_notes.write_midi(tmp_path / "a.mid", made, frame_s=0.1, pitch_bends=True)
    first, second = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid")).instruments
    assert [n.pitch for n in first.notes] == [60, 72] and [n.pitch for n in second.notes] == [67]
    bends = [(round(b.time, 2), b.pitch) for b in first.pitch_bends]
    assert bends == [(0.35, 0), (0.45, 2048), (0.65, -4096), (0.75, 8191), (0.85, 1024)]
    assert [(round(b.time, 2), b.pitch) for b in second.pitch_bends] == [(0.55, 0)]
    many = [separate_notes.Note(0, 9, 40.0 + n, 0.5, (40.0 + n,) * 9) for n in range(20)]
    separate_notes.write_midi(tmp_path / "b.mid", many, frame_s=0.1, pitch_bends=True)
    written = pretty_midi.PrettyMIDI(str(tmp_path / "b.mid")).instruments
    assert [len(one.notes) for one in written] == [1] * 14 + [6]
    separate_notes.write_midi(tmp_path / "c.mid", [], frame_s=0.1, pitch_bends=True)


def test_the_picture_of_a_long_track_stays_small(tmp_path):
    picture = Picture(frame_s=0.05, columns=50)
    for second in range(100):
        salience = np.zeros((20, 25), np.float32)
        salience[:, 7] = 0.9 * (second >= 50)
        picture.push(salience, salience)
    columns = picture._picked.finish()
    assert 50 <= len(columns) <= 100
    assert not columns[: len(columns) // 2 - 1].any() and columns[len(columns) // 2 + 1 :, 7].all()
    picture.draw(tmp_path / "a.png", tiny.BIN_HZ, title="costs $5 or $6")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    truth = np.array([[60.0, tiny.BIN_HZ[9]]])
    picture.draw(tmp_path / "b.png", tiny.BIN_HZ, title="costs $5 or $6", truth=truth)
    assert (tmp_path / "b.png").read_bytes() != (tmp_path / "a.png").read_bytes()


# The command -------------------------------------------------------------------------------------


def test_the_command_transcribes_a_run_whose_recipe_has_a_multi_pitch_model(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("majl_jax.recipes.ss_mpe.multi_pitch_model", lambda config: MODEL)
    monkeypatch.setattr(
        restore, "load_variables", lambda *which: (GAIN, {"stage": "main", "step": 7})
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps({"config": {"recipe": "ss_mpe"}}))
    write(tmp_path / "a.wav")
    monkeypatch.chdir(tmp_path)
    words = ["a.wav", "--checkpoint=run", "--output=out"]
    assert separate.main([*words, "--recipe=ss_mpe", "--no_picture"]) == 0
    said = capsys.readouterr().out
    assert "model: ss_mpe, stage main, step 7" in said and "pitches.mid (2 notes)" in said
    names = {"pitches.csv", "pitches.txt", "pitches.mid"}
    assert {p.name for p in (tmp_path / "out/a").iterdir()} == names
    assert separate.main(words) == 1 and "--overwrite" in capsys.readouterr().err
    plain = (tmp_path / "out/a/pitches.mid").read_bytes()
    assert separate.main([*words, "--overwrite", "--pitch_bends"]) == 0
    assert (tmp_path / "out/a/pitches.mid").read_bytes() != plain
    assert separate.main([*words, "--overwrite", "--threshold=1", "--device=cpu"]) == 0
    assert (tmp_path / "out/a/picture.png").exists()
    assert separate.main([*words, "--recipe=majl"]) == 1
    assert "recipe ss_mpe, not majl" in capsys.readouterr().err
    (tmp_path / "text.wav").write_text("not audio")
    assert separate.main(["text.wav", "--checkpoint=run", "--output=out"]) == 1
    assert "not audio that can be decoded" in capsys.readouterr().err
