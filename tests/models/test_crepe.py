"""CREPE: published sizes, framing, and gradients through silence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.models.crepe import CAPACITY, Crepe, frames, normalise

PUBLISHED = {
    "tiny": 486_552,
    "small": 1_628_104,
    "medium": 5_877_288,
    "large": 12_747_912,
    "full": 22_239_976,
}


@pytest.mark.parametrize("capacity", CAPACITY)
def test_published_parameter_counts(capacity):
    shapes = jax.eval_shape(Crepe(capacity).init, jax.random.key(0), jnp.zeros((1, 1600)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == PUBLISHED[capacity]


def test_frames_are_centred_on_the_grid():
    audio = np.zeros((1, 3200), np.float32)
    audio[0, 640] = 1.0
    framed = np.asarray(frames(jnp.asarray(audio), hop_samples=320))
    assert framed.shape == (1, 10, 1024)
    assert framed[0, 2].argmax() == 512  # frame 2 is centred at sample 640
    assert framed[0, 3].argmax() == 512 - 320


@pytest.mark.slow
def test_a_frame_hears_as_far_as_it_says_and_no_further():
    model = Crepe(1, dropout=0.0)
    audio = np.random.default_rng(0).standard_normal((1, 3200)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.asarray(audio))
    apply, centre = jax.jit(model.apply), 5 * model.hop_samples
    before = np.asarray(apply(variables, audio))[0, 5]
    for distance, heard in ((model.reach_samples, False), (model.reach_samples - 1, True)):
        changed = audio.copy()
        changed[0, centre + distance] += 10.0
        changed[0, centre - distance - 1] += 10.0
        assert (np.asarray(apply(variables, changed))[0, 5] != before).any() == heard


@pytest.mark.slow
def test_chosen_frames_are_those_of_all_frames():
    model = Crepe(1, dropout=0.0)
    audio = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3200)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), audio)
    index = jnp.array([[0, 4, 9], [3, 3, 7]])
    every = jax.jit(model.apply)(variables, audio)
    chosen = model.apply(variables, audio, index=index)
    expected = np.take_along_axis(np.asarray(every), np.asarray(index)[..., None], 1)
    np.testing.assert_allclose(chosen, expected, atol=1e-5)


def test_normalise_is_level_independent_above_the_floor():
    frame = jnp.asarray(np.random.default_rng(0).standard_normal(1024), jnp.float32)
    np.testing.assert_allclose(
        normalise(frame, floor=1e-4), normalise(1e-3 * frame + 0.5, floor=1e-4), atol=2e-3
    )
    scaled = np.asarray(normalise(frame, floor=1e-4))
    assert abs(scaled.mean()) < 1e-5 and abs(scaled.std() - 1) < 1e-5


@pytest.mark.parametrize("level", [0.0, 1e-12, 1e-6])
def test_gradient_through_near_silence_is_bounded(level):
    model = Crepe(1)
    audio = level * jnp.sin(jnp.arange(1600.0))[None]
    variables = jax.jit(model.init)(jax.random.key(0), audio)
    gradient = jax.jit(jax.grad(lambda a: (model.apply(variables, a) ** 2).sum()))(audio)
    assert np.all(np.isfinite(gradient))
    assert np.abs(gradient).max() < 1e6  # 1 / floor times the network's own gain, not 1 / level
