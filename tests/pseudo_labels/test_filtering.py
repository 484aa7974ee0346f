"""Which labels a filter keeps, and errors made on purpose: as many, of which kind, where, and
always the same.
"""

import numpy as np
import pytest

from majl_jax.pseudo_labels import filtering, mislabelling

NOTE_HZ = 440.0


def _filter(confidence, **options):
    f0_hz = np.full(len(confidence), NOTE_HZ, np.float32)
    return filtering.filter_pitch(f0_hz, np.array(confidence, np.float32), **options)


def test_what_is_judged_as_one():
    confidence = [0.9, 0.5, 0.9, 0.5, 0.1, 0.1, 0.6]  # trust 0.9 0.5 0.9 0.5 0.9 0.9 0.6
    options = {"threshold": 0.7, "segment_frames": 2}
    labels, kept, trust = _filter(confidence, granularity="frame", **options)
    assert kept.tolist() == [True, False, True, False, True, True, False]
    assert (labels > 0).tolist() == [True, False, True, False, False, False, False]
    np.testing.assert_allclose(trust, [0.9, 0.5, 0.9, 0.5, 0.9, 0.9, 0.6], rtol=1e-6)
    labels, kept, trust = _filter(confidence, granularity="segment", **options)
    np.testing.assert_allclose(trust, [0.7, 0.7, 0.7, 0.7, 0.9, 0.9, 0.6], rtol=1e-6)
    labels, kept, _ = _filter(confidence, granularity="segment", threshold=0.69, segment_frames=2)
    assert kept.tolist() == [True] * 6 + [False]
    assert (labels > 0).tolist() == [True] * 4 + [False] * 3
    labels, kept, trust = _filter(confidence, granularity="song", **options)
    assert kept.all() and (labels > 0).tolist() == [True] * 4 + [False] * 2 + [True]
    np.testing.assert_allclose(trust, 5.2 / 7, rtol=1e-6)
    assert not _filter(confidence, granularity="song", threshold=0.75, segment_frames=2)[1].any()
    assert _filter([], granularity="song", **options)[1].shape == (0,)


@pytest.mark.parametrize("granularity", ["frame", "segment", "song"])
def test_the_statistics_and_the_filter_agree_about_what_lies_on_the_threshold(granularity):
    options = {"granularity": granularity, "segment_frames": 4}
    for threshold in filtering.THRESHOLDS:
        counts = filtering.Counts()
        _, kept, trust = _filter(
            [max(threshold, 1 - threshold)] * 10, threshold=threshold, **options
        )
        counts.add(trust, kept, samples=0)
        assert counts.reached[filtering.THRESHOLDS.index(threshold)] == kept.sum()


# ---- labels made wrong on purpose ----------------------------------------------------------------


def _melody(frames=60_000, seed=0):
    """Gliding notes of 10 to 120 frames with rests between most of them."""
    rng = np.random.default_rng(seed)
    f0_hz = np.zeros(frames, np.float32)
    first = 0
    while first < frames:
        length, rest = rng.integers(10, 120), rng.integers(0, 30)
        note = rng.uniform(45.0, 1700.0) * 2.0 ** (
            rng.uniform(-0.05, 0.05) * np.arange(length) / 60
        )
        f0_hz[first : first + length] = note[: frames - first]
        first += length + rest
    return f0_hz


