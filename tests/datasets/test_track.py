"""Recordings: frame labels, the views with labels taken away, and what is refused."""

import dataclasses

import numpy as np
import pytest

from majl_jax.datasets import splits, track
from majl_jax.datasets.grid import Grid

RATE_HZ, HOP = 16000, 320
GRID = Grid(RATE_HZ, HOP)


def recording(**changes) -> track.Recording:
    rng = np.random.default_rng(0)
    good = track.Recording(
        audio=rng.uniform(-0.5, 0.5, (10 * HOP + 7, 2, 1)).astype(np.float32),
        stems=("voice", "rest"),
        has_stems=np.ones(2, bool),
        f0_hz=np.full((10, 2), 220.0, np.float32),
        has_pitch=np.ones((10, 2), bool),
        grid=GRID,
    )
    return dataclasses.replace(good, **changes)


def test_a_good_recording_passes():
    track.check(recording())


def test_pitches_of_the_mixture_are_checked_by_their_own_number():
    voices = {"f0_hz": np.full((10, 5), 220.0, np.float32), "has_pitch": np.ones((10, 5), bool)}
    good = recording(voices=5, **voices)
    track.check(good)
    for view in (track.unknown_pitch, track.unknown_stems):
        assert view(good).f0_hz.shape == (10, 5)
        track.check(view(good))
    with pytest.raises(track.BadTrack, match=r"expected \(10, 2\) .* one voice per stem"):
        track.check(recording(**voices))
    f0_hz, has_pitch = track.no_pitch(10 * HOP + 7, stems=2, grid=GRID, voices=5)
    track.check(recording(f0_hz=f0_hz, has_pitch=has_pitch, voices=5))
    assert track.no_pitch(10 * HOP + 7, stems=2, grid=GRID)[0].shape == (10, 2)


def with_nan() -> np.ndarray:
    audio = recording().audio.copy()
    audio[5, 1, 0] = np.nan
    return audio


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio": np.zeros((0, 2, 1), np.float32)}, "zero length"),
        ({"audio": np.zeros((3207, 2, 1), np.float32)}, "silent"),
        ({"audio": with_nan()}, "1 samples are NaN"),
        ({"audio": np.ones((3207, 3, 1), np.float32)}, "expected .time, 2 stems, 1 channels"),
        ({"audio": np.ones((3207, 2, 2), np.float32)}, "expected .time, 2 stems, 1 channels"),
        ({"f0_hz": np.full((11, 2), 220.0, np.float32)}, r"f0_hz has shape \(11, 2\)"),
        ({"has_pitch": np.ones((10, 1), bool)}, "has_pitch has shape"),
        ({"voices": 5}, r"f0_hz has shape \(10, 2\), expected \(10, 5\) \(frame, voice\)"),
        ({"voices": 2, "has_pitch": np.ones((10, 5), bool)}, r"has_pitch has shape \(10, 5\), exp"),
        ({"f0_hz": np.full((10, 2), -1.0, np.float32)}, "20 pitch labels"),
        ({"f0_hz": np.full((10, 2), np.nan, np.float32)}, "20 pitch labels"),
        ({"f0_hz": np.full((10, 2), 8000.0, np.float32)}, "above Nyquist"),
        ({"has_stems": np.ones(3, bool)}, "has_stems"),
    ],
)
def test_a_bad_recording_is_refused(changes, message):
    with pytest.raises(track.BadTrack, match=message):
        track.check(recording(**changes))


def test_frames_follow_the_notes_and_leave_attack_and_release_open():
    notes = np.asarray([(0.11, 0.21, 220.0), (0.21, 0.31, 330.0), (0.61, 0.71, 440.0)], np.float32)
    f0_hz, has_pitch = track.frames_from_notes(
        notes, frames=60, grid=GRID, attack_s=0.055, release_s=0.105
    )
    for frame in range(60):
        time_s = frame * HOP / RATE_HZ
        now = [hz for on, off, hz in notes if on <= time_s < off]
        near = any(on - 0.055 <= time_s < off + 0.105 for on, off, _ in notes)
        assert f0_hz[frame] == (now[0] if now else 0)
        assert has_pitch[frame] == (bool(now) or not near)
    assert not has_pitch.all() and has_pitch.any()


def test_views_keep_the_mixture_and_take_the_labels():
    full = recording()
    mixture = full.audio.sum(axis=1)
    pitch = track.unknown_stems(full)
    np.testing.assert_allclose(pitch.audio.sum(axis=1), mixture)
    assert not pitch.audio[:, 1].any() and not pitch.has_stems.any()
    np.testing.assert_array_equal(pitch.f0_hz, full.f0_hz)
    stems = track.unknown_pitch(full)
    assert not stems.has_pitch.any() and not stems.f0_hz.any()
    np.testing.assert_array_equal(stems.audio, full.audio)


def test_a_mixture_beyond_full_scale_is_scaled_not_clipped():
    loud = recording(audio=np.full((3207, 2, 1), 0.9, np.float32))
    assert np.abs(track.unknown_stems(loud).audio).max() == pytest.approx(1.0)


def test_a_missing_split_list_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.txt"):
        splits.read_split(tmp_path / "nothing.txt")
