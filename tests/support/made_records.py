"""A small layout and tracks whose values tell where they are."""

import numpy as np

from majl_jax.datasets import records

HOP = 4
LAYOUT = records.Layout(
    stems=("voice", "rest"), channels=1, sample_rate_hz=200, hop_samples=HOP, record_samples=40
)


def made_track(name: str, samples: int) -> records.Record:
    """A track in which every value tells where it is: sample t holds t, frame k holds k."""
    frames = samples // HOP
    time = np.arange(samples, dtype=np.int16)
    frame = np.arange(frames, dtype=np.float32)
    return {
        "stems": np.stack([time, time + 1000], axis=1)[:, :, None],
        "has_stems": np.asarray([True, False]),
        "f0_hz": np.stack([frame, frame + 1000], axis=1),
        "has_pitch": np.ones((frames, 2), bool),
        "track": name,
        "start_sample": 0,
        "valid_samples": samples,
    }
