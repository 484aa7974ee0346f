"""The harmonic CQT against librosa's filters, known answers of the original, its two methods and
finite differences.
"""

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.audio.augmentation import mix_percussion
from majl_jax.audio.harmonic_cqt import (
    HarmonicCqt,
    frame_rms,
    harmonic_average,
    harmonic_power,
    unit_decibels,
)

RATE_HZ, HOP = 22050, 256
SMALL = {"bins": 60, "bins_per_octave": 12, "harmonics": (1, 2, 3)}
TINY = {"sample_rate_hz": 8000, "hop_samples": 64, "fmin_hz": 110.0, **SMALL, "bins": 24}
KNOWN = [  # harmonic, bin, frame, magnitude, feature
    (1, 180, 0, 266.712708, 0.923723),
    (1, 180, 172, 538.455627, 1.0),
    (1, 180, 344, 302.084595, 0.937244),
    (0.5, 240, 172, 538.455627, 1.0),
    (2, 180, 172, 144.606339, 0.857259),
    (1, 215, 172, 259.713074, 0.920836),
    (1, 240, 172, 144.606339, 0.857259),
    (3, 150, 172, 1.126087, 0.330105),
    (4, 60, 172, 538.455200, 1.0),
    (5, 430, 172, 0.005493, 0.0),
]


def _noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _magnitudes(transform, audio):
    return jax.jit(transform.magnitudes)(jnp.asarray(audio))


def _three_sines():
    n = np.arange(4 * RATE_HZ)
    parts = ((0.5, 220.0, 0.0), (0.3, 329.63, 0.5), (0.2, 440.0, 1.0))
    signal = sum(a * np.sin(2 * np.pi * f * n / RATE_HZ + p) for a, f, p in parts)
    return jnp.asarray((signal / np.abs(signal).max()).astype(np.float32))[None]


@pytest.fixture(scope="module")
def three_sines():
    """(transform, magnitudes, features) of the known answers."""
    transform = HarmonicCqt()
    magnitudes = _magnitudes(transform, _three_sines())
    return transform, magnitudes, unit_decibels(magnitudes)


def test_known_magnitudes_and_features(three_sines):
    transform, magnitudes, features = three_sines
    assert magnitudes.shape == (1, 345, 440, 6)
    for harmonic, bin_, frame, magnitude, feature in KNOWN:
        place = (0, frame, bin_, transform.harmonics.index(harmonic))
        assert float(magnitudes[place]) == pytest.approx(magnitude, abs=2e-3)
        assert float(features[place]) == pytest.approx(feature, abs=3e-4)
    assert float(magnitudes.max()) == pytest.approx(538.456726, rel=1e-5)
    assert float(magnitudes.mean()) == pytest.approx(8.484035, rel=1e-5)
    means = [0.096579, 0.091651, 0.087025, 0.083692, 0.082864, 0.086801]
    np.testing.assert_allclose(features.mean((0, 1, 2)), means, atol=2e-5)


def test_known_harmonic_average(three_sines):
    transform, _, features = three_sines
    power = harmonic_power(features, harmonics=transform.harmonics)
    average = harmonic_average(features, harmonics=transform.harmonics)
    assert float(power[0, 172, 180]) == pytest.approx(0.46892133, rel=1e-5)
    assert float(power.max()) == pytest.approx(0.468923, rel=1e-5)
    assert float(average.max()) == 1.0
    assert float(average.mean()) == pytest.approx(0.191315, abs=2e-5)


def test_known_rms():
    assert float(frame_rms(_three_sines(), hop_samples=HOP).mean()) == pytest.approx(
        0.439855, abs=1e-6
    )


# ---- the original's outputs ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["direct", "fast"])
def test_the_original_s_magnitudes_and_features(method):
    _, inputs, output, _ = golden_files.read("ss_mpe_hcqt")
    transform = HarmonicCqt(method=method)
    magnitudes = _magnitudes(transform, inputs["audio"][None])
    assert magnitudes.shape[1] == output["n_frames"]
    kept = output["frames_kept"]
    largest = float(output["magnitude_max"])
    assert float(magnitudes.max()) == pytest.approx(largest, rel=1e-5)
    found = np.moveaxis(np.asarray(magnitudes)[0, kept], (0, 1, 2), (2, 1, 0))
    np.testing.assert_allclose(found, output["magnitude"], atol=1e-5 * largest)
    features = unit_decibels(magnitudes)
    found = np.moveaxis(np.asarray(features)[0, kept], (0, 1, 2), (2, 1, 0))
    np.testing.assert_allclose(found, output["db"], atol=3e-4)

    power = harmonic_power(features, harmonics=transform.harmonics)[0, kept]
    np.testing.assert_allclose(power.T, output["pw_h"], atol=1e-5)
    average = harmonic_average(features, harmonics=transform.harmonics)[0, kept]
    np.testing.assert_allclose(average.T, output["db_h"], atol=3e-4)
    rms = frame_rms(inputs["audio"][None], hop_samples=HOP)[0]
    np.testing.assert_allclose(rms, output["rms"], atol=1e-6)
    midi = 69 + 12 * np.log2(transform.frequencies_hz / 440)
    np.testing.assert_allclose(midi, output["midi_freqs"], atol=1e-9)


