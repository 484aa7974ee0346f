"""STFT and iSTFT against NumPy in float64, scipy and plain automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from majl_jax.audio.stft import frame, hann_window, istft, magnitude, overlap_add, stft

SIZES = [  # samples, window, hop; hop divides the window, does not, is one, is half of it
    (40960, 1024, 320),
    (4096, 2048, 320),
    (700, 64, 7),
    (999, 32, 16),
]


def _noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _reference(x, window, hop):
    padded = np.pad(x.astype(np.float64), ((0, 0), (window // 2,) * 2), mode="reflect")
    weights = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    frames = [padded[:, k * hop : k * hop + window] for k in range(1 + x.shape[1] // hop)]
    return np.fft.rfft(np.stack(frames, 1) * weights)


@pytest.mark.parametrize(("samples", "window", "hop"), SIZES)
def test_stft_is_the_definition(samples, window, hop):
    x = _noise(2, samples)
    found = stft(jnp.asarray(x), window_samples=window, hop_samples=hop)
    expected = _reference(x, window, hop)
    assert found.shape == expected.shape == (2, 1 + samples // hop, window // 2 + 1)
    np.testing.assert_allclose(found, expected, atol=3e-6 * np.abs(expected).max())


def test_stft_agrees_with_scipy():
    x = _noise(1, 4096)
    transform = scipy.signal.ShortTimeFFT(hann_window(512), 128, 1.0)
    expected = transform.stft(np.pad(x[0], 256, mode="reflect"), p0=2, p1=2 + 33).T
    found = stft(jnp.asarray(x), window_samples=512, hop_samples=128)[0]
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)


@pytest.mark.parametrize(("samples", "window", "hop"), SIZES)
def test_istft_returns_the_signal_at_its_exact_length(samples, window, hop):
    x = _noise(2, 3, samples)
    spectrum = stft(jnp.asarray(x), window_samples=window, hop_samples=hop)
    sizes = {"window_samples": window, "hop_samples": hop}
    back = istft(spectrum, **sizes, length_samples=samples)
    assert back.shape == x.shape
    np.testing.assert_allclose(back, x, atol=5e-6)


def test_one_sample_less_gives_whole_frames_and_the_whole_length_back():
    # 40,960 samples are 128 label frames; centred frames of all of them would be 129.
    x = jnp.asarray(_noise(1, 40960))
    spectrum = stft(x[:, :-1], window_samples=1024, hop_samples=320)
    assert spectrum.shape[1] == 128
    back = istft(spectrum, window_samples=1024, hop_samples=320, length_samples=40960)
    assert back.shape == (1, 40960)
    np.testing.assert_allclose(back[:, :-1], x[:, :-1], atol=5e-6)


@pytest.mark.parametrize(("samples", "window", "hop"), SIZES)
def test_gradients_equal_those_of_the_plain_definition(samples, window, hop):
    x = jnp.asarray(_noise(2, samples))
    index = np.arange(1 + samples // hop)[:, None] * hop + np.arange(window)

    def plain(x):
        padded = jnp.pad(x, ((0, 0), (window // 2,) * 2), mode="reflect")
        return jnp.fft.rfft(padded[:, index] * hann_window(window)[None, None])

    def ours(x):
        return stft(x, window_samples=window, hop_samples=hop)

    spectrum, gradient = jax.vjp(ours, x)
    probe = _noise(*spectrum.shape, seed=1) + 1j * _noise(*spectrum.shape, seed=2)
    probe = jnp.asarray(probe, jnp.complex64)
    expected = jax.vjp(plain, x)[1](probe)[0]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(gradient(probe)[0], expected, atol=1e-5 * scale)


@pytest.mark.parametrize(("samples", "window", "hop"), SIZES)
@pytest.mark.slow
def test_gradient_of_istft_is_its_transpose(samples, window, hop):
    # <istft(X), y> = Re sum X g: checked along a random direction, in exact arithmetic an identity.
    frames, bins = 1 + samples // hop, window // 2 + 1
    spectrum = jnp.asarray(_noise(1, frames, bins) + 1j * _noise(1, frames, bins, seed=1))
    y = jnp.asarray(_noise(1, samples, seed=2))

    def inner(spectrum):
        sizes = {"window_samples": window, "hop_samples": hop}
        return (istft(spectrum, **sizes, length_samples=samples) * y).sum()

    value, gradient = jax.value_and_grad(inner)(spectrum)
    expected = float(jnp.real(spectrum * gradient).sum())
    assert value == pytest.approx(expected, abs=1e-5 * float(jnp.abs(spectrum * gradient).sum()))


def test_second_derivatives_exist():
    x = jnp.asarray(_noise(1, 200))

    def loss(x):
        return (magnitude(stft(x, window_samples=32, hop_samples=8)) ** 3).sum()

    curvature = jax.grad(lambda x: (jax.grad(loss)(x) ** 2).sum())(x)
    assert np.all(np.isfinite(curvature)) and np.any(curvature)


def test_framing_and_overlap_add_are_transposes():
    x, frames = _noise(2, 103), _noise(2, 14, 10, seed=1)
    assert frame(jnp.asarray(x), 10, 7).shape == (2, 14, 10)
    left = (frame(jnp.asarray(x), 10, 7) * frames).sum()
    added = np.asarray(overlap_add(jnp.asarray(frames), 7))
    assert left == pytest.approx(float((x[:, : added.shape[1]] * added).sum()), rel=1e-4)


def test_magnitude_and_its_gradient_at_silence():
    spectrum = jnp.asarray([3 + 4j, 0j, 1e-7 + 0j], jnp.complex64)
    np.testing.assert_allclose(magnitude(spectrum), [5.0, 1e-5, 1e-5], rtol=1e-6)

    def loud(x):
        return magnitude(stft(x, window_samples=64, hop_samples=16)).sum()

    silence = jax.grad(loud)(jnp.zeros((1, 256)))
    assert np.all(np.asarray(silence) == 0)
    assert np.all(np.isfinite(jax.grad(loud)(jnp.full((1, 256), 1e-20))))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: stft(x, window_samples=255, hop_samples=10), "even number"),
        (lambda x: stft(x, window_samples=64, hop_samples=33), "half the window"),
        (lambda x: stft(x, window_samples=256, hop_samples=0), "hop_samples"),
        (lambda x: stft(x[:, :32], window_samples=64, hop_samples=16), "reflect padding"),
    ],
)
def test_impossible_sizes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(jnp.zeros((1, 400)))


def test_istft_refuses_other_sizes_and_missing_frames():
    spectrum = jnp.zeros((1, 5, 33), jnp.complex64)
    with pytest.raises(ValueError, match="frequency bins"):
        istft(spectrum, window_samples=128, hop_samples=16, length_samples=64)
    with pytest.raises(ValueError, match="Compute more frames"):
        istft(spectrum, window_samples=64, hop_samples=16, length_samples=4 * 16 + 33)
