"""Audio files: read in blocks at any rate, written whole or not at all, with clear errors.

Arrays are float32 [time, channel], full scale = 1. libsndfile decodes WAV, FLAC, Ogg, MP3 and
AIFF; FFmpeg (PyAV, `pip install av`) MP4, Matroska, WebM, AAC, and what libsndfile refuses or
stops early in. A file is read to its real end, or refused; where other bytes remain, that is a
warning. To fewer channels: one, their mean, or the loudest where they cancel each other in it. To
more: from mono only, repeated.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float

from majl_jax.audio import containers, decoders
from majl_jax.audio.faults import AudioFileError, AudioFileWarning
from majl_jax.audio.resampling import Audio, Block, mix_channels, resample_blocks
from majl_jax.audio.wav_writer import WavWriter, Written, write_wav

__all__ = [
    "BLOCK_SAMPLES",
    "AudioFileError",
    "AudioFileWarning",
    "AudioInfo",
    "Path",
    "WavWriter",
    "Written",
    "downmix",
    "downmix_of",
    "inspect",
    "read",
    "safe_name",
    "stream",
    "write_wav",
]

Path = str | os.PathLike[str]
BLOCK_SAMPLES = 1 << 13  # of a damaged file, at most a block before the damage is lost
# A header that says less or more is damaged, and would make hours of a second.
RATES_HZ = (1_000, 1_000_000)


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


def inspect(path: Path, *, allow_truncated: bool = False, headers_only: bool = False) -> AudioInfo:
    """Looks at the headers; AudioFileError for a file missing, empty, no audio, or visibly cut off.

    headers_only: without reading on where a header says the length, right or wrong: quick for many
    files.
    """
    with _open(path, allow_truncated, tell=False, headers_only=headers_only) as decoder:
        return _info(path, decoder)


def stream(
    path: Path,
    *,
    sample_rate_hz: int | None = None,
    channels: int | None = None,
    block_samples: int = BLOCK_SAMPLES,
    allow_truncated: bool = False,
) -> Iterator[Block]:
    """Yields the file in blocks of at most `block_samples` of its own samples, in constant memory.

    Raises AudioFileError where the file stops being usable (damage, NaN), after the good blocks
    before it. A silent file is read, with a warning.

    Args:
        path: the file.
        sample_rate_hz: what is wanted; None: that of the file.
        channels: how many are wanted; None: those of the file.
        block_samples: counted before resampling.
        allow_truncated: whether what is there of a truncated file is used.
    """
    with _open(path, allow_truncated, tell=True) as decoder:
        info = _info(path, decoder)
        blocks = _checked_blocks(info, decoder, block_samples, allow_truncated)
        mix = downmix(path, channels or info.channels, allow_truncated=allow_truncated)
        mixed = map(mix, blocks)
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


def downmix(
    path: Path, channels: int, *, allow_truncated: bool = False
) -> Callable[[Block], Block]:
    """A function that brings the blocks of a file, in their order, to so many channels.

    See `downmix_of`; it is looked at again where its channels may cancel each other.
    """
    again = functools.partial(stream, path, allow_truncated=allow_truncated)
    return downmix_of(again, channels, name=str(path))


def downmix_of(
    again: Callable[[], Iterable[Block]], channels: int, *, name: str
) -> Callable[[Block], Block]:
    """A function that brings the blocks of a song, in their order, to so many channels.

    One channel is the mean of the song's; but where that is silence (one channel is the other with
    the sign changed) in the first block with sound, the whole song is looked at, and if it is so
    all over, its loudest channel is taken, with a warning.

    Args:
        again: gives the blocks of the song once more.
        channels: how many are wanted.
        name: of the song, for the warning.
    """
    loudest: int | None = None
    undecided = channels == 1

    def mix(block: Block) -> Float[np.ndarray, "_ mixed"]:
        nonlocal loudest, undecided
        if undecided and block.any():
            undecided = False
            if _cancels(float(np.square(block.mean(1)).sum()), np.square(block).sum(0)):
                loudest = _cancelled(again(), name)
        return mix_channels(block, channels) if loudest is None else block[:, [loudest]]

    return mix


def _cancels(mean: float, each: np.ndarray) -> bool:
    """Whether the energy of the channels' mean is 30 dB below that of the channels."""
    return len(each) > 1 and mean < 1e-3 * float(each.mean())


