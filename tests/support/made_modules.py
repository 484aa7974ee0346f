"""Made-up tracker modules: MOD with notes and waves, and the smallest S3M, XM and IT."""

import struct
from collections.abc import Sequence

import numpy as np

AMIGA_HZ = 7093789.2 / 2  # over the period: PAL's samples per second
PERIODS = (856, 808, 762, 720, 678, 640, 604, 570, 538, 508, 480, 453)  # of MIDI 48 to 59
ROWS, CHANNELS, ROW_S = 64, 4, 6 * 2.5 / 125
CYCLE = 32
Wave = tuple[str, np.ndarray, bool]  # name, int8, does it loop
Note = tuple[int, int, int, int]  # row, channel, number of the sample from 0, MIDI (48 to 83)


def period(midi: int) -> int:
    """The period of a note in a MOD."""
    return round(PERIODS[midi % 12] / 2 ** (midi // 12 - 4))


def note_hz(midi: int, cycle: int = CYCLE) -> float:
    """The pitch of a note of a wave of so many samples a cycle."""
    return AMIGA_HZ / period(midi) / cycle


def tone(cycle: int = CYCLE) -> np.ndarray:
    """Cycles of a bright wave, in all 64 samples or more."""
    phase = 2 * np.pi * np.arange(max(cycle, 64)) / cycle
    return np.round(60 * np.sin(phase) + 30 * np.sin(2 * phase)).astype(np.int8)


def noise(samples: int = 1200, seed: int = 0) -> np.ndarray:
    """A burst of noise, as a drum."""
    decay = np.exp(-np.arange(samples) / (samples / 6))
    return np.round(100 * decay * np.random.default_rng(seed).uniform(-1, 1, samples)).astype(
        np.int8
    )


def mod(waves: Sequence[Wave], notes: Sequence[Note], *, patterns: int = 1) -> bytes:
    """A 4-channel module at 125 beats a minute, in which each of the patterns is the same."""
    out = bytearray(b"made up".ljust(20, b"\0"))
    for name, wave, loops in [*waves, *[("", np.zeros(0, np.int8), False)] * (31 - len(waves))]:
        assert len(wave) % 2 == 0
        loop = len(wave) // 2 if loops else 1
        out += struct.pack(">22sHBBHH", name.encode(), len(wave) // 2, 0, 64, 0, loop)
    out += bytes([patterns, 127, *range(patterns)]).ljust(130, b"\0") + b"M.K."
    cells = np.zeros((ROWS, CHANNELS, 4), np.uint8)
    for row, channel, sample, midi in notes:
        tone_period, number = period(midi), sample + 1
        cells[row, channel, :3] = [
            (number & 0xF0) | tone_period >> 8,
            tone_period & 0xFF,
            (number & 0x0F) << 4,
        ]
    return bytes(out) + patterns * cells.tobytes() + b"".join(w.tobytes() for _, w, _ in waves)


def song(*, patterns: int = 1) -> bytes:
    """A drum, a bass and a lead, by their names, for 7.68 s a pattern."""
    waves = [
        ("snare", noise(), False),
        ("slap bass", tone(128), True),
        ("lead", tone(), True),
    ]
    notes = [(row, 0, 0, 60) for row in range(4, ROWS, 8)]
    notes += [(row, 1, 1, 60 + row % 5) for row in range(0, ROWS, 8)]
    notes += [(row, 2, 2, 60 + row % 12) for row in range(0, ROWS, 4)]
    return mod(waves, notes, patterns=patterns)


def s3m(waves: Sequence[bytes], *, wide: bool = False, signed: bool = False) -> bytes:
    """A module of silent rows with these waves, two bytes a sample if wide."""
    count = len(waves)
    head = struct.pack("<28sBBHHHHHHH4s", b"made up", 26, 16, 0, 2, count, 0, 0, 0x1320, 0, b"SCRM")
    head = head[:0x2A] + struct.pack("<H", 1 if signed else 2) + head[0x2C:]
    out = bytearray(head.ljust(0x60, b"\xff") + bytes([254, 255]))
    first = -(-(len(out) + 2 * count) // 16)
    out += b"".join(struct.pack("<H", first + 5 * number) for number in range(count))
    out = out.ljust(16 * first, b"\0")
    place = first + 5 * count
    for number, wave in enumerate(waves):
        flags, size = (4 if wide else 0), len(wave) // (2 if wide else 1)
        out += struct.pack("<B12sBHIIIBxBBI", 1, b"", 0, place, size, 0, 0, 64, 0, flags, 8363)
        out += bytes(12) + f"wave {number}".encode().ljust(28, b"\0") + b"SCRS"
        place += -(-len(wave) // 16)
    for wave in waves:
        out += wave.ljust(-(-len(wave) // 16) * 16, b"\0")
    return bytes(out)


def xm(waves: Sequence[bytes]) -> bytes:
    """A module without patterns: its first instrument has all waves but the last, on keys from the
    lowest, the second instrument is empty, the third has the last.
    """
    out = bytearray(b"Extended Module: " + b"made up".ljust(20) + b"\x1a" + bytes(20))
    out += struct.pack("<HIHHHHHHHH", 0x0104, 276, 1, 0, 4, 0, 3, 1, 6, 125) + bytes(256)
    for name, own in (("kit", waves[:-1]), ("none", []), ("last", waves[-1:])):
        size = 263 if own else 29
        out += struct.pack("<I22sBH", size, name.encode(), 0, len(own))
        if own:
            keys = bytes(min(key, len(own) - 1) for key in range(96))
            out += (struct.pack("<I", 40) + keys).ljust(size - 29, b"\0")
        for number, wave in enumerate(own):
            label = f"{name} {number}".encode()
            out += struct.pack("<IIIBbBBbB22s", len(wave), 0, 0, 64, 0, 0, 128, 0, 0, label)
        out += b"".join(own)
    return bytes(out)


def it(waves: Sequence[bytes], *, compressed: bool = False, signed: bool = True) -> bytes:
    """A module of silent rows with these waves of 8 bits; compressed: as the header says of each,
    whatever the bytes.
    """
    count = len(waves)
    out = bytearray(b"IMPM" + b"made up".ljust(26, b"\0") + b"\x04\x10")
    out += struct.pack("<HHHHHHHH", 2, 0, count, 0, 0x0214, 0x0214, 1, 0)
    out += bytes([128, 48, 6, 125, 128, 0]).ljust(0x40 - 0x30, b"\0") + bytes([32] * 64 + [64] * 64)
    out += bytes([254, 255])
    first = len(out) + 4 * count
    out += b"".join(struct.pack("<I", first + 0x50 * number) for number in range(count))
    place = first + 0x50 * count
    for number, wave in enumerate(waves):
        flags = 1 | (8 if compressed else 0)
        out += b"IMPS" + bytes(13) + bytes([64, flags, 64])
        out += f"wave {number}".encode().ljust(26, b"\0") + bytes([int(signed), 32])
        out += struct.pack("<IIIIIIIBBBB", len(wave), 0, 0, 8363, 0, 0, place, 0, 0, 0, 0)
        place += len(wave)
    return bytes(out) + b"".join(waves)


def it_with_instrument(wave: bytes, *, volume: int, panning: int) -> bytes:
    """An IT with one instrument of a random volume and panning of these strengths."""
    data = it([wave])
    orders = 2
    out = bytearray(data)
    struct.pack_into("<H", out, 0x22, 1)
    struct.pack_into("<H", out, 0x2C, 5)
    # The list of places, and what stood behind it, make room for the place of the instrument.
    list_at = 0xC0 + orders
    (sample_at,) = struct.unpack_from("<I", out, list_at)
    (wave_at,) = struct.unpack_from("<I", out, sample_at + 0x48)
    struct.pack_into("<I", out, sample_at + 0x48, wave_at + 4)
    out[list_at : list_at + 4] = struct.pack("<II", len(out) + 4, sample_at + 4)
    instrument = b"IMPI" + bytes(0x16) + bytes([volume, panning])
    instrument = instrument.ljust(0x40, b"\0") + bytes([60, 1] * 120)
    return bytes(out) + instrument.ljust(554, b"\0")


def it_with_note(wave: bytes, *, panning: int, rows: int = 64) -> bytes:
    """An IT that plays the wave once, on a channel of this panning: 0 to 64, 100 is surround."""
    out = bytearray(it([wave]))
    struct.pack_into("<H", out, 0x26, 1)
    out[0x40] = panning
    list_at = 0xC0 + 2
    out[list_at - 2] = 0  # the order
    (sample_at,) = struct.unpack_from("<I", out, list_at)
    (wave_at,) = struct.unpack_from("<I", out, sample_at + 0x48)
    struct.pack_into("<I", out, sample_at + 0x48, wave_at + 4)
    out[list_at : list_at + 4] = struct.pack("<II", sample_at + 4, len(out) + 4)
    # Channel 1 has note and instrument, then only ends of rows.
    cells = bytes([0x81, 0x03, 60, 1]) + bytes(rows)
    return bytes(out) + struct.pack("<HH4x", len(cells), rows) + cells
