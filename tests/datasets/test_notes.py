"""Notes on label frames with several voices, and MIDI under the sustain pedal."""

import pathlib

import numpy as np
import pretty_midi
import pytest
import soundfile

from majl_jax.datasets import source_files, track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.notes import frames_of_voices, load_with_notes, read_midi, ringing
from majl_jax.datasets.track import BadTrack

RATE, HOP = 22050, 256
GRID = Grid(RATE, HOP)


def pitches(f0_hz: np.ndarray) -> list[list[float]]:
    """What sounds in each frame, whichever the voice."""
    return [sorted(float(hz) for hz in frame if hz) for frame in f0_hz]


def frames(rows, *, voices=4, frames=60, name="notes"):
    notes = np.asarray(rows, np.float64).reshape(-1, 3)
    return frames_of_voices(notes, name=name, voices=voices, frames=frames, grid=GRID)


def test_a_note_sounds_from_its_onset_until_before_its_offset():
    on_frame_10, off_frame_20 = 10 * HOP / RATE, 20 * HOP / RATE
    f0_hz = frames([(on_frame_10, off_frame_20, 440.0)])
    assert f0_hz.shape == (60, 4) and f0_hz.dtype == np.float32
    assert np.flatnonzero(f0_hz[:, 0]).tolist() == list(range(10, 20)) and not f0_hz[:, 1:].any()
    just_later = frames([(on_frame_10 + 1e-6, off_frame_20 + 1e-6, 440.0)])
    assert np.flatnonzero(just_later[:, 0]).tolist() == list(range(11, 21))


def test_random_notes_agree_with_the_rule_frame_by_frame():
    rng = np.random.default_rng(0)
    onsets_s = np.sort(rng.uniform(0, 0.6, 40))
    notes = np.stack([onsets_s, onsets_s + rng.exponential(0.08, 40), rng.uniform(50, 900, 40)], 1)
    f0_hz = frames(notes, voices=20)
    for frame, found in enumerate(pitches(f0_hz)):
        time_s = frame * HOP / RATE
        expected = sorted(float(np.float32(hz)) for on, off, hz in notes if on <= time_s < off)
        assert found == expected
    for _, _, note_hz in notes:  # a note keeps its voice
        assert len(set(np.argwhere(f0_hz == np.float32(note_hz))[:, 1])) <= 1


def test_voices_are_freed_and_counted():
    scale = [(0.1 * k, 0.1 * (k + 1), 100.0 + k) for k in range(6)]
    assert np.count_nonzero(frames(scale, voices=1)) == len(range(0, 52))
    chord = [(0.1, 0.3, 200.0), (0.1, 0.3, 200.0), (0.2, 0.4, 300.0)]
    assert pitches(frames(chord, voices=3))[20] == [200, 200, 300]  # a unison is two voices
    with pytest.raises(BadTrack, match=r"song\.csv: 3 notes at once at 0\.21 s; .* at most 2"):
        frames(chord, voices=2, name="song.csv")
    between = [(0.0, 0.5, 100.0), (0.012, 0.013, 200.0)]  # frames lie at 0.0116 and 0.0232 s
    assert np.count_nonzero(frames(between, voices=1)) == 44


def test_late_notes_do_not_drift():
    late = 100_000 * HOP / RATE  # 1161 s: single precision is 0.1 ms off there
    f0_hz = frames([(late, late + 10 * HOP / RATE, 440.0)], frames=100_020, voices=1)
    assert np.flatnonzero(f0_hz).tolist() == list(range(100_000, 100_010))


def write_tone(path: pathlib.Path, seconds: float = 1.0) -> pathlib.Path:
    times_s = np.arange(int(seconds * 44100)) / 44100
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 220 * times_s), 44100)
    return path


def load(path: pathlib.Path, rows, **options):
    notes = np.asarray(rows, np.float64).reshape(-1, 3)
    return load_with_notes(path, notes, name="x.csv", **{"voices": 2, "grid": GRID, **options})


def test_a_recording_holds_the_mixture_and_every_frame_is_labelled(tmp_path):
    recording = load(write_tone(tmp_path / "a.wav"), [(0.5, 0.6, 330.0), (0.2, 0.9, 220.0)])
    track.check(recording)
    assert recording.stems == ("mixture",) and not recording.has_stems.any()
    assert recording.audio.shape == (22050, 1, 1) and recording.voices == 2
    assert recording.f0_hz.shape == recording.has_pitch.shape == (86, 2)
    assert recording.has_pitch.all()
    assert pitches(recording.f0_hz)[45] == [220, 330] and pitches(recording.f0_hz)[0] == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"x\.csv: holds no notes"),
        ([(0.0, 0.5, 220.0), (0.5, 0.4, 220.0)], r"x\.csv, note 2: \[0\.5, 0\.4, 220\.0\]"),
        ([(-0.1, 0.5, 220.0)], r"note 1: .* expected 0 <= onset_s"),
        ([(0.0, 0.5, 0.0)], "above 0 Hz"),
        ([(0.0, np.nan, 220.0)], r"x\.csv, note 1"),
        ([(2.5, 3.0, 220.0)], r"a\.wav: 1\.0 s long, but x\.csv has a note at 2\.5 s"),
    ],
)
def test_bad_notes_are_refused(tmp_path, rows, message):
    with pytest.raises(BadTrack, match=message):
        load(write_tone(tmp_path / "a.wav"), rows)