def _cancelled(blocks: Iterable[Block], name: str) -> int | None:
    """The loudest channel of a song whose channels cancel each other; None where they do not."""
    with warnings.catch_warnings():  # said when the file is read for what it is needed for
        warnings.simplefilter("ignore", AudioFileWarning)
        mean, each = 0.0, np.zeros(1)
        for block in blocks:
            mean += float(np.square(block.mean(1), dtype=np.float64).sum())
            each = each + np.square(block, dtype=np.float64).sum(0)
    if not _cancels(mean, each):
        return None
    loudest = int(np.argmax(each))
    warnings.warn(
        f"{name}: its channels cancel each other in their mean (has one the wrong polarity?);"
        f" channel {loudest + 1} is used instead",
        AudioFileWarning,
        stacklevel=4,
    )
    return loudest


def safe_name(text: str) -> str:
    """Turns any text into a file name: no separator, no leading dot, 1 to 100 bytes."""
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"[^\w\-. ()+]", "_", text).strip(". ")
    return text.encode()[:100].decode(errors="ignore").strip(". ") or "track"


@contextlib.contextmanager
def _open(
    path: Path, allow_truncated: bool, *, tell: bool, headers_only: bool = False
) -> Iterator[decoders.Decoder]:
    """The open file, after the checks that need no decoding; tell: reservations are warnings."""
    path = pathlib.Path(path)
    if not path.exists():
        raise AudioFileError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise AudioFileError(f"{path}: is a folder; name the audio files in it")
    try:
        found = containers.look(path, headers_only=headers_only)
        if not path.stat().st_size:
            raise AudioFileError(f"{path}: the file is empty (0 bytes); copy or export it again")
        if found.damaged:
            raise AudioFileError(f"{path}: {found.damaged}; copy or export it again")
        if found.truncated:
            _truncated(f"{path}: {found.truncated}", allow_truncated, tell=tell)
        decoder = decoders.open_file(path, found)
    except OSError as error:
        if isinstance(error, PermissionError) or not os.access(path, os.R_OK):
            raise AudioFileError(
                f"{path}: not allowed to read it; check its permissions"
            ) from error
        raise AudioFileError(f"{path}: cannot be read ({error.strerror})") from error
    with contextlib.closing(decoder):
        _check_header(path, decoder)
        remarks = () if found.truncated else found.remarks
        for remark in (*remarks, *decoder.remarks) if tell else ():
            warnings.warn(f"{path}: {remark}", AudioFileWarning, stacklevel=4)
        yield decoder


def _check_header(path: pathlib.Path, decoder: decoders.Decoder) -> None:
    low, high = RATES_HZ
    if not low <= decoder.sample_rate_hz <= high:
        raise AudioFileError(
            f"{path}: its header says {decoder.sample_rate_hz} Hz, expected {low} to {high} Hz: is "
            "it damaged?"
        )
    if not decoder.samples:
        raise AudioFileError(f"{path}: has no samples (length zero); export it again")


def _info(path: Path, decoder: decoders.Decoder) -> AudioInfo:
    return AudioInfo(
        pathlib.Path(path),
        decoder.sample_rate_hz,
        decoder.channels,
        decoder.samples,
        decoder.format,
    )


def _truncated(
    message: str, allow_truncated: bool, *, tell: bool = True, damaged: bool = False
) -> None:
    if not allow_truncated:
        raise AudioFileError(
            f"{message}: the file is truncated{' or damaged' * damaged}; copy or export it again, "
            "or allow truncated files to use what is there"
        )
    if tell:
        warnings.warn(f"{message}; using what is there", AudioFileWarning, stacklevel=4)


def _checked_blocks(
    info: AudioInfo, decoder: decoders.Decoder, block_samples: int, allow_truncated: bool
) -> Iterator[Block]:
    """Decodes in blocks; stops with a named position at damage, NaN or infinity."""
    position, silent, fault = 0, True, ""
    blocks = decoder.blocks(block_samples)
    while True:
        try:
            block = next(blocks, None)
        except decoders.DecodingError as error:
            block, fault = None, str(error)
        if block is None:
            if fault or position + decoder.slack_samples < info.samples:
                _truncated(
                    f"{info.path}: decoding ends at sample {position} of {info.samples} "
                    f"({position / info.sample_rate_hz:.3f} s){', ' * bool(fault)}{fault}",
                    allow_truncated,
                    damaged=bool(fault),
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
