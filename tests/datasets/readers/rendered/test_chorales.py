"""The chorales: their splits and views, and that what sounds is what the labels say."""

import collections
import functools

import numpy as np
import pytest

from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers.rendered import chorales
from majl_jax.datasets.splits import read_split
from majl_jax.datasets.synthesis import performance, rendering
from majl_jax.datasets.synthesis.performance import ScoreNote

RATE_HZ, HOP = 16000, 320
GRID = Grid(RATE_HZ, HOP)


def estimate_f0_hz(sound: np.ndarray, near_hz: float, rate_hz: float = RATE_HZ) -> float:
    """The best period within a fifth of `near_hz`, by autocorrelation with parabolic refinement."""
    spectrum = np.fft.rfft(sound, 2 * len(sound))
    autocorrelation = np.fft.irfft(np.abs(spectrum) ** 2)[: len(sound)]
    autocorrelation /= np.arange(len(sound), 0, -1)
    low, high = int(rate_hz / near_hz / 1.5), int(rate_hz / near_hz * 1.5) + 1
    peak = low + int(np.argmax(autocorrelation[low:high]))
    left, mid, right = autocorrelation[peak - 1 : peak + 2]
    return rate_hz / (peak + 0.5 * (left - right) / (left - 2 * mid + right))


@functools.cache
def loaded(piece: str):
    return chorales.load(piece, seed=0, grid=GRID)


def test_each_piece_is_in_one_split_and_one_view_and_exists():
    rows = read_split(chorales.SPLIT_LIST)
    assert len(rows) == len({piece for piece, _, _ in rows}) == 365
    counts = collections.Counter((split, view) for _, split, view in rows)
    assert counts == {
        ("train", "full"): 58,
        ("train", "stems"): 117,
        ("train", "pitch"): 117,
        ("valid", "full"): 36,
        ("test", "full"): 37,
    }
    for piece, _, _ in rows:
        assert chorales.score_path(piece).is_file()


def test_the_views_list_their_own_pieces():
    views = {view: chorales.tracks(view=view, grid=GRID) for view in ("full", "stems", "pitch")}
    assert {view: len(found) for view, found in views.items()} == {
        "full": 131,
        "stems": 117,
        "pitch": 117,
    }
    assert {one.split for one in views["stems"] + views["pitch"]} == {"train"}
    with pytest.raises(ValueError, match="view must be"):
        chorales.tracks(view="both", grid=GRID)
    with pytest.raises(ValueError, match="leave out --source"):
        chorales.tracks("somewhere", grid=GRID)


@pytest.mark.parametrize("part", range(4))
def test_every_program_has_the_right_pitch(part):
    lowest, highest = [(57, 81), (53, 74), (48, 69), (36, 64)][part]
    pitches = np.unique(np.linspace(lowest, highest, 4).astype(int))
    times_s = 0.1 + np.arange(len(pitches))[:, None] + np.asarray([0.0, 0.8])
    seconds = len(pitches) + 0.5
    for program in performance.PROGRAMS[part]:
        midi = rendering.midi_bytes(
            times_s.astype(np.float32),
            pitches,
            np.full(len(pitches), 100),
            program=program,
            tuning_cents=30.0,
            duration_s=seconds,
        )
        sound = rendering.render(midi, sample_rate_hz=RATE_HZ, samples=int(seconds * RATE_HZ))
        for pitch, (onset_s, _) in zip(pitches, times_s, strict=True):
            true_hz = 440 * 2 ** ((pitch - 69 + 0.3) / 12)
            start = int((onset_s + 0.25) * RATE_HZ)
            found_hz = estimate_f0_hz(sound[start : start + 6400], true_hz)
            cents = 1200 * np.log2(found_hz / true_hz)
            assert abs(cents) < 20, f"program {program}, MIDI {pitch}: {cents:.0f} cents off"


def test_a_chorale_is_rendered_alike_twice_and_otherwise_with_another_seed():
    again = chorales.load("bwv66.6", seed=0, grid=GRID)
    np.testing.assert_array_equal(loaded("bwv66.6").audio, again.audio)
    np.testing.assert_array_equal(loaded("bwv66.6").f0_hz, again.f0_hz)
    other = chorales.load("bwv66.6", seed=1, grid=GRID)
    assert other.audio.shape != again.audio.shape or not np.array_equal(other.audio, again.audio)


