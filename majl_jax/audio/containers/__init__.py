"""The bytes of audio files, read without a decoder: where audio begins and really ends.

Decoders believe lengths in headers, stop at the first of several joined files, and pass over
damaged pages; what they stopped at is seen only here. The formats are those of the RFCs 9639
(FLAC), 3533 (Ogg) and 8794 (EBML), of ISO 11172-3 (MPEG audio), 14496-12 (MP4) and of RIFF.
"""

import dataclasses
import mmap
import os
import pathlib

from majl_jax.audio.containers import boxes, flac, mpeg, ogg, riff, sized
from majl_jax.audio.containers.contents import Contents, Part, Stretch

__all__ = ["Contents", "Part", "Stretch", "look"]

# The kinds that libsndfile does not read, but FFmpeg.
ONLY_LIBAV = ("mp4", "matroska", "adts", "asf")


def look(path: str | os.PathLike[str], *, headers_only: bool = False) -> Contents:
    """What the bytes of a file say; of an unknown kind, one part and nothing more.

    headers_only: where a header says the length, and finding it takes all of the file, that is
    believed.
    """
    size = pathlib.Path(path).stat().st_size
    whole = Contents("", (Part(0, size),))
    if not size:
        return whole
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = mpeg.after_id3(data, 0)
        head = data[start : start + 16]
        if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
            return riff.look(data, start)
        if head[:4] == b"fLaC":
            return flac.look(data, start, headers_only=headers_only)
        if head[:4] == b"OggS":
            return dataclasses.replace(whole, kind="ogg") if headers_only else ogg.look(data, start)
        if head[4:8] == b"ftyp" or head[4:8] in (b"moov", b"mdat"):
            return boxes.look_mp4(data)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return boxes.look_matroska(data)
        if head == b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c":
            return boxes.look_asf(data)
        return sized.look(data, start) or mpeg.look(data, start, headers_only=headers_only) or whole
