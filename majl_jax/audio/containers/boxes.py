"""MP4 (boxes), Matroska (EBML elements) and ASF (objects): whether what they announce is there."""

from mmap import mmap

from majl_jax.audio.containers import mpeg
from majl_jax.audio.containers.contents import Contents, Part

SEGMENT = 0x18538067
EBML = 0x1A45DFA3
# What has an unknown length ends where an element of its own level or above begins.
TOP_LEVEL = (EBML, SEGMENT)


def look_mp4(data: mmap) -> Contents:
    """The boxes of an MP4 file: all of them whole, and of one file only."""
    at, end, damaged, truncated, moov = 0, mpeg.before_tags(data, 0, len(data)), "", "", False
    remarks: tuple[str, ...] = ()
    while at < end:
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        elif size == 0:
            size = end - at
        if size < 8 or not all(32 <= byte < 127 or byte == 0xA9 for byte in name):
            remarks = (f"{end - at} bytes from byte {at} on are no boxes of an MP4 file",)
            break
        if name == b"ftyp" and moov:
            damaged = f"another MP4 file begins at byte {at}; separate them"
            break
        moov = moov or name in (b"moov", b"moof")
        if at + size > end:
            truncated = f"holds {end - at} of the {size} bytes of its last box"
        at += size
    if not moov and not truncated:
        truncated = "has no box moov, which says where its samples are"
    return Contents(
        "mp4", (Part(0, len(data)),), truncated=truncated, damaged=damaged, remarks=remarks
    )


def look_matroska(data: mmap) -> Contents:
    """The elements of a Matroska or WebM file, as far as their lengths are known."""
    at, end, truncated = 0, mpeg.before_tags(data, 0, len(data)), ""
    remarks: tuple[str, ...] = ()
    while at < end:
        name, size, body = _element(data, at)
        if name is None or (name not in LEVEL_1 and name not in TOP_LEVEL):
            remarks = (f"{end - at} bytes from byte {at} on are no Matroska elements",)
            break
        if size is None:  # of a live stream: its parts follow
            at = body
            continue
        if body + size > end:
            truncated = f"holds {end - body} of the {size} bytes of an element at byte {at}"
        at = body if name == SEGMENT else body + size
    return Contents("matroska", (Part(0, len(data)),), truncated=truncated, remarks=remarks)


# The file properties object of ASF; the size of the file stands 40 bytes behind its start.
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def look_asf(data: mmap) -> Contents:
    """ASF (WMA): whether the file is as long as its header says."""
    at, truncated = data.find(_ASF_PROPERTIES, 0, 1 << 16), ""
    size = int.from_bytes(data[at + 40 : at + 48], "little") if at >= 0 else 0
    if size > len(data):
        truncated = f"holds {len(data)} of the {size} bytes its header announces"
    return Contents("asf", (Part(0, len(data)),), truncated=truncated)


# SeekHead, Info, Tracks, Cues, Attachments, Chapters, Tags, Void, CRC-32, Cluster; and what a
# cluster of unknown length holds: Timestamp, SimpleBlock, BlockGroup, PrevSize, Position.
LEVEL_1 = (
    *(0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367),
    *(0xEC, 0xBF, 0x1F43B675, 0xE7, 0xA3, 0xA0, 0xAB, 0xA7),
)


def _element(data: mmap, at: int) -> tuple[int | None, int | None, int]:
    """(id, length of the body or None if it is unknown, where the body begins)."""
    head = data[at : at + 12]
    width = 9 - head[0].bit_length() if head else 9
    if width > 4 or len(head) <= width:
        return None, None, at
    name, rest = int.from_bytes(head[:width], "big"), head[width:]
    length_width = 9 - rest[0].bit_length()
    if length_width > 8 or len(rest) < length_width:
        return None, None, at
    size = int.from_bytes(rest[:length_width], "big") & ((1 << 7 * length_width) - 1)
    unknown = size == (1 << 7 * length_width) - 1
    return name, None if unknown else size, at + width + length_width
