"""Clusters of a song: points for k-means in memory that is bounded."""

import numpy as np

from majl_jax.inference import chimera


def _kept(segments):
    points = chimera._Points()
    for segment in segments:
        points.add(segment)
    return np.concatenate(points.kept)


def test_points_of_a_short_song_are_all_kept_of_a_long_one_an_even_part(monkeypatch):
    monkeypatch.setattr(chimera, "MOST_POINTS", 100)
    song = np.arange(32_000, dtype=np.float32).reshape(1600, 20, 1)
    np.testing.assert_array_equal(_kept(song[:5]), song[:5].reshape(-1, 1))
    kept = _kept(song)
    assert 50 <= len(kept) <= 100
    counts, _ = np.histogram(kept, bins=4, range=(0, 32_000))
    assert counts.min() >= counts.max() - 1
    np.testing.assert_array_equal(kept, _kept(song))


def test_what_is_left_out_is_not_held(monkeypatch):
    monkeypatch.setattr(chimera, "MOST_POINTS", 100)
    points = chimera._Points()
    points.add(np.zeros((5000, 3), np.float32)[:20])
    assert all(one.base is None for one in points.kept)
