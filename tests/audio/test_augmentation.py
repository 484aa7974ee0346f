"""Augmentations against the authors' arrays, a loop over items, and automatic differentiation."""

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.audio import augmentation
from majl_jax.audio.augmentation import shift_and_stretch, stretch_factors

HARMONICS = (0.5, 1, 2, 3, 4, 5)
GRID = {"harmonics": HARMONICS, "bins_per_octave": 60}


@pytest.fixture(scope="module")
def golden():
    return golden_files.read("ss_mpe_ops")


def _keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def _last(x):
    """(batch, harmonic, frequency, time) to [batch, frame, bin, harmonic]."""
    return jnp.transpose(jnp.asarray(x), (0, 3, 2, 1))


def _loop(x, vertical, horizontal, stretch):
    """One item [frame, bin], element by element."""
    frames, bins = x.shape
    shifted = np.zeros_like(x)
    for n, k in np.ndindex(frames, bins):
        if 0 <= n - horizontal < frames and 0 <= k - vertical < bins:
            shifted[n, k] = x[n - horizontal, k - vertical]
    length = int(np.floor(frames * stretch))
    longer = np.zeros((length, bins))
    for n in range(length):
        place = min(max((n + 0.5) / stretch - 0.5, 0.0), frames - 1)
        low = int(place)
        high = min(low + 1, frames - 1)
        longer[n] = shifted[low] + (place - low) * (shifted[high] - shifted[low])
    if stretch >= 1:
        start = (length - frames) // 2
        return longer[start : start + frames]
    left = (frames - length) // 2
    return np.pad(longer, ((left, frames - length - left), (0, 0)))


# ---- shifts and stretches -----------------------------------------------------------------------


@pytest.mark.parametrize("part", ["y", "shift_only", "stretch_only"])
def test_geometry_of_the_original(golden, part):
    _, inputs, output, _ = golden
    vertical, horizontal = (inputs[f"geometric/{n}_shift"] for n in ("vertical", "horizontal"))
    stretch = inputs["geometric/stretch"]
    if part == "shift_only":
        stretch = jnp.ones_like(stretch)
    if part == "stretch_only":
        vertical = horizontal = jnp.zeros_like(vertical)
    found = jax.jit(shift_and_stretch)(_last(inputs["geometric/x"]), vertical, horizontal, stretch)
    tolerance = 0.0 if part == "shift_only" else 1e-5  # shifts are exact
    np.testing.assert_allclose(found, _last(output[f"geometric/{part}"]), atol=tolerance)


@pytest.mark.parametrize(
    ("horizontal", "stretch", "expected"),
    [
        (0, 1.5, [2.166667, 2.833333, 3.5, 4.166667, 4.833333, 5.5, 6.166667, 6.833333]),
        (0, 0.5, [0, 0, 1.5, 3.5, 5.5, 7.5, 0, 0]),
        (0, 0.8, [0, 1.125, 2.375, 3.625, 4.875, 6.125, 7.375, 0]),
        (3, 1.0, [0, 0, 0, 1, 2, 3, 4, 5]),
        (-2, 1.0, [3, 4, 5, 6, 7, 8, 0, 0]),
    ],
)
def test_known_rows(horizontal, stretch, expected):
    x = jnp.arange(1.0, 9.0)[None, :, None]
    found = shift_and_stretch(x, jnp.array([0]), jnp.array([horizontal]), jnp.array([stretch]))
    np.testing.assert_allclose(found[0, :, 0], expected, atol=1e-5)


def test_against_a_loop_over_items_shapes_and_extremes():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 23, 12)).astype(np.float32)
    vertical = np.array([0, 3, -3, 12, -40, 11, 1, -1])
    horizontal = np.array([0, -5, 5, 22, 1, -23, 60, 2])
    stretch = np.array([1.0, 0.5, 2.0, 1.37, 0.77, 0.6, 1.1, 1.99], np.float32)
    found = shift_and_stretch(
        jnp.asarray(x), *(jnp.asarray(part) for part in (vertical, horizontal, stretch))
    )
    expected = [_loop(*item) for item in zip(x, vertical, horizontal, stretch, strict=True)]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-5)


def test_gradient_is_that_of_the_loop():
    """The transpose: <y, F x> = <F' y, x>, entry by entry, for every item of a small example."""
    frames, bins = 7, 4
    moves = [(0, 0, 1.0), (1, -2, 1.3), (-2, 1, 0.6), (0, 3, 2.0)]
    arrays = [jnp.asarray(part) for part in zip(*moves, strict=True)]
    probe = np.random.default_rng(1).standard_normal((4, frames, bins)).astype(np.float32)
    x = jnp.zeros((4, frames, bins))
    _, transpose = jax.vjp(jax.jit(lambda x: shift_and_stretch(x, *arrays)), x)
    (found,) = transpose(jnp.asarray(probe))
    expected = np.zeros((4, frames, bins))
    for i, n, k in np.ndindex(4, frames, bins):
        unit = np.zeros((frames, bins))
        unit[n, k] = 1
        expected[i, n, k] = np.sum(_loop(unit, *moves[i]) * probe[i])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    shifted_only = np.asarray(found)[0]
    np.testing.assert_array_equal(shifted_only, probe[0])


