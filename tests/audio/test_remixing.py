"""Incoherent mixtures, activity and groups against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.audio import mixing


def _stems(batch=6, stems=4):
    """A value for each example, stem and channel: 100 i + 10 j + c."""
    i, _, j, c = np.meshgrid(*(np.arange(n) for n in (batch, 5, stems, 2)), indexing="ij")
    return jnp.asarray(100 * i + 10 * j + c, jnp.float32)


@pytest.mark.parametrize("seed", range(5))
def test_stems_come_from_different_examples_and_none_is_lost(seed):
    stems = np.asarray(_stems())
    found = np.asarray(jax.jit(mixing.incoherent)(jnp.asarray(stems), jax.random.key(seed)))
    used = []
    for i in range(6):
        sources = [int(found[i, 0, j, 0]) // 100 for j in range(4)]
        assert len(set(sources)) == 4
        for j, source in enumerate(sources):
            np.testing.assert_array_equal(found[i, :, j], stems[source, :, j])
        used += [(source, j) for j, source in enumerate(sources)]
    assert len(set(used)) == 24


def test_the_key_decides():
    draws = [
        np.asarray(mixing.incoherent_sources(jax.random.key(seed), batch=6, stems=3))
        for seed in (0, 0, *range(1, 40))
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert len({draw.tobytes() for draw in draws}) > 20
    # Every stem moves by every distance.
    distances = np.stack([draw[0] for draw in draws])
    assert all(set(column) == set(range(6)) for column in distances.T)


def test_as_many_examples_as_stems_are_enough():
    sources = mixing.incoherent_sources(jax.random.key(1), batch=4, stems=4)
    for i in range(4):
        assert set(np.asarray(sources)[i].tolist()) == set(np.asarray(sources)[:, i].tolist())
    with pytest.raises(ValueError, match=r"4 stems needs .* batch of 3"):
        mixing.incoherent(_stems(batch=3), jax.random.key(0))


@pytest.mark.parametrize("unknown", [(), (0,), (1, 4), (0, 2, 3, 5)])
def test_sources_are_those_of_known_examples(unknown):
    known, drawn = ~np.isin(np.arange(6), unknown), set()
    for seed in range(5):
        key = jax.random.key(seed)
        draw = mixing.incoherent_sources(key, batch=6, stems=2, known=jnp.asarray(known))
        examples = np.asarray(draw)
        drawn.add(examples.tobytes())
        assert (examples[:, 0] != examples[:, 1]).all()
        for of_source in examples.T:
            assert set(of_source) == set(np.flatnonzero(known))
        if known.all():
            usual = mixing.incoherent_sources(key, batch=6, stems=2)
            np.testing.assert_array_equal(examples, usual)
    assert len(drawn) > 1


@pytest.mark.parametrize("members", [1, 2, 3, 6])
def test_groups_are_sums_of_consecutive_places(members):
    stems = np.random.default_rng(1).standard_normal((2, 7, 6, 2)).astype(np.float32)
    found = mixing.group(jnp.asarray(stems), members)
    expected = np.zeros((2, 7, 6 // members, 2), np.float32)
    for place in range(6):
        expected[:, :, place // members] += stems[:, :, place]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("members", [0, 4])
def test_groups_must_fill_the_places(members):
    with pytest.raises(ValueError, match="6 places"):
        mixing.group(jnp.zeros((1, 3, 6, 1)), members)
