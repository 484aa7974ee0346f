"""Audio files: read in blocks at any rate, written whole or not at all, with clear errors.

Arrays are float32 [time, channel], full scale = 1. What libsndfile decodes is read (WAV, FLAC, Ogg,
MP3, AIFF). To fewer channels: one, their mean. To more: from mono only, repeated.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import types
import unicodedata
import warnings
from collections.abc import Iterator

import numpy as np

from majl_jax.audio import int16
from majl_jax.audio.resampling import Audio, Block, mix_channels, resample_blocks

Path = str | os.PathLike[str]
BLOCK_SAMPLES = 1 << 13  # of a damaged file, at most a block before the damage is lost
MP3_SLACK_SAMPLES = 4608  # four frames: encoders disagree by as much about an MP3's length
STREAMED_BYTES = 0x7FFFFF00  # programs that write WAV into a pipe announce a length of this or more
WAV_LIMIT_BYTES = 4_000_000_000  # beyond it the same samples are written as RF64


class AudioFileError(ValueError):
    """A file that cannot be used as audio; the message names the file, the fault and what to do."""


class AudioFileWarning(UserWarning):
    """A file that can be used, with a reservation: silence, clipping, a missing end."""


@dataclasses.dataclass(frozen=True)
class AudioInfo:
    """What a file's header says."""

    path: pathlib.Path
    sample_rate_hz: int
    channels: int
    samples: int
    format: str

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples / self.sample_rate_hz


def inspect(path: Path, *, allow_truncated: bool = False) -> AudioInfo:
    """Reads the header and refuses what is missing, empty, not audio, or visibly cut off."""
    with _open(path, allow_truncated) as file:
        return _info(path, file)


def stream(
    path: Path,
    *,
    sample_rate_hz: int | None = None,
    channels: int | None = None,
    block_samples: int = BLOCK_SAMPLES,
    allow_truncated: bool = False,
) -> Iterator[Block]:
    """Yields the file in blocks of at most `block_samples` of its own samples, in constant memory.

    sample_rate_hz, channels: what is wanted; None keeps the file's. Raises AudioFileError where the
    file stops being usable (damage, NaN), after the good blocks before it. A silent file is read,
    with a warning.
    """
    with _open(path, allow_truncated) as file:
        info = _info(path, file)
        blocks = _checked_blocks(info, file, block_samples, allow_truncated)
        mixed = blocks if channels is None else (mix_channels(b, channels) for b in blocks)
        if sample_rate_hz is None:
            yield from mixed
        else:
            yield from resample_blocks(
                mixed, source_hz=info.sample_rate_hz, target_hz=sample_rate_hz
            )


def read(
    path: Path,
    *,
    sample_rate_hz: int | None = None,
    channels: int | None = None,
    allow_truncated: bool = False,
) -> tuple[Audio, int]:
    """Returns the whole file and its sample rate, converted as in `stream`."""
    info = inspect(path, allow_truncated=allow_truncated)
    blocks = stream(
        path,
        sample_rate_hz=sample_rate_hz,
        channels=channels,
        allow_truncated=allow_truncated,
    )
    rate_hz = info.sample_rate_hz if sample_rate_hz is None else sample_rate_hz
    return np.concatenate(list(blocks)), rate_hz


def safe_name(text: str) -> str:
    """Turns any text into a file name: no separator, no leading dot, 1 to 100 bytes."""
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"[^\w\-. ()+]", "_", text).strip(". ")
    return text.encode()[:100].decode(errors="ignore").strip(". ") or "track"


def _info(path: Path, file) -> AudioInfo:
    return AudioInfo(pathlib.Path(path), file.samplerate, file.channels, file.frames, file.format)


@contextlib.contextmanager
def _open(path: Path, allow_truncated: bool) -> Iterator:
    """The open file, after the checks that need no decoding."""
    import soundfile

    path = pathlib.Path(path)
    if not path.exists():
        raise AudioFileError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise AudioFileError(f"{path}: is a folder; name the audio files in it")
    try:
        size_bytes = path.stat().st_size
        if not size_bytes:
            raise AudioFileError(f"{path}: the file is empty (0 bytes); copy or export it again")
        file = _forward_only(path)
    except (OSError, soundfile.LibsndfileError) as error:
        if isinstance(error, PermissionError) or not os.access(path, os.R_OK):
            raise AudioFileError(
                f"{path}: not allowed to read it; check its permissions"
            ) from error
        raise AudioFileError(
            f"{path}: not audio that can be decoded ({size_bytes} bytes, {_reason(error)}); "
            "expected WAV, FLAC, Ogg, MP3 or AIFF: it may be another kind of file, or cut off early"
        ) from error
    with file:
        if fault := _announced_end(path, file):
            _truncated(f"{path}: {fault}", allow_truncated)
        if not file.frames:
            raise AudioFileError(f"{path}: has no samples (length zero); export it again")
        yield file


def _forward_only(path: pathlib.Path):
    """Opens a file for reading from start to end.

    soundfile seeks to the current position after each read; in MP3 files of varying bit rate that
    lands elsewhere, and blocks do not join. It does not where a file says that it cannot seek.
    """
    import soundfile

    class ForwardOnly(soundfile.SoundFile):
        def seekable(self) -> bool:
            return False

    return ForwardOnly(path)


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", None) or str(error)
    return " ".join(text.split()).rstrip(".") or "unknown fault"


