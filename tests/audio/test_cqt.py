"""The CQT and VQT against librosa."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.audio.cqt import cqt, decimate, vqt

RATE_HZ = 22050
CASES = [  # sample rate, hop, fmin, bins, bins per octave, gamma
    (22050, 512, 32.703, 84, 12, 0.0),
    (22050, 512, 32.703, 84, 12, None),
    (22050, 256, 27.5, 264, 36, 0.0),
    (16000, 256, 32.7, 288, 48, 0.0),
    (22050, 512, 32.7, 440, 60, 0.0),
    (22050, 256, 55.0, 440, 60, None),
    (22050, 220, 65.4, 60, 12, 10.0),  # the hop can be halved only twice
    (16000, 256, 65.4, 50, 12, 0.0),  # the lowest octave is not whole
    (22050, 512, 65.4, 36, 12, 0.0),  # decimated before the first octave, by 8
]


def _signal(seconds=2.0, rate=RATE_HZ):
    n = np.arange(int(seconds * rate))
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, len(n)))
    return (noise + np.sin(2 * np.pi * 440.0 / rate * n)).astype(np.float32)


@pytest.mark.parametrize(("rate", "hop", "fmin", "bins", "per_octave", "gamma"), CASES)
def test_equals_librosa(rate, hop, fmin, bins, per_octave, gamma):
    librosa = pytest.importorskip("librosa")
    audio = _signal(rate=rate)
    sizes = {"fmin": fmin, "n_bins": bins, "bins_per_octave": per_octave}
    expected = librosa.vqt(audio, sr=rate, hop_length=hop, gamma=gamma, **sizes)
    found = vqt(
        jnp.asarray(audio),
        sample_rate_hz=rate,
        hop_samples=hop,
        fmin_hz=fmin,
        bins=bins,
        bins_per_octave=per_octave,
        gamma=gamma,
    )
    found, expected = np.asarray(found), expected.swapaxes(1, 2)
    assert found.shape == expected.shape == (2, 1 + audio.shape[1] // hop, bins)
    if bins == 36:  # soxr's start: only the frames behind it
        found, expected = found[:, 10:], expected[:, 10:]
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()


def test_cqt_is_the_vqt_of_equal_bandwidth_ratios():
    audio = jnp.asarray(_signal(0.5))
    sizes = {"sample_rate_hz": RATE_HZ, "hop_samples": 256, "fmin_hz": 110.0, "bins": 36}
    np.testing.assert_array_equal(cqt(audio, **sizes), vqt(audio, gamma=0.0, **sizes))


@pytest.mark.parametrize("samples", [4000, 4001])
def test_decimation_is_that_of_soxr(samples):
    import soxr

    audio = _signal()[:1, :samples]
    expected = soxr.resample(audio[0], 2, 1, quality="soxr_hq") * np.sqrt(2)
    found = np.asarray(decimate(jnp.asarray(audio), 2))[0]
    assert len(found) == -(-samples // 2)
    count = min(len(found), len(expected))
    assert np.abs(found[:count] - expected[:count]).max() < 1e-6 * np.abs(expected).max()


def test_silence_gives_zeros_and_the_gradient_is_that_of_finite_differences():
    audio = jnp.asarray(_signal(0.3)[:1])
    sizes = {"sample_rate_hz": RATE_HZ, "hop_samples": 256, "fmin_hz": 220.0, "bins": 24}

    def power(x):
        return jnp.sum(jnp.abs(cqt(x, **sizes)) ** 2)

    assert not np.any(cqt(0 * audio, **sizes))
    direction = jnp.asarray(_signal(0.3)[1:2])
    slope = jnp.vdot(jax.grad(power)(audio), direction)
    ends = [float(power(audio + step * direction)) for step in (1e-2, -1e-2)]
    assert float(slope) == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=1e-3)


def test_filters_above_the_nyquist_frequency_are_refused():
    with pytest.raises(ValueError, match=r"11025\.0 Hz.*fewer bins"):
        sizes = {"sample_rate_hz": RATE_HZ, "hop_samples": 256, "fmin_hz": 440.0, "bins": 96}
        cqt(jnp.zeros((1, 2000)), **sizes)
