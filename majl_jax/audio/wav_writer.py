"""WAV and FLAC files, written whole or not at all."""

import contextlib
import dataclasses
import errno
import os
import pathlib
import types
import warnings

import numpy as np
from jaxtyping import Int32

from majl_jax import atomic
from majl_jax.audio import int16
from majl_jax.audio.faults import AudioFileWarning, reason
from majl_jax.audio.resampling import Audio

WAV_LIMIT_BYTES = 4_000_000_000  # beyond it the same samples are written as RF64
SUBTYPES = {"FLOAT": 4, "PCM_24": 3, "PCM_16": 2}
"""libsndfile's names, and bytes per sample."""
FLAC_CHANNELS, FLAC_RATE_HZ = 8, 655_350


@dataclasses.dataclass(frozen=True)
class Written:
    """What went into a file."""

    path: pathlib.Path
    samples: int
    peak: float
    """Largest magnitude, 1 = full scale."""
    clipped_samples: int

    @property
    def peak_db(self) -> float:
        """The peak in dB of full scale; -inf for silence."""
        return float(20 * np.log10(self.peak)) if self.peak > 0 else -np.inf


class WavWriter:
    """Writes blocks into a file that appears under its name only once it is complete: FLAC where
    that ends in .flac, else WAV.

    subtype "FLOAT" keeps what lies beyond full scale; "PCM_24" and "PCM_16", the two of FLAC, limit
    it to full scale and warn.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sample_rate_hz: int,
        channels: int,
        subtype: str = "FLOAT",
        expected_samples: int = 0,
    ) -> None:
        import soundfile

        self.path = pathlib.Path(path)
        is_flac = self.path.suffix.lower() == ".flac"
        known = [one for one in SUBTYPES if not is_flac or one != "FLOAT"]
        if subtype not in known:
            raise ValueError(f"subtype is {subtype!r}; expected one of {', '.join(known)}")
        if is_flac and (channels > FLAC_CHANNELS or sample_rate_hz > FLAC_RATE_HZ):
            raise ValueError(
                f"{self.path}: FLAC holds at most {FLAC_CHANNELS} channels and {FLAC_RATE_HZ} Hz,"
                f" not {channels} at {sample_rate_hz} Hz: write WAV"
            )
        self._draft = atomic.draft_of(self.path)
        self._subtype = subtype
        large = expected_samples * channels * SUBTYPES[subtype] > WAV_LIMIT_BYTES
        self._samples, self._peak, self._clipped = 0, 0.0, 0
        self.written: Written | None = None
        with atomic.explained(self.path):
            atomic.remove_leftovers(self.path.parent, self.path.name)
            # libsndfile does not say why it cannot open a file.
            self._draft.open("wb").close()
        try:
            self._file = soundfile.SoundFile(
                self._draft,
                "w",
                samplerate=int(sample_rate_hz),
                channels=channels,
                format="FLAC" if is_flac else "RF64" if large else "WAV",
                subtype=subtype,
            )
        except (OSError, soundfile.LibsndfileError) as error:
            self._draft.unlink(missing_ok=True)
            raise OSError(f"{self.path}: cannot be written: {reason(error)}") from error

    def write(self, block: Audio) -> None:
        """Appends a block; fails without leaving a half-written file under the final name."""
        import soundfile

        if not np.isfinite(block).all():
            raise ValueError(f"{self.path}: refused to write NaN or infinite samples")
        magnitude = np.abs(block)
        self._peak = max(self._peak, float(magnitude.max(initial=0.0)))
        if self._subtype != "FLOAT":
            full = 2.0 ** (8 * SUBTYPES[self._subtype] - 1)
            self._clipped += int((np.round(magnitude * full) > full).sum())
            block = int16.from_float(block) if self._subtype == "PCM_16" else _of_24_bits(block)
        try:
            self._file.write(block)
        except (
            OSError,
            AssertionError,
            soundfile.LibsndfileError,
        ) as error:  # assert: a short write
            raise self._no_write(error) from error
        self._samples += len(block)

    def close(self) -> Written:
        """Puts the finished file in place and returns what it holds."""
        import soundfile

        try:
            self._file.close()
            os.replace(self._draft, self.path)
        except (OSError, soundfile.LibsndfileError) as error:
            fault = self._no_write(error)
            self.abort()
            raise fault from error
        self.written = Written(self.path, self._samples, self._peak, self._clipped)
        if self._clipped:
            warnings.warn(
                f"{self.path}: {self._clipped} samples beyond full scale were clipped "
                f"(peak {self.written.peak_db:+.1f} dB); write float, or lower the gain",
                AudioFileWarning,
                stacklevel=2,
            )
        return self.written

    def _no_write(self, error: Exception) -> OSError:
        """Why writing failed: libsndfile does not say it, but the system does at the next byte."""
        try:
            with self._draft.open("ab", buffering=0) as file:
                if file.write(bytes(1 << 16)) < 1 << 16:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as known:
            return atomic.no_write(self.path, known)
        return OSError(
            f"{self.path}: writing stopped after {self._samples} samples: {reason(error)}"
        )

    def abort(self) -> None:
        """Drops what was written; the final name is untouched."""
        with contextlib.suppress(Exception):
            self._file.close()
        self._draft.unlink(missing_ok=True)

    def __enter__(self) -> "WavWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def _of_24_bits(audio: Audio) -> Int32[np.ndarray, "time channel"]:
    """Float audio as 24-bit integers in the upper bits of 32, as libsndfile takes them."""
    whole = np.clip(np.round(audio * np.float64(1 << 23)), -(1 << 23), (1 << 23) - 1)
    return whole.astype(np.int32) << 8


def write_wav(
    path: str | os.PathLike[str], audio: Audio, *, sample_rate_hz: int, subtype: str = "PCM_16"
) -> Written:
    """Writes a whole WAV file (see WavWriter) and returns its peak and clipping."""
    audio = np.asarray(audio, np.float32)
    with WavWriter(
        path,
        sample_rate_hz=sample_rate_hz,
        channels=audio.shape[1],
        subtype=subtype,
        expected_samples=len(audio),
    ) as writer:
        writer.write(audio)
    assert writer.written is not None
    return writer.written
