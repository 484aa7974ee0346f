"""Source activity detection against a loop, and the rule for silent segments at its edge."""

import numpy as np
import pytest

from majl_jax.audio import activity_detection


def _loop(audio, segment_samples, chunks=10, active_chunks=5, percentile=15, min_energy=1e-3):
    """Segment by segment, chunk by chunk."""
    starts = range(0, len(audio) - segment_samples + 1, segment_samples // 2)
    length = segment_samples // chunks
    energies = [
        [np.sum(audio[s + c * length : s + (c + 1) * length] ** 2) for c in range(chunks)]
        for s in starts
    ]
    energies = [[e if e > 0 else 1e-5 for e in segment] for segment in energies]
    threshold = max(np.percentile(np.concatenate(energies), percentile), min_energy)
    return [
        s
        for s, segment in zip(starts, energies, strict=True)
        if sum(e > threshold for e in segment) >= active_chunks
    ]


@pytest.mark.parametrize("segment_samples", [40, 47])
def test_active_segments_are_those_of_a_loop(segment_samples):
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((1203, 2)) * np.exp(2 * np.sin(np.arange(1203) / 60))[:, None]
    audio[300:420] = 0
    found = activity_detection.active_segments(
        audio.astype(np.float32), segment_samples=segment_samples
    )
    expected = _loop(audio.astype(np.float32).astype(float), segment_samples)
    np.testing.assert_array_equal(found, expected)
    assert 0 < len(found) < 1203 // (segment_samples // 2) - 5


def test_five_of_ten_chunks_are_enough_and_four_are_not():
    # Segments of 20 samples without overlap: chunks of 2.
    audio = np.zeros((60, 1))
    audio[0:10], audio[20:28] = 1.0, 1.0
    options = {"segment_samples": 20, "hop_samples": 20, "percentile": 0}
    found = activity_detection.active_segments(audio, **options)
    np.testing.assert_array_equal(found, [0])
    found = activity_detection.active_segments(audio, **options, active_chunks=4)
    np.testing.assert_array_equal(found, [0, 20])


def test_what_is_not_above_the_floor_is_silent():
    audio = np.full((40, 2), 0.01)  # chunks of 4 samples and 2 channels: 8e-4
    options = {"segment_samples": 40, "percentile": 0}
    assert not len(activity_detection.active_segments(audio, **options))
    # At the percentile 0 nothing of equal chunks exceeds the threshold; one quieter chunk lowers it.
    audio = np.full((40, 2), 0.1)
    audio[:4] = 0.0
    np.testing.assert_array_equal(activity_detection.active_segments(audio, **options), [0])


def test_a_recording_that_is_too_short_has_no_segment():
    assert not len(activity_detection.active_segments(np.ones((19, 1)), segment_samples=20))
    with pytest.raises(ValueError, match="segments of 5 samples, a hop of 2 and 10 chunks"):
        activity_detection.active_segments(np.ones((19, 1)), segment_samples=5)


def test_half_of_the_chunks_silent_is_mostly_silent():
    rng = np.random.default_rng(0)
    segment = rng.integers(1, 9, (207, 2), dtype=np.int16)  # the last 7 samples are in no chunk
    assert not activity_detection.mostly_silent(segment)
    segment[:90] = 0
    segment[90:100] = 0
    segment[95, 1] = 1
    assert not activity_detection.mostly_silent(segment)
    segment[95] = 0
    assert activity_detection.mostly_silent(segment)
    assert not activity_detection.mostly_silent(segment, silent_chunks=11)
    assert activity_detection.mostly_silent(np.zeros((40, 1), np.float32))
    with pytest.raises(ValueError, match="got 19 samples for 20 chunks"):
        activity_detection.mostly_silent(np.ones((19, 1)))
