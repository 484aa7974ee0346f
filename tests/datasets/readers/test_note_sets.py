"""Made-up copies of the sets with notes: MusicNet, MAESTRO, Su, TRIOS and NSynth."""

import functools
import pathlib
import pickle

import numpy as np
import pytest
from made_copies.note_sets import (
    MAESTRO_HEADER,
    NOTES,
    hz,
    write_audio,
    write_maestro,
    write_musicnet,
    write_nsynth,
    write_su,
    write_trios,
)

from majl_jax.datasets import track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import maestro, musicnet, nsynth, su, trios
from majl_jax.datasets.track import BadTrack

RATE, HOP = 22050, 256
GRID = Grid(RATE, HOP)
MODULES = {"musicnet": musicnet, "maestro": maestro, "su": su, "trios": trios, "nsynth": nsynth}
VOICES = {"musicnet": 32, "maestro": 88, "su": 16, "trios": 16, "nsynth": 1}


WRITE = {
    "musicnet": write_musicnet,
    "maestro": write_maestro,
    "su": write_su,
    "trios": write_trios,
}


def listed(name: str, root: pathlib.Path):
    return [one for one in MODULES[name].tracks(str(root), grid=GRID) if not one.left_out]


def load_only(name: str, root: pathlib.Path):
    (one,) = listed(name, root)
    recording = pickle.loads(pickle.dumps(one)).load()
    track.check(recording)
    return recording


def sounding(f0_hz: np.ndarray) -> list[list[float]]:
    return [sorted(np.round(frame[frame > 0].astype(float), 1).tolist()) for frame in f0_hz]


def expected_frames(notes, count: int) -> list[list[float]]:
    times_s = [k * HOP / RATE for k in range(count)]
    return [sorted(round(hz(p), 1) for on, off, p in notes if on <= t < off) for t in times_s]


@pytest.mark.parametrize("name", WRITE)
def test_notes_become_voices_at_their_frames(tmp_path, name):
    WRITE[name](tmp_path)
    recording = load_only(name, tmp_path)
    assert recording.stems == MODULES[name].STEMS == ("mixture",)
    assert MODULES[name].VOICES == VOICES[name] == recording.f0_hz.shape[1] == recording.voices
    assert recording.audio.shape == (2 * RATE, 1, 1) and recording.grid == GRID
    assert recording.f0_hz.shape[0] == 2 * RATE // HOP and recording.f0_hz.dtype == np.float32
    assert recording.has_pitch.all() and recording.has_stems.tolist() == [False]
    assert sounding(recording.f0_hz) == expected_frames(NOTES, 172)


@pytest.mark.parametrize("name", WRITE)
def test_labels_agree_with_the_sound(tmp_path, name):
    WRITE[name](tmp_path)
    recording = load_only(name, tmp_path)
    mixture = recording.audio[:, 0, 0]
    for frame in (0, 30, 60, 90, 120, 160):  # silence, a tone, a chord, silence, a tone, silence
        window = mixture[max(frame * HOP - 1024, 0) : frame * HOP + 1024]
        spectrum = np.abs(np.fft.rfft(window * np.hanning(len(window)), 1 << 15))
        heard = {
            midi
            for _, _, midi in NOTES
            if spectrum[round(hz(midi) * (1 << 15) / RATE)] > 50  # a tone has about 150
        }
        assert {round(hz(midi), 1) for midi in heard} == set(sounding(recording.f0_hz)[frame])


@pytest.mark.parametrize(
    ("name", "place"), [("musicnet", "1727"), ("su", "PQ02"), ("trios", "brahms")]
)
def test_too_many_notes_at_once_are_counted(tmp_path, name, place):
    WRITE[name](tmp_path, notes=[(0.5, 1.0, 30 + k) for k in range(VOICES[name] + 1)])
    (one,) = listed(name, tmp_path)
    with pytest.raises(BadTrack, match=rf"{place}.*: {VOICES[name] + 1} notes at once at 0\.5"):
        one.load()


@pytest.mark.parametrize("name", MODULES)
def test_a_folder_that_is_no_copy_is_refused(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"is no copy of .*: expected .*(wav|csv|json)"):
        MODULES[name].tracks(str(tmp_path), grid=GRID)
    with pytest.raises(ValueError, match="--source is missing: the folder of"):
        MODULES[name].tracks(None, grid=GRID)


