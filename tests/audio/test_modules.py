"""Tracker modules: their waves found and silenced, and played by libopenmpt."""

import numpy as np
import pytest
from made_modules import (
    CYCLE,
    ROW_S,
    Note,
    it,
    it_with_instrument,
    it_with_note,
    mod,
    noise,
    note_hz,
    s3m,
    song,
    tone,
    xm,
)

from majl_jax.audio import module_files, openmpt
from majl_jax.audio.faults import AudioFileError

RATE_HZ = 44_100
WAVES = [bytes(range(1, 60)), b"\x55" * 37, b"\xaa\xbb" * 20]
FILES = {
    "S3M": (s3m(WAVES), [b"\x80"] * 3),
    "S3M signed": (s3m(WAVES, signed=True), [b"\0"] * 3),
    "S3M 16 bits": (s3m([wave[:36] for wave in WAVES], wide=True), [b"\0\x80"] * 3),
    "XM": (xm(WAVES), [b"\0"] * 3),
    "IT": (it(WAVES), [b"\0"] * 3),
    "IT unsigned": (it(WAVES, signed=False), [b"\x80"] * 3),
}

needs_libopenmpt = pytest.mark.skipif(
    not openmpt.is_installed(), reason=f"needs libopenmpt: {openmpt.INSTALL}"
)


@pytest.mark.parametrize("name", FILES)
def test_the_waves_of_each_kind_are_found_and_silenced(name):
    data, silence = FILES[name]
    found = module_files.read(data, "a file")
    assert found.kind == name.split()[0] and len(found.samples) == 3
    waves = [data[one.offset : one.offset + one.size] for one in found.samples]
    expected = [wave[:36] for wave in WAVES] if "16" in name else WAVES
    assert waves == expected
    assert [one.name for one in found.samples][-1] in ("wave 2", "last 0")
    quiet = module_files.silenced(data, [found.samples[1]])
    assert len(quiet) == len(data)
    changed = {place for place in range(len(data)) if quiet[place] != data[place]}
    second = found.samples[1]
    assert changed and changed <= set(range(second.offset, second.offset + second.size))
    whole = (silence[1] * second.size)[: second.size]
    assert quiet[second.offset : second.offset + second.size] == whole


def test_the_waves_of_a_mod_are_found():
    data = mod([("a", noise(100), False), ("b", tone(), True)], [], patterns=2)
    found = module_files.read(data, "a file")
    assert [(one.name, one.size) for one in found.samples[:3]] == [("a", 100), ("b", 64), ("", 0)]
    one = found.samples[1]
    assert data[one.offset : one.offset + one.size] == tone().tobytes() == data[-64:]
    assert found.keys[1, 60] == 1


def test_a_compressed_wave_is_replaced_by_a_plain_silent_one():
    data = it(WAVES, compressed=True)
    found = module_files.read(data, "a file")
    quiet = module_files.silenced(data, [found.samples[1]])
    again = module_files.read(quiet, "a file")
    assert [one.compressed for one in again.samples] == [True, False, True]
    one = again.samples[1]
    assert one.offset == len(data) and quiet[one.offset :] == bytes(len(WAVES[1]))


def test_random_volume_and_panning_of_an_it_are_off():
    data = it_with_instrument(WAVES[0], volume=77, panning=88)
    found = module_files.read(data, "a file")
    assert found.keys[0, 60] == 0 and len(found.instruments) == len(found.samples) == 1
    one = found.samples[0]
    assert data[one.offset : one.offset + one.size] == WAVES[0]
    quiet = module_files.steady(data)
    changed = [(data[n], quiet[n]) for n in range(len(data)) if data[n] != quiet[n]]
    assert changed == [(77, 0), (88, 0)] and len(quiet) == len(data)
    assert module_files.steady(song()) == song() and module_files.steady(it(WAVES)) == it(WAVES)


def test_an_instrument_of_an_xm_plays_a_wave_for_each_key():
    found = module_files.read(xm(WAVES), "a file")
    assert found.instruments == ("kit", "none", "last")
    lowest = 12
    assert [found.keys[0, lowest + key] for key in (0, 1, 2, 95)] == [0, 1, 1, 1]
    assert found.keys[2, 60] == 2 and (1, 60) not in found.keys and (0, 11) not in found.keys


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "is cut off"),
        (b"RIFF" + bytes(2000), "has the tag"),
        (song()[:500], "is cut off"),
        (FILES["XM"][0][:400], "cut off"),
        (FILES["IT"][0][:300], "cut off"),
        (FILES["S3M"][0][:100], "cut off"),
    ],
)
def test_what_is_no_module_is_named(data, message):
    with pytest.raises(AudioFileError, match=rf"^a\.mod: {message}.*"):
        module_files.read(data, "a.mod")


