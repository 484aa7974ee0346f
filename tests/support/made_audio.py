"""Small audio files of every format, by real encoders, and the ways in which files are spoilt."""

import pathlib
import struct
from typing import Any

import numpy as np
import soundfile
from places import SHARED

RATE_HZ = 16_000
CASES = SHARED / "cases"


def sound(seconds: float = 3.0, rate_hz: int = RATE_HZ) -> np.ndarray:
    """A tone whose loudness comes and goes, so that encoders vary their rate."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(0).standard_normal(len(time))
    loud = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * time / 1.5))
    return (0.3 * np.sin(2 * np.pi * 300 * time) + 0.1 * loud * noise).astype(np.float32)


def encode(path, codec: str, *, rate_hz: int = RATE_HZ, seconds: float = 3.0, **more: Any):
    """A file of `sound` by FFmpeg's encoders, see `encode_audio`."""
    return encode_audio(path, codec, sound(seconds, rate_hz)[:, None], rate_hz, **more)


def encode_audio(path, codec: str, audio: np.ndarray, rate_hz: int, **more: Any):
    """A file of audio [time, channel] by FFmpeg's encoders.

    more: container (its name), sample_format, muxer and encoder (options).
    """
    import av

    layout = "stereo" if audio.shape[1] == 2 else "mono"

    muxer = {key: str(value) for key, value in more.get("muxer", {}).items()}
    encoder = {key: str(value) for key, value in more.get("encoder", {}).items()}
    with av.open(str(path), "w", format=more.get("container"), options=muxer) as file:
        stream: Any = file.add_stream(codec, rate=rate_hz, layout=layout, options=encoder)
        context = stream.codec_context
        if "sample_format" in more:
            context.format = more["sample_format"]
        context.open()
        planes = np.ascontiguousarray(audio.T)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        frame.rate = rate_hz
        resampler = av.AudioResampler(
            format=context.format,
            layout="mono",
            rate=rate_hz,
            frame_size=context.frame_size or 4096,
        )
        frames = [*resampler.resample(frame), *resampler.resample(None), None]
        for packet in (packet for one in frames for packet in stream.encode(one)):
            if packet.size:
                file.mux(packet)
    return path


def make(folder: pathlib.Path, name: str, seconds: float = 3.0) -> pathlib.Path:
    """The file of this name: its suffix is the container, the word before it what is particular."""
    path, kind = folder / name, pathlib.Path(name).suffix
    long = {"seconds": seconds}
    match name:
        case "vbr.mp3":
            quality = {"flags": "+qscale", "global_quality": 2 * 118}
            return encode(path, "libmp3lame", muxer={"write_xing": 0}, encoder=quality, **long)
        case "mp3_in.wav":
            return encode(path, "libmp3lame", **long)
        case "32_bits.flac":
            options = {"strict": "experimental", "bits_per_raw_sample": 32}
            return encode(path, "flac", sample_format="s32", encoder=options, **long)
        case "flac_in.ogg" | "flac_in.oga":
            return encode(path, "flac", container="ogg", **long)
        case "alac.m4a":
            return encode(path, "alac", **long)
    match kind:
        case ".m4a" | ".mp4" | ".mka":
            return encode(path, "aac", **long)
        case ".webm":
            return encode(path, "libopus", rate_hz=48_000, **long)
        case ".aac":
            return encode(path, "aac", container="adts", **long)
        case ".opus":
            soundfile.write(path, sound(seconds), RATE_HZ, format="OGG", subtype="OPUS")
        case _:
            soundfile.write(path, sound(seconds), RATE_HZ)
    return path


def unknown_length(path: pathlib.Path) -> pathlib.Path:
    """A FLAC file whose header says no length, as encoders write it into a pipe."""
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    return path


def data_size(path: pathlib.Path, size: int) -> pathlib.Path:
    """A WAV file whose chunk of samples announces this size."""
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(data)
    return path


def add(path: pathlib.Path, more: bytes) -> pathlib.Path:
    """The file with these bytes behind it."""
    path.write_bytes(path.read_bytes() + more)
    return path


def ffmpeg_samples(path: pathlib.Path) -> int:
    """How many samples FFmpeg decodes, packet by packet as its command line does."""
    import av

    with av.open(str(path), metadata_errors="replace") as file:
        stream, samples = file.streams.audio[0], 0
        for packet in file.demux(stream):
            try:
                samples += sum(frame.samples for frame in packet.decode())
            except av.FFmpegError:
                continue
    return samples


ID3V1 = b"TAG" + b"a song".ljust(125, b"\0")
