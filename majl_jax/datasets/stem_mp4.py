"""Audio streams of an MP4 file, such as the five of a stem.mp4, decoded by PyAV (`pip install
av`).
"""

import importlib
import importlib.util
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from majl_jax.audio import resampling
from majl_jax.datasets.track import BadTrack


def can_be_read() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def read_stream(
    path: pathlib.Path, number: int, *, sample_rate_hz: int, channels: int
) -> resampling.Audio:
    """The whole of a `stream`."""
    return np.concatenate(
        list(stream(path, number, sample_rate_hz=sample_rate_hz, channels=channels))
    )


def stream(
    path: pathlib.Path, number: int, *, sample_rate_hz: int, channels: int
) -> Iterator[resampling.Block]:
    """The audio stream of this number (from 0), at another rate and number of channels, block by
    block.

    BadTrack where the file cannot be decoded, has no such stream, or ends before its header says.
    """
    av = importlib.import_module("av")
    if not path.is_file():
        raise BadTrack(f"{path}: no such file")
    try:
        with av.open(str(path)) as container:
            audio: list[Any] = list(container.streams.audio)
            if number >= len(audio):
                raise BadTrack(
                    f"{path}: {len(audio)} audio streams, expected {number + 1} or more: is it a "
                    "stem.mp4?"
                )
            chosen = audio[number]
            blocks = (
                resampling.mix_channels(block, channels) for block in _decode(container, chosen)
            )
            samples, declared = 0, int(_samples(chosen) / chosen.rate * sample_rate_hz)
            for block in resampling.resample_blocks(
                blocks, source_hz=chosen.rate, target_hz=sample_rate_hz
            ):
                samples += len(block)
                yield block
    except av.FFmpegError as error:
        raise BadTrack(
            f"{path}: cannot be decoded ({error.strerror}); is it a stem.mp4, and whole?"
        ) from error
    if samples < declared:
        raise BadTrack(
            f"{path}: stream {number} ends at {samples / sample_rate_hz:.2f} s of "
            f"{declared / sample_rate_hz:.2f} s: the file is truncated; copy it again"
        )


def _samples(stream: Any) -> int:
    """The length that the header of a stream announces."""
    if stream.duration is None:
        raise BadTrack(
            f"audio stream {stream.index} does not say how long it is: is the file whole?"
        )
    return round(stream.duration * stream.time_base * stream.rate)


def _decode(container: Any, stream: Any) -> Iterator[resampling.Block]:
    """float32 [time, channel] block by block, without the padding of the last AAC frame."""
    left = _samples(stream)
    for frame in container.decode(stream):
        block = frame.to_ndarray()
        if block.dtype != np.float32 or not frame.format.is_planar:
            raise BadTrack(f"{stream.codec_context.name} decodes to {frame.format.name}, not fltp")
        block = block.T[:left]
        left -= len(block)
        if len(block):
            yield block
