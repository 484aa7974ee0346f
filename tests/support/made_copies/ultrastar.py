"""Made-up UltraStar songs: a text in any dialect, and a voice of harmonics that sings it."""

import pathlib
from collections.abc import Iterable

import numpy as np
import soundfile

RATE = 44100
GAP_S, BPM = 0.3, 150.0
BEAT_S = 60 / (4 * BPM)  # 0.1 s
# (kind, begin and length in beats, pitch above C4)
NOTES = ((":", 0, 4, 0), ("*", 5, 3, 2), (":", 9, 2, 7))
HEADER = {"TITLE": "One", "ARTIST": "Someone", "MP3": "one.wav", "BPM": "150", "GAP": "300"}


def text_of(
    notes: Iterable[tuple[str, int, int, int]] = NOTES, *, end: str = "E", **tags: str
) -> str:
    """A song text; tags beside those of the header, or in their place, "" being none."""
    header = {**HEADER, **tags}
    lines = [f"#{name}:{value}" for name, value in header.items() if value]
    lines += [f"{kind} {begin} {length} {pitch} la" for kind, begin, length, pitch in notes]
    return "\n".join([*lines, end, ""])


def sing(
    path: pathlib.Path,
    notes: Iterable[tuple[str, int, int, int]] = NOTES,
    *,
    octave: int = 0,
    seconds: float = 2.0,
    rate: int = RATE,
) -> pathlib.Path:
    """A voice of eight harmonics at the notes, so many octaves above what is written."""
    times_s = np.arange(int(seconds * rate)) / rate
    sound = np.zeros(len(times_s))
    for _, begin, length, pitch in notes:
        onset_s = GAP_S + begin * BEAT_S
        sounding = (times_s >= onset_s) & (times_s < onset_s + length * BEAT_S)
        f0_hz = 440 * 2 ** ((pitch - 9) / 12 + octave)
        for harmonic in range(1, 9):
            phase = 2 * np.pi * harmonic * f0_hz * (times_s - onset_s)
            sound += 0.2 / harmonic * sounding * np.sin(phase)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.stack([sound, sound], axis=1), rate)
    return path


def write_song(folder: pathlib.Path, text: str | bytes | None = None) -> pathlib.Path:
    """A song: its text, by default the plain one, and its audio; beside them what is no song."""
    sing(folder / "one.wav")
    text = text_of() if text is None else text
    (folder / "song.txt").write_bytes(text.encode() if isinstance(text, str) else text)
    (folder / "license.txt").write_text("All free.\n")
    return folder
