"""Multi-pitch targets and peaks against the authors' arrays, scipy and a loop."""

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

from majl_jax.audio.pitch import (
    blur_bins,
    is_local_peak,
    local_peaks,
    multi_pitch_targets,
    nearest_bins,
)


@pytest.fixture(scope="module")
def golden():
    return golden_files.read("ss_mpe_ops")


def _centre(index, bins_per_octave=60):
    return 27.5 * 2.0 ** (np.asarray(index) / bins_per_octave)


def _targets(f0_hz, **sizes):
    return np.asarray(multi_pitch_targets(jnp.asarray(f0_hz, jnp.float32), **sizes))


@pytest.mark.parametrize(("width", "name"), [(1.0, "activations"), (0.0, "activations_no_blur")])
def test_targets_of_the_original(golden, width, name):
    _, _, output, _ = golden
    found = _targets(output["target/resampled_f0_hz"][None], width_bins=width)[0]
    np.testing.assert_allclose(found, output[f"target/{name}"].T, atol=1e-5)


def test_pitches_outside_the_bins_are_dropped(golden):
    _, inputs, output, _ = golden
    found = _targets(inputs["target/out_of_range_hz"][None])[0]
    np.testing.assert_allclose(found, output["target/out_of_range_activations"].T, atol=1e-5)


def test_a_lone_pitch_and_two_neighbours():
    targets = _targets([[[440.0, 0.0], [440.0, 445.0]]])[0]
    around = [1, 0.606531, 0.135335, 0.011109, 0.000335, 0, 0]
    np.testing.assert_allclose(targets[0, 240:247], around, atol=1e-6)
    np.testing.assert_allclose(targets[0, 240:233:-1], around, atol=1e-6)
    np.testing.assert_allclose(targets[1, 239:243], [0.741866, 1, 1, 0.741866], atol=1e-6)
    assert targets[0, 240] == 1.0


def test_the_normaliser_is_one_per_item():
    crowded = [[440.0, 445.0]]
    alone, beside = _targets([crowded])[0], _targets([crowded, [[440.0, 0.0]]])
    # Both pitches are 1 + exp(-1/2) before the division.
    np.testing.assert_allclose(alone[0, 239], 0.741866 / 1.606531, atol=1e-6)
    np.testing.assert_allclose(alone[0, 240], 1.0)
    np.testing.assert_array_equal(beside[0], alone)


def test_targets_by_a_loop_with_scipy():
    rng = np.random.default_rng(0)
    sizes = {"fmin_hz": 65.406, "bins": 162, "bins_per_octave": 36}
    f0_hz = 65.406 * 2 ** rng.uniform(-0.3, 4.7, (3, 9, 4)) * (rng.random((3, 9, 4)) < 0.6)
    f0_hz[2] = 0.0
    expected = np.zeros((3, 9, 162))
    for i in range(3):
        for k, j in np.ndindex(9, 4):
            if f0_hz[i, k, j] > 0:
                place = 36 * np.log2(f0_hz[i, k, j] / 65.406)
                if 0 <= place <= 161:
                    expected[i, k, round(place)] = 1
        active = expected[i] == 1
        blurred = scipy.ndimage.gaussian_filter1d(expected[i], 1.5, axis=-1, mode="constant")
        expected[i] = np.clip(blurred / blurred[active].min(), 0, 1) if active.any() else 0
    assert not expected[2].any() and expected[1].any()
    found = _targets(f0_hz, width_bins=1.5, **sizes)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_every_bin_centre_is_its_own_bin_and_the_range_ends_at_the_outer_ones():
    grid = {"fmin_hz": 27.5, "bins": 440, "bins_per_octave": 60}
    index = nearest_bins(jnp.asarray(_centre(np.arange(440)), jnp.float32), **grid)
    np.testing.assert_array_equal(index, np.arange(440))
    places = np.array([-0.01, 0.49, 0.51, 438.51, 439.01])
    found = nearest_bins(jnp.asarray(_centre(places), jnp.float32), **grid)
    np.testing.assert_array_equal(found, [-1, 0, 1, 439, -1])
    assert nearest_bins(jnp.zeros(1), **grid)[0] == -1


def test_a_blur_needs_a_width():
    with pytest.raises(ValueError, match="width_bins"):
        blur_bins(jnp.ones((1, 5)), width_bins=0.0)


def test_peaks_of_the_original(golden):
    _, inputs, output, _ = golden
    found = np.asarray(jax.jit(local_peaks)(inputs["peaks/salience"].T))
    np.testing.assert_array_equal(found, output["peaks/filtered"].T)
    np.testing.assert_array_equal(found >= 0.5, output["peaks/binary"].T)


def test_peaks_by_hand():
    # The published table lies with the bins down.
    salience = np.array([[0.9, 0.2, 0.6], [0.5, 0.7, 0.6], [0.6, 0.1, 0.2], [0.4, 0.8, 0.9]])
    found = np.asarray(local_peaks(jnp.asarray(salience.T, jnp.float32))) >= 0.5
    np.testing.assert_array_equal(found.T, [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 1]])


def test_peaks_agree_with_scipy():
    rng = np.random.default_rng(1)
    salience = rng.integers(0, 6, (3, 7, 40)).astype(np.float32) / 5  # with plateaus and zeros
    padded = np.pad(salience, ((0, 0), (0, 0), (1, 1)))
    expected = np.zeros_like(padded)
    where = scipy.signal.argrelmax(padded, axis=-1)
    expected[where] = padded[where]
    np.testing.assert_array_equal(local_peaks(jnp.asarray(salience)), expected[..., 1:-1])


def test_a_constant_frame_has_no_peak_and_ends_compare_with_what_is_outside():
    assert not is_local_peak(jnp.zeros((1, 5))).any()
    low = jnp.array([[-1.0, -2.0, -3.0]])
    assert not is_local_peak(low).any()
    np.testing.assert_array_equal(is_local_peak(low, outside=-jnp.inf), [[True, False, False]])
