"""The band: WAD files taken apart, and that each stem is what its notes say."""

import collections
import hashlib
import importlib.util
import io
import struct

import mido
import numpy as np
import pretty_midi
import pytest

from majl_jax.datasets import track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS
from majl_jax.datasets.readers.rendered import band
from majl_jax.datasets.splits import read_split
from majl_jax.datasets.synthesis import rendering

RATE_HZ, HOP = 8000, 160
GRID = Grid(RATE_HZ, HOP)
PARTS = {"bass": (33, False), "drums": (0, True), "other": (30, False)}  # program, is drum


def song(**onsets_s) -> bytes:
    """MIDI with a note of 0.4 s of each stem at each of its onsets."""
    score = pretty_midi.PrettyMIDI()
    for number, (stem, times_s) in enumerate(onsets_s.items()):
        program, is_drum = PARTS[stem]
        part = pretty_midi.Instrument(program, is_drum)
        part.notes += [pretty_midi.Note(100, 38 + number, at, at + 0.4) for at in times_s]
        score.instruments.append(part)
    file = io.BytesIO()
    score.write(file)
    return file.getvalue()


def wad(*lumps: tuple[str, bytes]) -> bytes:
    places = 12 + np.cumsum([0, *(len(data) for _, data in lumps)])
    entries = [
        struct.pack("<ii8s", place, len(data), name.encode())
        for place, (name, data) in zip(places, lumps, strict=False)
    ]
    header = struct.pack("<4sii", b"IWAD", len(lumps), places[-1])
    return header + b"".join(data for _, data in lumps) + b"".join(entries)


