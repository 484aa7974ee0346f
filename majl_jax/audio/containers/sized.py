"""AIFF, AU, CAF and W64: files that say how long they are, and what follows that length."""

import struct
from collections.abc import Callable
from mmap import mmap

from majl_jax.audio.containers import mpeg
from majl_jax.audio.containers.contents import Contents, Part

# What programs announce that write into a pipe, or a little less: SoX 0x7f000000 for AIFF and
# 0x7ffff000 for WAV, others the largest number there is, with a sign or without.
OPEN_LENGTHS = (0x7F000000, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF)
_W64 = bytes.fromhex("72696666 2e91cf11a5d628db04c10000")
# Smaller than any header, so no length.
LEAST_BYTES = 24


def is_open(length: int) -> bool:
    """Whether a length is that of a program that did not know it."""
    return any(0 <= known - length < 0x1000 for known in OPEN_LENGTHS)


def _aiff(data: mmap, at: int) -> int | None:
    (size,) = struct.unpack(">I", data[at + 4 : at + 8])
    return None if is_open(size) else 8 + size + size % 2


def _au(data: mmap, at: int) -> int | None:
    offset, size = struct.unpack(">II", data[at + 4 : at + 12])
    return None if is_open(size) else offset + size


def _caf(data: mmap, at: int) -> int | None:
    start, at = at, at + 8
    while at + 12 <= len(data) and data[at : at + 4] != b"caff":
        (size,) = struct.unpack(">q", data[at + 4 : at + 12])
        if size < 0 or not all(32 <= byte < 127 for byte in data[at : at + 4]):
            break
        at += 12 + size
    return at - start


def _w64(data: mmap, at: int) -> int | None:
    (size,) = struct.unpack("<Q", data[at + 16 : at + 24])
    if size >= 1 << 62:
        return None
    padded = -(-size // 8) * 8
    # libsndfile does not pad the last chunk.
    return padded if at + padded <= len(data) else size


# By the bytes they begin with: the kind, and its length in bytes from these on, None if it is open.
LENGTHS: dict[bytes, tuple[str, Callable[[mmap, int], int | None]]] = {
    b"FORM": ("aiff", _aiff),
    b".snd": ("au", _au),
    b"caff": ("caf", _caf),
    _W64: ("w64", _w64),
}


def look(data: mmap, start: int) -> Contents | None:
    """The part of each of the joined files; None for another kind."""
    for magic, (kind, length_of) in LENGTHS.items():
        if data[start : start + len(magic)] == magic and len(data) - start >= LEAST_BYTES:
            return _parts(data, start, kind, magic, length_of)
    return None


def _parts(
    data: mmap, start: int, kind: str, magic: bytes, length_of: Callable[[mmap, int], int | None]
) -> Contents:
    end, at, parts = mpeg.before_tags(data, start, len(data)), start, []
    truncated, remarks = "", ()
    while data[at : at + len(magic)] == magic and end - at >= LEAST_BYTES:
        length = length_of(data, at)
        if length is None or length < LEAST_BYTES or at + length >= end - 1:
            # One byte more or less is padding, which some programs leave out.
            if length and at + length > end + 1:
                truncated = f"holds {end - at} of the {length} bytes its header announces"
            parts.append(Part(at, end))
            break
        parts.append(Part(at, at + length))
        at += length
    else:
        if data[at:end].strip(b"\0"):
            remarks = (f"{end - at} bytes from byte {at} on are beyond the announced end",)
    parts[0] = parts[0]._replace(start=0)
    return Contents(kind, tuple(parts), truncated=truncated, remarks=remarks)