@pytest.mark.parametrize("method", ["direct", "fast"])
def test_the_original_s_features_of_music_with_drums(method):
    _, inputs, output, _ = golden_files.read("ss_mpe_hcqt")
    drums, volume = inputs["percussion"][None], jnp.reshape(inputs["volume"], 1)
    mixed = mix_percussion(inputs["audio"][None], drums, volume)
    np.testing.assert_allclose(mixed[0], output["percussion_mix_audio"], atol=1e-6)
    magnitudes = _magnitudes(HarmonicCqt(method=method), mixed)
    largest = float(output["percussion_magnitude_max"])
    assert float(magnitudes.max()) == pytest.approx(largest, rel=1e-5)
    kept = np.asarray(unit_decibels(magnitudes))[0, output["percussion_frames_kept"]]
    found = np.moveaxis(kept, (0, 1, 2), (2, 1, 0))
    np.testing.assert_allclose(found, output["percussion_db"], atol=3e-4)


@pytest.mark.slow
def test_fast_equals_direct_near_the_floor():
    audio = _three_sines()[:, :RATE_HZ]
    fast, direct = (
        unit_decibels(_magnitudes(HarmonicCqt(method=method), audio))
        for method in ("fast", "direct")
    )
    assert float(((direct > 0) & (direct < 0.1)).mean()) > 0.03, "else the floor is not reached"
    np.testing.assert_allclose(fast, direct, atol=3e-4)


