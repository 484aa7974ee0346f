"""Losses against blank output: loops, limits, and where they stop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax import parallel
from majl_jax.losses.activity import (
    StrictLimits,
    activity_hinge,
    positive_bce,
    strict_positive_mask,
    variance_hinge,
)


def _salience(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


# ---- how much is heard --------------------------------------------------------------------------


@pytest.mark.parametrize("squared", [True, False])
def test_activity_by_a_loop(squared):
    salience, mask = _salience(4, 6, 5), _salience(4, 6, seed=1) < 0.6
    mask[2] = False
    least = np.array([2.0, 4.0, 4.0, 3.5], np.float32)
    expected = np.zeros(4)
    for i in range(4):
        masses = [salience[i, k].sum() for k in range(6) if mask[i, k]]
        if masses:
            expected[i] = max(0.0, least[i] - np.mean(masses)) ** (2 if squared else 1)
    assert (expected > 0).sum() >= 2 and expected[2] == 0
    found = activity_hinge(
        jnp.asarray(salience), jnp.asarray(least), jnp.asarray(mask), squared=squared
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_activity_lifts_blank_output_and_leaves_the_rest_alone():
    mask = jnp.array([[True, True, False]])

    def loss(logits, least):
        return activity_hinge(jax.nn.sigmoid(logits), least, mask).sum()

    slope = jax.grad(loss)
    blank = slope(jnp.full((1, 3, 10), -2.0), 3.0)
    assert np.all(blank[0, :2] < 0) and not blank[0, 2].any()
    assert not slope(jnp.full((1, 3, 10), 2.0), 3.0).any()
    assert jax.grad(loss, argnums=1)(jnp.full((1, 3, 10), -2.0), 3.0) == 0.0


def test_positive_bce_by_a_loop_says_nothing_of_the_rest():
    logits, positives = 4 * _salience(2, 3, 5) - 2, _salience(2, 3, 5, seed=1)
    positives[positives < 0.5] = 0.0
    expected = np.zeros((2, 3))
    for i, k, b in np.ndindex(2, 3, 5):
        expected[i, k] -= positives[i, k, b] * np.log(1 / (1 + np.exp(-logits[i, k, b])))
    found = positive_bce(jnp.asarray(logits), jnp.asarray(positives))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    slope = jax.grad(lambda z: positive_bce(z, jnp.asarray(positives > 0)).sum())(
        jnp.asarray(logits)
    )
    assert np.all((np.asarray(slope) < 0) == (positives > 0))


@pytest.mark.parametrize("logit", [-1e4, 0.0, 1e4])
def test_positive_bce_is_finite(logit):
    value, slope = jax.value_and_grad(lambda z: positive_bce(z, jnp.ones((1, 1, 3))).sum())(
        jnp.full((1, 1, 3), logit)
    )
    assert np.isfinite(value) and np.all(np.isfinite(slope))


# ---- how it varies ------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["bins", "mass"])
def test_variance_by_a_loop(of):
    salience, mask = _salience(3, 8, 5), _salience(3, 8, seed=1) < 0.7
    rows = np.array([salience[i, k] for i, k in np.ndindex(3, 8) if mask[i, k]], np.float64)
    if of == "mass":
        rows = rows.sum(axis=1, keepdims=True)
    goal = 0.28 if of == "bins" else 1.0
    hinges = [max(0.0, goal - np.sqrt(np.var(column) + 1e-4)) for column in rows.T]
    assert max(hinges) > 0 and (of == "mass" or min(hinges) == 0)
    found = variance_hinge(jnp.asarray(salience), jnp.asarray(mask), minimum_deviation=goal, of=of)
    np.testing.assert_allclose(found, np.mean(hinges), rtol=1e-4)


def test_variance_of_blank_constant_and_varied_output():
    blank = jnp.zeros((2, 4, 3))
    assert abs(float(variance_hinge(blank, minimum_deviation=0.5)) - 0.49) < 1e-6
    varied = jnp.tile(jnp.array([0.0, 1.0])[None, :, None], (2, 2, 3))
    assert variance_hinge(varied, minimum_deviation=0.5) == 0.0
    assert variance_hinge(blank, jnp.zeros((2, 4), bool), minimum_deviation=0.5) == 0.0
    with pytest.raises(ValueError, match="bins"):
        variance_hinge(blank, minimum_deviation=0.5, of="frames")


@pytest.mark.parametrize("any_frame", [True, False])
def test_constant_output_has_finite_gradients(any_frame):
    mask = jnp.full((2, 4), any_frame)

    @jax.jit
    @jax.grad
    def slope(z):
        salience = jax.nn.sigmoid(z)
        hinges = [
            variance_hinge(salience, mask, minimum_deviation=1.0, of=x) for x in ("bins", "mass")
        ]
        return sum(hinges) + activity_hinge(salience, 2.0, mask).sum()

    for logit in (-1e4, 0.0, 1e4):
        assert np.all(np.isfinite(slope(jnp.full((2, 4, 3), logit))))


@pytest.mark.parametrize("of", ["bins", "mass"])
@pytest.mark.parametrize("least", [0.3, 1.1])  # a device without a True frame, or with few
def test_variance_is_that_of_all_devices_whatever_their_number(of, least):
    logits, mask = _salience(4, 6, 5), _salience(4, 6, seed=1) < 0.6
    logits += np.arange(4, dtype=np.float32)[:, None, None]  # most of it is between the items
    mask[2:] &= _salience(2, 6, seed=2) > least

    def slope(scale, z, mask):
        def loss(scale):
            return variance_hinge(jax.nn.sigmoid(scale * z), mask, minimum_deviation=2.0, of=of)

        return parallel.across(jax.value_and_grad(loss)(scale))

    expected = slope(jnp.float32(0.7), jnp.asarray(logits), jnp.asarray(mask))
    whole, over = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(parallel.AXIS)
    split = jax.shard_map(
        slope,
        mesh=parallel.mesh(jax.devices()[:2]),
        in_specs=(whole, over, over),
        out_specs=whole,
        check_vma=False,
    )
    found = jax.jit(split)(jnp.float32(0.7), jnp.asarray(logits), jnp.asarray(mask))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert all(np.abs(expected) > 0.01)


def test_variance_pushes_unequal_frames_apart():
    logits = jnp.array([[-0.1, 0.1]])[..., None]
    slope = jax.grad(lambda z: variance_hinge(jax.nn.sigmoid(z), minimum_deviation=0.5))(logits)[
        0, :, 0
    ]
    assert slope[0] > 0 > slope[1]  # descent lowers the low frame and raises the high one


# ---- what is surely there -----------------------------------------------------------------------

OCTAVE, BINS = 12, 48
HARMONICS = (0.5, 1, 2, 3)
PLACE, FIFTH = 20, 7


def _tone(**changed_db):
    """Levels of a tone at bin 20 with all the strict positives ask for; a named level in dB
    replaces one of them.
    """
    level_db = {"f": -10.0, "second": -15.0, "third": -20.0, "between": -60.0, "around": -60.0}
    level_db |= changed_db
    features = np.full((1, 1, BINS, 4), 1 + level_db["around"] / 80, np.float32)
    features[..., PLACE, 1:] = 1 + np.array([level_db[x] for x in ("f", "second", "third")]) / 80
    features[..., PLACE + FIFTH, 1] = 1 + level_db["between"] / 80
    return jnp.asarray(features)


def _mask(features, salience=0.7, harmonics=HARMONICS, **limits):
    average = jnp.full((1, 1, BINS), salience)
    sizes = {"harmonics": harmonics, "bins_per_octave": OCTAVE}
    found = strict_positive_mask(average, features, **sizes, limits=StrictLimits(**limits))
    return np.flatnonzero(np.asarray(found)[0, 0]).tolist()


def test_an_unmistakable_tone_is_found():
    assert _mask(_tone()) == [PLACE]


@pytest.mark.parametrize(
    ("changed_db", "found"),
    [
        ({"second": -19.9}, True),
        ({"second": -20.1}, False),
        ({"third": -21.9}, True),
        ({"third": -22.1}, False),
        ({"between": -25.2}, True),
        ({"between": -24.9}, False),
        ({"around": -10.0}, False),
    ],
)
def test_each_limit_decides(changed_db, found):
    assert _mask(_tone(**changed_db)) == ([PLACE] if found else [])


def test_salience_and_silence():
    assert _mask(_tone(), salience=0.61) == [PLACE] and _mask(_tone(), salience=0.59) == []
    assert _mask(jnp.zeros((1, 1, BINS, 4))) == []


def test_local_level_by_a_loop():
    rng = np.random.default_rng(0)
    features = rng.random((1, 2, BINS, 4)).astype(np.float32)
    found = strict_positive_mask(
        jnp.ones((1, 2, BINS)),
        jnp.asarray(features),
        harmonics=HARMONICS,
        bins_per_octave=OCTAVE,
        limits=StrictLimits(
            minimum_second_db=-99.0,
            minimum_third_db=-99.0,
            maximum_between_db=99.0,
            peaks_only=False,
        ),
    )
    expected = np.zeros((1, 2, BINS), bool)
    for k, b in np.ndindex(2, BINS - FIFTH):  # 1.5f of higher bins is unknown
        around = features[0, k, max(b - 6, 0) : b + 7, 1]
        expected[0, k, b] = 80 * (features[0, k, b, 1] - around.mean()) >= 10
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(found, expected)


def test_flanks_of_a_partial_are_left_out():
    features = _tone().at[..., PLACE + 1, 1:].set(_tone()[..., PLACE, 1:] - 0.01)
    features = features.at[..., PLACE + 1 + FIFTH, 1].set(0.2)
    assert _mask(features) == [PLACE]
    assert _mask(features, peaks_only=False) == [PLACE, PLACE + 1]


def test_partials_without_a_channel_are_read_at_their_bin_of_the_first():
    features = _tone()[..., :2]
    second, third = PLACE + 12, PLACE + 19
    with_partials = features.at[..., second, 1].set(1 - 15 / 80).at[..., third, 1].set(1 - 20 / 80)
    options = {"harmonics": (0.5, 1), "minimum_snr_db": 10.0}
    assert _mask(with_partials, **options) == [PLACE]
    assert _mask(features, **options) == []
    # Beyond the last bin nothing is known.
    moved = jnp.roll(with_partials, 10, axis=2)
    assert _mask(moved, **options) == []


def test_the_first_harmonic_is_needed_and_no_gradient_flows():
    with pytest.raises(ValueError, match="among them 1"):
        _mask(_tone(), harmonics=(0.5, 2, 3, 4))
    slope = jax.grad(
        lambda x: positive_bce(
            jnp.zeros((1, 1, BINS)),
            strict_positive_mask(
                jnp.ones((1, 1, BINS)), x, harmonics=HARMONICS, bins_per_octave=OCTAVE
            ),
        ).sum()
    )(_tone())
    assert not slope.any()