def test_stretch_factors(golden):
    _, inputs, output, _ = golden
    found = stretch_factors(inputs["geometric/uniform"])
    expected = output["geometric/stretch_from_uniform_max2"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    ends = stretch_factors(jnp.array([0.0, 0.5, 1.0]), max_stretch=4.0)
    np.testing.assert_allclose(ends, [0.25, 1.0, 4.0])


@pytest.mark.slow
def test_drawn_moves_cover_their_ranges_and_fit_the_function():
    moves = augmentation.draw_geometry(_keys(500), shift_bins=3, shift_frames=2, stretch=2.0)
    np.testing.assert_array_equal(np.unique(moves["vertical"]), np.arange(-3, 4))
    np.testing.assert_array_equal(np.unique(moves["horizontal"]), np.arange(-2, 3))
    stretch = np.asarray(moves["stretch"])
    assert stretch.min() >= 0.5 and stretch.max() < 2.0 and abs(np.median(stretch) - 1) < 0.1
    for one, other in (("vertical", "horizontal"), ("vertical", "stretch")):
        assert abs(np.corrcoef(moves[one], moves[other])[0, 1]) < 0.2
    assert shift_and_stretch(jnp.ones((500, 4, 3)), **moves).shape == (500, 4, 3)


def test_a_draw_belongs_to_its_key():
    keys = _keys(4)
    both = augmentation.draw_geometry(keys, shift_bins=60, shift_frames=86)
    alone = augmentation.draw_geometry(keys[2:3], shift_bins=60, shift_frames=86)
    for name, value in alone.items():
        assert value[0] == both[name][2]


# ---- equalisation -------------------------------------------------------------------------------


def test_parabolic_equalisation_of_the_original(golden):
    _, inputs, output, config = golden
    uniforms = jnp.stack([inputs["eq/alpha_uniform"], inputs["eq/beta_uniform"]], axis=1)
    curves = augmentation.parabolic_curves(uniforms, bins=660)
    np.testing.assert_allclose(curves, output["eq/parabolic_curves"], atol=1e-5)
    assert config["equalisation"]["pointiness"] == 2
    features = _last(inputs["eq/features"])
    found = augmentation.parabolic_eq(features, uniforms, **GRID)
    np.testing.assert_allclose(found, _last(output["eq/features"]), atol=1e-5)


def test_known_curve():
    curve = augmentation.parabolic_curves(jnp.array([[0.8, 0.25]]), bins=660)[0]
    expected = [0.9, 0.98455355, 0.99999977, 0.79610414, 0.17485476]
    np.testing.assert_allclose(curve[jnp.array([0, 100, 165, 400, 638])], expected, atol=1e-6)


def test_gaussian_curves_of_the_original(golden):
    _, inputs, output, _ = golden
    uniforms = inputs["eq/gaussian_uniforms"].T
    found = augmentation.gaussian_curves(uniforms, bins=660)
    np.testing.assert_allclose(found, output["eq/gaussian_curves"], atol=1e-5)
    features = jnp.full((2, 1, 440, 6), 0.5)
    equalised = augmentation.gaussian_eq(features, uniforms, **GRID)
    expected = np.clip(
        0.5 * np.asarray(found)[:, augmentation.equalisation_bins(440, HARMONICS, 60)], 0, 1
    )
    np.testing.assert_allclose(equalised[:, 0], expected, atol=1e-6)


def test_a_gaussian_without_width_is_finite():
    uniforms = jnp.array([[1.0, 0.5, 0.0], [1.0, 0.0, 0.0]])
    curves = augmentation.gaussian_curves(uniforms, bins=21)
    np.testing.assert_allclose(curves, 1 + 0.375 * np.eye(21)[[10, 0]], atol=1e-6)


def test_bins_of_the_original(golden):
    _, _, output, _ = golden
    index = augmentation.equalisation_bins(440, HARMONICS, 60)
    np.testing.assert_array_equal(index.T, output["eq/bin_index"])
    assert augmentation.curve_bins(440, HARMONICS, 60) == 660
    # Exactly whole octaves still leave a place for the last bin.
    assert augmentation.curve_bins(13, (1, 2), 12) == 36


def test_equalised_levels_stay_in_their_range_and_sizes_are_checked():
    features = jnp.ones((2, 3, 24, 2))
    sizes = {"harmonics": (1, 2), "bins_per_octave": 12}
    for height in (3.0, -3.0):
        curves = jnp.full((2, 36), 1.0 + height)
        found = augmentation.equalise(features, curves, **sizes)
        assert found.min() == found.max() == (1.0 if height > 0 else 0.0)
    with pytest.raises(ValueError, match="36 bins or more"):
        augmentation.equalise(features, jnp.ones((2, 35)), **sizes)
    with pytest.raises(ValueError, match="one harmonic per channel"):
        augmentation.equalise(features, jnp.ones((2, 99)), harmonics=(1, 2, 3), bins_per_octave=12)


def test_uniform_draws_differ_between_items_and_parameters():
    for draw, count in ((augmentation.draw_parabolic, 2), (augmentation.draw_gaussian, 3)):
        drawn = np.asarray(draw(_keys(300)))
        assert drawn.shape == (300, count) and len(np.unique(drawn)) == 300 * count
        assert drawn.min() >= 0 and drawn.max() < 1 and np.all(abs(drawn.mean(0) - 0.5) < 0.1)


# ---- added sound ---------------------------------------------------------------------------------


def test_added_sound_is_not_rescaled():
    audio, other = jnp.ones((2, 3)), jnp.array([[1.0, -1, 0], [2, 0, 1]])
    volume = jnp.array([0.5, 2.0])
    expected = [[1.5, 0.5, 1], [5, 1, 3]]
    np.testing.assert_allclose(augmentation.mix_percussion(audio, other, volume), expected)
    volumes = np.asarray(augmentation.draw_volume(_keys(200), max_volume=0.25))
    assert 0 <= volumes.min() < 0.02 and 0.23 < volumes.max() < 0.25
