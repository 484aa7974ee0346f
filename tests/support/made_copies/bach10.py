"""Made-up copies of Bach10, by real encoders, in their layouts."""

import pathlib

import numpy as np
import scipy.interpolate
import scipy.io
import soundfile

from majl_jax.datasets.readers import bach10

FILE_RATE, SECONDS = 44100, 2.0
CHANGE_S, END_S = 0.7037, 1.5
LOW_MIDI = np.array([69.0, 64.25, 57.0, 45.0])  # of the four parts
NAME = "01-AchGott"


def truth_midi(times_s: np.ndarray) -> np.ndarray:
    """[part, time]: a tone, one a fifth higher, silence."""
    low = LOW_MIDI[:, None]
    return np.where(times_s < CHANGE_S, low, np.where(times_s < END_S, low + 7, 0.0))


def hz(midi: np.ndarray) -> np.ndarray:
    return np.where(midi > 0, 440 * 2 ** ((midi - 69) / 12), 0.0)


def write_chorale(root: pathlib.Path, name: str = NAME) -> pathlib.Path:
    folder = root / name
    folder.mkdir(parents=True)
    f0_hz = hz(truth_midi(np.arange(int(SECONDS * FILE_RATE)) / FILE_RATE))
    tones = 0.15 * np.sin(2 * np.pi * np.cumsum(f0_hz, 1) / FILE_RATE) * (f0_hz > 0)
    for stem, tone in zip(bach10.STEMS, tones, strict=True):
        soundfile.write(folder / f"{name}-{stem}.wav", tone, FILE_RATE, subtype="FLOAT")
    soundfile.write(folder / f"{name}.wav", tones.sum(0), FILE_RATE, subtype="FLOAT")
    scipy.io.savemat(folder / f"{name}-GTF0s.mat", {"GTF0s": truth_midi(row_s()), "other": 1})
    return folder


def row_s() -> np.ndarray:
    return 0.023 + 0.010 * np.arange(195)
