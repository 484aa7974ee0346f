"""A model that gives half of its input, files to give it, and what it wrote."""

import numpy as np
import soundfile

from majl_jax.inference import segments

RATE_HZ = 16_000
BINS = 3000.0 + 20.0 * np.arange(40)


def halve(variables, audio):
    """Half of the input as the voice; a pitch of bin 20 wherever the input is loud."""
    frames = audio.reshape(audio.shape[0], -1, 160, audio.shape[2])
    loud = (abs(frames).max((2, 3)) > 0.01).astype(audio.dtype)
    return {
        "stems": variables["gain"] * audio[:, :, None],
        "salience": 0.8 * loud[:, :, None] * (np.arange(40) == 20)[None, None],
    }


def make_model(**changes):
    parts = {
        "apply": halve,
        "sample_rate_hz": RATE_HZ,
        "segment_samples": 3200,
        "hop_samples": 160,
        "stems": ("voice",),
        "bin_cents": BINS,
    }
    return segments.SegmentModel(**{**parts, **changes})


MODEL, HALF = make_model(), {"gain": np.float32(0.5)}
BIN_20_HZ = 10 * 2 ** (BINS[20] / 1200)


def write(path, *, seconds=1.0, channels=1, rate_hz=RATE_HZ, **kind):
    """A band-limited sound, different in each channel."""
    time = np.arange(round(seconds * rate_hz))[:, None] / rate_hz
    audio = 0.4 * np.sin(2 * np.pi * 300 * (1 + np.arange(channels)) * time + 1.0)
    soundfile.write(path, audio.astype(np.float32), rate_hz, **kind)
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


def read(path):
    return soundfile.read(path, dtype="float32", always_2d=True)
