"""Masked means over devices, and the trust in pseudo labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from majl_jax import parallel
from majl_jax.audio.pitch import CREPE_BIN_CENTS
from majl_jax.losses import weighting
from majl_jax.pseudo_labels import filtering


def test_masked_mean_against_a_loop():
    rng = np.random.default_rng(0)
    values, mask = rng.standard_normal((4, 5)).astype(np.float32), rng.random((4, 5)) < 0.4
    kept = [values[i, j] for i in range(4) for j in range(5) if mask[i, j]]
    found = weighting.masked_mean(jnp.asarray(values), jnp.asarray(mask))
    np.testing.assert_allclose(found, np.mean(kept), rtol=1e-5)


def test_masked_mean_ignores_what_is_not_labelled_even_if_it_is_not_a_number():
    values = jnp.array([1.0, jnp.nan])
    mask = jnp.array([True, False])
    assert float(weighting.masked_mean(values, mask)) == 1.0
    assert float(weighting.masked_mean(values, jnp.array([False, False]))) == 0.0


def test_masked_mean_over_devices_is_that_of_one():
    rng = np.random.default_rng(1)
    values = jnp.asarray(rng.standard_normal(8), jnp.float32)
    mask = jnp.asarray([1, 1, 1, 0, 0, 0, 0, 1], bool)  # devices with two, one and no labels
    share = PartitionSpec(parallel.AXIS)

    def mean(values, mask):
        return jax.lax.pmean(weighting.masked_mean(values, mask), parallel.AXIS)

    mesh = Mesh(np.array(jax.devices()[:4]), (parallel.AXIS,))
    sharded = jax.shard_map(
        mean, mesh=mesh, in_specs=(share, share), out_specs=PartitionSpec(), check_vma=False
    )
    np.testing.assert_allclose(
        jax.jit(sharded)(values, mask), weighting.masked_mean(values, mask), rtol=1e-6
    )


def test_weighted_sum_needs_a_weight_for_every_term_and_no_other():
    terms = {"separation": jnp.float32(2.0), "pitch": jnp.float32(3.0)}
    assert float(weighting.weighted_sum(terms, {"separation": 0.5, "pitch": 2.0})) == 7.0
    for weights in ({"separation": 1.0}, {"separation": 1.0, "pitch": 1.0, "pich": 1.0}):
        with pytest.raises(ValueError, match="pitch"):
            weighting.weighted_sum(terms, weights)


CONFIDENCE = np.array([0.95, 0.75, 0.6, 0.4, 0.2, 0.05], np.float32)
F0_HZ = np.full(6, 220.0, np.float32)


def test_trusted_pitch_keeps_sure_frames_of_both_kinds():
    f0_hz, kept = filtering.trusted_pitch(F0_HZ, CONFIDENCE, threshold=0.7)
    np.testing.assert_array_equal(kept, [True, True, False, False, True, True])
    np.testing.assert_array_equal(f0_hz, [220, 220, 0, 0, 0, 0])


def test_a_higher_threshold_keeps_no_more():
    kept = [
        filtering.trusted_pitch(F0_HZ, CONFIDENCE, threshold=t)[1].sum() for t in (0.5, 0.7, 0.9)
    ]
    assert kept == sorted(kept, reverse=True) and kept[0] > kept[-1]


def test_segments_are_kept_or_dropped_whole():
    for threshold, expected in ((0.7, True), (0.8, False)):  # the mean trust is 0.76
        _, kept = filtering.trusted_pitch(
            F0_HZ, CONFIDENCE, threshold=threshold, granularity="segment"
        )
        assert kept.tolist() == [expected] * 6
    with pytest.raises(ValueError, match="granularity"):
        filtering.trusted_pitch(F0_HZ, CONFIDENCE, threshold=0.7, granularity="song")


def test_stem_confidence_against_a_loop():
    rng = np.random.default_rng(2)
    salience = rng.random((5, 360)).astype(np.float32)
    f0_hz = np.array([220.0, 0.0, 440.0, 330.0, 110.0], np.float32)
    has_pitch = np.array([True, True, True, False, True])
    expected = []
    for frame in (0, 2, 4):
        cents = 1200 * np.log2(f0_hz[frame] / 10)
        near = [
            p for p, c in zip(salience[frame], CREPE_BIN_CENTS, strict=True) if abs(c - cents) <= 50
        ]
        expected.append(max(near))
    found = filtering.stem_confidence(salience, f0_hz, has_pitch, CREPE_BIN_CENTS)
    np.testing.assert_allclose(found, np.mean(expected), rtol=1e-6)
    assert filtering.stem_confidence(salience, f0_hz * 0, has_pitch, CREPE_BIN_CENTS) == 0.0
