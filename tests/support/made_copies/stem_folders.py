"""Made-up copies of stems of one's own, by real encoders, in their layouts."""

import pathlib

import numpy as np
import soundfile

LEVELS = {"kick": 0.1, "snare": 0.2, "hat": 0.4}


def write_audio(
    path: pathlib.Path, level: float, *, seconds: float = 0.5, rate: int = 16000, channels: int = 1
) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full((int(seconds * rate), channels), level), rate)
    return path


def write_incoherent(root: pathlib.Path, counts: dict[str, int]) -> None:
    """File n of a source is n + 1 tenths of a second long."""
    for stem, count in counts.items():
        for number in range(count):
            name = f"{'sub/' * (number % 2)}{stem[0]} {number}.{('wav', 'flac')[number % 2]}"
            write_audio(root / stem / name, LEVELS[stem], seconds=0.1 * (number + 1))
