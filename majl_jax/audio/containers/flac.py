"""FLAC: how many samples its frames hold, whatever the header says, and what follows them."""

import mmap
from typing import NamedTuple

from majl_jax.audio.containers import mpeg
from majl_jax.audio.containers.contents import Contents, Part

STREAMINFO = b"\x00\x00\x22"  # type 0, 34 bytes; the highest bit says whether it is the last block
TAIL_BYTES = 1 << 20  # frames of usual encoders are far smaller
MOST_TRIED = 4096
WINDOW_BYTES = 1 << 24
TOTAL_BITS = 36


class _Last(NamedTuple):
    """Where the samples of a stream end, in samples and in bytes."""

    samples: int
    stop: int


def look(data: mmap.mmap, start: int, *, headers_only: bool = False) -> Contents:
    """The part of each joined stream, with the length of its frames for that of its header.

    headers_only: of a file that announces a length, nothing more is read.
    """
    announced = int.from_bytes(data[start + 21 : start + 26], "big") & ((1 << TOTAL_BITS) - 1)
    if headers_only and announced:
        return Contents("flac", (Part(0, len(data)),), announced)
    starts = _streams(data, start)
    stops = [*starts[1:], len(data)]
    parts, faults, remarks, total = [], [], [], 0
    for first, stop in zip(starts, stops, strict=True):
        part, samples, fault, remark = _one(data, first, stop)
        parts.append(part if first > start else part._replace(start=0))
        faults += [fault] * bool(fault)
        remarks += [remark] * bool(remark)
        total += samples
    return Contents(
        "flac", tuple(parts), total, truncated="".join(faults[:1]), remarks=tuple(remarks)
    )


def _streams(data: mmap.mmap, start: int) -> list[int]:
    """Where streams begin: their mark, and the block that has to follow it."""
    starts, end = [start], len(data)
    for low in range(start + 4, end, WINDOW_BYTES):
        at = low - 1
        while (at := data.find(b"fLaC", at + 1, min(low + WINDOW_BYTES + 3, end))) >= 0:
            if data[at + 4 : at + 5] in (b"\x00", b"\x80") and data[at + 5 : at + 8] == STREAMINFO:
                starts.append(at)
        if hasattr(mmap, "MADV_DONTNEED"):  # else all of a long file comes to lie in memory
            data.madvise(mmap.MADV_DONTNEED)
    return starts


def _one(data: mmap.mmap, start: int, stop: int) -> tuple[Part, int, str, str]:
    """A stream: its part, its samples, what is missing, and what lies behind it."""
    field = start + 8 + 13  # four bits of the depth, then the number of samples
    announced = int.from_bytes(data[field : field + 5], "big") & ((1 << TOTAL_BITS) - 1)
    blocks = {data[start + 8 + offset : start + 10 + offset] for offset in (0, 2)}
    tags = mpeg.before_tags(data, start, stop)
    part = Part(start, tags)
    last = _last_frame(data, start + 42, tags, int.from_bytes(max(blocks), "big"), announced)
    if last is None:
        # Of a known length, libsndfile finds what is missing.
        return part, announced, "" if announced else "no length is announced, no frame whole", ""
    behind = f"{tags - last.stop} bytes from byte {last.stop} on are no whole FLAC frame"
    if announced and (last.samples <= announced or len(blocks) > 1):
        if last.stop == tags or last.samples != announced:
            return part, announced, "", ""
        return part._replace(stop=last.stop), announced, "", behind
    depth, fields = data[field] & 0xF0, last.samples.to_bytes(5, "big")
    patch = bytes([depth | fields[0]]) + fields[1:]
    part = part._replace(stop=last.stop, patches=((field, patch),))
    return part, last.samples, behind if last.stop < tags else "", ""


def _last_frame(
    data: mmap.mmap, start: int, stop: int, fixed_block: int, announced: int
) -> _Last | None:
    """The last whole frame: its checksums are right where it meets the end or the next frame.

    Behind the frame that holds the last announced sample may lie anything.
    """
    low = max(start, stop - TAIL_BYTES)
    tail = data[low:stop]
    at, borders = len(tail), {len(tail)}
    while (at := tail.rfind(b"\xff", 0, at)) >= 0 and len(borders) < MOST_TRIED:
        samples = _samples_after(tail, at, fixed_block)
        if samples is None:
            continue
        if ends := _right_ends(tail, at):
            if common := borders.intersection(ends):
                return _Last(samples, low + min(common))
            if samples == announced:
                return _Last(samples, low + ends[-1])
        borders.add(at)
    return None


def _samples_after(tail: bytes, at: int, fixed_block: int) -> int | None:
    """The number of the first sample behind a frame, if a frame can begin here (RFC 9639, 9.1)."""
    if len(tail) < at + 6 or tail[at + 1] not in (0xF8, 0xF9):
        return None
    size_code, rate_code = tail[at + 2] >> 4, tail[at + 2] & 15
    if not size_code or rate_code == 15:
        return None
    lead = tail[at + 4]
    width = 1 if lead < 0x80 else 8 - (lead ^ 0xFF).bit_length()
    if not 1 <= width <= 7 or (lead >= 0x80 and width < 2):
        return None
    number = lead & (0x7F >> (width if width > 1 else 0))
    for byte in tail[at + 5 : at + 4 + width]:
        number = number << 6 | byte & 0x3F
    position = at + 4 + width
    extra = {6: 1, 7: 2}.get(size_code, 0)
    size = int.from_bytes(tail[position : position + extra], "big") + 1
    position += extra + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if position >= len(tail) or _crc8(tail[at:position]) != tail[position]:
        return None
    if size_code == 1:
        size = 192
    elif size_code < 6:
        size = 576 << size_code - 2
    elif size_code > 7:
        size = 256 << size_code - 8
    return number + size if tail[at + 1] == 0xF9 else number * fixed_block + size


def _right_ends(tail: bytes, at: int) -> list[int]:
    """Where a frame that begins here could end by its checksum, which makes that of all 0."""
    crc, ends = 0, []
    for position in range(at, len(tail)):
        crc = (crc << 8 & 0xFF00) ^ _CRC16[crc >> 8 ^ tail[position]]
        if not crc and position > at + 6:
            ends.append(position + 1)
    return ends


def _crc8(head: bytes) -> int:
    crc = 0
    for byte in head:
        crc = _CRC8[crc ^ byte]
    return crc


def _table(polynomial: int, bits: int) -> list[int]:
    """A checksum's table, highest bit first."""
    top, mask, out = 1 << bits - 1, (1 << bits) - 1, []
    for byte in range(256):
        crc = byte << bits - 8
        for _ in range(8):
            crc = (crc << 1 ^ (polynomial if crc & top else 0)) & mask
        out.append(crc)
    return out


_CRC8, _CRC16 = _table(0x07, 8), _table(0x8005, 16)