ONE = song(bass=[0.6, 3.0], drums=[1.6, 3.0], other=[2.6, 3.0])
TWO = song(bass=[1.0], drums=[1.0], other=[1.0])
NO_BASS = song(drums=[0.0], other=[0.0])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two WAD files, and a split list of four of their six pieces of music."""
    again = song(bass=[0.0], drums=[0.0], other=[0.0])
    unlisted = song(bass=[0.1], drums=[0.1], other=[0.1])
    first = wad(("MAP01", b""), ("D_ONE", ONE), ("D_NOBASS", NO_BASS), ("D_TWIN", ONE))
    second = wad(("D_TWO", TWO), ("D_OTHER", again), ("D_NEW", unlisted), ("E_ONE", ONE))
    (tmp_path / "freedoom1.wad").write_bytes(first)
    (tmp_path / "freedoom2.wad").write_bytes(second)
    rows = [("D_ONE", ONE, "train"), ("D_NOBASS", NO_BASS, "no_bass"), ("D_TWO", TWO, "test")]
    lines = [f"{name} {hashlib.md5(data).hexdigest()[:8]} {split}" for name, data, split in rows]
    (tmp_path / "band.txt").write_text("\n".join([*lines, "D_OTHER 00000000 train"]))
    monkeypatch.setattr(band, "SPLIT_LIST", tmp_path / "band.txt")
    return tmp_path


def test_songs_are_listed_once_and_the_others_left_out_with_the_reason(folder):
    found = band.tracks(str(folder), grid=GRID)
    assert [(one.id, one.split) for one in found if not one.left_out] == [
        ("one", "train"),
        ("two", "test"),
    ]
    reasons = {one.id: one.left_out for one in found if one.left_out}
    assert reasons.keys() == {"nobass", "other", "new"}
    assert reasons["nobass"] == "no bass" and "not in band.txt" in reasons["new"]
    assert "another release" in reasons["other"]
    (folder / "band.txt").write_text("D_GONE 00000000 train")
    with pytest.raises(ValueError, match="none of the songs"):
        band.tracks(str(folder), grid=GRID)


def test_a_song_is_rendered_alike_with_every_seed_and_without_clipping(folder):
    first, again = (band.tracks(str(folder), seed=seed, grid=GRID)[0].load() for seed in (0, 1))
    np.testing.assert_array_equal(first.audio, again.audio)
    track.check(first)
    assert first.stems == READERS["band"].stems == ("bass", "drums", "other")
    assert first.has_stems.all() and not first.has_pitch.any()
    peaks = np.abs(first.audio).max(), np.abs(first.audio.sum(axis=1)).max()
    assert max(peaks) == pytest.approx(band.PEAK, abs=1e-5)


def test_each_stem_sounds_when_its_notes_do_and_the_stems_sum_to_the_song(folder):
    recording = band.tracks(str(folder), grid=GRID)[0].load()
    rms = np.sqrt(np.mean(np.square(recording.audio[: 3 * RATE_HZ, :, 0]).reshape(6, -1, 3), 1))
    assert list(rms.argmax(axis=0)) == [1, 3, 5]  # half-seconds
    before = rms / rms.max(axis=0) < 1e-3
    assert before[0].all() and before[:3, 1].all() and before[:5, 2].all()
    mixture = recording.audio.sum(axis=1)[:, 0]
    whole = rendering.render(ONE, sample_rate_hz=RATE_HZ, samples=len(mixture))[
        : int(3.3 * RATE_HZ)
    ]
    mixture = mixture[: len(whole)]
    gain = np.vdot(whole, mixture) / np.vdot(whole, whole)
    error = mixture - gain * whole
    assert np.sum(mixture**2) > 1e4 * np.sum(error**2)  # 40 dB; the files have 16 bits


def test_programs_change_within_a_channel_and_tempos_are_read_from_any_track():
    notes = mido.MidiTrack([mido.Message("program_change", program=34)])
    for program in (34, 29):
        notes.append(mido.Message("program_change", program=program))
        notes.append(mido.Message("note_on", note=40, velocity=90))
        notes.append(mido.Message("note_on", note=40, velocity=0, time=480))
    tempo = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=1_000_000)])
    file = io.BytesIO()
    mido.MidiFile(tracks=[notes, tempo], ticks_per_beat=480).save(file=file)
    read = band.read_song(file.getvalue(), name="made up")
    assert [list(read.onsets_s(stem)) for stem in band.STEMS] == [[0.0], [], [1.0]]
    assert read.end_s == 2.0


def test_the_excerpt_is_where_all_stems_play(monkeypatch):
    monkeypatch.setattr(band, "EXCERPT_S", 10.0)
    every = np.arange(60.0)
    assert band.densest_start_s([every, every[20:40], every[25:]], 60.0) == 25.0
    assert band.densest_start_s([every[:5], every[:5], every[:5]], 5.0) == 0.0
    # What was set before the excerpt holds in it: volume and a bend range of an octave.
    part = mido.MidiTrack([mido.Message("program_change", program=80)])
    for control, value in ((101, 0), (100, 0), (6, 12), (7, 110)):
        part.append(mido.Message("control_change", control=control, value=value))
    part.append(mido.Message("pitchwheel", pitch=8191))
    part.append(mido.Message("note_on", note=57, velocity=100, time=960 * 4))
    part.append(mido.Message("note_off", note=57, time=960 * 2))
    file = io.BytesIO()
    mido.MidiFile(tracks=[part], ticks_per_beat=960).save(file=file)
    read = band.read_song(file.getvalue(), name="made up")
    midi = band.midi_bytes(read, "other", start_s=1.5, seconds=1.5)
    sound = rendering.render(midi, sample_rate_hz=RATE_HZ, samples=2 * RATE_HZ)
    peak = np.abs(sound).max()
    assert np.abs(sound[: int(0.45 * RATE_HZ)]).max() < 1e-3 * peak
    assert np.abs(sound[int(0.5 * RATE_HZ) : int(0.6 * RATE_HZ)]).max() > 0.1 * peak
    spectrum = np.abs(np.fft.rfft(sound[RATE_HZ // 2 : RATE_HZ * 3 // 2]))
    assert abs(np.argmax(spectrum) - 440) <= 5  # an octave above the key


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "expected IWAD or PWAD"),
        (b"RIFF" + bytes(20), "expected IWAD or PWAD"),
        (wad(("D_ONE", ONE))[:-20], "cut off"),
        (struct.pack("<4sii", b"PWAD", -1, 12), "-1 entries"),
        (struct.pack("<4sii", b"PWAD", 2**31 - 1, 12), "cut off"),
        (struct.pack("<4siiii8s", b"PWAD", 1, 12, 12, 500, b"D_ONE"), "D_ONE has 500 bytes"),
        (struct.pack("<4siiii8s", b"PWAD", 1, 12, -4, 4, b"D_ONE"), "from byte -4"),
    ],
)
def test_a_damaged_wad_file_is_named(tmp_path, data, message):
    (path := tmp_path / "bad.wad").write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        band.read_directory(path)
    assert "bad.wad" in str(caught.value)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"MUS\x1a" + bytes(20), "MUS format"),
        (b"OggS", "expected a MIDI file"),
        (ONE[:60], "cannot be read"),
        (ONE[:12] + bytes(2) + ONE[14:], "with 0 ticks"),
        (song(bass=[1.0], drums=[3601.0]), "longer than 3600"),
    ],
)
def test_a_damaged_song_is_a_bad_track(data, message):
    with pytest.raises(track.BadTrack, match=message) as caught:
        band.read_song(data, name="a.wad: D_BAD")
    assert "D_BAD" in str(caught.value)


def test_missing_files_and_stems_say_what_to_do(tmp_path, folder, monkeypatch):
    (folder / "freedoom2.wad").unlink()
    with pytest.raises(FileNotFoundError, match="pip install"):
        band.tracks(str(folder), grid=GRID)
    with monkeypatch.context() as patch:  # the sound font is found in the same way
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ModuleNotFoundError, match="pip install --no-deps vizdoom"):
            band.tracks(grid=GRID)
    (path := tmp_path / "alone.wad").write_bytes(wad(("D_ALONE", NO_BASS)))
    with pytest.raises(track.BadTrack, match="D_ALONE has no bass"):
        band.load(band.read_directory(path)[0], grid=GRID)


def test_the_split_list_names_each_song_once():
    rows = read_split(band.SPLIT_LIST)
    assert len({name for name, _, _ in rows}) == len({md5 for _, md5, _ in rows}) == len(rows) == 75
    counts = collections.Counter(split for _, _, split in rows)
    assert {split: counts[split] for split in ("train", "valid", "test")} == {
        "train": 46,
        "valid": 6,
        "test": 10,
    }


@pytest.mark.skipif(
    importlib.util.find_spec("vizdoom") is None, reason="needs the songs: pip install vizdoom"
)
def test_the_songs_of_the_package_are_those_of_the_list(monkeypatch):
    monkeypatch.setattr(band, "EXCERPT_S", 5.0)
    found = band.tracks(grid=GRID)
    assert len(found) == 75 and sum(not one.left_out for one in found) == 62
    recording = next(one for one in found if one.id == "tense").load()
    track.check(recording)
    rms_db = 10 * np.log10(np.mean(np.square(recording.audio), axis=(0, 2)))
    assert np.all(rms_db > -40)
