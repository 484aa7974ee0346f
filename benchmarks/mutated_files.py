"""Audio files of eight formats, spoilt in eight ways: each is read whole or refused by name.

    python -m benchmarks mutated_files --files=1000

A file that is read has the length that FFmpeg decodes, to a frame: of the file, or, where FFmpeg
itself believes a header or does not open it, of the file before the accident; of joined files, to a
frame each, of its parts. Printed are the counts and every file that is neither; the exit code is 1
if there is one.
"""

import argparse
import collections
import multiprocessing
import pathlib
import struct
import sys
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import soundfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "support"))

import made_audio

from majl_jax.audio import files
from majl_jax.audio.containers.mpeg import ENCODER_SAMPLES

# Samples of a frame, by which decoders may differ; of Ogg the largest block.
FORMATS = {
    "wav": 1,
    "flac": 4096,
    "ogg": 4096,
    "opus": 960,
    "mp3": 1152,
    "aiff": 1,
    "m4a": 1024,
    "mka": 1024,
}
WAYS = ("cut", "joined", "flipped", "header", "length", "tags", "NaN", "rate")
LONGEST_S = 60.0
GOOD = ("read whole", "refused")


def sound(rng: np.random.Generator, rate_hz: int, channels: int) -> np.ndarray:
    """Noise and a tone of one to three seconds, [time, channel]."""
    length = int(rng.uniform(1.0, 3.0) * rate_hz)
    time = np.arange(length)[:, None] / rate_hz
    tone = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 1000, channels) * time)
    return (tone + 0.05 * rng.standard_normal(tone.shape)).astype(np.float32)


def write(path: pathlib.Path, rng: np.random.Generator, rate_hz: int, channels: int) -> None:
    """A sound file of the format of its suffix."""
    audio, kind = sound(rng, rate_hz, channels), path.suffix[1:]
    match kind:
        case "m4a" | "mka":
            made_audio.encode_audio(path, "aac", audio, rate_hz)
        case "opus":
            soundfile.write(path, audio, rate_hz, format="OGG", subtype="OPUS")
        case "wav" | "aiff":
            soundfile.write(path, audio, rate_hz, subtype=str(rng.choice(["PCM_16", "FLOAT"])))
        case _:
            soundfile.write(path, audio, rate_hz)


