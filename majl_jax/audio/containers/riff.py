"""WAV and RF64: the chunk of samples, and what follows it."""

import dataclasses
import struct
from mmap import mmap

from majl_jax.audio.containers import mpeg, sized
from majl_jax.audio.containers.contents import Contents, Part

LONGEST_SIZE = 0xFFFFFFFF


def look(data: mmap, start: int) -> Contents:
    """The part of each of the joined files, the length of a piped one put right."""
    parts, found, at = [], Contents("wav"), start
    while at < len(data):
        part, one = _one(data, at)
        parts.append(part)
        found = dataclasses.replace(
            found,
            truncated=found.truncated or one.truncated,
            damaged=found.damaged or one.damaged,
            remarks=(*found.remarks, *one.remarks),
        )
        at = part.stop
    # Bytes before the header, if any, belong to the first part; patches stand by their offsets.
    parts[0] = parts[0]._replace(start=0)
    return dataclasses.replace(found, parts=tuple(parts))


def _one(data: mmap, start: int) -> tuple[Part, Contents]:
    """The file that begins here, and what is wrong with it."""
    end, at, long = len(data), start + 12, None
    whole = Part(start, end)
    while at + 8 <= end:
        name, size = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])[0]
        if name == b"ds64":
            long = struct.unpack("<Q", data[at + 16 : at + 24])[0] if at + 24 <= end else None
        if name == b"data":
            break
        at += 8 + size + size % 2
    else:
        return whole, Contents("wav")  # no samples: libsndfile says so
    samples_at = at + 8
    present = end - samples_at
    if size == LONGEST_SIZE and long is not None:
        size = long
    if not size and present and _chunks_end(data, samples_at)[0] != end:
        patch = struct.pack("<I", min(present, LONGEST_SIZE))
        return whole._replace(patches=((at + 4, patch),)), Contents("wav")
    if size >= present:
        missing = f"holds {present} of the {size} bytes its header announces"
        told = missing if size > present and not sized.is_open(size) else ""
        return whole, Contents("wav", truncated=told)
    after, fault = _chunks_end(data, samples_at + size + size % 2)
    found = Contents("wav", damaged=fault)
    if data[after : after + 4] in (b"RIFF", b"RF64") and data[after + 8 : after + 12] == b"WAVE":
        return Part(start, after), found
    tags = mpeg.before_tags(data, start, end)
    if data[after:tags].strip(b"\0"):
        remark = f"{tags - after} bytes from byte {after} on are in no chunk"
        found = dataclasses.replace(found, remarks=(remark,))
    return whole, found


def _chunks_end(data: mmap, at: int) -> tuple[int, str]:
    """Where the row of chunks that begins here ends, and whether one of them holds more samples."""
    fault = ""
    while at + 8 <= len(data):
        name, size = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])[0]
        if name in (b"RIFF", b"RF64") or not all(32 <= byte < 127 for byte in name):
            break
        if at + 8 + size > len(data):
            break
        if name == b"data":
            fault = f"holds a second chunk of samples, at byte {at}"
        at = min(at + 8 + size + size % 2, len(data))
    return at, fault
