"""Losses of an auto-encoder against the original code's values and gradients, plain NumPy, and at
silence.
"""

import functools

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.losses import reconstruction

SMALL = (
    reconstruction.Resolution(64, 12, 40),
    reconstruction.Resolution(32, 7, 20),
)  # hops that divide neither the FFT nor the window
_distance = jax.jit(functools.partial(reconstruction.spectral_distance, resolutions=SMALL))
_magnitudes = jax.jit(reconstruction.magnitudes, static_argnums=1)


@pytest.fixture(scope="module")
def golden():
    """(input, output, bandwidth)."""
    _, inputs, output, config = golden_files.read("jukebox_vqvae_l1")
    sizes = config["hparams"]["bandwidth"]
    return (
        inputs,
        output,
        reconstruction.Bandwidth(l1=sizes["l1"], l2=sizes["l2"], spectral=sizes["spec"]),
    )


def _mixed(estimate, target, bandwidth):
    """The authors' loss of waveforms: squares, and 0.02 times the largest of them."""
    squares = reconstruction.l2(estimate, target, bandwidth=bandwidth.l2)
    return squares + 0.02 * reconstruction.linf(estimate, target, bandwidth=bandwidth.l2)


@functools.partial(jax.jit, static_argnums=2)
def _terms(estimate, target, bandwidth):
    """All terms by the original's names, one value per item."""
    single = (reconstruction.SINGLE_RESOLUTION,)
    return {
        "l2": reconstruction.l2(estimate, target, bandwidth=bandwidth.l2),
        "linf": reconstruction.linf(estimate, target, bandwidth=bandwidth.l2),
        "lmix": _mixed(estimate, target, bandwidth),
        "multispectral": reconstruction.spectral_distance(
            estimate, target, bandwidth=bandwidth.spectral
        ),
        "spectral": reconstruction.spectral_distance(
            estimate, target, resolutions=single, bandwidth=bandwidth.spectral
        ),
        **{
            "stft_distance/" + "_".join(map(str, resolution)): reconstruction.spectral_distance(
                estimate, target, resolutions=(resolution,)
            )
            for resolution in reconstruction.MULTI_RESOLUTION + single
        },
    }


