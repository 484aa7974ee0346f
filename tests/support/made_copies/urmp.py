"""Made-up copies of URMP, by real encoders, in their layouts."""

import pathlib

import numpy as np
import soundfile

FILE_RATE, SECONDS, ROW_S = 48000, 2.0, 0.01
CHANGE_S, END_S = 0.7037, 1.5  # low tone, high tone, silence


def truth(part: int, times_s: np.ndarray) -> np.ndarray:
    low = 200.0 * part
    return np.where(times_s < CHANGE_S, low, np.where(times_s < END_S, 1.5 * low, 0.0))


def write_piece(root: pathlib.Path, name: str = "03_Dance_fl_cl") -> pathlib.Path:
    """A piece whose part i plays its own two tones; the mixture is their sum."""
    folder = root / name
    folder.mkdir(parents=True)
    number, piece, *instruments = name.split("_")
    times_s = np.arange(int(SECONDS * FILE_RATE)) / FILE_RATE
    rows_s = np.arange(int(SECONDS / ROW_S)) * ROW_S
    total = 0.0
    for part, instrument in enumerate(instruments, 1):
        f0_hz = truth(part, times_s)
        tone = 0.15 * np.sin(2 * np.pi * np.cumsum(f0_hz) / FILE_RATE) * (f0_hz > 0)
        total = total + tone
        ending = f"{part}_{instrument}_{number}_{piece}"
        soundfile.write(folder / f"AuSep_{ending}.wav", tone, FILE_RATE, subtype="FLOAT")
        write_rows(folder / f"F0s_{ending}.txt", rows_s, truth(part, rows_s))
    soundfile.write(folder / f"AuMix_{name}.wav", total, FILE_RATE, subtype="FLOAT")
    return folder


def write_rows(path: pathlib.Path, times_s: np.ndarray, f0_hz: np.ndarray) -> None:
    lines = (f"{t:.6f}\t{f:.6f}\n" for t, f in zip(times_s, f0_hz, strict=True))
    path.write_text("".join(lines))
