"""Ogg: pages, their checksums, and streams that follow each other (chained)."""

import struct
import zlib
from mmap import mmap
from typing import NamedTuple

from majl_jax.audio.containers import mpeg
from majl_jax.audio.containers.contents import Contents, Part

FIRST, LAST = 0x02, 0x04
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class _Page(NamedTuple):
    at: int
    stop: int
    flags: int
    serial: int
    sequence: int


def look(data: mmap, start: int) -> Contents:
    """The part of each chained stream; damaged where a page is, or where one is missing."""
    pages, faults, remarks, truncated = _pages(data, start)
    if not pages:
        return Contents(
            "ogg", (Part(0, len(data)),), truncated=truncated, damaged="".join(faults[:1])
        )
    starts, open_serials, next_sequence, ended = [0], set[int](), dict[int, int](), False
    for page in pages:
        if page.flags & FIRST:
            if ended or (open_serials and page.serial in open_serials):
                starts.append(page.at)
                truncated = truncated or ("" if ended else _no_last(page.at))
                open_serials, next_sequence = set(), {}
            open_serials.add(page.serial)
        elif next_sequence.get(page.serial) not in (None, page.sequence):
            faults.append(f"pages are missing before byte {page.at}")
        next_sequence[page.serial] = page.sequence + 1
        if page.flags & LAST:
            open_serials.discard(page.serial)
        ended = not open_serials
    if open_serials:
        truncated = truncated or "the Ogg stream has no last page"
    stops = [*starts[1:], len(data)]
    parts = tuple(Part(*ends) for ends in zip(starts, stops, strict=True))
    return Contents(
        "ogg", parts, truncated=truncated, damaged="".join(faults[:1]), remarks=tuple(remarks)
    )


def _no_last(at: int) -> str:
    return f"the Ogg stream before byte {at} has no last page"


def _pages(data: mmap, at: int) -> tuple[list[_Page], list[str], list[str], str]:
    """The pages whose checksums are right, faults, remarks, and whether the last one is cut."""
    pages: list[_Page] = []
    faults: list[str] = []
    remarks: list[str] = []
    end = mpeg.before_tags(data, at, len(data))
    while at < end:
        if data[at : at + 4] != b"OggS":
            found = data.find(b"OggS", at)
            stop = end if found < 0 else found
            remarks.append(f"{stop - at} bytes from byte {at} on are no Ogg pages")
            at = stop
            continue
        stop = _end_of_page(data, at)
        if stop is None:
            return pages, faults, remarks, f"the last Ogg page, at byte {at}, is cut"
        page = data[at:stop]
        flags, serial, sequence = page[5], *struct.unpack("<II", page[14:22])
        if checksum(page[:22] + bytes(4) + page[26:]) != struct.unpack("<I", page[22:26])[0]:
            faults.append(f"the Ogg page at byte {at} is damaged (its checksum is wrong)")
            following = data.find(b"OggS", at + 4)
            at = end if following < 0 else following
            continue
        pages.append(_Page(at, stop, flags, serial, sequence))
        at = stop
    return pages, faults, remarks, ""


def _end_of_page(data: mmap, at: int) -> int | None:
    if at + 27 > len(data):
        return None
    segments = data[at + 26]
    stop = at + 27 + segments
    if stop > len(data):
        return None
    stop += sum(data[at + 27 : stop])
    return stop if stop <= len(data) else None


def checksum(page: bytes) -> int:
    """The CRC-32 of Ogg: polynomial 0x04c11db7, highest bit first, beginning and ending with 0.

    zlib's is the same from the lowest bit on, beginning and ending with ones.
    """
    reflected = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)
