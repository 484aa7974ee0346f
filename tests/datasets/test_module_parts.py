"""The stems of samples: by their names, by made-up sounds, and which notes they play."""

import numpy as np
import pytest
from made_modules import mod, noise, tone

from majl_jax.audio import module_files, openmpt, periodicity
from majl_jax.datasets import module_parts
from majl_jax.datasets.module_parts import BASS, DRUMS, OTHER, UNSURE, Use, by_name, by_sound

RATE_HZ = module_parts.SAMPLE_RATE_HZ
TIMES_S = np.arange(int(module_parts.SOUND_S * RATE_HZ)) / RATE_HZ
MANY = {(0, note): 3 for note in range(50, 62)}
ONE = {(0, 60): 20}


@pytest.mark.parametrize(
    "name, stem",
    [
        ("BassDrum.rave", DRUMS),
        ("Drum.Bass.Future", DRUMS),
        ("bassdrm2", DRUMS),
        ("snare", DRUMS),
        ("CHihat", DRUMS),
        ("houseparty open hht", DRUMS),
        ("Slap bass", BASS),
        ("Tb303", BASS),
        ("Guitar.Lead", OTHER),
        ("Bassoon", OTHER),
        ("Padminor", OTHER),
        ("bass guitar", UNSURE),
        ("greetings to all", UNSURE),
        ("", UNSURE),
    ],
)
def test_names_tell_the_stem_or_nothing(name, stem):
    assert by_name(name) == stem


def test_the_first_name_that_tells_decides():
    assert by_name("hello", "snare", "flute") == DRUMS


def harmonic(f0_hz: float) -> np.ndarray:
    return sum(np.sin(2 * np.pi * n * f0_hz * TIMES_S) / n**2 for n in range(1, 6))


def chord() -> np.ndarray:
    return sum(harmonic(220 * 2 ** (step / 12)) for step in (0, 4.1, 7.3, 10.2))


def burst(decay_s: float, lowest_hz: float = 0.0) -> np.ndarray:
    sound = np.random.default_rng(0).normal(size=len(TIMES_S))
    spectrum = np.fft.rfft(sound)
    spectrum[np.fft.rfftfreq(len(sound), 1 / RATE_HZ) < lowest_hz] = 0
    return np.fft.irfft(spectrum, len(sound)) * np.exp(-TIMES_S / decay_s)


def kick() -> np.ndarray:
    phase = 2 * np.pi * (50 * TIMES_S + 3 * (1 - np.exp(-TIMES_S / 0.03)))
    return np.sin(phase) * np.exp(-TIMES_S / 0.07)


@pytest.mark.parametrize(
    "sound, hits, stem",
    [
        (harmonic(55), MANY, BASS),
        (harmonic(440), MANY, OTHER),
        (harmonic(125), {(0, 60): 1, (0, 62): 1, (0, 64): 1}, UNSURE),
        (burst(0.03), ONE, DRUMS),
        (burst(0.6, 4000), ONE, DRUMS),
        (kick(), ONE, DRUMS),
        (chord(), MANY, OTHER),
        (np.cumsum(burst(0.9)), ONE, UNSURE),
        (harmonic(440) * np.exp(-TIMES_S / 0.05), ONE, UNSURE),
    ],
)
def test_sounds_tell_the_stem_or_nothing(sound, hits, stem):
    assert by_sound(Use(0, hits), module_parts.measure(sound)) == stem


def test_the_register_is_that_of_the_notes_not_of_the_usual_one():
    sound = module_parts.measure(harmonic(220))
    low = {(0, 60): 5, **{(0, note): 3 for note in range(36, 44)}}
    assert Use(0, low).usual == (0, 60)
    assert by_sound(Use(0, low), sound) == BASS != by_sound(Use(0, MANY), sound)


@pytest.mark.parametrize(
    "named, heard, stem",
    [
        (DRUMS, DRUMS, DRUMS),
        (UNSURE, BASS, BASS),
        (UNSURE, UNSURE, UNSURE),
        (BASS, UNSURE, BASS),
        (DRUMS, BASS, UNSURE),
        (OTHER, DRUMS, OTHER),
    ],
)
def test_a_name_and_a_sound_that_differ_are_unsure(named, heard, stem):
    assert module_parts.stem_of(named, heard) == stem


def test_silence_measures_as_nothing():
    silent = module_parts.measure(np.zeros(len(TIMES_S)))
    assert silent == module_parts.Sound(*[0.0] * 9) and by_sound(Use(0, ONE), silent) in (
        DRUMS,
        UNSURE,
    )


@pytest.mark.parametrize("f0_hz", [41.2, 110.0, 440.0, 1318.5])
def test_the_clarity_of_a_tone_is_near_1_and_that_of_noise_low(f0_hz):
    frames = np.stack([harmonic(f0_hz)[:2048], burst(9.0)[:2048], np.zeros(2048)])
    clear, found_hz = periodicity.clarity(frames, sample_rate_hz=RATE_HZ)
    assert clear[0] > 0.9 and abs(12 * np.log2(found_hz[0] / f0_hz)) < 0.2
    assert clear[1] < 0.5 and clear[2] == found_hz[2] == 0


@pytest.mark.skipif(not openmpt.is_installed(), reason=f"needs libopenmpt: {openmpt.INSTALL}")
def test_the_notes_of_each_sample_are_counted():
    waves = [("a", noise(), False), ("b", tone(), True), ("unused", tone(), True)]
    data = mod(waves, [(0, 0, 0, 60), (4, 0, 1, 57), (8, 1, 1, 57), (12, 1, 0, 62)], patterns=3)
    found = module_parts.uses(openmpt.Module(data, ""), module_files.read(data, ""))
    assert {number: use.hits for number, use in found.items()} == {
        0: {(0, 60): 3, (0, 62): 3},
        1: {(1, 57): 6},
    }
    assert found[1].usual == (1, 57) and found[1].notes.tolist() == [57.0] * 6
