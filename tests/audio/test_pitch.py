"""Pitch units, targets and decoding against closed forms and plain loops."""

import jax
import jax.numpy as jnp
import mir_eval.melody
import numpy as np
import pytest

from majl_jax.audio.pitch import (
    CREPE_BIN_CENTS,
    cents_to_hz,
    decode_local_average,
    gaussian_targets,
    hz_to_cents,
    one_hot_targets,
)


def test_crepe_bins():
    assert CREPE_BIN_CENTS.shape == (360,)
    hz = 10 * 2 ** (CREPE_BIN_CENTS / 1200)
    assert hz[0] == pytest.approx(31.70, abs=0.005) and hz[-1] == pytest.approx(2005.5, abs=0.05)


def test_units_agree_with_mir_eval_and_invert():
    f0_hz = np.array([0.0, 10.5, 31.7, 440.0, 2005.5], np.float32)
    np.testing.assert_allclose(hz_to_cents(f0_hz), mir_eval.melody.hz2cents(f0_hz), atol=2e-3)
    np.testing.assert_allclose(cents_to_hz(hz_to_cents(f0_hz)), f0_hz, rtol=1e-5)


def test_unit_gradients_are_finite_at_unvoiced_frames():
    gradient = jax.grad(lambda f: hz_to_cents(f).sum())(jnp.array([0.0, 440.0]))
    assert gradient[0] == 0 and gradient[1] == pytest.approx(1200 / np.log(2) / 440, rel=1e-5)


def test_one_hot_takes_the_nearest_bin():
    f0_hz = np.array([440.0, 31.70, 2005.5, 0.0, 10.0, 20.0, 4000.0], np.float32)
    targets = np.asarray(one_hot_targets(f0_hz, CREPE_BIN_CENTS))
    assert targets[0].argmax() == 228  # round(227.70)
    assert targets[1].argmax() == 0 and targets[2].argmax() == 359
    np.testing.assert_array_equal(targets.sum(1), [1, 1, 1, 0, 0, 0, 0])


def test_one_hot_is_the_formula_of_the_authors():
    f0_hz = np.random.default_rng(0).uniform(33, 1990, 500)
    expected = np.round((1200 * np.log2(f0_hz / 10) - 1997.3794084376191) / 20).astype(int)
    found = np.asarray(one_hot_targets(f0_hz.astype(np.float32), CREPE_BIN_CENTS)).argmax(1)
    assert np.mean(found == expected) > 0.995  # float32 may round the other way at an edge


def test_gaussian_targets_are_a_loop():
    f0_hz, width = np.array([[100.0, 0.0], [321.0, 32.0]]), 25.0
    expected = np.zeros((2, 2, 360))
    for i, j in np.ndindex(2, 2):
        if f0_hz[i, j] > 0:
            cents = 1200 * np.log2(f0_hz[i, j] / 10)
            for b in range(360):
                expected[i, j, b] = np.exp(-((CREPE_BIN_CENTS[b] - cents) ** 2) / (2 * width**2))
    found = gaussian_targets(f0_hz.astype(np.float32), CREPE_BIN_CENTS, width_cents=width)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def _loop_decode(salience, radius):
    peak = int(np.argmax(salience))
    low, high = max(0, peak - radius), min(len(salience), peak + radius + 1)
    weights = salience[low:high].astype(np.float64)
    cents = (weights * CREPE_BIN_CENTS[low:high]).sum() / weights.sum()
    return 10 * 2 ** (cents / 1200), salience.max()


@pytest.mark.parametrize("radius", [0, 1, 4])
def test_decode_is_a_loop_also_at_the_edges(radius):
    salience = np.random.default_rng(0).random((40, 360)).astype(np.float32)
    salience[0, 0] = salience[1, 359] = salience[2, 2] = 2.0
    found = decode_local_average(salience, CREPE_BIN_CENTS, radius_bins=radius)
    for row in range(40):
        f0_hz, confidence = _loop_decode(salience[row], radius)
        assert found[0][row] == pytest.approx(f0_hz, rel=1e-5)
        assert found[1][row] == pytest.approx(confidence)


def test_decoding_a_gaussian_target_returns_its_pitch():
    f0_hz = np.array([55.0, 219.3, 440.0, 1234.5], np.float32)
    salience = gaussian_targets(f0_hz, CREPE_BIN_CENTS)
    found = decode_local_average(salience, CREPE_BIN_CENTS)[0]
    assert np.abs(1200 * np.log2(np.asarray(found) / f0_hz)).max() < 1.5  # cents; cut-off tails


def test_silent_salience_decodes_without_nan():
    f0_hz, confidence = decode_local_average(jnp.zeros((2, 360)), CREPE_BIN_CENTS)
    assert np.all(np.isfinite(f0_hz)) and np.all(np.asarray(confidence) == 0)


def test_transposing_by_an_octave_moves_60_bins():
    salience = np.zeros((1, 360), np.float32)
    salience[0, 100:105] = [0.1, 0.5, 0.9, 0.4, 0.2]
    low = decode_local_average(salience, CREPE_BIN_CENTS)[0]
    high = decode_local_average(np.roll(salience, 60, 1), CREPE_BIN_CENTS)[0]
    np.testing.assert_allclose(high, 2 * np.asarray(low), rtol=1e-5)
