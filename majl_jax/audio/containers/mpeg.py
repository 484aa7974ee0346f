"""MPEG audio (MP3, MP2) and AAC in ADTS frames: every frame, one after the other; tags."""

import struct
from mmap import mmap
from typing import NamedTuple

from majl_jax.audio.containers.contents import Contents, Part

RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
# kbit/s by (MPEG 1 or not, layer)
_HIGH = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_LOW = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_LAYER_1 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
KBITS = {
    (True, 1): tuple(range(0, 449, 32)),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): _HIGH,
    (False, 1): _LAYER_1,
    (False, 2): _LOW,
    (False, 3): _LOW,
}
AAC_SAMPLES = 1024
# What decoders cut off where a header says what the encoder put before and behind the sound.
ENCODER_SAMPLES = 4608
# libsndfile passes over junk in an MP3 up to this length, and gives up at more.
RESYNC_BYTES = 1024
# So many frames of one kind in a row are no accident.
IN_A_ROW = 3
LONGEST_SEARCH = 1 << 16


class _Frame(NamedTuple):
    """kind: what all frames of a file have in common."""

    kind: tuple
    length: int
    samples: int


def after_id3(data: mmap, at: int) -> int:
    """The first byte behind ID3v2 tags."""
    while data[at : at + 3] == b"ID3" and at + 10 <= len(data):
        size = 0
        for byte in data[at + 6 : at + 10]:
            size = size << 7 | byte & 0x7F
        at += 10 + size + 10 * bool(data[at + 5] & 0x10)
    return at


def before_tags(data: mmap, start: int, stop: int) -> int:
    """Where the ID3v1, Lyrics3 and APE tags at the end begin."""
    while stop > start:
        if stop - 128 >= start and data[stop - 128 : stop - 125] == b"TAG":
            stop -= 128
        elif data[stop - 32 : stop - 24] == b"APETAGEX" and stop - 32 >= start:
            size, flags = struct.unpack("<I4xI", data[stop - 20 : stop - 8])
            header = 32 * bool(flags & 0x80000000)
            if not 32 <= size <= stop - start - header:
                return stop
            stop -= size + header
        elif data[stop - 9 : stop] == b"LYRICS200" and data[stop - 15 : stop - 9].isdigit():
            stop -= int(data[stop - 15 : stop - 9]) + 15
        else:
            return stop
    return stop


def look(data: mmap, start: int, *, headers_only: bool = False) -> Contents | None:
    """The frames of an MP3, MP2 or ADTS file; None where it does not begin with one.

    headers_only: nothing is counted.
    """
    stop = before_tags(data, start, len(data))
    at = _find_row(data, start, min(stop, start + LONGEST_SEARCH), stop)
    if at is None:
        return None
    first = _frame(data, at)
    assert first is not None
    kind = "mp3" if first.kind[0] == "mpeg" else "adts"
    parts = (Part(0, len(data)),)
    if headers_only:
        return Contents(kind, parts)
    announced = _announced(data, at, first) if first.kind[0] == "mpeg" else None
    walk = _Walk(first.kind)
    walk.go(data, at + (first.length if announced is not None else 0), stop)
    faults = dict(damaged=walk.damaged, truncated="")
    beyond = walk.longest_junk > RESYNC_BYTES or walk.announcements > 0
    if announced:
        if announced > walk.frames + 1:
            faults["truncated"] = (
                f"holds {walk.frames} of the {announced} frames its header announces"
            )
        beyond |= announced + 1 < walk.frames
    return Contents(
        kind,
        parts,
        # An AAC decoder may double the rate and so the samples.
        walk.frames * first.samples if kind == "mp3" else None,
        slack_samples=ENCODER_SAMPLES if announced is not None else first.samples,
        remarks=tuple(walk.remarks),
        beyond_libsndfile=beyond,
        **faults,
    )


