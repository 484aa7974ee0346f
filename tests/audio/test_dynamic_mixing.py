"""Mixtures of mixtures and dynamic mixing: levels, what is drawn, and silence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.audio import mixing
from majl_jax.audio import mixing as audio_mixing

KEY = jax.random.key(5)


def _keys(batch, first=0):
    return mixing.example_keys(KEY, jnp.arange(first, first + batch, dtype=jnp.uint32))


def _noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def _level_db(x, axes):
    return 10 * np.log10(np.mean(np.square(np.asarray(x, np.float64)), axis=axes))


@functools.cache
def _pairs(**options):
    return jax.jit(functools.partial(audio_mixing.mixtures_of_mixtures, **options))


@functools.cache
def _mix(**options):
    mix = functools.partial(audio_mixing.dynamic_mixing, **options)
    return jax.jit(lambda stems, key, keys: mix(stems, jnp.ones(len(stems), bool), key, keys))


@functools.cache
def _kept(**options):
    return jax.jit(functools.partial(audio_mixing.draw_kept, **options))


# ---- mixtures of mixtures -----------------------------------------------------------------------


def test_first_half_is_paired_with_second_half_and_only_the_first_is_scaled():
    segments = _noise(6, 50, 2)
    found = np.asarray(_pairs()(segments, _keys(3)))
    assert found.shape == (3, 50, 2, 2)
    np.testing.assert_array_equal(found[:, :, 1], segments[3:])
    factors = found[:, :, 0] / np.asarray(segments[:3])
    np.testing.assert_allclose(factors, factors[:, :1, :1] * np.ones_like(factors), rtol=1e-5)
    assert len(np.unique(factors[:, 0, 0].round(4))) == 3


def test_ratios_are_uniform_in_their_range_whatever_the_levels():
    levels = jnp.exp(3 * _noise(2000, 1, 1, seed=1))
    segments = _noise(2000, 8, 2) * levels
    found = _pairs()(segments, _keys(1000))
    ratio_db = _level_db(found[:, :, 0], (1, 2)) - _level_db(found[:, :, 1], (1, 2))
    assert ratio_db.min() > -5.001 and ratio_db.max() < 5.001
    counts, _ = np.histogram(ratio_db, bins=5, range=(-5, 5))
    assert counts.min() > 150  # 200 expected, standard deviation 13
    fixed = _pairs(low_db=3.0, high_db=3.0)(segments[:6], _keys(3))
    ratio_db = _level_db(fixed[:, :, 0], (1, 2)) - _level_db(fixed[:, :, 1], (1, 2))
    np.testing.assert_allclose(ratio_db, 3.0, atol=1e-4)


def test_a_pair_is_drawn_alike_wherever_it_lies_in_a_batch():
    segments = _noise(8, 20, 1)
    whole = _pairs()(segments, _keys(4))
    part = _pairs()(segments[jnp.array([2, 3, 6, 7])], _keys(2, first=2))
    np.testing.assert_allclose(whole[2:], part, rtol=1e-6)


def test_silent_segments_leave_the_other_as_it_is():
    segments = _noise(6, 50, 2).at[0].set(0).at[4].set(1e-8).at[jnp.array([2, 5])].set(0)
    found = np.asarray(_pairs()(segments, _keys(3)))
    np.testing.assert_array_equal(found[:, :, 0], segments[:3])
    np.testing.assert_array_equal(found[:, :, 1], segments[3:])
    gradient = jax.grad(lambda x: _pairs()(x, _keys(3)).sum())(segments)
    assert np.isfinite(gradient).all()


def test_pairs_that_cannot_be_are_errors():
    for count, keys in ((5, 2), (6, 2)):
        with pytest.raises(
            ValueError, match=f"got {count} segments and {keys} keys; expected an even"
        ):
            audio_mixing.mixtures_of_mixtures(_noise(count, 4, 1), _keys(keys))
    with pytest.raises(ValueError, match="low_db <= high_db"):
        audio_mixing.mixtures_of_mixtures(_noise(2, 4, 1), _keys(1), low_db=1, high_db=0)


# ---- dynamic mixing -----------------------------------------------------------------------------


def _stems(batch=5, stems=4, time=30):
    """Noise at any level, and its own direction for each example and stem, to be recognised by."""
    return _noise(batch, time, stems, 2) * jnp.exp(2 * _noise(batch, 1, stems, 1, seed=1))


@pytest.mark.parametrize("level", audio_mixing.LEVELS)
def test_stems_are_of_any_example_at_levels_in_the_range(level):
    stems = _stems()
    found = np.asarray(_mix(level=level, drop_probability=0)(stems, KEY, _keys(5)))
    shapes = np.moveaxis(np.asarray(stems), 2, 1).reshape(20, -1)
    shapes /= np.linalg.norm(shapes, axis=1, keepdims=True)
    for j, stem in np.ndindex(5, 4):
        one = found[j, :, stem].reshape(-1)
        likeness = shapes @ one / np.linalg.norm(one)
        np.testing.assert_allclose(likeness.max(), 1.0, atol=1e-5)
        assert likeness.argmax() % 4 == stem  # a stem keeps its place
    axes = (1, 3)
    levels = np.sqrt((found**2).mean(axes)) if level == "rms" else np.abs(found).mean(axes)
    levels_db = 20 * np.log10(levels)
    assert np.abs(levels_db).max() < 10.001 and len(np.unique(levels_db.round(3))) == 20
    assert levels_db.max() > 3 and levels_db.min() < -3


def test_each_stem_is_drawn_on_its_own_from_where_it_sounds():
    sounding = jnp.array(
        [[True, False], [True, False], [False, True], [True, False], [True, False]]
    )
    known = jnp.ones(5, bool)
    draws = jax.vmap(lambda key: audio_mixing.draw_examples(key, sounding, known))(
        jax.random.split(KEY, 1000)
    )
    first, second = np.asarray(draws[..., 0]), np.asarray(draws[..., 1])
    assert (second == 2).all()
    shares = np.bincount(first.ravel(), minlength=5) / first.size
    np.testing.assert_allclose(shares, [0.25, 0.25, 0, 0.25, 0.25], atol=0.02)
    np.testing.assert_allclose((first[:, 0] == first[:, 1]).mean(), 0.25, atol=0.05)
    known = jnp.arange(400) < 300
    nowhere = audio_mixing.draw_examples(KEY, jnp.zeros((400, 1), bool), known)
    assert len(np.unique(nowhere)) > 150 and nowhere.max() < 300  # any that is known
    elsewhere = audio_mixing.draw_examples(KEY, ~known[:, None], known)
    assert elsewhere.max() < 300  # to be known counts more


def test_half_of_the_chunks_above_the_floor_is_sounding():
    stems = np.zeros((3, 43, 2, 2), np.float32)  # chunks of 4; the last 3 samples are in none
    stems[0, :20, 0] = 0.0112  # 8 values of 1.25e-4
    stems[1, :20, 0], stems[1, 40:, 0] = 0.0111, 1.0
    stems[2, :16, 1] = 1.0
    found = audio_mixing.sounding(jnp.asarray(stems))
    np.testing.assert_array_equal(found, [[True, False], [False, False], [False, False]])
    found = audio_mixing.sounding(jnp.asarray(stems), sounding_chunks=4)
    np.testing.assert_array_equal(found, [[True, False], [False, False], [False, True]])
    with pytest.raises(ValueError, match="got 9 samples for 10 chunks"):
        audio_mixing.sounding(jnp.zeros((1, 9, 1, 1)))


def test_levels_of_one_by_hand():
    stems = jnp.array([3.0, -4.0, 0.0, 0.0]).reshape(1, 2, 1, 2)
    stems = jnp.concatenate([stems, 0 * stems], axis=2)
    for level, expected in (("rms", 2.5), ("mean_abs", 1.75)):
        found = audio_mixing.normalise_level(stems, level=level)
        np.testing.assert_allclose(found, stems / expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"level='peak' is not one of rms, mean_abs"):
        audio_mixing.normalise_level(stems, level="peak")


def test_stems_are_dropped_with_their_probability_but_never_all():
    kept = np.asarray(_kept(stems=4)(_keys(4000)))
    assert 0.04 < 1 - kept.mean() < 0.06  # standard deviation 0.0017
    assert np.ptp(kept.mean(axis=0)) < 0.02
    kept = np.asarray(_kept(stems=2, drop_probability=0.9)(_keys(2000)))
    assert kept.any(axis=1).all()
    only = kept[kept.sum(axis=1) == 1]
    assert len(only) > 1500 and 0.45 < only[:, 0].mean() < 0.55
    assert np.asarray(_kept(stems=3, drop_probability=0)(_keys(100))).all()
    with pytest.raises(ValueError, match=r"drop_probability=1\.0; expected 0 or more"):
        audio_mixing.draw_kept(_keys(2), stems=3, drop_probability=1.0)


def test_dropped_and_silent_stems_are_silent_and_the_rest_is_as_without():
    stems = _stems().at[:, :, 2].set(0)
    whole = np.asarray(_mix(drop_probability=0)(stems, KEY, _keys(5)))
    found = np.asarray(_mix(drop_probability=0.6)(stems, KEY, _keys(5)))
    assert np.isfinite(found).all() and not found[:, :, 2].any()
    sounding = found.any(axis=(1, 3))
    assert 0 < sounding.sum() < 12
    np.testing.assert_allclose(found, whole * sounding[:, None, :, None], rtol=1e-6)


def test_the_keys_of_examples_decide_levels_and_the_key_of_the_batch_the_sources():
    stems = _stems()
    first = np.asarray(_mix(drop_probability=0)(stems, KEY, _keys(5)))
    again = np.asarray(_mix(drop_probability=0)(stems, KEY, _keys(5)))
    np.testing.assert_array_equal(first, again)
    other = np.asarray(_mix(drop_probability=0)(stems, jax.random.key(1), _keys(5)))
    np.testing.assert_allclose(_level_db(first, (1, 3)), _level_db(other, (1, 3)), atol=1e-4)
    assert not np.allclose(first, other)
    ratio = np.asarray(_mix(drop_probability=0)(stems, KEY, _keys(5, first=9))) / first
    np.testing.assert_allclose(ratio, ratio[:, :1, :, :1] * np.ones_like(ratio), rtol=1e-4)
    assert (np.abs(ratio - 1) > 1e-3).mean() > 0.9
