"""Made-up copies of MIR-ST500, by real encoders, in their layouts."""

import json
import pathlib

import numpy as np
import soundfile

from majl_jax.datasets.readers import mir_st500

NOTES = [[0.303, 0.811, 57.0], [0.85, 1.357, 64.0]]  # 220 Hz, a rest, 329.6 Hz


def write_copy(folder: pathlib.Path, *places: str, labels: dict | None = None) -> pathlib.Path:
    """Labels of song 7 (by default) and its audio, tones as labelled, at these places."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"7": NOTES} if labels is None else labels)
    (folder / mir_st500.LABEL_FILE).write_text(text)
    times_s = np.arange(2 * 44100) / 44100
    sound = np.zeros(len(times_s))
    for onset_s, offset_s, midi in NOTES:
        sounding = (times_s >= onset_s) & (times_s < offset_s)
        note_hz = 440 * 2 ** ((midi - 69) / 12)
        sound += 0.5 * sounding * np.sin(2 * np.pi * note_hz * (times_s - onset_s))
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / place, np.stack([sound, sound], axis=1), 44100)
    return folder