class _Walk:
    """From frame to frame of one kind."""

    def __init__(self, kind: tuple) -> None:
        self.kind = kind
        self.frames = self.longest_junk = self.announcements = 0
        self.damaged, self.remarks = "", list[str]()

    def go(self, data: mmap, at: int, stop: int) -> None:
        """Counts frames up to a byte; remembers what else lies there."""
        while at < stop:
            frame = _frame(data, at)
            if frame is None or frame.kind != self.kind:
                at = self._pass_over(data, at, stop)
                continue
            if at + frame.length > stop:
                self.remarks.append(
                    f"its last frame is cut: {stop - at} of {frame.length} bytes are there"
                )
                return
            if self.kind[0] == "mpeg" and _announced(data, at, frame) is not None:
                self.announcements += 1
            else:
                self.frames += 1
            at += frame.length

    def _pass_over(self, data: mmap, at: int, stop: int) -> int:
        """The next frame, behind tags or bytes that are none."""
        if (tags := _behind_tag(data, at)) > at:
            self.longest_junk = max(self.longest_junk, tags - at)
            return tags
        found = _find_row(data, at, stop, stop)
        there = stop if found is None else found
        if data[at:there].strip(b"\0"):
            self.remarks.append(f"{there - at} bytes from byte {at} on are no audio frames")
        self.longest_junk = max(self.longest_junk, there - at)
        if found is not None and (other := _frame(data, found)) and other.kind != self.kind:
            self.damaged = (
                f"from byte {found} on it is {_described(other.kind)}, before that "
                f"{_described(self.kind)}; separate them"
            )
            return stop
        return there


def _behind_tag(data: mmap, at: int) -> int:
    """The first byte behind a tag between two frames, if one stands here."""
    if data[at : at + 3] == b"TAG" and _frame(data, at + 128):
        return at + 128
    if data[at : at + 8] == b"APETAGEX" and at + 32 <= len(data):
        size, flags = struct.unpack("<I4xI", data[at + 12 : at + 24])
        return at + 32 + (size if flags & 0x20000000 else 0)
    return after_id3(data, at)


def _described(kind: tuple) -> str:
    return f"{kind[2]} Hz in {'one channel' if kind[3] == 1 else 'several channels'}"


def _find_row(data: mmap, at: int, limit: int, stop: int) -> int | None:
    """Where frames of one kind follow each other, up to the end if that comes first."""
    while (at := data.find(b"\xff", at, limit)) >= 0:
        where, kinds = at, []
        while len(kinds) < IN_A_ROW and where < stop and (frame := _frame(data, where)):
            kinds.append(frame.kind)
            where += frame.length
        ended = where >= stop and len(kinds) > 0
        if (len(kinds) == IN_A_ROW or ended) and len(set(kinds)) == 1:
            return at
        at += 1
    return None


def _frame(data: mmap, at: int) -> _Frame | None:
    """The frame whose header stands here, if one does."""
    head = data[at : at + 6]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        return _adts(head)
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bits, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or rate == 3 or bits in (0, 15):
        return None
    high, rate_hz = version == 3, RATES_HZ[version][rate]
    bits_per_s, padding = 1000 * KBITS[high, layer][bits], head[2] >> 1 & 1
    samples = 384 if layer == 1 else 576 if layer == 3 and not high else 1152
    if layer == 1:
        length = (12 * bits_per_s // rate_hz + padding) * 4
    else:
        length = samples // 8 * bits_per_s // rate_hz + padding
    channels = 1 if head[3] >> 6 == 3 else 2
    return _Frame(("mpeg", layer, rate_hz, channels), length, samples)


AAC_RATES_HZ = (
    *(96000, 88200, 64000, 48000, 44100, 32000, 24000),
    *(22050, 16000, 12000, 11025, 8000, 7350),
)


def _adts(head: bytes) -> _Frame | None:
    rate = head[2] >> 2 & 15
    if rate >= len(AAC_RATES_HZ) or len(head) < 6:
        return None
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    channels = (head[2] & 1) << 2 | head[3] >> 6
    if length < 7:
        return None
    # The number of raw blocks stands in a seventh byte; all known encoders write one.
    return _Frame(("adts", head[2] >> 6, AAC_RATES_HZ[rate], channels), length, AAC_SAMPLES)


def _announced(data: mmap, at: int, frame: _Frame) -> int | None:
    """How many frames a Xing, Info or VBRI frame announces, 0 where it leaves that open."""
    _, layer, rate_hz, channels = frame.kind
    if layer != 3:
        return None
    side = (17 if channels == 1 else 32) if rate_hz >= 32000 else (9 if channels == 1 else 17)
    xing = data[at + 4 + side : at + 16 + side]
    if xing[:4] in (b"Xing", b"Info"):
        return struct.unpack(">I", xing[8:12])[0] if xing[7] & 1 else 0
    vbri = data[at + 36 : at + 54]
    if vbri[:4] == b"VBRI":
        return struct.unpack(">I", vbri[14:18])[0]
    return None