def play(data: bytes) -> np.ndarray:
    return np.concatenate(list(openmpt.Module(data, "made up").play(RATE_HZ)))


@needs_libopenmpt
def test_stems_of_silenced_waves_sum_to_the_mixture():
    # Notes of one channel cut each other off, which a player that mutes does not keep apart.
    waves = [("drum", noise(), False), ("low", tone(128), True), ("high", tone(), True)]
    notes: list[Note] = [(row, row % 2, row % 3, 60 + row % 7) for row in range(0, 60, 2)]
    data = mod(waves, notes)
    found = module_files.read(data, "made up")
    mixture, total = play(data), 0.0
    for number in range(3):
        others = [one for place, one in enumerate(found.samples) if place != number]
        stem = play(module_files.silenced(data, others))
        assert stem.shape == mixture.shape and np.abs(stem).max() > 0.05
        total = total + stem.astype(np.float64)
    left = np.sum(np.square(mixture - total)) / np.sum(np.square(mixture))
    assert 10 * np.log10(left + 1e-30) < -100
    assert not play(module_files.silenced(data, found.samples)).any()


@needs_libopenmpt
def test_a_note_sounds_when_and_as_it_is_written():
    data = mod([("high", tone(), True)], [(8, 0, 0, 62)])
    sound = play(data).mean(axis=1)
    module = openmpt.Module(data, "made up")
    assert module.seconds == pytest.approx(64 * ROW_S) and module.channels == 4
    onset = int(8 * ROW_S * RATE_HZ)
    assert not np.any(sound[: onset - 2]) and np.abs(sound[onset : onset + 500]).max() > 0.05
    steady = sound[onset + 1000 : onset + 1000 + 32768]
    peak_hz = np.argmax(np.abs(np.fft.rfft(steady * np.hanning(32768)))) * RATE_HZ / 32768
    assert peak_hz == pytest.approx(note_hz(62, CYCLE), abs=RATE_HZ / 32768)


@needs_libopenmpt
def test_rows_are_followed_as_they_are_played():
    module = openmpt.Module(song(patterns=2), "made up")
    rows = module.follow()
    assert [(pattern, row) for _, pattern, row in rows] == [
        (p, r) for p in (0, 1) for r in range(64)
    ]
    np.testing.assert_allclose(
        [time_s for time_s, *_ in rows], ROW_S * np.arange(128), atol=2 * openmpt.STEP_S
    )


@needs_libopenmpt
def test_a_single_note_is_played_without_those_of_the_patterns():
    module = openmpt.Module(song(), "made up")
    assert module.instruments[:3] == ("snare", "slap bass", "lead")
    (cells,) = [module.pattern(number) for number in module.sequence()]
    assert cells[4, 0, :2].tolist() == [61, 1] and cells[0, 2, :2].tolist() == [61, 3]
    for channel in range(module.channels):
        module.mute_channel(channel)
    module.play_note(2, 57)
    sound = next(module.play(RATE_HZ)).mean(axis=1)[1000:9192]
    peak_hz = np.argmax(np.abs(np.fft.rfft(sound * np.hanning(8192)))) * RATE_HZ / 8192
    assert peak_hz == pytest.approx(note_hz(57), abs=RATE_HZ / 8192)


@needs_libopenmpt
def test_surround_is_heard_in_mono():
    data = it_with_note(np.tile(tone(), 50).tobytes(), panning=100)
    left, right = np.concatenate(list(openmpt.Module(data, "made up").play(RATE_HZ))).T
    alone = np.concatenate(list(openmpt.Module(data, "made up").play(RATE_HZ, 1)))[:, 0]
    assert np.abs(left).max() > 0.05
    np.testing.assert_allclose(right, -left, atol=1e-6)
    assert np.abs(alone).max() > 0.5 * np.abs(left).max()


@needs_libopenmpt
def test_what_libopenmpt_cannot_play_is_named(capfd):
    with pytest.raises(AudioFileError, match=r"^a\.mod: no module that libopenmpt can play"):
        openmpt.Module(b"RIFF" + bytes(2000), "a.mod")
    assert capfd.readouterr() == ("", "")


def test_without_libopenmpt_its_package_is_named(monkeypatch):
    monkeypatch.setattr(openmpt.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(openmpt, "NAMES", ("libnothing.so",))
    openmpt._library.cache_clear()
    try:
        assert not openmpt.is_installed()
        with pytest.raises(ModuleNotFoundError, match=r"`apt-get install .* libopenmpt0`"):
            openmpt.Module(song(), "a.mod")
    finally:
        openmpt._library.cache_clear()