def _announced_end(path: pathlib.Path, file) -> str | None:
    """Says how much is missing when the header or the container tells, else None."""
    for declared, present in re.findall(
        r"(?:data|SSND) : (\d+) \(should be (\d+)\)", file.extra_info
    ):
        if int(present) < int(declared) < STREAMED_BYTES:
            return f"holds {present} of the {declared} bytes its header announces"
    if file.format == "OGG":
        with open(path, "rb") as raw:
            raw.seek(max(0, path.stat().st_size - (1 << 17)))  # an Ogg page is at most 64 KiB
            end = raw.read()
        page = end.rfind(b"OggS")
        if page >= 0 and len(end) > page + 5 and not end[page + 5] & 0x04:
            return "the Ogg stream has no last page"
    return None


def _truncated(message: str, allow_truncated: bool) -> None:
    if not allow_truncated:
        raise AudioFileError(
            f"{message}: the file is truncated; copy or export it again, or allow truncated files "
            "to use what is there"
        )
    warnings.warn(f"{message}; using what is there", AudioFileWarning, stacklevel=3)


def _checked_blocks(
    info: AudioInfo, file, block_samples: int, allow_truncated: bool
) -> Iterator[Block]:
    """Decodes in blocks; stops with a named position at damage, NaN or infinity."""
    import soundfile

    position, silent = 0, True
    while True:
        fault = ""
        try:
            block = file.read(block_samples, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            block, fault = np.zeros((0, info.channels), np.float32), _reason(error)
        slack_samples = MP3_SLACK_SAMPLES if "MP3" in info.format or "MPEG" in info.format else 0
        if not len(block):
            if fault or position + slack_samples < info.samples:
                _truncated(
                    f"{info.path}: decoding ends at sample {position} of {info.samples} "
                    f"({position / info.sample_rate_hz:.3f} s){', ' * bool(fault)}{fault}",
                    allow_truncated,
                )
            break
        bad = ~np.isfinite(block)
        if bad.any():
            row, channel = np.argwhere(bad)[0]
            sample = position + int(row)
            raise AudioFileError(
                f"{info.path}: sample {sample} ({sample / info.sample_rate_hz:.3f} s), channel "
                f"{channel}, is {block[row, channel]}; expected numbers: export it again"
            )
        silent = silent and not block.any()
        position += len(block)
        yield block
    if not position:
        raise AudioFileError(f"{info.path}: not one sample could be decoded; export it again")
    if silent:
        warnings.warn(
            f"{info.path}: every sample is zero: silence in, silence out",
            AudioFileWarning,
            stacklevel=2,
        )


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
    """Writes blocks into a WAV file that appears under its name only once it is complete.

    subtype "FLOAT" keeps what lies beyond full scale; "PCM_16" limits it to full scale and warns.
    """

    def __init__(
        self,
        path: Path,
        *,
        sample_rate_hz: int,
        channels: int,
        subtype: str = "FLOAT",
        expected_samples: int = 0,
    ) -> None:
        import soundfile

        if subtype not in ("FLOAT", "PCM_16"):
            raise ValueError(f"subtype is {subtype!r}; expected 'FLOAT' or 'PCM_16'")
        self.path = pathlib.Path(path)
        self._draft = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._limit = subtype == "PCM_16"
        large = expected_samples * channels * (2 if self._limit else 4) > WAV_LIMIT_BYTES
        self._samples, self._peak, self._clipped = 0, 0.0, 0
        self.written: Written | None = None
        try:
            self._file = soundfile.SoundFile(
                self._draft,
                "w",
                samplerate=int(sample_rate_hz),
                channels=channels,
                format="RF64" if large else "WAV",
                subtype=subtype,
            )
        except (OSError, soundfile.LibsndfileError) as error:
            raise OSError(f"{self.path}: cannot be written: {_reason(error)}") from error

    def write(self, block: Audio) -> None:
        """Appends a block; fails without leaving a half-written file under the final name."""
        import soundfile

        if not np.isfinite(block).all():
            raise ValueError(f"{self.path}: refused to write NaN or infinite samples")
        magnitude = np.abs(block)
        self._peak = max(self._peak, float(magnitude.max(initial=0.0)))
        if self._limit:
            beyond = np.round(magnitude * int16.FULL_SCALE) > int16.FULL_SCALE
            self._clipped += int(beyond.sum())
            block = int16.from_float(block)
        try:
            self._file.write(block)
        except (
            OSError,
            AssertionError,
            soundfile.LibsndfileError,
        ) as error:  # assert: a short write
            raise OSError(
                f"{self.path}: writing stopped after {self._samples} samples: {_reason(error)}; "
                "is the disk full?"
            ) from error
        self._samples += len(block)

    def close(self) -> Written:
        """Puts the finished file in place and returns what it holds."""
        import soundfile

        try:
            self._file.close()
            os.replace(self._draft, self.path)
        except (OSError, soundfile.LibsndfileError) as error:
            self.abort()
            raise OSError(f"{self.path}: cannot be finished: {_reason(error)}") from error
        self.written = Written(self.path, self._samples, self._peak, self._clipped)
        if self._clipped:
            warnings.warn(
                f"{self.path}: {self._clipped} samples beyond full scale were clipped "
                f"(peak {self.written.peak_db:+.1f} dB); write float, or lower the gain",
                AudioFileWarning,
                stacklevel=2,
            )
        return self.written

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


def write_wav(path: Path, audio: Audio, *, sample_rate_hz: int, subtype: str = "PCM_16") -> Written:
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