@pytest.mark.parametrize("time", [5000, 5120])
def test_rms_is_that_of_frames_as_librosa_cuts_them(time):
    audio = _noise(2, time)
    padded = np.pad(audio, ((0, 0), (1024, 1024)))
    frames = [padded[:, start : start + 2048] for start in range(0, time + 1, HOP)]
    expected = np.stack([np.sqrt(np.mean(frame**2, axis=1)) for frame in frames], axis=1)
    found = frame_rms(jnp.asarray(audio), hop_samples=HOP)
    assert found.shape == (2, 1 + time // HOP)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("method", ["direct", "fast"])
@pytest.mark.slow
def test_magnitudes_are_products_with_the_filters_of_librosa(method):
    librosa = pytest.importorskip("librosa")
    transform = HarmonicCqt(method=method)
    audio = _noise(1, 9000)
    found = np.asarray(_magnitudes(transform, audio))[0]
    assert found.shape == (36, 440, 6)
    largest = found.max()
    for channel, frequencies in enumerate(transform.frequencies_hz):
        filters, _ = librosa.filters.wavelet(
            freqs=frequencies, sr=RATE_HZ, pad_fft=False, norm=None, gamma=None
        )
        size = filters.shape[1]
        padded = np.pad(audio[0].astype(np.float64), (size // 2, size - size // 2))
        for frame in (0, 17, 35):
            expected = np.abs(filters @ padded[frame * HOP : frame * HOP + size])
            np.testing.assert_allclose(found[frame, :, channel], expected, atol=1e-5 * largest)


@pytest.mark.parametrize("place", [0, 1])
def test_filters_are_those_of_librosa(place):
    # An impulse shows one tap of every filter; at a hop of 1 the frames show them all.
    librosa = pytest.importorskip("librosa")
    sizes = {"bins": 40, "bins_per_octave": 60, "harmonics": (4, 5)}
    transform = HarmonicCqt(hop_samples=1, fmin_hz=880.0, method="direct", **sizes)
    impulse = np.zeros((1, 1200), np.float32)
    impulse[0, 600] = 1.0
    found = np.asarray(_magnitudes(transform, impulse))[0, :, :, place]
    filters, _ = librosa.filters.wavelet(
        freqs=transform.frequencies_hz[place], sr=RATE_HZ, pad_fft=False, norm=None, gamma=None
    )
    half = filters.shape[1] // 2
    # Frame t has the impulse at tap 600 - t + half.
    seen = found[600 + half - np.arange(filters.shape[1])].T
    np.testing.assert_allclose(seen, np.abs(filters), atol=1e-5)
    assert found.sum() == pytest.approx(seen.sum())


@pytest.mark.parametrize(
    "sizes",
    [
        {**SMALL, "fmin_hz": 55.0},
        TINY,
        {**TINY, "hop_samples": 100, "aliased": False},
        {**TINY, "harmonics": (1, 7, 14, 28)},
    ],
)
def test_fast_equals_direct(sizes):
    audio = jnp.asarray(_noise(2, 12345))
    fast = _magnitudes(HarmonicCqt(**sizes), audio)
    direct = _magnitudes(HarmonicCqt(**sizes, method="direct"), audio)
    assert fast.shape == direct.shape
    assert float(jnp.abs(fast - direct).max()) < 1e-5 * float(direct.max())


def test_filters_above_nyquist_hear_the_mirror_image_or_nothing():
    audio = jnp.sin(2 * np.pi * 200.0 / RATE_HZ * jnp.arange(4.0 * RATE_HZ))[None]
    features = unit_decibels(_magnitudes(HarmonicCqt(), audio))
    assert float(features[0, :, 439, 5].mean()) == pytest.approx(0.568, abs=1e-3)
    assert float(jnp.median(features[..., :380, 5])) == 0.0
    silenced = unit_decibels(_magnitudes(HarmonicCqt(aliased=False), audio))
    for channel, first in ((3, 424), (4, 399), (5, 380)):
        np.testing.assert_array_equal(silenced[..., first:, channel], 0.0)
        np.testing.assert_array_equal(
            silenced[..., :first, channel], features[..., :first, channel]
        )


def test_an_excerpt_gives_the_same_whatever_follows_it_in_the_batch():
    transform = HarmonicCqt(**TINY)
    audio = _noise(3, 4000)
    together = _magnitudes(transform, audio)
    alone = _magnitudes(transform, audio[1:2])
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5 * float(alone.max()))


@pytest.mark.slow
def test_silence_gives_zeros_and_finite_gradients():
    transform = HarmonicCqt(**TINY)
    audio = jnp.asarray(np.stack([np.zeros(4000, np.float32), _noise(4000)]))

    @jax.jit
    def features(x):
        found = unit_decibels(transform.magnitudes(x))
        average = harmonic_average(found, harmonics=transform.harmonics)
        return found, average, frame_rms(x, hop_samples=64)

    for found in features(audio):
        assert not np.any(found[0])
    gradient = jax.jit(jax.grad(lambda x: sum(jnp.sum(f) for f in features(x))))(audio)
    assert np.isfinite(gradient).all()
    assert not np.any(gradient[0])
    assert np.any(gradient[1])


def test_the_gradient_is_that_of_the_direct_method_and_of_finite_differences():
    probe = jnp.asarray(_noise(1, 32, 24, 3, seed=1))
    audio, direction = jnp.asarray(_noise(1, 2000)), jnp.asarray(_noise(1, 2000, seed=2))
    gradients = {}
    for method in ("direct", "fast"):
        transform = HarmonicCqt(**TINY, method=method)

        @jax.jit
        def total(x, transform=transform):
            return jnp.vdot(probe, transform.magnitudes(x))

        gradients[method] = jax.jit(jax.grad(total))(audio)
        ends = [float(total(audio + step * direction)) for step in (1e-2, -1e-2)]
        slope = float(jnp.vdot(gradients[method], direction))
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=2e-2)
    size = float(jnp.abs(gradients["direct"]).max())
    np.testing.assert_allclose(gradients["fast"], gradients["direct"], atol=1e-5 * size)


def test_decibels_refer_to_each_item_or_to_what_is_given():
    magnitudes = jnp.asarray([[1.0, 0.1, 1e-4, 1e-5], [20.0, 2.0, 0.0, 2e-3]])
    found = unit_decibels(magnitudes)
    np.testing.assert_allclose(found, [[1, 0.75, 0, 0], [1, 0.75, 0, 0]], atol=1e-6)
    found = unit_decibels(magnitudes, range_db=40.0, reference=jnp.asarray([10.0, 20.0]))
    np.testing.assert_allclose(found, [[0.5, 0, 0, 0], [1, 0.5, 0, 0]], atol=1e-6)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="method is 'slow'"):
        HarmonicCqt(method="slow")
    with pytest.raises(ValueError, match="hop_samples must be positive, got 0"):
        HarmonicCqt(hop_samples=0)
    with pytest.raises(ValueError, match=r"harmonics must be positive numbers, got \(\)"):
        HarmonicCqt(harmonics=())
    features = jnp.zeros((1, 2, 3, 4))
    with pytest.raises(ValueError, match=r"features have 4 harmonics.*names 2"):
        harmonic_power(features, harmonics=(1, 2))
    with pytest.raises(ValueError, match="at least one must be 1 or more"):
        harmonic_power(features, harmonics=(0.1, 0.2, 0.3, 0.5))
