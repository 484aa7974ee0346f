"""Remixing moves what it says and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.audio.voice_remixing import Remixing, remix

BATCH, TIME, RATE_HZ = 4, 4096, 16_000


def a_batch():
    """Sines of 200, 300, … Hz over accompaniments that say whose they are by their height."""
    time = np.arange(TIME) / RATE_HZ
    f0 = 200.0 + 100.0 * np.arange(BATCH)
    voice = 0.1 * np.sin(2 * np.pi * f0[:, None] * time)
    others = np.broadcast_to((1.0 + np.arange(BATCH))[:, None], (BATCH, TIME))
    stems = jnp.asarray(np.stack([voice, others], axis=2), jnp.float32)
    pitches = jnp.asarray(np.broadcast_to(f0[:, None, None], (BATCH, 12, 1)), jnp.float32)
    return stems, pitches.at[:, 0].set(0.0)


_remix = jax.jit(remix, static_argnames="options")


def remixed(known=(True,) * BATCH, seed=0, **options):
    stems, pitches = a_batch()
    index = jnp.arange(BATCH, dtype=jnp.uint32)
    key, known = jax.random.key(seed), jnp.asarray(known)
    return _remix(stems, known, pitches, index, key=key, options=Remixing(**options))


def test_nothing_moves_unless_asked():
    for found, given in zip(remixed(), a_batch(), strict=True):
        np.testing.assert_array_equal(found, given)


def test_a_voice_gets_the_accompaniment_of_another_example_and_stays_as_it_is():
    stems, pitches = remixed(others=1.0)
    before, labels = a_batch()
    np.testing.assert_array_equal(stems[:, :, 0], before[:, :, 0])
    np.testing.assert_array_equal(pitches, labels)
    assert np.all(stems[:, 0, 1] != before[:, 0, 1])


def test_another_accompaniment_comes_at_the_level_of_the_one_it_replaces():
    stems, _ = remixed(others=1.0, match_levels=True)
    np.testing.assert_allclose(stems[:, 0, 1], 1.0 + np.arange(BATCH), rtol=1e-5)


def test_silence_keeps_its_level_and_noise_is_raised_by_at_most_20_db():
    def one(*levels):
        stems = jnp.ones((len(levels), TIME, 2)) * jnp.asarray(levels)[:, None, None]
        found, _ = _remix(
            stems,
            jnp.ones(len(levels), bool),
            jnp.zeros((len(levels), 12, 1)),
            jnp.arange(len(levels), dtype=jnp.uint32),
            key=jax.random.key(0),
            options=Remixing(others=1.0, match_levels=True),
        )
        return found[:, 0, 1].tolist()

    assert one(0.5, 0.0) == [0.0, 0.5]
    np.testing.assert_allclose(one(0.5, 0.001), [0.01, 0.001], rtol=1e-5)


def test_examples_without_stems_keep_their_own_and_lend_nothing():
    known = (True, True, False, False)
    for seed in range(5):
        stems, _ = remixed(known, seed, others=1.0)
        assert stems[:, 0, 1].tolist() == [2.0, 1.0, 3.0, 4.0]


def test_the_only_example_with_stems_keeps_its_own():
    stems, _ = remixed((True, False, False, False), others=1.0)
    assert stems[:, 0, 1].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_levels_lie_within_their_range_and_unknown_stems_keep_their_balance():
    known = (True, True, False, False)
    before, _ = a_batch()
    balances = []
    for seed in range(20):
        stems, _ = remixed(known, seed, gain_db=6.0)
        gains_db = 20 * np.log10(np.abs(stems[:, 50]) / np.abs(before[:, 50]))
        assert np.all(np.abs(gains_db) <= 6.0 + 1e-3)
        np.testing.assert_allclose(gains_db[2:, 0], gains_db[2:, 1], atol=1e-4)
        balances.append(np.abs(gains_db[:2, 0] - gains_db[:2, 1]))
    assert np.mean(balances) > 2.0


def test_sound_and_labels_change_their_key_together():
    stems, pitches = remixed(shifted=1.0, semitones=3.0)
    _, labels = a_batch()
    ratios = np.asarray(pitches[:, 1:, 0] / labels[:, 1:, 0])
    assert np.all(ratios == ratios[:, :1])
    assert np.all(np.abs(12 * np.log2(ratios)) <= 3.0)
    assert len(set(ratios[:, 0].tolist())) == BATCH
    assert np.all(np.asarray(pitches[:, 0]) == 0.0)
    window = np.hanning(TIME)[None]
    spectrum = np.abs(np.fft.rfft(np.asarray(stems[:, :, 0]) * window, 8 * TIME))
    heard_hz = spectrum.argmax(1) * RATE_HZ / (8 * TIME)
    np.testing.assert_allclose(heard_hz, pitches[:, 1, 0], rtol=0.01)


def test_a_share_of_the_examples_changes():
    changed = [np.asarray(remixed(seed=s, shifted=0.3)[1][:, 1, 0]) for s in range(50)]
    share = np.mean(np.abs(np.array(changed) - (200.0 + 100.0 * np.arange(BATCH))) > 1e-3)
    assert 0.2 < share < 0.4


@pytest.mark.parametrize("wrong", [{"others": 1.5}, {"shifted": -0.1}, {"gain_db": -1.0}])
def test_what_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Remixing(**wrong)
