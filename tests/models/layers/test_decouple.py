"""Decoupled magnitude and phase against the original's outputs, and gradients where phases
vanish.
"""

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import relative_error

from majl_jax.audio.stft import istft, magnitude, stft
from majl_jax.models.layers.decouple import decouple, separate_by_maps

SIZES = {"window_samples": 2048, "hop_samples": 441}


def _maps(features, sources=2, channels=2):
    """[B, S*C*4, T, F] of the original to [B, S, C, T, F, 4]."""
    batch, _, frames, bins = features.shape
    split = features.reshape(batch, sources, channels, 4, frames, bins)
    return jnp.moveaxis(split, 3, -1)


def test_magnitude_phase_and_waveform_are_the_original_s():
    _, inputs, output, config = golden_files.read("resunet_decouple_plus_decode")
    spectrum = stft(inputs["waveform"], **SIZES)
    level = magnitude(spectrum)
    assert relative_error(level, output["mag"]) <= 1e-5
    for part, name in ((jnp.real, "cos"), (jnp.imag, "sin")):
        np.testing.assert_allclose(part(spectrum), output["mag"] * output[name], atol=1e-4)
    estimate = decouple(_maps(inputs["features"]), spectrum[:, None])
    assert relative_error(jnp.real(estimate), output["real"]) <= 5e-5
    assert relative_error(jnp.imag(estimate), output["imag"]) <= 5e-5
    audio = istft(estimate, **SIZES, length_samples=config["audio_length"])
    assert relative_error(audio.reshape(1, 4, -1), output["waveform"]) <= 5e-5


@pytest.mark.slow
def test_a_full_mask_without_rotation_gives_the_mixture_back():
    rng = np.random.default_rng(0)
    mixture = jnp.asarray(rng.standard_normal((2, 40_960, 1)), jnp.float32)
    keep = jnp.array([30.0, 10.0, 0.0, 0.0])  # mask 1, phase residual 0, nothing added

    def network(level):
        return jnp.broadcast_to(keep, (2, level.shape[2], level.shape[3] - 1, 4))

    estimate = separate_by_maps(mixture, network, sources=1, window_samples=2048, hop_samples=320)
    assert estimate.shape == (2, 40_960, 1, 1)
    # All but the highest frequency, and the last frame, which only the very end hears.
    kept = slice(0, 40_960 - 2048)
    assert relative_error(estimate[:, kept, 0], mixture[:, kept]) < 0.04


@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("residual", [0.0, 1e-12, 1.0])
def test_gradients_are_finite_without_sound_and_without_phase(level, residual):
    mixture = level * jnp.array([1.0 + 2.0j, -0.5j, 3.0])

    @jax.jit
    @jax.grad
    def gradient(parts):
        maps, real, imaginary = parts
        estimate = decouple(maps, jax.lax.complex(real, imaginary))
        return jnp.abs(jnp.real(estimate)).sum() + (jnp.imag(estimate) ** 2).sum()

    maps = jnp.stack([jnp.zeros(3), residual * jnp.ones(3), jnp.zeros(3), jnp.ones(3)], -1)
    for leaf in gradient((maps, jnp.real(mixture), jnp.imag(mixture))):
        assert np.all(np.isfinite(leaf))