def _mislabel(f0_hz, share, seed=3, track="a", stretch_frames=25):
    return mislabelling.mislabel_pitch(
        f0_hz, share=share, seed=seed, track=track, stretch_frames=stretch_frames
    )


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 1.0])
def test_as_many_labels_are_wrong_as_asked_for_and_half_of_them_by_octaves(share):
    f0_hz = _melody()
    before = f0_hz.copy()
    wrong_hz, kinds = _mislabel(f0_hz, share)
    np.testing.assert_array_equal(f0_hz, before)
    voiced = f0_hz > 0
    assert not kinds[~voiced].any() and not wrong_hz[~voiced].any()
    assert abs((kinds > 0)[voiced].mean() - share) <= (0.04 if 0 < share < 1 else 0)
    np.testing.assert_array_equal(wrong_hz[kinds == 0], f0_hz[kinds == 0])
    if share > 0:
        assert abs((kinds == mislabelling.OCTAVE).sum() / (kinds > 0).sum() - 0.5) < 0.1
        octaves = kinds == mislabelling.OCTAVE
        ratio = wrong_hz[octaves] / f0_hz[octaves]
        assert set(np.round(ratio, 5)) == {0.5, 2.0}
        assert wrong_hz[octaves].min() >= 40 and wrong_hz[octaves].max() <= 1900
        other = kinds == mislabelling.ANY_PITCH
        cents = 1200 * np.log2(wrong_hz[other] / f0_hz[other])
        assert np.abs(cents).min() >= 99.9
        assert wrong_hz[other].min() >= 54.9 and wrong_hz[other].max() <= 1200.1


@pytest.mark.slow
def test_random_errors_are_uniform_in_log_frequency():
    wrong_hz, kinds = _mislabel(_melody(150_000), 1.0)
    picked = np.unique(wrong_hz[kinds == mislabelling.ANY_PITCH])  # one value per stretch
    assert len(picked) > 1000
    place = np.log(picked / 55.0) / np.log(1200.0 / 55.0)
    counts = np.histogram(place, 8, (0.0, 1.0))[0] / len(place)
    assert np.abs(counts - 1 / 8).max() < 0.04


def test_errors_come_in_stretches_that_are_wrong_as_one():
    f0_hz = np.full(1000, 200.0, np.float32)
    f0_hz[400:420] = 0.0
    wrong_hz, kinds = _mislabel(f0_hz, 0.5)
    edges = np.flatnonzero(np.diff(kinds.astype(int)) | (np.diff(wrong_hz) != 0)) + 1
    pieces = np.split(np.arange(1000), edges)
    assert {400, 420} <= set(edges)
    assert all(len(p) >= 20 and len(set(wrong_hz[p])) == 1 for p in pieces)
    alone = [len(p) for p in pieces if kinds[p[0]] == mislabelling.ANY_PITCH]
    assert len(alone) >= 5 and max(alone) <= 25  # no two draws are alike
    # A run is cut into near-equal pieces, none longer than asked for.
    lengths = [len(p) for p in mislabelling._stretches(f0_hz > 0, 30)]
    assert sum(lengths) == 980 and max(lengths) <= 30 and min(lengths) >= 28


def test_errors_depend_on_seed_and_track_name_only():
    f0_hz = _melody(5000)
    first, kinds = _mislabel(f0_hz, 0.3)
    np.testing.assert_array_equal(_mislabel(f0_hz, 0.3)[0], first)
    assert (_mislabel(f0_hz, 0.3, seed=4)[0] != first).any()
    assert (_mislabel(f0_hz, 0.3, track="b")[0] != first).any()
    more, more_kinds = _mislabel(f0_hz, 0.6)  # what was wrong stays wrong, in the same way
    assert (more_kinds > 0).sum() > (kinds > 0).sum()
    np.testing.assert_array_equal(more[kinds > 0], first[kinds > 0])


@pytest.mark.parametrize("f0_hz", [[], [0.0, 0.0], [33.0], [1970.0], [45.0, 1500.0]])
def test_errors_of_tracks_at_the_edge(f0_hz):
    f0_hz = np.array(f0_hz, np.float32)
    for seed in range(20):
        wrong_hz, kinds = _mislabel(f0_hz, 1.0, seed=seed)
        assert ((kinds > 0) == (f0_hz > 0)).all()
        octaves = kinds == mislabelling.OCTAVE
        assert ((wrong_hz[octaves] >= 40) & (wrong_hz[octaves] <= 1900)).all()
        ratio = np.abs(np.log2(wrong_hz[octaves] / f0_hz[octaves]))
        np.testing.assert_allclose(ratio, 1.0, rtol=1e-5)
