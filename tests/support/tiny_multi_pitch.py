"""A multi-pitch model of a few bins: windowed sinusoids in front, two convolutions over time with
biases.
"""

import jax
import jax.numpy as jnp
import numpy as np

from majl_jax.inference import multi_pitch

RATE_HZ, HOP, TAPS = 8000, 64, 256
BIN_HZ = 440.0 * 2 ** (np.arange(25) / 12)


def magnitudes(audio):
    """Correlations with windowed sinusoids at one and two times BIN_HZ: [batch, frame, bin, 2]."""
    place = np.arange(TAPS) - TAPS // 2
    frequency_hz = BIN_HZ[:, None] * np.array([1, 2])
    angle = 2 * np.pi / RATE_HZ * place[:, None, None] * frequency_hz
    window = np.hanning(TAPS + 1)[:-1, None, None]
    filters = np.stack([window * np.cos(angle), window * np.sin(angle)]).astype(np.float32)
    padded = jnp.pad(audio, ((0, 0), (TAPS // 2, TAPS // 2)))
    first = HOP * np.arange(1 + audio.shape[1] // HOP)
    framed = padded[:, first[:, None] + np.arange(TAPS)]
    parts = jnp.einsum("bft,ptkh->pbfkh", framed, filters, precision="highest")
    return jnp.sqrt(jnp.square(parts).sum(0))


def weights(seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    return {"one": draw(5, 2, 4), "bias": draw(4), "two": draw(5, 4, 1)}


def convolve(x, kernel, frame_mask):
    """Along the frames, dilated by 2, zeros beyond the mask."""
    x = jnp.where(frame_mask[:, :, None, None], x, 0.0)
    padded = jnp.pad(x, ((0, 0), (4, 4), (0, 0), (0, 0)))
    taps = [padded[:, 2 * i : 2 * i + x.shape[1]] @ kernel[i] for i in range(len(kernel))]
    return sum(taps)


def network(variables, features, frame_mask):
    """Reaches 8 frames to each side; the bias makes padding differ from what lies beyond."""
    bias = variables["bias"][None, None, None]
    hidden = jnp.tanh(convolve(features, variables["one"], frame_mask) + bias)
    return jax.nn.sigmoid(convolve(hidden, variables["two"], frame_mask)[..., 0])


def first_harmonic(variables, features, frame_mask):
    """What the front end hears: salience near 1 at loud pitches."""
    del frame_mask
    return variables["gain"] * features[..., 0]


def make(apply_features=network, **changes):
    parts = {
        "apply_magnitudes": magnitudes,
        "apply_features": apply_features,
        "sample_rate_hz": RATE_HZ,
        "hop_samples": HOP,
        "bin_hz": BIN_HZ,
        "reach_samples": 256,
        "context_frames": 8,
        "window_frames": 48,
    }
    return multi_pitch.MultiPitchModel(**{**parts, **changes})


def tones(*numbers, seconds=1.0):
    """Sines on the centres of these bins."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    waves = [np.sin(2 * np.pi * BIN_HZ[number] * time + number) for number in numbers]
    return np.sum([np.zeros_like(time), *waves], axis=0).astype(np.float32)