@pytest.mark.parametrize("name", WRITE)
def test_audio_that_is_cut_off_is_named(tmp_path, name):
    WRITE[name](tmp_path)
    (one,) = listed(name, tmp_path)
    assert one.seconds == pytest.approx(2.5 if name == "maestro" else 2.0)
    content = one.paths[0].read_bytes()
    one.paths[0].write_bytes(content[: len(content) // 2])
    with pytest.raises(BadTrack, match=rf"{one.paths[0].name}: holds .* truncated"):
        one.load()
    write_audio(one.paths[0], [(0.0, 0.1, 57)], seconds=0.1)
    with pytest.raises(BadTrack, match=rf"{one.paths[0].name}: 0\.1 s long, but .* at 1\.2 s"):
        one.load()


def test_musicnet_parts_are_splits_and_times_are_at_44100_whatever_the_audio(tmp_path):
    write_musicnet(tmp_path / "musicnet")
    write_musicnet(tmp_path / "musicnet", "test", "2106")
    write_audio(tmp_path / "musicnet/test_data/2106.wav", rate=16000)
    write_audio(tmp_path / "musicnet/train_data/900.flac")
    (tmp_path / "musicnet_metadata.csv").write_text(
        "id,composer,composition\n1727,Schubert,Quintet\n"
    )
    found = musicnet.tracks(str(tmp_path), grid=GRID)
    assert [(one.id, one.split, one.group) for one in found] == [
        ("900", "train", "900"),
        ("1727", "train", "Schubert: Quintet"),
        ("2106", "test", "2106"),
    ]
    assert [one.left_out for one in found] == [musicnet.NO_LABELS, "", ""]
    assert sounding(found[2].load().f0_hz) == expected_frames(NOTES, 172)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "has no column 'end_time'"),
        ("start_time,end_time,note\n", "holds no notes"),
        (
            "start_time,end_time,note\n0,9,60\n5,x,60\n",
            r"1727\.csv, line 3: .*'x'.* expected numbers",
        ),
        ("start_time,end_time,note\n0,9,200\n", "line 2: note 200; expected 1 to 127"),
        ("start_time,end_time,note\n9,0,60\n", "note 1: .* onset_s <= offset_s"),
    ],
)
def test_musicnet_labels_that_cannot_be_used(tmp_path, text, message):
    write_musicnet(tmp_path).write_text(text)
    with pytest.raises(BadTrack, match=message):
        load_only("musicnet", tmp_path)


def test_maestro_splits_and_what_is_missing(tmp_path):
    write_maestro(tmp_path / "maestro-v3.0.0")
    write_audio(tmp_path / "maestro-v3.0.0/2018/test.flac")
    found = {one.split: one for one in maestro.tracks(str(tmp_path), grid=GRID)}
    assert set(found) == {"train", "valid", "test"}
    assert found["train"].id == "2018/train" and found["train"].group == "Bach, J. S.: Prelude"
    assert found["test"].paths[0].name == "test.flac"
    assert found["valid"].left_out == maestro.NO_AUDIO
    with pytest.raises(BadTrack, match=r"test\.midi: no such MIDI file"):
        found["test"].load()
    (tmp_path / "maestro-v3.0.0/2018/test.midi").write_bytes(b"")
    with pytest.raises(BadTrack, match=r"test\.midi: not MIDI"):
        found["test"].load()
    for path in (tmp_path / "maestro-v3.0.0/2018").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="no audio of any of its 3 performances"):
        maestro.tracks(str(tmp_path), grid=GRID)


def test_maestro_tables_that_cannot_be_used(tmp_path):
    write_maestro(tmp_path)
    table = tmp_path / "maestro-v3.0.0.csv"
    text = table.read_text()
    for old, new, message in (
        ("validation", "dev", r"csv, row 1: split is 'dev'; expected one of"),
        ("2.5\n", "long\n", "row 1: duration is 'long'; expected seconds"),
        ("audio_filename", "audio", "has no column 'audio_filename'"),
        ("2018/train.", "../train.", "expected a path inside"),
        ("2018/train.", "/train.", "expected a path inside"),
    ):
        table.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=message):
            maestro.tracks(str(tmp_path), grid=GRID)
    table.write_text(MAESTRO_HEADER)
    with pytest.raises(ValueError, match="lists nothing"):
        maestro.tracks(str(tmp_path), grid=GRID)


def test_maestro_notes_ring_under_the_pedal(tmp_path):
    struck = [(0.3, 0.4, 57), (0.5, 0.6, 64), (1.0, 1.1, 57)]
    rung = [(0.3, 1.0, 57), (0.5, 1.4, 64), (1.0, 1.4, 57)]
    write_maestro(tmp_path, struck, pedal=[(0.2, 100), (1.4, 0)])
    f0_hz = load_only("maestro", tmp_path).f0_hz
    assert sounding(f0_hz) == expected_frames(rung, 172)


def test_all_88_keys_under_the_pedal_fit(tmp_path):
    keys = [(0.1 + 0.002 * k, 0.15 + 0.002 * k, 21 + k) for k in range(88)]
    write_maestro(tmp_path, keys, pedal=[(0.05, 127), (1.0, 0)])
    f0_hz = load_only("maestro", tmp_path).f0_hz
    assert (f0_hz > 0).sum(1).max() == 88
    with pytest.raises(BadTrack, match=r"train\.midi: 89 notes at once"):
        write_maestro(tmp_path, [*keys, (0.4, 0.5, 110)], pedal=[(0.05, 127), (1.0, 0)])
        load_only("maestro", tmp_path)


