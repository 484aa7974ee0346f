"""Mixing keeps the one invariant: the sum over stems is the mixture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.audio import mixing

KEY = jax.random.key(3)


def _stems(seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal((3, 50, 2, 1)), jnp.float32) * 0.1


def test_full_scale():
    x = jnp.array([-32768, 0, 16384, 32767], jnp.int16)
    np.testing.assert_array_equal(mixing.to_float(x), [-1.0, 0.0, 0.5, 32767 / 32768])
    with pytest.raises(TypeError, match="already converted"):
        mixing.to_float(jnp.zeros(3))


def test_mixture_modes():
    stems = _stems()
    expected = np.asarray(stems)[:, :, 0] + np.asarray(stems)[:, :, 1]
    np.testing.assert_allclose(mixing.mixture(stems), expected, atol=1e-7)
    np.testing.assert_allclose(mixing.mixture(stems, mode="mean"), expected / 2, atol=1e-7)
    with pytest.raises(ValueError, match="mixture mode"):
        mixing.mixture(stems, mode="max")


def test_gains_are_in_range_and_move_stems_only_where_all_are_known():
    has_stems = jnp.array([[True, True], [True, False], [False, False]])
    keys = mixing.example_keys(KEY, jnp.arange(3, dtype=jnp.uint32))
    gains = np.asarray(mixing.random_gains_db(keys, has_stems, low_db=-6.0, high_db=3.0))
    assert gains.shape == (3, 2) and gains.min() >= -6 and gains.max() <= 3
    assert gains[0, 0] != gains[0, 1]
    assert gains[1, 0] == gains[1, 1] and gains[2, 0] == gains[2, 1]
    with pytest.raises(ValueError, match="low_db <= high_db"):
        mixing.random_gains_db(keys, has_stems, low_db=1.0, high_db=0.0)


def test_an_example_is_drawn_alike_wherever_it_lies_in_a_batch():
    has_stems = jnp.ones((4, 2), bool)
    index = jnp.array([7, 3, 9, 1], jnp.uint32)
    options = {"low_db": -12.0, "high_db": 12.0}
    whole = mixing.random_gains_db(mixing.example_keys(KEY, index), has_stems, **options)
    part = mixing.random_gains_db(mixing.example_keys(KEY, index[2:]), has_stems[2:], **options)
    np.testing.assert_array_equal(whole[2:], part)
    assert len(np.unique(np.asarray(whole))) == 8


def test_gain_is_in_decibels():
    stems = _stems()
    found = mixing.apply_gains(stems, jnp.array([[20.0, 0.0], [0.0, -20.0], [6.0206, 6.0206]]))
    factors = np.array([[10, 1], [1, 0.1], [2, 2]])[:, None, :, None]
    np.testing.assert_allclose(found, stems * factors, rtol=1e-5)
