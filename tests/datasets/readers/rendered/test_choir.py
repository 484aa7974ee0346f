"""The choir: its splits, and that the two stems are the upper and the lower parts."""

import collections
import functools

import numpy as np
import pytest

from majl_jax.datasets import track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS
from majl_jax.datasets.readers.rendered import choir
from majl_jax.datasets.splits import read_split
from majl_jax.datasets.synthesis import performance, rendering
from majl_jax.datasets.track import Recording

RATE_HZ, HOP = 16000, 320
GRID = Grid(RATE_HZ, HOP)
RANGE_MIDI = (40, 81)  # lowest and highest note of all parts
MOVEMENT, FIRST = "Kyrie_00", 80.0


@functools.cache
def short(seed: int = 0) -> Recording:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choir, "EXCERPT_S", 8.0)
        patch.setattr(choir, "read_score", functools.cache(choir.read_score))
        return choir.load(MOVEMENT, FIRST, seed=seed, grid=GRID)


def test_no_mass_is_in_two_splits():
    found = choir.tracks(grid=GRID)
    assert collections.Counter(one.split for one in found) == {"train": 20, "valid": 4, "test": 8}
    masses = [one.id.split("_")[1] for one in found]
    assert len(set(masses)) == len(masses) == 32
    with pytest.raises(ValueError, match="leave out --source"):
        choir.tracks("somewhere", grid=GRID)
    assert [MOVEMENT, str(int(FIRST))] in [row[:2] for row in read_split(choir.SPLIT_LIST)]
    with pytest.raises(track.BadTrack, match="music21"):
        choir.read_score("Kyrie_0")


def test_the_score_has_four_parts_from_high_to_low_within_the_range():
    parts = choir.read_score(MOVEMENT)
    means = [np.mean([note.midi[0] for note in part]) for part in parts]
    assert len(parts) == 4 and means == sorted(means, reverse=True)
    pitches = [pitch for part in parts for note in part for pitch in note.midi]
    assert RANGE_MIDI[0] <= min(pitches) and max(pitches) <= RANGE_MIDI[1]
    for part in parts:
        starts = [note.start for note in part]
        assert starts == sorted(set(starts)) and all(note.end > note.start for note in part)
    assert max(abs(part[-1].end - parts[0][-1].end) for part in parts) == 0


def test_no_voice_is_one_of_the_chorales():
    assert not {p for row in performance.PROGRAMS for p in row} & set(choir.PROGRAMS)


@pytest.mark.parametrize("program", choir.PROGRAMS)
def test_every_program_has_the_right_pitch(program):
    import librosa

    pitches = np.linspace(*RANGE_MIDI, 6).astype(int)
    times_s = 0.1 + 0.8 * np.arange(len(pitches))[:, None] + np.asarray([0.0, 0.6])
    seconds = 0.8 * len(pitches) + 0.5
    midi = rendering.midi_bytes(
        times_s.astype(np.float32),
        pitches,
        np.full(len(pitches), 90),
        program=program,
        tuning_cents=30.0,
        duration_s=seconds,
    )
    sound = rendering.render(midi, sample_rate_hz=RATE_HZ, samples=int(seconds * RATE_HZ))
    for pitch, (onset_s, _) in zip(pitches, times_s, strict=True):
        true_hz = 440 * 2 ** ((pitch - 69 + 0.3) / 12)
        start = int((onset_s + 0.15) * RATE_HZ)
        found_hz = librosa.yin(
            sound[start : start + int(0.4 * RATE_HZ)],
            fmin=max(true_hz / 2.3, 30),
            fmax=min(true_hz * 2.3, RATE_HZ / 4),
            sr=RATE_HZ,
            trough_threshold=0.15,
        )
        cents = 1200 * np.log2(np.median(found_hz) / true_hz)
        assert abs(cents) < 20, f"MIDI {pitch}: {cents:.0f} cents off"


def test_an_excerpt_is_rendered_alike_twice_and_otherwise_with_another_seed():
    again = short.__wrapped__()
    np.testing.assert_array_equal(short().audio, again.audio)
    np.testing.assert_array_equal(short().f0_hz, again.f0_hz)
    other = short(seed=1)
    assert other.audio.shape != again.audio.shape or not np.array_equal(other.audio, again.audio)


def test_both_stems_are_heard_and_do_not_clip():
    recording = short()
    track.check(recording)
    assert recording.stems == READERS["choir"].stems == ("female", "male")
    assert recording.has_stems.all() and len(recording.audio) < 10.5 * RATE_HZ
    assert np.abs(recording.audio).max() <= 1 and np.abs(recording.audio.sum(axis=1)).max() < 1
    rms_db = 10 * np.log10(np.mean(np.square(recording.audio), axis=(0, 2)))
    assert np.ptp(rms_db) < 10 and np.all(rms_db > -35)


def test_parts_become_two_stems_with_the_same_mixture():
    rng = np.random.default_rng(0)
    audio = rng.normal(0, 0.1, (3 * HOP, 4, 1)).astype(np.float32)
    has_pitch = np.asarray([[True] * 4, [True, True, False, True], [True] * 4])
    parts = Recording(
        audio=audio,
        stems=("soprano", "alto", "tenor", "bass"),
        has_stems=np.ones(4, bool),
        f0_hz=np.full((3, 4), 200, np.float32),
        has_pitch=has_pitch,
        grid=GRID,
    )
    grouped = choir.female_and_male(parts)
    track.check(grouped)
    np.testing.assert_allclose(grouped.audio[:, 0], audio[:, 0] + audio[:, 1], atol=1e-7)
    np.testing.assert_allclose(grouped.audio.sum(axis=1), audio.sum(axis=1), atol=1e-6)
    assert grouped.voices == READERS["choir"].voices == 4
    np.testing.assert_array_equal(grouped.has_pitch[:, 0], [True, False, True])
    assert not grouped.f0_hz[1].any()


def test_the_pitch_of_each_part_sounds_in_its_stem():
    recording = short()
    frames = np.lib.stride_tricks.sliding_window_view(recording.audio[..., 0], 2048, axis=0)
    frames = frames[::HOP] * np.hanning(2048)  # frame k is centred 1024 samples after hop k
    levels = np.abs(np.fft.rfft(frames))
    f0_hz = np.round(recording.f0_hz)
    steady = np.zeros(len(levels), bool)
    for frame in range(len(levels)):
        here = slice(frame, frame + 7)  # the hops within the window
        steady[frame] = recording.has_pitch[here].all() and np.all(f0_hz[here] == f0_hz[frame])
    assert steady.sum() > 40
    f0_hz = recording.f0_hz[: len(levels)]
    for voice in range(4):
        others_hz = f0_hz[:, :2] if voice >= 2 else f0_hz[:, 2:]
        harmonic = f0_hz[:, voice, None] / np.maximum(others_hz, 1)
        apart = (others_hz == 0) | (np.abs(harmonic - np.maximum(np.round(harmonic), 1)) > 0.1)
        chosen = np.flatnonzero(steady & (f0_hz[:, voice] > 0) & apart.all(axis=1))
        bins = np.round(f0_hz[chosen, voice] * 2048 / RATE_HZ).astype(int)
        own, other = levels[chosen, voice // 2, bins], levels[chosen, 1 - voice // 2, bins]
        assert len(chosen) > 20
        assert np.median(own) > 5 * np.median(other), f"voice {voice}"
