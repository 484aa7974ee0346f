"""Made-up copies of MedleyDB, by real encoders, in their layouts."""

import pathlib

import numpy as np
import soundfile
import yaml

FILE_RATE = 44100
ANNOTATION_HOP_S = 256 / 44100
SECONDS, CHANGE_S, END_S = 2.0, 0.7037, 1.5  # low tone, high tone, silence
LOW_HZ, HIGH_HZ = 220.0, 330.0
SUNG = (("drum set", ""), ("male singer", "melody"), ("vocalists", ""))


def truth(times_s: np.ndarray) -> np.ndarray:
    return np.where(times_s < CHANGE_S, LOW_HZ, np.where(times_s < END_S, HIGH_HZ, 0.0))


def write_track(root: pathlib.Path, name: str, stems=SUNG, *, pitch="pitch") -> pathlib.Path:
    """A track whose melody stems are the tones; the others are noise. Returns its annotation."""
    folder = root / "Audio" / name
    (folder / f"{name}_STEMS").mkdir(parents=True)
    times_s = np.arange(int(SECONDS * FILE_RATE)) / FILE_RATE
    tone = 0.4 * np.sin(2 * np.pi * np.cumsum(truth(times_s)) / FILE_RATE) * (truth(times_s) > 0)
    rng = np.random.default_rng(0)
    listed, voice = {}, ""
    for number, (instrument, component) in enumerate(stems, 1):
        file = f"{name}_STEM_{number:02d}.wav"
        sound = tone if component == "melody" else rng.uniform(-0.1, 0.1, len(times_s))
        voice = file[:-4] if component == "melody" else voice
        stereo = np.stack([sound, sound * 0.5], axis=1)
        soundfile.write(folder / f"{name}_STEMS" / file, stereo, FILE_RATE, subtype="FLOAT")
        listed[f"S{number:02d}"] = dict(component=component, instrument=instrument, filename=file)
    content = {"artist": "Anyone", "has_bleed": "no", "stems": listed}
    (folder / f"{name}_METADATA.yaml").write_text(yaml.safe_dump(content))
    frames = np.arange(int(SECONDS / ANNOTATION_HOP_S)) * ANNOTATION_HOP_S
    rows = np.stack([frames, truth(frames)], axis=1)
    if pitch == "pitch":
        return write_rows(root / "Annotations/Pitch_Annotations", voice, rows[rows[:, 1] > 0])
    if pitch:
        label = root / f"Annotations/Melody_Annotations/{pitch}"
        return write_rows(label, f"{name}_{pitch}", rows)
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "Annotations" / "other.csv").touch()
    return folder


def write_rows(folder: pathlib.Path, name: str, rows: np.ndarray) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    path.write_text("".join(f"{t:.9f},{f:.3f}\n" for t, f in rows))
    return path
