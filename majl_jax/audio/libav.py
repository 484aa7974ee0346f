"""Audio decoded by FFmpeg, by way of PyAV: what libsndfile does not read, or not to its end."""

import contextlib
import importlib
import importlib.util
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from majl_jax.audio.faults import AudioFileError, reason
from majl_jax.audio.resampling import Block

HOW_TO_INSTALL = 'PyAV, which is not installed: pip install av (or "majl_jax[formats]")'
# FFmpeg's names of the kinds of `containers`. Others are not tried: a play list may name other
# files.
DEMUXERS = {
    "wav": "wav",
    "flac": "flac",
    "ogg": "ogg",
    "mp3": "mp3",
    "mp4": "mov",
    "matroska": "matroska",
    "adts": "aac",
    "asf": "asf",
    "aiff": "aiff",
    "au": "au",
    "caf": "caf",
    "w64": "w64",
}
# Of files that only FFmpeg reads.
SUFFIXES = (".m4a", ".mp4", ".mka", ".webm", ".aac", ".wma")
# Full scale of the sample formats; planar or not is the same.
SCALES = {"u8": 1 << 7, "s16": 1 << 15, "s32": 1 << 31, "flt": 1, "dbl": 1}
# Headers may count the padding of encoders at both ends.
SLACK_S = 0.25


def is_installed() -> bool:
    """Whether PyAV is there."""
    return importlib.util.find_spec("av") is not None


def lacking(path: str | os.PathLike[str]) -> str:
    """What reading a file of this suffix takes, where that is not installed; else empty."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES or is_installed():
        return ""
    return f"{suffix} files are read with {HOW_TO_INSTALL}"


class Stream:
    """The first audio stream of an open file."""

    def __init__(self, path: str | os.PathLike[str], kind: str) -> None:
        """Opens a file of a kind of `containers`; AudioFileError where it cannot be opened."""
        if not is_installed():
            raise AudioFileError(f"{path}: reading it takes {HOW_TO_INSTALL}")
        self._av = importlib.import_module("av")
        # What FFmpeg has to say goes to the screen otherwise; what matters is an error here.
        self._av.logging.set_libav_level(self._av.logging.PANIC)
        self._kind, self._stack = kind, contextlib.ExitStack()
        try:
            # A file, not its name: that may be one that FFmpeg takes for an address, or not UTF-8.
            file = pathlib.Path(path).open("rb")  # noqa: SIM115
            self._stack.callback(file.close)
            self._container = self._stack.enter_context(
                self._av.open(file, format=DEMUXERS[kind], metadata_errors="replace")
            )
            streams: list[Any] = list(self._container.streams.audio)
            if not streams:
                raise AudioFileError(f"{path}: holds no audio stream")
            self._stream = streams[0]
            codec: Any = self._stream.codec_context
            if codec is None:
                raise AudioFileError(f"{path}: its audio is of a codec that FFmpeg does not know")
            self.count, self.codec = len(streams), codec.name
            self.sample_rate_hz, self.channels = int(codec.sample_rate), int(codec.channels)
        except (self._av.FFmpegError, ValueError, OverflowError) as error:
            self.close()
            if isinstance(error, AudioFileError):
                raise
            raise AudioFileError(
                f"{path}: FFmpeg cannot open it ({reason(error)}): it may be damaged, or cut off "
                "early; copy or export it again"
            ) from error

    @property
    def announced(self) -> int:
        """The length that the header says, in samples; 0 where it says none."""
        stream, seconds = self._stream, 0.0
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        elif self._container.duration:
            start = stream.start_time * float(stream.time_base) if stream.start_time else 0.0
            seconds = self._container.duration / 1e6 - start
        return max(0, round(seconds * self.sample_rate_hz))

    def blocks(self, block_samples: int) -> Iterator[Block]:
        """float32 [time, channel], block by block; AudioFileError, without the path, at damage.

        Of an MP3, what cannot be decoded is passed over, as all players do: its caller compares
        lengths.
        """
        limit = self.announced if self._kind == "mp4" else 0
        taken = 0
        for frame in self._frames():
            if (frame.sample_rate, len(frame.layout.channels)) != (
                self.sample_rate_hz,
                self.channels,
            ):
                raise AudioFileError(
                    f"the rate or the channels change at sample {taken}: "
                    f"{frame.sample_rate} Hz, {len(frame.layout.channels)} channels"
                )
            block = _floats(frame, self.channels)
            if limit:  # the last frame of AAC is padded
                block = block[: max(0, limit - taken)]
            taken += len(block)
            for start in range(0, len(block), block_samples):
                yield block[start : start + block_samples]

    def _frames(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                return
            except self._av.FFmpegError as error:
                if self._kind == "mp3" and not isinstance(error, self._av.EOFError):
                    continue
                raise AudioFileError(reason(error)) from error
            yield from frames

    def close(self) -> None:
        """Closes the file."""
        self._stack.close()


def _floats(frame: Any, channels: int) -> Block:
    array, planar = frame.to_ndarray(), frame.format.is_planar
    scale = SCALES.get(frame.format.name.removesuffix("p"))
    if scale is None:
        raise AudioFileError(f"samples of the format {frame.format.name} are not known")
    out = array.T if planar else array.reshape(-1, channels)
    if frame.format.name.startswith("u8"):
        out = out.astype(np.float32) - scale
    if scale > 1:
        out = out / np.float64(scale)
    return np.ascontiguousarray(out, np.float32)