def test_stems_do_not_clip_and_all_are_heard():
    audio = loaded("bwv66.6").audio
    assert np.abs(audio).max() < 1 and np.abs(audio.sum(axis=1)).max() < 1
    rms_db = 10 * np.log10(np.mean(np.square(audio), axis=(0, 2)))
    assert np.all(rms_db > -45)


def test_labels_say_what_sounds():
    recording = loaded("bwv66.6")
    for stem in range(4):
        sound, f0_hz = recording.audio[:, stem, 0], recording.f0_hz[:, stem]
        labelled = recording.has_pitch[:, stem]
        steady = np.flatnonzero(
            (f0_hz[3:-3] > 0)
            & np.all([f0_hz[3:-3] == f0_hz[i : i - 6 or None] for i in range(6)], 0)
        )
        frames = steady[:: max(len(steady) // 60, 1)] + 3
        cents = []
        for frame in frames:
            window = sound[(frame - 3) * HOP : (frame + 3) * HOP]
            cents.append(1200 * np.log2(estimate_f0_hz(window, f0_hz[frame]) / f0_hz[frame]))
        assert np.mean(np.abs(cents) < 50) > 0.9, f"stem {stem}"
        rms = np.sqrt(np.mean(np.square(sound.reshape(-1, HOP)), axis=1))
        unvoiced = labelled & (f0_hz == 0)
        voiced_rms = np.median(rms[f0_hz > 0])
        assert unvoiced.sum() > 20 and np.mean(rms[unvoiced] < 0.15 * voiced_rms) > 0.98
        assert np.mean(rms[f0_hz > 0] > 0.05 * voiced_rms) > 0.97


def test_notes_and_frames_agree():
    recording = loaded("bwv66.6")
    for stem, notes in enumerate(recording.notes):
        assert np.all(notes[1:, 0] > notes[:-1, 1]), "one note at a time, with a gap"
        assert set(np.unique(recording.f0_hz[:, stem])) == {0.0, *np.unique(notes[:, 2])}


def test_the_views_of_a_piece():
    full = loaded("bwv66.6")
    stems = chorales.load("bwv66.6", seed=0, view="stems", grid=GRID)
    pitch = chorales.load("bwv66.6", seed=0, view="pitch", grid=GRID)
    np.testing.assert_array_equal(stems.audio, full.audio)
    assert not stems.has_pitch.any() and stems.has_stems.all()
    np.testing.assert_allclose(pitch.audio[:, 0], full.audio.sum(axis=1), atol=1e-6)
    assert not pitch.has_stems.any() and not pitch.audio[:, 1:].any()
    np.testing.assert_array_equal(pitch.f0_hz, full.f0_hz)


def test_grace_notes_are_left_out():
    score = chorales.read_score("bwv299")  # has two
    assert all(note.end > note.start for part in score for note in part)


def test_a_performance_of_chords_overlaps_and_fermatas():
    voice = [
        ScoreNote(0.0, 1.0, [60]),
        ScoreNote(1.0, 2.0, [62], fermata=True),
        ScoreNote(2.0, 4.0, [64]),
    ]
    chords = [ScoreNote(0.0, 3.0, [48, 55]), ScoreNote(1.0, 2.0, [50]), ScoreNote(2.0, 4.0, [52])]
    rested = 0
    for seed in range(60):
        played = performance.perform([voice, chords, chords, chords], np.random.default_rng(seed))
        assert played.parts[0].program in performance.VOICES
        for part in played.parts:
            assert len(part.times_s) > 0 and np.all(part.times_s >= 0)
            assert np.all(part.times_s[:, 1] - part.times_s[:, 0] >= performance.SHORTEST_S - 1e-6)
            assert np.all(part.times_s[1:, 0] - part.times_s[:-1, 1] >= performance.GAP_S - 1e-4)
        assert 55 not in played.parts[3].pitches and 48 not in played.parts[1].pitches
        if len(played.parts[0].pitches) == 3:
            breath_s = played.parts[0].times_s[2, 0] - played.parts[0].times_s[1, 1]
            assert breath_s > 0.25
        else:
            rested += 1
    assert rested == 0, "with one phrase, nobody may be silent in it"
