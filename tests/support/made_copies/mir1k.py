"""Made-up copies of MIR-1K, by real encoders, in their layouts."""

import pathlib

import numpy as np
import soundfile

SAMPLES = 16000


def write_clip(folder: pathlib.Path, name: str, samples: int = SAMPLES, **wav) -> pathlib.Path:
    """A clip whose voice is 220 Hz, with labels for it."""
    for sub in ("Wavfile", "PitchLabel"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    time_s = np.arange(samples) / 16000
    voice = 0.4 * np.sin(2 * np.pi * 220 * time_s)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, samples)
    path = folder / "Wavfile" / f"{name}.wav"
    soundfile.write(path, np.stack([noise, voice], axis=1), **{"samplerate": 16000, **wav})
    write_labels(folder, name, [57.0] * ((samples - 640) // 320 + 1))
    return path


def write_labels(folder: pathlib.Path, name: str, labels: list) -> None:
    text = "".join(f"{label}\n" for label in labels)
    (folder / "PitchLabel" / f"{name}.pv").write_text(text)
