"""Open audio files, decoded by libsndfile or by FFmpeg, whichever reads them to their end."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from majl_jax.audio import containers, libav
from majl_jax.audio.faults import AudioFileError, reason
from majl_jax.audio.resampling import Block

# Kinds of which FFmpeg reads on where another file follows the first.
READ_ON = ("flac", "ogg", "mp3", "adts", "matroska")
# libsndfile's number of samples of a FLAC file that does not say it.
UNKNOWN = (1 << 63) - 1


class DecodingError(Exception):
    """Decoding stopped; the message says why, without the file's name."""


@runtime_checkable
class Decoder(Protocol):
    """An open file.

    samples: by its headers; slack_samples: by how many fewer may come out of it.
    """

    sample_rate_hz: int
    channels: int
    samples: int
    slack_samples: int
    format: str
    remarks: tuple[str, ...]

    def blocks(self, block_samples: int) -> Iterator[Block]:
        """float32 [time, channel], of at most so many samples; DecodingError at damage."""
        ...

    def close(self) -> None:
        """Closes the file."""
        ...


def open_file(path: pathlib.Path, found: containers.Contents) -> Decoder:
    """The decoder that reads a file to its end; AudioFileError where none does."""
    import soundfile

    if found.kind in containers.ONLY_LIBAV or found.beyond_libsndfile:
        return _Libav(path, found)
    try:
        decoder = _Sndfile(path, found)
    except soundfile.LibsndfileError as error:
        return _instead(path, found, reason(error))
    if found.kind == "mp3" and found.samples:
        if decoder.samples + found.slack_samples < found.samples:
            return _Libav(path, found)
        decoder.samples = min(decoder.samples, found.samples)
    return decoder


def _instead(path: pathlib.Path, found: containers.Contents, said: str) -> Decoder:
    """FFmpeg's decoder where libsndfile does not open a file."""
    size_bytes = path.stat().st_size
    refusal = f"{path}: not audio that can be decoded ({size_bytes} bytes, {said}); expected "
    if found.kind in libav.DEMUXERS and not libav.is_installed():
        raise AudioFileError(
            f"{refusal}WAV, FLAC, Ogg, MP3 or AIFF: if it is one that libsndfile does not know, "
            f"reading it takes {libav.HOW_TO_INSTALL}; or it is cut off early"
        )
    try:
        if found.kind in libav.DEMUXERS:
            return _Libav(path, found)
    except AudioFileError as error:
        raise AudioFileError(
            f"{refusal}WAV, FLAC, Ogg, MP3, AIFF, MP4 or Matroska: it may be cut off early"
        ) from error
    raise AudioFileError(
        f"{refusal}WAV, FLAC, Ogg, MP3, AIFF, MP4 or Matroska: it may be another kind of file, or "
        "cut off early"
    )


def _count(decoder: "_Sndfile | libav.Stream") -> int:
    """The samples up to the end or to damage of a file that does not say how many there are."""
    samples = 0
    with contextlib.suppress(DecodingError, AudioFileError), contextlib.closing(decoder):
        for block in decoder.blocks(1 << 16):
            samples += len(block)
    return samples


class _Sndfile:
    """The parts of a file one after the other, by libsndfile."""

    remarks = ()

    def __init__(self, path: pathlib.Path, found: containers.Contents) -> None:
        self._path, self._parts = path, found.parts
        headers = []
        for part in self._parts:
            with self._open(part) as file:
                headers.append((file.samplerate, file.channels, file.frames))
                self.format, subtype = file.format, file.subtype
        kinds = {header[:2] for header in headers}
        if len(kinds) > 1:
            listed = ", ".join(f"{rate} Hz × {channels}" for rate, channels in sorted(kinds))
            raise AudioFileError(
                f"{path}: holds {len(headers)} joined files of several rates or numbers of "
                f"channels ({listed}); separate them"
            )
        ((self.sample_rate_hz, self.channels),) = kinds
        self.samples = sum(frames for *_, frames in headers)
        is_mpeg = "MP3" in self.format or "MPEG" in subtype
        self.slack_samples = containers.mpeg.ENCODER_SAMPLES if is_mpeg else 0
        if self.samples >= UNKNOWN:
            self.samples = _count(self)

    @contextlib.contextmanager
    def _open(self, part: containers.Part) -> Iterator[Any]:
        """Opens a part for reading from start to end.

        soundfile seeks to the current position after each read; in MP3 files of varying bit rate
        that lands elsewhere, and blocks do not join. It does not where a file says that it cannot
        seek.
        """
        import soundfile

        class ForwardOnly(soundfile.SoundFile):
            def seekable(self) -> bool:
                return False

        if part == (0, self._path.stat().st_size, ()):
            # Bytes: soundfile refuses a name that is not UTF-8.
            name: Any = self._path if os.name == "nt" else os.fsencode(self._path)
            with ForwardOnly(name) as file:
                yield file
        else:
            # soundfile takes any object with read and seek; its stubs do not say so.
            source: Any = containers.Stretch(self._path, part)
            with source, ForwardOnly(source) as file:
                yield file

    def blocks(self, block_samples: int) -> Iterator[Block]:
        """float32 [time, channel]; DecodingError at damage."""
        import soundfile

        for part in self._parts:
            with self._open(part) as file:
                while True:
                    try:
                        block = file.read(block_samples, dtype="float32", always_2d=True)
                    except soundfile.LibsndfileError as error:
                        raise DecodingError(reason(error)) from error
                    if not len(block):
                        break
                    yield block

    def close(self) -> None:
        """Nothing stays open."""


class _Libav:
    """A file by FFmpeg."""

    def __init__(self, path: pathlib.Path, found: containers.Contents) -> None:
        if len(found.parts) > 1 and found.kind not in READ_ON:
            raise AudioFileError(
                f"{path}: holds {len(found.parts)} joined files, of which FFmpeg reads the first; "
                "separate them"
            )
        self._stream = libav.Stream(path, found.kind)
        self.sample_rate_hz, self.channels = self._stream.sample_rate_hz, self._stream.channels
        self.format = f"{found.kind}/{self._stream.codec}"
        self.slack_samples = found.slack_samples
        # Of bare AAC frames FFmpeg guesses the length from the rate of the first.
        guessed = found.kind == "adts"
        self.samples = found.samples or (0 if guessed else self._stream.announced)
        if not found.samples:
            self.slack_samples = round(libav.SLACK_S * self.sample_rate_hz)
        if not self.samples:
            self.samples = _count(libav.Stream(path, found.kind))
        several = f"holds {self._stream.count} audio streams, of which the first is read"
        self.remarks = (several,) if self._stream.count > 1 else ()

    def blocks(self, block_samples: int) -> Iterator[Block]:
        """float32 [time, channel]; DecodingError at damage."""
        try:
            yield from self._stream.blocks(block_samples)
        except AudioFileError as error:
            raise DecodingError(str(error)) from error

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()
