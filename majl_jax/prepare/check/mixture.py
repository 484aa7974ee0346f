"""A data set's own mixture against the sum of its stems."""

import pathlib
import re
from collections.abc import Sequence

import numpy as np
import scipy.fft
from jaxtyping import Float, Int32

from majl_jax.audio import files
from majl_jax.datasets import stem_mp4

NAME = re.compile(r"(^|[_ .-])(mix|mixture|mixdown|aumix)([_ .-]|$)", re.IGNORECASE)
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".aif", ".aiff")
STEM_MP4 = ".stem.mp4"
OWN = re.compile("aumix", re.IGNORECASE)  # of URMP, whose tracks list their mixture
LEAST_DB = 10.0  # mixtures of AAC stems agree to 15 dB or more, a missing stem leaves less
LONGEST_SHIFT_S = 2.0
LENGTHS_DIFFER_S = 1.0


def difference(
    paths: Sequence[pathlib.Path],
    stems: Int32[np.ndarray, "time channel"],
    *,
    sample_rate_hz: int,
) -> str:
    """How the mixture among or beside a track's files differs from the sum of its stems; empty if
    it does not.

    The gain between them does not matter. Empty as well where there is no mixture, or not one
    only.
    """
    path = find_mixture(paths)
    if path is None:
        return ""
    try:
        if path.name.endswith(STEM_MP4):
            audio = stem_mp4.read_stream(path, 0, sample_rate_hz=sample_rate_hz, channels=1)
        else:
            audio, _ = files.read(path, sample_rate_hz=sample_rate_hz, channels=1)
    except ValueError as error:
        return str(error)
    mixture, total = audio[:, 0].astype(np.float64), stems.mean(axis=1, dtype=np.float64)
    longer_s = (len(mixture) - len(total)) / sample_rate_hz
    if abs(longer_s) > LENGTHS_DIFFER_S:
        return f"{path.name} is {longer_s:+.2f} s longer"
    return _compare(path.name, mixture, total, sample_rate_hz)


def find_mixture(paths: Sequence[pathlib.Path]) -> pathlib.Path | None:
    """The file that its name tells to be the mixture: a stem.mp4, or beside the files, which may
    be called "Drums Mix", or a folder above them.
    """
    for path in paths:
        if path.name.endswith(STEM_MP4):
            return path
    folders = dict.fromkeys(path if path.is_dir() else path.parent for path in paths)
    for folder in (*folders, *dict.fromkeys(folder.parent for folder in folders)):
        named = [
            path
            for path in folder.glob("*")
            if path.suffix.lower() in SUFFIXES
            and NAME.search(path.stem)
            and (path not in paths or OWN.match(path.stem))
        ]
        if named:
            return named[0] if len(named) == 1 else None
    return None


def _compare(
    name: str,
    mixture: Float[np.ndarray, " time"],
    total: Float[np.ndarray, " total"],
    sample_rate_hz: int,
) -> str:
    samples = min(len(mixture), len(total))
    mixture, total = mixture[:samples], total[:samples]
    scale = np.sqrt(np.sum(mixture**2) * np.sum(total**2))
    if not scale:
        return f"{name} is silent" if total.any() else ""
    here_db = _agreement_db(float(mixture @ total / scale))
    if here_db >= LEAST_DB:
        return ""
    size = scipy.fft.next_fast_len(2 * samples, real=True)
    spectra = np.asarray(scipy.fft.rfft(np.stack([mixture, total]), size))
    likeness = np.asarray(scipy.fft.irfft(spectra[0] * spectra[1].conj(), size)) / scale
    most = min(int(LONGEST_SHIFT_S * sample_rate_hz), samples - 1)
    shifts = np.arange(-most, most + 1)
    best = int(shifts[np.abs(likeness[shifts]).argmax()])
    text = f"{name} agrees to {here_db:.0f} dB"
    if (there_db := _agreement_db(float(likeness[best]))) >= LEAST_DB:
        text += f", {1000 * best / sample_rate_hz:+.0f} ms later to {there_db:.0f} dB"
    return text


def _agreement_db(likeness: float) -> float:
    """The ratio in dB of a signal to what another one, at the best gain, leaves of it."""
    return -10 * float(np.log10(max(1 - likeness**2, 1e-10)))
