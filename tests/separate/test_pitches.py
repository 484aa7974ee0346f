"""From files to pitches, notes and pictures: what is written, what other programs read of it, bad
files.
"""

import json

import mir_eval
import numpy as np
import pretty_midi
import pytest
import soundfile
import tiny_multi_pitch as tiny

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
    assert [p.name for p in result.paths] == ["pitches.csv", "pitches.mid", "picture.png"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in result.paths}
    assert sum(seconds) == pytest.approx(126 * HOP_S)
    times_s, pitches = mir_eval.io.load_ragged_time_series(tmp_path / "out/pitches.csv")
    np.testing.assert_allclose(times_s, np.arange(126) * HOP_S, atol=1e-6)
    assert result.frames == 126 and result.pitched_frames >= 120
    np.testing.assert_allclose(np.concatenate(pitches[5:55]), tiny.BIN_HZ[4], rtol=1e-5)
    np.testing.assert_allclose(pitches[70:120], [tiny.BIN_HZ[[4, 16]]] * 50, rtol=1e-5)
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
    _, pitches = mir_eval.io.load_ragged_time_series(tmp_path / "out/pitches.csv")
    np.testing.assert_allclose(np.concatenate(pitches[5:55]), tiny.BIN_HZ[16], rtol=1e-5)


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
    times_s, pitches = mir_eval.io.load_ragged_time_series(tmp_path / "out/pitches.csv")
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


def frames_of(*midi_of_frames):
    hz = [440 * 2 ** ((np.array(m, float) - 69) / 12) for m in midi_of_frames]
    return hz, [np.full(len(m), 0.5) for m in midi_of_frames]


def test_pitches_that_go_on_are_one_note():
    frames = [[60.0, 67.0]] * 5 + [[60.2, 67.0]] * 5 + [[67.0]] * 2 + [[67.0, 72.0]] * 6
    found = separate_notes.notes(*frames_of(*frames))
    assert [(n.first, n.end) for n in found] == [(0, 10), (0, 18), (12, 18)]
    assert [n.midi for n in found] == pytest.approx([60.1, 67.0, 72.0])
    assert all(n.strength == pytest.approx(0.5) for n in found)


def test_gaps_and_steps_end_a_note_and_short_ones_are_dropped():
    frames = [[60.0]] * 6 + [[]] + [[60.0]] * 6 + [[60.6]] * 6 + [[70.0]] * 4
    found = separate_notes.notes(*frames_of(*frames), shortest_frames=5)
    assert [(n.first, n.end) for n in found] == [(0, 6), (7, 13), (13, 19)]
    assert len(separate_notes.notes(*frames_of(*frames), shortest_frames=4)) == 4
    assert separate_notes.notes([], []) == []


def test_the_nearest_pitch_continues_a_note():
    found = separate_notes.notes(*frames_of(*[[60.0, 60.4]] * 3, *[[60.3]] * 3), shortest_frames=1)
    assert [(n.first, n.end) for n in found] == [(0, 3), (0, 6)]
    assert found[1].midi == pytest.approx(60.35)


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
    assert found == [(60, 0.0, 2.0, 114), (60, 3.0, 4.0, 1), (64, 0.0, 1.0, 127)]


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
    assert separate.main([*words, "--recipe=ss_mpe", "--no-picture"]) == 0
    said = capsys.readouterr().out
    assert "model: ss_mpe, stage main, step 7" in said and "pitches.mid (2 notes)" in said
    assert {p.name for p in (tmp_path / "out/a").iterdir()} == {"pitches.csv", "pitches.mid"}
    assert separate.main(words) == 1 and "--overwrite" in capsys.readouterr().err
    assert separate.main([*words, "--overwrite", "--threshold=1", "--device=cpu"]) == 0
    assert (tmp_path / "out/a/picture.png").exists()
    assert separate.main([*words, "--recipe=majl"]) == 1
    assert "recipe ss_mpe, not majl" in capsys.readouterr().err
    (tmp_path / "text.wav").write_text("not audio")
    assert separate.main(["text.wav", "--checkpoint=run", "--output=out"]) == 1
    assert "not audio that can be decoded" in capsys.readouterr().err