def test_su_pieces_without_notes_are_left_out_and_bad_lines_named(tmp_path):
    labels = write_su(tmp_path)
    write_audio(tmp_path / "audio/VS04_Franck_audio.flac")
    found = su.tracks(str(tmp_path), grid=GRID)
    assert [(one.id, one.split, one.left_out) for one in found] == [
        ("PQ02_Dvorak", "test", ""),
        ("VS04_Franck", "test", su.NO_LABELS),
    ]
    for text, message in (
        ("0.1 0.2 220\n0.1 0.2\n", r"note\.txt, line 2: '0\.1 0\.2'; expected onset_s"),
        ("0.1 0.2 A4\n", "line 1: '0.1 0.2 A4'"),
        ("\n", "holds no notes"),
        ("0.1 0.2 -5\n", "note 1: .* above 0 Hz"),
    ):
        labels.write_text(text)
        with pytest.raises(BadTrack, match=message):
            found[0].load()


def test_trios_takes_the_pitched_instruments_and_misses_none(tmp_path):
    write_trios(tmp_path / "TRIOS Dataset", "take_five")
    (tmp_path / "TRIOS Dataset/mozart").mkdir()
    found = trios.tracks(str(tmp_path), grid=GRID)
    assert [(one.id, one.split, one.left_out) for one in found] == [
        ("mozart", "test", trios.NO_AUDIO),
        ("take_five", "test", ""),
    ]
    folder = tmp_path / "TRIOS Dataset/take_five"
    write_audio(folder / "saxophone.wav")
    with pytest.raises(
        BadTrack, match=r"saxophone\.mid: is missing, while there is saxophone\.wav"
    ):
        found[1].load()
    for path in (folder / "saxophone.wav", folder / "horn.mid", folder / "piano.mid"):
        path.unlink()
    with pytest.raises(BadTrack, match="take_five: no MIDI file of a pitched instrument"):
        found[1].load()


def test_nsynth_has_its_pitch_while_it_is_heard(tmp_path):
    write_nsynth(tmp_path, "valid")
    write_nsynth(tmp_path, "train", 119)
    found = nsynth.tracks(str(tmp_path), grid=GRID)
    assert [(one.split, one.left_out) for one in found] == [
        ("train", nsynth.OUT_OF_RANGE),
        ("valid", ""),
    ]
    assert found[1].id == "bass_synthetic_033-069-100" and found[1].group == "bass_synthetic_033"
    recording = load_only("nsynth", tmp_path)
    assert recording.f0_hz.shape == (172, 1) and recording.has_pitch.all()
    assert set(recording.f0_hz[:, 0].tolist()) == {0.0, 440.0}
    active = np.flatnonzero(recording.f0_hz[:, 0]) * HOP / RATE
    # The window of 0.1 s reaches 0.05 s beyond the tone at either end, and the smoothing delays.
    assert 1.2 - 0.05 <= active[0] <= 1.2 - 0.03 and 1.6 + 0.03 <= active[-1] <= 1.6 + 0.07
    assert (np.diff(active) < 1.5 * HOP / RATE).all()


def test_the_activity_of_a_note_follows_its_envelope():
    times_s = np.arange(4 * RATE) / RATE
    decay = np.exp(-times_s / 0.3) * np.sin(2 * np.pi * 440 * times_s)
    heard = functools.partial(nsynth.activity, midi=69, sample_rate_hz=RATE)
    ends_s = np.flatnonzero(heard(decay))[-1] / RATE
    # exp(-t / 0.3) falls to a tenth of its start after 0.69 s; the first window is half empty.
    assert 0.69 < ends_s < 0.8
    np.testing.assert_array_equal(heard(decay), heard(0.01 * decay))
    rumble = 0.5 * np.sin(2 * np.pi * 2 * times_s)  # below the high-pass
    assert abs(np.flatnonzero(heard(decay + rumble))[-1] / RATE - ends_s) < 0.05
    assert not heard(np.zeros(RATE)).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", r"examples\.json: JSONDecodeError"),
        ('{"a": {}}', "KeyError 'pitch'"),
        ('{"a": {"pitch": 300}}', "a has the pitch 300"),
        (None, r"examples\.json is missing; expected nsynth-train"),
    ],
)
def test_nsynth_lists_that_cannot_be_used(tmp_path, text, message):
    path = write_nsynth(tmp_path)
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        nsynth.tracks(str(tmp_path), grid=GRID)


def test_a_missing_nsynth_file_is_named(tmp_path):
    write_nsynth(tmp_path)
    (one,) = listed("nsynth", tmp_path)
    one.paths[0].unlink()
    with pytest.raises(BadTrack, match=r"bass_synthetic_033-069-100\.wav: no such file"):
        one.load()
