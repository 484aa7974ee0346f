import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from golden_files import read

from majl_jax.audio import stft

SIZES = {"window_samples": 512, "hop_samples": 128}


def _scipy(x):
    window = np.sqrt(scipy.signal.get_window("hann", 512))
    return scipy.signal.stft(x, window=window, nperseg=512, noverlap=384)[2].swapaxes(-1, -2)


@pytest.mark.parametrize("samples", [1024, 16_000, 16_001])
def test_scipy_gives_the_same(samples):
    x = np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32)
    found = stft.scaled_stft(jnp.asarray(x), **SIZES)
    assert found.shape == (2, -(-samples // 128) + 1, 257)
    np.testing.assert_allclose(found, _scipy(x), atol=1e-6)
    back = stft.scaled_istft(found, **SIZES, length_samples=samples)
    np.testing.assert_allclose(back, x, atol=1e-5)


def test_a_sine_of_amplitude_1_has_half_of_it():
    x = jnp.sin(2 * jnp.pi * 1000 * jnp.arange(16_000) / 16_000)
    found = jnp.abs(stft.scaled_stft(x, **SIZES))[60, 32]
    np.testing.assert_allclose(found, 0.5, rtol=1e-3)


def test_the_spectra_of_nussl():
    _, inputs, output, _ = read("chimera")
    found = stft.scaled_stft(inputs["audio_mix"], window_samples=32, hop_samples=8)
    expected = output["stft_mix_real"] + 1j * output["stft_mix_imag"]
    np.testing.assert_allclose(found.swapaxes(-1, -2), expected, atol=1e-6)
    found = stft.scaled_stft(inputs["audio_sources"], window_samples=32, hop_samples=8)
    magnitudes = inputs["source_magnitudes"][:, :, :, 0]
    np.testing.assert_allclose(jnp.moveaxis(jnp.abs(found), 1, -1), magnitudes, atol=1e-6)


def test_wrong_sizes():
    with pytest.raises(ValueError, match="window_samples is 500, hop_samples 128"):
        stft.scaled_stft(jnp.zeros(2000), window_samples=500, hop_samples=128)
    with pytest.raises(ValueError, match=r"9 frames, which reach sample 1024, but .* is 1025"):
        stft.scaled_istft(jnp.zeros((9, 257), jnp.complex64), **SIZES, length_samples=1025)


def test_gradients_of_a_magnitude_loss_are_finite_at_silence():
    def loss(x):
        return jnp.sum(jnp.abs(stft.scaled_stft(x, **SIZES)))

    assert np.isfinite(jax.grad(loss)(jnp.zeros(2000))).all()
