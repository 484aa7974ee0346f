"""Whether files that an earlier call made are of a song, and not of another one of its name."""

import contextlib
import pathlib
import re
import warnings
from collections.abc import Sequence

import numpy as np

from majl_jax.audio import files

SOUNDS = (".wav", ".flac")
TABLES = ("pitch.csv", "pitches.txt")
"""With a line for every frame, which begins with its time."""
SLACK_S = 0.2  # between the length that a header says, or the time of a last frame, and the end
SOUND = 0.01  # of full scale; what stays below it may be the silence of any song
FAR_OFF = 0.25  # of the song's energy: rounding and clipping make less, another song more


def fit(there: Sequence[pathlib.Path], paths: Sequence[pathlib.Path], song: files.Path) -> bool:
    """Whether the files that are there of those that a song gets are its own.

    Stems and the rest add up to their song: where all of them are there, that is tried where it
    begins to sound. Else the lengths are compared, and what has none fits no song.

    Args:
        there: some of the files, or all.
        paths: all of them.
        song: its file; AudioFileError where that is none.
    """
    info = files.inspect(song, allow_truncated=True)
    sounds = [path for path in paths if path.suffix in SOUNDS]
    with warnings.catch_warnings():  # said when the song is separated
        warnings.simplefilter("ignore", files.AudioFileWarning)
        try:
            if sounds and set(sounds) <= set(there):
                return _add_up(sounds, song)
            found = [_seconds(p) for p in there if p.suffix in SOUNDS or p.name in TABLES]
        except (OSError, ValueError, RuntimeError):  # one that cannot be read is of no song
            return False
        if not found or _all_near(found, info.seconds):
            return bool(found)
        # Of a file that is cut off, or that another one follows, the header does not say it.
        samples = sum(map(len, files.stream(song, allow_truncated=True)))
        return _all_near(found, samples / info.sample_rate_hz)


def _add_up(sounds: Sequence[pathlib.Path], song: files.Path) -> bool:
    """Whether audio files are the song together, in the first block that is no silence in both."""
    import soundfile

    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(soundfile.SoundFile(path)) for path in sounds]
        for block in files.stream(song, allow_truncated=True):
            made = [part.read(len(block), dtype="float32", always_2d=True) for part in parts]
            if any(one.shape != block.shape for one in made):
                return False
            total = np.sum(made, axis=0)
            if max(np.abs(block).max(), np.abs(total).max()) > SOUND:
                return bool(np.square(total - block).sum() < FAR_OFF * np.square(block).sum())
    return True


def _seconds(path: pathlib.Path) -> float:
    """The length of an audio file, or the time of the last frame in a table."""
    if path.suffix in SOUNDS:
        return files.inspect(path).seconds
    return float(re.split("[,\t]", path.read_text(encoding="utf-8").splitlines()[-1])[0])


def _all_near(found: Sequence[float], seconds: float) -> bool:
    return all(abs(one - seconds) <= SLACK_S for one in found)