def test_audio_that_cannot_be_read_is_a_bad_track(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF no audio")
    with pytest.raises(BadTrack, match=r"a\.wav: not audio"):
        load(tmp_path / "a.wav", [(0.0, 0.5, 220.0)])
    with pytest.raises(BadTrack, match=r"b\.wav: no such file"):
        load(tmp_path / "b.wav", [(0.0, 0.5, 220.0)])


KEYS = [(0.0, 0.5, 60), (1.0, 1.5, 60), (0.2, 0.3, 64)]


@pytest.mark.parametrize(
    ("pedal", "offsets_s"),
    [
        ([], [0.5, 1.5, 0.3]),
        ([(0.4, 127), (0.8, 0)], [0.8, 1.5, 0.3]),  # only what the pedal catches
        ([(0.1, 64), (2.0, 63)], [1.0, 2.0, 2.0]),  # until it is struck again, or the pedal goes up
        ([(0.1, 63), (2.0, 0)], [0.5, 1.5, 0.3]),  # half down is up
        ([(0.1, 127)], [1.0, 3.0, 3.0]),  # never up: until the end of the piece
        ([(0.5, 127), (0.9, 0)], [0.9, 1.5, 0.3]),  # down as the key goes up
        ([(0.1, 127), (0.5, 0)], [0.5, 1.5, 0.5]),  # up as the key goes up
        ([(0.1, 127), (0.25, 80), (0.4, 0), (0.45, 90), (0.7, 10)], [0.7, 1.5, 0.4]),
    ],
)
def test_how_long_keys_ring_under_the_pedal(pedal, offsets_s):
    rung = ringing(KEYS, pedal, end_s=3.0)
    assert rung == [(on, off, p) for (on, _, p), off in zip(KEYS, offsets_s, strict=True)]


def test_a_key_struck_again_while_down_ends_the_note():
    keys = [(0.0, 1.0, 60), (0.4, 1.2, 60), (0.4, 0.6, 60)]
    assert ringing(keys, [], end_s=2.0) == [(0.0, 0.4, 60), (0.4, 1.2, 60)]


def test_midi_files_are_read_with_their_pedal(tmp_path):
    midi = pretty_midi.PrettyMIDI(initial_tempo=120)
    piano = pretty_midi.Instrument(0)
    piano.notes = [pretty_midi.Note(90, p, on, off) for on, off, p in KEYS]
    piano.control_changes = [
        pretty_midi.ControlChange(64, 100, 0.25),
        pretty_midi.ControlChange(66, 0, 0.4),  # sostenuto is another pedal
        pretty_midi.ControlChange(64, 0, 0.75),
    ]
    drums = pretty_midi.Instrument(0, is_drum=True)
    drums.notes = [pretty_midi.Note(90, 36, 0.0, 2.0)]
    midi.instruments = [piano, drums]
    midi.write(str(tmp_path / "a.mid"))
    notes = read_midi(tmp_path / "a.mid")
    c4_hz, e4_hz = 261.6256, 329.6276
    expected = [(0.0, 0.75, c4_hz), (0.2, 0.75, e4_hz), (1.0, 1.5, c4_hz)]
    np.testing.assert_allclose(notes, expected, atol=2e-3)


def test_midi_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(BadTrack, match=r"a\.mid: no such MIDI file"):
        read_midi(tmp_path / "a.mid")
    (tmp_path / "a.mid").write_bytes(b"MThd and then nothing")
    with pytest.raises(BadTrack, match=r"a\.mid: not MIDI that can be read"):
        read_midi(tmp_path / "a.mid")
    pretty_midi.PrettyMIDI().write(str(tmp_path / "b.mid"))
    with pytest.raises(BadTrack, match=r"b\.mid: holds no pitched notes"):
        read_midi(tmp_path / "b.mid")


def test_tables_are_read_by_the_names_of_their_columns(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('b,a\n"1,5",2\n3\n')
    assert [(row["a"], row["b"]) for row in source_files.read_table(path, ("a", "b"))] == [
        ("2", "1,5"),
        ("", "3"),
    ]
    with pytest.raises(BadTrack, match=r"a\.csv: has no column 'c'; expected .* a, c"):
        source_files.read_table(path, ("a", "c"))
    path.write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(BadTrack, match=r"a\.csv: not a table"):
        source_files.read_table(path, ("a",))
