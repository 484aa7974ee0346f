"""Phase vocoder against a float64 loop and librosa; pitch, duration and level of what is stretched
and shifted.
"""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import scipy.signal

from majl_jax.audio import mixing, stretching
from majl_jax.audio.stft import stft

RATE_HZ = 16000
SIZES = {"window_samples": 1024, "hop_samples": 256}
RATES = jnp.asarray([0.8, 0.93, 1.0, 1.07, 1.2], jnp.float32)
SEMITONES = jnp.asarray([-3.0, -1.3, 0.0, 0.4, 3.0], jnp.float32)
SAMPLES = 2 * RATE_HZ
INNER = slice(RATE_HZ // 4, -RATE_HZ // 4)

stretch = jax.jit(lambda x, rates: stretching.time_stretch(x, rates, samples=SAMPLES, **SIZES))
shift = jax.jit(lambda x, semitones: stretching.pitch_shift(x, semitones, **SIZES))
plain_stretch = jax.jit(
    lambda x, rates: stretching.time_stretch(x, rates, samples=SAMPLES, locked=False, **SIZES)
)
plain_shift = jax.jit(lambda x, n: stretching.pitch_shift(x, n, locked=False, **SIZES))


def _music(seconds=2.5, seed=0):
    """Chords that decay, over noise that reaches every bin."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    sound = 0.02 * rng.standard_normal(len(time))
    for start in np.arange(0, seconds, 0.4):
        after = np.maximum(time - start, 0.0)
        for f0_hz in rng.uniform(80, 500, 3):
            for harmonic in range(1, 9):
                phase = 2 * np.pi * f0_hz * harmonic * after + rng.uniform(0, 6)
                sound += (time >= start) * 0.05 / harmonic * np.exp(-4 * after) * np.sin(phase)
    return sound.astype(np.float32)


def _glide_hz(time):
    return 300.0 * 2.0 ** (time / 2.0)


def _glide(samples):
    time = np.arange(samples) / RATE_HZ
    phase = 2 * np.pi * 300.0 * 2 / np.log(2) * (2.0 ** (time / 2.0) - 1)
    return (0.3 * np.sin(phase)).astype(np.float32)


def _tone(f0_hz, samples):
    time = np.arange(samples) / RATE_HZ
    partials = [np.sin(2 * np.pi * f0_hz * h * time + h) / h for h in range(1, 9)]
    return 0.2 * np.sum(partials, 0).astype(np.float32)


def _repeat(x, count=5):
    return jnp.asarray(np.tile(x, (count, 1)))


def _peak_hz(x):
    """Frequency of the strongest partial, the spectrum zero-padded to 1/8 Hz."""
    spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x)), 8 * RATE_HZ))
    return spectrum.argmax() / 8


def _cents(found, expected):
    return 1200 * np.log2(np.asarray(found) / expected)


def _decibels(x):
    return 10 * np.log10(np.mean(np.square(np.asarray(x, np.float64)), axis=-1))


def _loop(spectrum, rate, frames, locked=False):
    """One example [frame, frequency] in float64, angle by angle."""
    padded = np.pad(spectrum.astype(np.complex128), ((0, 2), (0, 0)))
    found = np.zeros((frames, spectrum.shape[1]), np.complex128)
    phase = np.angle(padded[0])
    for t in range(frames):
        k = min(int(t * rate), len(spectrum))
        part = t * rate - int(t * rate)
        level = (1 - part) * abs(padded[k]) + part * abs(padded[k + 1])
        found[t] = level * np.exp(1j * phase)
        if locked:
            beside = np.pad(found[t], 1)
            phase = np.angle(found[t] - beside[:-2] - beside[2:])
        phase += np.angle(padded[k + 1]) - np.angle(padded[k])
    return found


# ---- the vocoder --------------------------------------------------------------------------------


def test_positions_are_exact():
    rates = np.asarray([0.8, 1.0, 1.2, 2.3784142, 0.5000001, 3.9999998], np.float32)
    index, fraction = stretching._positions(jnp.asarray(rates), 380_000)
    for rate, found, rest in zip(rates, np.asarray(index), np.asarray(fraction), strict=True):
        units = np.arange(380_000) * int(rate * np.float64(2**24))  # exact in int64
        np.testing.assert_array_equal(found, units >> 24)
        np.testing.assert_array_equal(rest, (units & 0xFFFFFF) / 2**24)
    with pytest.raises(ValueError, match="Cut the excerpt"):
        stretching._positions(jnp.asarray(rates), 2**20 + 1)


def test_vocoder_is_the_loop_also_after_many_frames():
    rng = np.random.default_rng(1)
    shape = (4, 1600, 33)
    spectrum = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    spectrum[:, 700:710] = 0
    spectrum[:, :, 5] = 0
    rates = np.asarray([0.8, 1.0, 1.1832, 1.37], np.float32)
    found = stretching.phase_vocoder(jnp.asarray(spectrum), jnp.asarray(rates), frames=1400)
    for i, rate in enumerate(rates):
        expected = _loop(spectrum[i], float(rate), 1400)
        error = np.abs(found[i] - expected).max() / np.abs(expected).max()
        print(f"rate {rate:.4f}: {error:.1e} of the largest magnitude")
        assert error < 3e-5
    assert np.abs(found[3, 1168:]).max() == 0  # behind the last frame
    np.testing.assert_allclose(found[1], spectrum[1, :1400], atol=5e-5)


def test_locked_vocoder_is_the_loop():
    spectrum = np.asarray(stft(jnp.asarray(_music(0.5))[None], window_samples=256, hop_samples=64))
    rates = jnp.asarray([0.87, 1.13], jnp.float32)
    repeated = jnp.asarray(np.repeat(spectrum, 2, axis=0))
    # Neighbours that nearly cancel out leave the phase to rounding, which a scan carries on: only
    # the first frames agree.
    found = stretching.phase_vocoder(repeated, rates, frames=30, locked=True)
    for ours, rate in zip(np.asarray(found), np.asarray(rates), strict=True):
        expected = _loop(spectrum[0], float(rate), 30, locked=True)
        error = np.linalg.norm(ours - expected) / np.linalg.norm(expected)
        print(f"rate {rate:.2f}: {error:.1e} of the norm")
        assert error < 1e-3


@pytest.mark.slow
def test_vocoder_is_that_of_librosa():
    x = jnp.asarray(_music(4.0))
    spectrum = stft(x[None], **SIZES)
    rates = jnp.asarray([0.8123, 1.003, 1.1187, 1.4999], jnp.float32)
    repeated = jnp.repeat(spectrum, len(rates), axis=0)
    exact = np.asarray(spectrum[0], np.complex128).T
    found = stretching.phase_vocoder(repeated, rates, frames=320)
    for rate, ours in zip(rates, np.asarray(found), strict=True):
        expected = librosa.phase_vocoder(exact, rate=float(rate), hop_length=256).T
        assert np.abs(ours[len(expected) :]).max(initial=0) == 0
        ours, expected = ours[: len(expected)], expected[: len(ours)]
        error = np.linalg.norm(ours - expected) / np.linalg.norm(expected)
        largest = np.abs(ours - expected).max() / np.abs(expected).max()
        print(f"rate {rate:.4f}: {error:.1e} of the norm, {largest:.1e} of the largest")
        assert error < 1e-4 and largest < 1e-4


# ---- pitch, duration, level ---------------------------------------------------------------------


@pytest.mark.parametrize("f0_hz", [82.4, 220.0, 880.0])
def test_pitch_of_a_tone(f0_hz):
    x = _tone(f0_hz, 3 * RATE_HZ)
    expected = f0_hz * 2.0 ** (np.asarray(SEMITONES) / 12)
    shifted = [_peak_hz(y[INNER]) for y in np.asarray(shift(_repeat(x[:SAMPLES]), SEMITONES))]
    assert np.abs(_cents(shifted, expected)).max() < 3
    stretched = [_peak_hz(y[INNER]) for y in np.asarray(stretch(_repeat(x), RATES))]
    assert np.abs(_cents(stretched, f0_hz)).max() < 3


@pytest.mark.parametrize("change", ["stretch", "shift"])
def test_pitch_and_time_of_a_glide(change):
    x, time = _glide(3 * RATE_HZ), np.arange(SAMPLES - 1) / RATE_HZ
    if change == "stretch":
        found = stretch(_repeat(x), RATES)
        expected = [_glide_hz(time * float(rate)) for rate in RATES]
    else:
        found = shift(_repeat(x[:SAMPLES]), SEMITONES)
        expected = [_glide_hz(time) * 2 ** (float(n) / 12) for n in SEMITONES]
    for ours, f0_hz in zip(np.asarray(found), expected, strict=True):
        phase = np.unwrap(np.angle(scipy.signal.hilbert(ours)))
        error = _cents(np.diff(phase)[INNER] * RATE_HZ / (2 * np.pi), f0_hz[INNER])
        print(f"{change}: median {np.median(error):+.2f} cents, {np.median(np.abs(error)):.2f} off")
        # The advance of a frame to the next is used half a hop late, and the glide does 600 cents
        # a second.
        assert np.median(np.abs(error)) < 600 * 1.2 * SIZES["hop_samples"] / RATE_HZ


@pytest.mark.parametrize("change", ["stretch", "shift"])
def test_times_of_clicks(change):
    times = np.arange(4000, 3 * RATE_HZ - 4000, 8000)
    x = np.zeros(3 * RATE_HZ, np.float32)
    x[times] = 1.0
    if change == "stretch":
        found, speeds = stretch(_repeat(x), RATES), np.asarray(RATES)
    else:
        found, speeds = shift(_repeat(x[:SAMPLES]), SEMITONES), np.ones(5)
    half_window = SIZES["window_samples"] // 2
    for ours, speed in zip(np.asarray(found), speeds, strict=True):
        for place in times[times / speed < SAMPLES - 2000] / speed:
            near = np.arange(int(place) - 2000, int(place) + 2000)
            energy = ours[near] ** 2
            error = (near * energy).sum() / energy.sum() - place
            print(f"{change} {speed:.2f}: {error:+.0f} samples, energy {energy.sum():.2f}")
            assert abs(error) < half_window and energy.sum() > 0.01
            # Nothing of it is further away than the windows that saw it.
            far = np.abs(near - place) > 2 * half_window + SIZES["hop_samples"]
            assert energy[far].sum() < 1e-3 * energy.sum()


@pytest.mark.parametrize(("kind", "limit_db"), [("noise", 3.0), ("music", 1.5), ("tone", 0.2)])
def test_level_is_roughly_kept(kind, limit_db):
    noise = 0.1 * np.random.default_rng(2).standard_normal(3 * RATE_HZ).astype(np.float32)
    x = {"noise": noise, "music": _music(3.0), "tone": _tone(220.0, 48000)}[kind]
    before = _decibels([np.resize(x[: int(SAMPLES * float(rate))], SAMPLES) for rate in RATES])
    change = _decibels(stretch(_repeat(x), RATES)) - before
    print(f"stretch {kind}: {np.round(change, 2)} dB")
    assert np.abs(change).max() < limit_db
    change = _decibels(shift(_repeat(x[:SAMPLES]), SEMITONES)) - _decibels(x[:SAMPLES])
    print(f"shift {kind}: {np.round(change, 2)} dB")
    assert np.abs(change).max() < limit_db


def test_what_comes_above_half_the_rate_is_taken_away():
    time = np.arange(SAMPLES) / RATE_HZ
    x = [np.sin(2 * np.pi * f * time) for f in (7000, 7600, 6500, 7900, 7900)]
    semitones = jnp.asarray([3.0, 1.0, 3.0, -3.0, -0.01])
    found = _decibels(np.asarray(shift(jnp.asarray(x, jnp.float32), semitones))[:, INNER])
    print(f"levels {np.round(found, 1)} dB")
    assert found[:2].max() < -60  # to 8325 Hz and 8052 Hz
    assert found[2:].min() > -4.5  # to 7730 Hz, and down: about the -3 dB they had


def test_the_end_is_filled_with_as_much_as_needed():
    length = stretching.needed_samples(SAMPLES, 1.2)
    assert length == 38400 and stretching.needed_samples(1001, 1.2) == 1202
    assert stretching.needed_samples(1001, 0.9) == 1001
    noise = 0.1 * np.random.default_rng(3).standard_normal(length).astype(np.float32)
    found = np.asarray(stretch(_repeat(noise), RATES))
    levels = _decibels(found[:, -1000:].reshape(5, 4, 250))
    assert levels.min() > -24.0  # the noise has -20 dB
    with pytest.raises(ValueError, match="needed_samples"):
        stretch(_repeat(noise[:31999]), RATES)


# ---- against librosa's effects ------------------------------------------------------------------


def _faded(seconds):
    """Silence at both ends, where librosa pads zeros and our transform mirrors."""
    x = _music(seconds, seed=4)
    x[:1024] = x[-1024:] = 0
    return x


@pytest.mark.slow
def test_time_stretch_is_that_of_librosa():
    x = _faded(3.0)
    found = np.asarray(plain_stretch(_repeat(x), RATES))
    for ours, rate in zip(found, np.asarray(RATES), strict=True):
        reference = librosa.effects.time_stretch(x, rate=float(rate), n_fft=1024, hop_length=256)
        length = min(SAMPLES, len(reference))
        error = _decibels(ours[:length] - reference[:length]) - _decibels(reference[:length])
        print(f"rate {rate:.2f}: difference {error:.0f} dB")
        assert error < -40


def test_pitch_shift_is_that_of_librosa():
    x = _faded(SAMPLES / RATE_HZ)
    found = np.asarray(plain_shift(_repeat(x), SEMITONES))
    # Below what the two low-pass filters take away.
    low = scipy.signal.butter(8, 5000, fs=RATE_HZ, output="sos")
    for ours, steps in zip(found, np.asarray(SEMITONES), strict=True):
        options = {"sr": RATE_HZ, "n_steps": float(steps), "n_fft": 1024, "hop_length": 256}
        reference = librosa.effects.pitch_shift(x, **options)
        difference, kept = (scipy.signal.sosfilt(low, y) for y in (ours - reference, reference))
        error = _decibels(difference) - _decibels(kept)
        print(f"{steps:+.1f} semitones: difference {error:.0f} dB")
        assert error < -40


# ---- as part of a step --------------------------------------------------------------------------


def test_rate_one_and_no_semitones_give_the_input_back():
    low = scipy.signal.butter(10, 7000, fs=RATE_HZ, output="sos")
    x = scipy.signal.sosfilt(low, _music(3.0)).astype(np.float32)
    np.testing.assert_array_equal(plain_stretch(_repeat(x), RATES)[2], x[:SAMPLES])
    np.testing.assert_array_equal(plain_shift(_repeat(x[:SAMPLES]), SEMITONES)[2], x[:SAMPLES])
    # The same by way of the vocoder and the filter, but for the start, whose phases are made up,
    # and the kink where the end is mirrored.
    inner = slice(2 * SIZES["window_samples"], -SIZES["window_samples"])
    stretched = np.asarray(plain_stretch(_repeat(x), jnp.full(5, 1 + 1e-6)))[0]
    shifted = np.asarray(plain_shift(_repeat(x[:SAMPLES]), jnp.full(5, 1e-8)))[0]
    for found in (stretched, shifted):
        print(f"largest difference {np.abs(found - x[:SAMPLES])[inner].max():.1e}")
        np.testing.assert_allclose(found[inner], x[:SAMPLES][inner], atol=2e-4)


def test_silence_stays_silent():
    silence = jnp.zeros((5, 48000))
    np.testing.assert_array_equal(stretch(silence, RATES), 0)
    np.testing.assert_array_equal(shift(silence[:, :SAMPLES], SEMITONES), 0)
    for value in (1e-30, 1e-18, 1e3):
        constant = silence + value
        assert np.isfinite(stretch(constant, RATES)).all()
        assert np.isfinite(shift(constant[:, :SAMPLES], SEMITONES)).all()


def test_new_rates_compile_nothing_anew():
    traces = []

    @jax.jit
    def both(x, rates, semitones):
        traces.append(1)
        stretched = stretching.time_stretch(x, rates, samples=4000, **SIZES)
        return stretched, stretching.pitch_shift(x, semitones, **SIZES)

    x = jnp.asarray(_music(0.3)[None])
    first = both(x, jnp.asarray([0.9]), jnp.asarray([-2.0]))
    second = both(x, jnp.asarray([1.1]), jnp.asarray([1.0]))
    assert len(traces) == 1
    assert all(np.abs(a - b).max() > 0.01 for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("change", ["stretch", "shift"])
def test_examples_do_not_touch_each_other(change):
    function, values, samples = (
        (stretch, RATES, 48000) if change == "stretch" else (shift, SEMITONES, SAMPLES)
    )
    x = jnp.stack([jnp.asarray(_music(3.0, seed)[:samples]) for seed in range(5)])
    before = np.asarray(function(x, values))
    after = np.asarray(function(x.at[1].set(0.3), values.at[1].set(1.01)))
    np.testing.assert_array_equal(np.delete(before, 1, 0), np.delete(after, 1, 0))
    assert np.abs(before[1] - after[1]).max() > 0.01


def test_draws():
    keys = mixing.example_keys(jax.random.key(5), jnp.arange(400, dtype=jnp.uint32))
    rates, semitones = stretching.draw_rates(keys), stretching.draw_semitones(keys, -3, 3)
    for found, low, high in ((rates, 0.8, 1.2), (semitones, -3.0, 3.0)):
        assert low <= found.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < found.max() < high
        assert len(np.unique(np.asarray(found))) > 390
    np.testing.assert_array_equal(stretching.draw_rates(keys[7:9]), rates[7:9])
    with pytest.raises(ValueError, match="0 < low <= high"):
        stretching.draw_rates(keys, -1.0, 1.0)
    with pytest.raises(ValueError, match="low <= high"):
        stretching.draw_semitones(keys, 1.0, -1.0)