def make(folder: pathlib.Path, number: int) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """The file of this number, and the sound files that it was made of."""
    rng = np.random.default_rng(number)
    kind, way = list(FORMATS)[number % 8], WAYS[number // 8 % 8]
    path = folder / f"{number}_{way}.{kind}"
    rates = (8000, 16000, 24000, 48000) if kind == "opus" else (16000, 22050, 44100, 48000)
    rate_hz, channels = int(rng.choice(rates)), int(rng.choice((1, 2)))
    write(path, rng, rate_hz, channels)
    parts = [path.rename(folder / f"{number}_first.{kind}")]
    if way == "joined":
        parts.append(folder / f"{number}_other.{kind}")
        same = number // 64 % 3 > 0
        write(parts[1], rng, rate_hz if same else rates[0], channels if same else 1)
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
    else:
        path.write_bytes(spoil(bytearray(parts[0].read_bytes()), rng, kind, way))
    return path, parts


def spoil(data: bytearray, rng: np.random.Generator, kind: str, way: str) -> bytes:
    """The bytes of a file after one accident."""
    size = len(data)
    match way:
        case "cut":
            return bytes(data[: int(rng.integers(1, size))])
        case "flipped":
            for at in rng.integers(0, size, int(rng.integers(1, 20))):
                data[at] ^= int(rng.integers(1, 256))
        case "header":
            for at in rng.integers(0, min(size, 100), int(rng.integers(1, 4))):
                data[at] ^= int(rng.integers(1, 256))
        case "length":
            set_length(data, rng, kind)
        case "tags":
            return tagged(bytes(data), rng)
        case "NaN":
            at = int(rng.integers(size // 2, size))
            word = struct.pack("<f" if kind == "wav" else ">f", float(rng.choice([np.nan, np.inf])))
            data[at - at % 4 : at - at % 4 + 40] = 10 * word
        case _:
            pass  # a rate and number of channels as they were drawn
    return bytes(data)


def set_length(data: bytearray, rng: np.random.Generator, kind: str) -> None:
    """Another length in the header: open, too small, too large."""
    if kind == "flac":
        total = int.from_bytes(data[22:26], "big")
        data[22:26] = int(rng.choice([0, total // 2, 2 * total])).to_bytes(4, "big")
        return
    mark = {"wav": b"data", "aiff": b"SSND", "m4a": b"mdhd", "mka": b"\x44\x89", "mp3": b"Info"}
    at = max(0, data.find(mark.get(kind, b"OggS"))) + 4
    order: Any = "<" if kind == "wav" else ">"
    (there,) = struct.unpack(f"{order}I", data[at : at + 4])
    lengths = [0, there // 2, (2 * there) & 0xFFFFFFFF, 0x7FFFF000, 0xFFFFFFFF]
    data[at : at + 4] = struct.pack(f"{order}I", int(rng.choice(lengths)))


def tagged(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with a tag, or something else, at one of its ends."""
    junk = rng.integers(0, 256, int(rng.integers(1, 3000)), np.uint8).tobytes()
    id3v2 = b"ID3\x04\0\0\0\0\x01\x00" + bytes(128)
    footer = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(8)
    more = [made_audio.ID3V1, footer, footer + made_audio.ID3V1, junk, bytes(len(junk))]
    choice = int(rng.integers(0, 7))
    return data + more[choice] if choice < 5 else (id3v2, junk)[choice - 5] + data


def ffmpeg_seconds(path: pathlib.Path) -> float:
    """How many seconds FFmpeg decodes of a file; 0 where it does not open it."""
    import av

    seconds = 0.0
    try:
        with av.open(str(path), metadata_errors="replace") as file:
            packets = file.demux(file.streams.audio[0])
            while (packet := next(packets, None)) is not None:
                try:
                    seconds += sum(one.samples / one.sample_rate for one in packet.decode())
                except av.FFmpegError:
                    continue
    except (av.FFmpegError, IndexError):
        pass
    return seconds


def judge(path: pathlib.Path, parts: Sequence[pathlib.Path]) -> tuple[str, str]:
    """What becomes of a file, and what is told."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            info = files.inspect(path)
            samples = sum(len(block) for block in files.stream(path))
        except files.AudioFileError as error:
            named = str(error).startswith(str(path)) and "\n" not in str(error)
            return ("refused" if named else "refused without its name"), str(error)
    told = "; ".join(str(one.message) for one in caught)
    frame_s = FORMATS[path.suffix[1:]] / info.sample_rate_hz * len(parts)
    read_s = samples / info.sample_rate_hz
    decoded = [ffmpeg_seconds(path), sum(map(ffmpeg_seconds, parts))]
    if any(abs(read_s - other) <= frame_s + 1e-6 for other in decoded):
        if "_cut" in path.name and not told and read_s < decoded[1] - frame_s:
            return "cut without a word", f"{read_s:.3f} of {decoded[1]:.3f} s"
        return "read whole", told
    # Where its header is spoilt, decoders differ about what an MP3's encoder put around the sound.
    padding_s = ENCODER_SAMPLES / info.sample_rate_hz if path.suffix == ".mp3" else 0.0
    if any(0 <= read_s - other <= padding_s for other in decoded):
        return "read whole", told
    what = "shorter" if read_s < min(decoded) else "longer"
    return f"{what} than FFmpeg", f"{read_s:.3f} s, FFmpeg {decoded[0]:.3f} s; {told}"


def _work(folder: pathlib.Path, number: int, answer: Any) -> None:
    answer.send(judge(*make(folder, number)))


def outcomes_of(count: int, folder: pathlib.Path, start: int = 0) -> dict[int, tuple[str, str]]:
    """What became of each file; each in a process of its own, which may crash or hang."""
    context = multiprocessing.get_context("fork")
    found = {}
    for number in range(start, start + count):
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(folder, number, theirs))
        process.start()
        theirs.close()
        there = mine.poll(LONGEST_S)
        try:
            found[number] = mine.recv() if there else ("hangs", f"after {LONGEST_S:.0f} s")
        except EOFError:
            process.join()
            found[number] = ("crashes", f"exit code {process.exitcode}")
        process.kill()
        process.join()
        for path in folder.glob(f"{number}_*"):
            path.unlink()
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which files."""
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0, help="number of the first file")
    parser.add_argument("--tell", action="store_true", help="what became of every file")


def run(options: argparse.Namespace) -> int:
    """Prints the counts; 1 if a file is neither read whole nor refused by name."""
    with tempfile.TemporaryDirectory() as folder:
        found = outcomes_of(options.files, pathlib.Path(folder), options.start)
    counts = collections.Counter(
        (list(FORMATS)[number % 8], outcome) for number, (outcome, _) in found.items()
    )
    outcomes = sorted({outcome for _, outcome in counts})
    print("format", *outcomes, sep="\t")
    for kind in FORMATS:
        print(kind, *(counts[kind, outcome] for outcome in outcomes), sep="\t")
    print("all", *(sum(counts[k, one] for k in FORMATS) for one in outcomes), sep="\t")
    refused = collections.Counter(
        (list(FORMATS)[number % 8], WAYS[number // 8 % 8])
        for number, (outcome, _) in found.items()
        if outcome == "refused"
    )
    print("\nrefused", *WAYS, sep="\t")
    for kind in FORMATS:
        print(kind, *(refused[kind, way] for way in WAYS), sep="\t")
    bad = {number: told for number, told in found.items() if told[0] not in GOOD}
    if options.tell:
        bad = found
    for number, (outcome, told) in bad.items():
        name = f"{number}: {WAYS[number // 8 % 8]} {list(FORMATS)[number % 8]}"
        print(f"{name} {outcome}: {told}")
    return 1 if any(outcome not in GOOD for outcome, _ in found.values()) else 0