def _noise(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def _squares(estimate, target):
    difference = np.asarray(estimate, np.float64) - np.asarray(target, np.float64)
    return difference.reshape(len(difference), -1) ** 2


def test_terms_of_jukebox_for_a_pair_of_signals(golden):
    inputs, output, bandwidth = golden
    found = _terms(inputs["y"], inputs["x"], bandwidth)
    for name in (
        "l2",
        "linf",
        "lmix",
        "multispectral",
        "spectral",
    ):
        assert found[name].shape == (2,)
        expected = output[f"pair/{name}"]
        np.testing.assert_allclose(found[name].mean(), expected, rtol=2e-6, err_msg=name)


def test_terms_of_jukebox_for_a_decoded_signal(golden):
    inputs, output, bandwidth = golden
    found = _terms(output["decoded"], inputs["x"], bandwidth)
    for name, of_original in (
        ("l2", "l2_loss"),
        ("linf", "linf_loss"),
        ("lmix", "recons_loss"),
        ("multispectral", "multispectral_loss"),
        ("spectral", "spectral_loss"),
    ):
        expected = output[f"eval_metrics/{of_original}"]
        np.testing.assert_allclose(found[name].mean(), expected, rtol=2e-6, err_msg=name)
    for name in (key for key in output if key.startswith("stft_distance/")):
        np.testing.assert_allclose(found[name], output[name], rtol=2e-6, err_msg=name)
    total = (found["lmix"] + found["multispectral"]).mean() + 0.02 * output["commit_loss"]
    np.testing.assert_allclose(total, output["eval_loss_total"], rtol=2e-6)


def test_terms_of_jukebox_for_a_silent_target(golden):
    inputs, output, bandwidth = golden
    found = _terms(inputs["y"], jnp.zeros_like(inputs["x"]), bandwidth)
    expected = output["pair_silent_target/multispectral"]
    np.testing.assert_allclose(found["multispectral"].mean(), expected, rtol=2e-6)


def test_gradient_of_jukebox(golden):
    inputs, output, bandwidth = golden

    def loss(estimate):
        whole = _mixed(estimate, inputs["x"], bandwidth) + reconstruction.spectral_distance(
            estimate, inputs["x"], bandwidth=bandwidth.spectral
        )
        return whole.mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(inputs["y"])
    np.testing.assert_allclose(value, output["pair/lmix_plus_multispectral"], rtol=2e-6)
    expected = output["pair/grad_y"]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_magnitudes_of_torch(golden):
    inputs, output, _ = golden
    found = _magnitudes(inputs["x"][:1, :1024, 0], reconstruction.MULTI_RESOLUTION[2]).transpose(
        0, 2, 1
    )
    expected = output["spec_mag_512_50_240"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * expected.max())


@pytest.mark.parametrize("resolution", SMALL)
def test_magnitudes_are_those_of_a_window_filled_up_on_both_sides(resolution):
    fft, hop, window = resolution
    x = _noise(100)
    found = _magnitudes(x, resolution)
    taper = np.zeros(fft)
    left = (fft - window) // 2
    taper[left : left + window] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    padded = np.pad(np.asarray(x, np.float64), fft // 2, mode="reflect")
    assert len(found) == 1 + 100 // hop
    for k, magnitude in enumerate(found):
        expected = np.abs(np.fft.rfft(padded[k * hop : k * hop + fft] * taper))
        np.testing.assert_allclose(magnitude, expected, rtol=0, atol=2e-6 * expected.max())


def test_largest_residuals_are_those_of_a_sort_and_all_of_a_short_item():
    estimate, target = _noise(3, 40, 2), _noise(3, 40, 2, seed=2)
    squares = np.sort(_squares(estimate, target), axis=1)
    found = reconstruction.linf(estimate, target, largest=7, bandwidth=0.5)
    np.testing.assert_allclose(found, squares[:, -7:].mean(axis=1) / 0.5, rtol=1e-6)
    of_all = reconstruction.linf(estimate, target)  # 80 of at most 2048
    np.testing.assert_allclose(of_all, reconstruction.l2(estimate, target), rtol=1e-6)


def _whole_loss(estimate, target):
    distance = reconstruction.spectral_distance(estimate, target, resolutions=SMALL)
    squares = reconstruction.l2(estimate, target)
    return distance + squares + 0.02 * reconstruction.linf(estimate, target, largest=8)


_gradients = jax.jit(
    jax.grad(lambda *signals: _whole_loss(*signals).sum(), argnums=(0, 1)),
)


@pytest.mark.parametrize("estimate", ["silence", "equal", "sound"])
@pytest.mark.parametrize("target", ["silence", "sound"])
def test_gradients_are_finite_at_silence_and_zero_at_equality(estimate, target):
    signals = {"silence": jnp.zeros((2, 100, 1)), "sound": _noise(2, 100, 1)}
    y = signals["sound"] if target == "sound" else signals["silence"]
    x = {**signals, "equal": y, "sound": _noise(2, 100, 1, seed=3)}[estimate]
    gradients = _gradients(x, y)
    for gradient in gradients:
        assert jnp.isfinite(gradient).all()
    equal = bool((x == y).all())
    assert not gradients[0].any() if equal else jnp.abs(gradients[0]).max() > 1e-3


def test_an_item_alone_has_the_same_losses_and_channels_are_averaged():
    estimate, target = _noise(3, 100, 2), _noise(3, 100, 2, seed=2)
    whole = jax.jit(_whole_loss)
    both = whole(estimate, target)
    assert both.shape == (3,)
    np.testing.assert_allclose(whole(estimate[1:2], target[1:2]), both[1:2], rtol=1e-6)
    distance = _distance(estimate, target)
    of_mono = _distance(*(x.mean(axis=2, keepdims=True) for x in (estimate, target)))
    np.testing.assert_allclose(distance, of_mono, rtol=1e-6)


def test_bandwidth_of_excerpts(golden):
    inputs, output, _ = golden
    excerpts = np.asarray(inputs["x"])
    found = reconstruction.estimate_bandwidth(excerpts)
    np.testing.assert_allclose(found.l1, np.abs(excerpts).mean(), rtol=1e-6)
    np.testing.assert_allclose(found.l2, excerpts.var(), rtol=1e-6)
    # What the original divides its distance by is the norm of the target's spectrum.
    norms = output["stft_distance/2048_256_1536"] / output["spectral_convergence_per_item"]
    np.testing.assert_allclose(found.spectral, norms.mean(), rtol=1e-5)


def test_bandwidth_of_stereo():
    left, right = np.asarray(_noise(2, 4000)) + 0.3
    stereo = reconstruction.estimate_bandwidth([np.stack([left, right], axis=1)])
    mono = reconstruction.estimate_bandwidth([(left[:, None] + right[:, None]) / 2])
    np.testing.assert_allclose(stereo.spectral, mono.spectral, rtol=1e-6)
    np.testing.assert_allclose(stereo.l2, np.var([left, right]), rtol=1e-6)
    np.testing.assert_allclose(stereo.l1, np.abs([left, right]).mean(), rtol=1e-6)


def test_errors_say_what_was_expected():
    x = _noise(1, 100, 1)
    with pytest.raises(ValueError, match=r"100 samples; .* needs more than 600"):
        reconstruction.spectral_distance(x, x)
    with pytest.raises(ValueError, match=r"window_samples=32.* is no STFT"):
        reconstruction.magnitudes(x[..., 0], reconstruction.Resolution(16, 4, 32))
    with pytest.raises(ValueError, match="largest is 0; expected at least 1"):
        reconstruction.linf(x, x, largest=0)
    with pytest.raises(ValueError, match="silent or constant"):
        reconstruction.estimate_bandwidth([np.ones((4000, 2))])
    with pytest.raises(ValueError, match=r"\[4000, 5000\] samples; .* all of one length"):
        reconstruction.estimate_bandwidth([np.ones((4000, 1)), np.ones((5000, 1))])
    with pytest.raises(ValueError, match="expected at least one"):
        reconstruction.estimate_bandwidth([])
    with pytest.raises(ValueError, match=r"shape \(4000,\); expected \[time, channel\]"):
        reconstruction.estimate_bandwidth([np.ones(4000)])
