"""Made-up copies of iKala and vocadito, by real encoders, in their layouts."""

import pathlib

import numpy as np
import soundfile

FILE_RATE, SECONDS = 44100, 3.0
END_S = 2.5  # the voice glides until then, and is silent afterwards
ROWS = 93  # whole labels of 32 ms in 3 s
GRID_S = 256 / 44100
SINGERS = "singer\tsongid\n1\t10161\n1\t21025\n2\t31083\n3\t45305\n4\t54186\n5\t66556\n6\t90586"


def truth_hz(times_s: np.ndarray) -> np.ndarray:
    """Up and down by a fifth, so that labels at other times are wrong, and silence at the end."""
    return 220.0 * 2 ** (7 / 12 * np.sin(2 * np.pi * 0.7 * times_s)) * (times_s < END_S)


def midi(f0_hz: np.ndarray) -> np.ndarray:
    return np.where(f0_hz > 0, 69 + 12 * np.log2(np.maximum(f0_hz, 1) / 440), 0.0)


def sung(seconds: float = SECONDS) -> np.ndarray:
    """Four harmonics of the truth."""
    f0_hz = truth_hz(np.arange(int(seconds * FILE_RATE)) / FILE_RATE)
    phase = 2 * np.pi * np.cumsum(f0_hz) / FILE_RATE
    return sum(0.2 / k * np.sin(k * phase) for k in range(1, 5)) * (f0_hz > 0)


def write_clip(root: pathlib.Path, name: str = "10161_verse", suffix=".wav") -> pathlib.Path:
    """A clip of iKala; returns its labels."""
    for folder in ("Wavfile", "PitchLabel"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    voice = sung()
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, len(voice))
    soundfile.write(
        root / f"Wavfile/{name}{suffix}", np.stack([noise, voice], axis=1), FILE_RATE, "PCM_16"
    )
    centres_s = 0.016 + 0.032 * np.arange(ROWS)
    return write_lines(root / f"PitchLabel/{name}.pv", midi(truth_hz(centres_s)))


def write_lines(path: pathlib.Path, values) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{value} \n" for value in values))  # as there, a space ends each line
    return path


def write_voice(root: pathlib.Path, number: int = 1, rows: int | None = None) -> pathlib.Path:
    """A recording of vocadito; returns its labels."""
    (root / "Audio").mkdir(parents=True, exist_ok=True)
    soundfile.write(root / f"Audio/vocadito_{number}.wav", sung(), FILE_RATE, "PCM_16")
    times_s = np.arange(rows or int(SECONDS / GRID_S) + 1) * GRID_S
    lines = [f"{time_s},{f0_hz}" for time_s, f0_hz in zip(times_s, truth_hz(times_s), strict=True)]
    return write_lines(root / f"Annotations/F0/vocadito_{number}_f0.csv", lines)
