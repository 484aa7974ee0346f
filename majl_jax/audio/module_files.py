"""Files of tracker modules (MOD, S3M, XM, IT): where the waves of their samples lie, and the same
file with some samples silent.

A player's decisions hang on patterns and headers, and its mixing is linear in the waves. So files
in which other samples are silent play stems that sum to the mixture, clicks and ramps among them;
muting instruments in a player does not keep that where one note cuts off another.
"""

import dataclasses
import struct
from collections.abc import Collection, Mapping

from majl_jax.audio.faults import AudioFileError

KINDS = ("MOD", "S3M", "XM", "IT")
# Of notes without a map of their own, as in all modules without instruments.
NOTES = 120


@dataclasses.dataclass(frozen=True)
class Sample:
    """One wave of a module.

    offset, size: of its bytes in the file. silence: what a silent one consists of. header: where
      its header begins, for kinds whose waves have to be moved to be silent.
    """

    name: str
    offset: int
    size: int
    silence: bytes = b"\0"
    header: int = 0
    compressed: bool = False
    wave_size: int = 0  # not compressed


@dataclasses.dataclass(frozen=True)
class ModuleFile:
    """The waves of a module, and which of them each instrument plays.

    keys: from (instrument, note), both counted from 0, to the number of a sample.
    """

    kind: str
    samples: tuple[Sample, ...]
    instruments: tuple[str, ...]
    keys: Mapping[tuple[int, int], int]


def read(data: bytes, name: str) -> ModuleFile:
    """The parts of a file; raises AudioFileError, with `name`, where it is cut off or another."""
    try:
        if data.startswith(b"Extended Module: "):
            return _read_xm(data)
        if data.startswith(b"IMPM"):
            return _read_it(data)
        if data[44:48] == b"SCRM":
            return _read_s3m(data)
        return _read_mod(data)
    except (struct.error, IndexError) as error:
        raise AudioFileError(f"{name}: cut off, or no module ({error}); copy it again") from error
    except _Unreadable as error:
        raise AudioFileError(f"{name}: {error}; expected one of {', '.join(KINDS)}") from error


def steady(data: bytes) -> bytes:
    """The file without the random volume and panning of an IT's instruments, which a player draws
    anew each time.
    """
    if not data.startswith(b"IMPM"):
        return data
    out = bytearray(data)
    orders, instruments = struct.unpack_from("<HH", data, 0x20)
    if struct.unpack_from("<H", data, 0x2C)[0] & _IT_INSTRUMENTS:
        for place in struct.unpack_from(f"<{instruments}I", data, 0xC0 + orders):
            out[place + 0x1A : place + 0x1C] = bytes(2)
    return bytes(out)


def silenced(data: bytes, samples: Collection[Sample]) -> bytes:
    """The file with these samples silent; all else, their lengths and loops among it, as before."""
    out = bytearray(data)
    for one in samples:
        if one.compressed:
            struct.pack_into("<I", out, one.header + _IT_POINTER, len(out))
            out[one.header + _IT_FLAGS] &= ~_IT_COMPRESSED & 0xFF
            out += _silence(one, one.wave_size)
        else:
            out[one.offset : one.offset + one.size] = _silence(one, one.size)
    return bytes(out)


class _Unreadable(ValueError):
    """What is wrong with the bytes."""


def _silence(one: Sample, size: int) -> bytes:
    return (one.silence * -(-size // len(one.silence)))[:size]


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode("cp437").strip()


def _one_each(count: int) -> dict[tuple[int, int], int]:
    return {(number, note): number for number in range(count) for note in range(NOTES)}


_MOD_NAMES, _MOD_ORDERS, _MOD_PATTERNS, _MOD_SAMPLES = 20, 952, 1084, 31


def _mod_channels(tag: bytes) -> int:
    if tag in (b"M.K.", b"M!K!", b"M&K!", b"N.T.", b"FLT4", b"4CHN"):
        return 4
    if tag[1:] == b"CHN" and tag[:1].isdigit():
        return int(tag[:1])
    if tag[2:] in (b"CH", b"CN") and tag[:2].isdigit():
        return int(tag[:2])
    raise _Unreadable(f"has the tag {tag!r}, which no known module has")


def _read_mod(data: bytes) -> ModuleFile:
    if len(data) < _MOD_PATTERNS:
        raise _Unreadable(f"is cut off after {len(data)} bytes, or no module")
    channels = _mod_channels(data[1080:1084])
    patterns = 1 + max(data[_MOD_ORDERS : _MOD_ORDERS + 128])
    place = _MOD_PATTERNS + patterns * 64 * channels * 4
    samples = []
    for number in range(_MOD_SAMPLES):
        name, words = struct.unpack_from(">22sH", data, _MOD_NAMES + 30 * number)
        samples.append(Sample(_text(name), place, 2 * words))
        place += 2 * words
    return ModuleFile("MOD", _inside(samples, data), _names(samples), _one_each(len(samples)))


def _inside(samples: list[Sample], data: bytes) -> tuple[Sample, ...]:
    """The samples without what they lack at the end of the file, which players take as silence."""
    left = [max(0, min(one.size, len(data) - one.offset)) for one in samples]
    return tuple(
        dataclasses.replace(one, size=size) for one, size in zip(samples, left, strict=True)
    )


def _names(samples: list[Sample]) -> tuple[str, ...]:
    return tuple(one.name for one in samples)


def _read_s3m(data: bytes) -> ModuleFile:
    orders, count = struct.unpack_from("<HH", data, 0x20)
    unsigned = struct.unpack_from("<H", data, 0x2A)[0] == 2
    samples = []
    for place in struct.unpack_from(f"<{count}H", data, 0x60 + orders):
        header = 16 * place
        kind, high, low, length = struct.unpack_from("<B12xBHI", data, header)
        packing, flags = data[header + 0x1E], data[header + 0x1F]
        if kind > 1:
            raise _Unreadable("has AdLib instruments, which are no waves")
        if kind and packing:
            raise _Unreadable("has ADPCM samples")
        wide = 2 if flags & 4 else 1
        size = length * wide * (2 if flags & 2 else 1) if kind else 0
        silence = b"\0\x80"[2 - wide :] if unsigned else b"\0"
        name = _text(data[header + 0x30 : header + 0x4C])
        samples.append(Sample(name, 16 * (high << 16 | low), size, silence))
    return ModuleFile("S3M", _inside(samples, data), _names(samples), _one_each(count))


_XM_ADPCM = 0xAD


def _read_xm(data: bytes) -> ModuleFile:
    version, size = struct.unpack_from("<HI", data, 58)
    patterns, count = struct.unpack_from("<HH", data, 70)
    if version < 0x0104:
        raise _Unreadable(f"is of version {version:#x}, which has another order")
    place = 60 + size
    for _ in range(patterns):
        header, packed = struct.unpack_from("<I3xH", data, place)
        place += header + packed
    samples: list[Sample] = []
    instruments, keys = [], {}
    for number in range(count):
        size, name, kinds = struct.unpack_from("<I22sxH", data, place)
        instruments.append(_text(name))
        if kinds:
            for note, which in enumerate(data[place + 33 : place + 33 + 96]):
                # The lowest note of the format is C-1 where C-5 is 60: 12.
                keys[number, note + 12] = len(samples) + which
        own, place = _xm_samples(data, place + size, kinds)
        samples += own
    keys = {key: sample for key, sample in keys.items() if sample < len(samples)}
    return ModuleFile("XM", _inside(samples, data), tuple(instruments), keys)


def _xm_samples(data: bytes, place: int, count: int) -> tuple[list[Sample], int]:
    """The samples of an instrument, whose headers begin here, and where they end."""
    headers = [struct.unpack_from("<I13xB22s", data, place + 40 * n) for n in range(count)]
    place, samples = place + 40 * count, []
    for length, reserved, name in headers:
        if reserved == _XM_ADPCM:
            raise _Unreadable("has ADPCM samples")
        samples.append(Sample(_text(name), place, length))
        place += length
    return samples, place


_IT_INSTRUMENTS = 4
_IT_FLAGS, _IT_POINTER, _IT_COMPRESSED = 0x12, 0x48, 8


def _read_it(data: bytes) -> ModuleFile:
    orders, instruments, count = struct.unpack_from("<HHH", data, 0x20)
    flags = struct.unpack_from("<H", data, 0x2C)[0]
    places = struct.unpack_from(f"<{instruments + count}I", data, 0xC0 + orders)
    samples = [_it_sample(data, place) for place in places[instruments:]]
    if not flags & _IT_INSTRUMENTS:
        return ModuleFile("IT", _inside(samples, data), _names(samples), _one_each(count))
    keys = {}
    for number, place in enumerate(places[:instruments]):
        for key in range(NOTES):
            sample = data[place + 0x40 + 2 * key + 1]
            if 0 < sample <= count:
                keys[number, key] = sample - 1
    names = tuple(_text(data[place + 0x20 : place + 0x3A]) for place in places[:instruments])
    return ModuleFile("IT", _inside(samples, data), names, keys)


def _it_sample(data: bytes, header: int) -> Sample:
    flags, signed = data[header + _IT_FLAGS], data[header + 0x2E] & 1
    length, place = struct.unpack_from("<I", data, header + 0x30)[0], 0
    (place,) = struct.unpack_from("<I", data, header + _IT_POINTER)
    wide = 2 if flags & 2 else 1
    size = length * wide * (2 if flags & 4 else 1) if flags & 1 else 0
    silence = b"\0" if signed else b"\0\x80"[2 - wide :]
    name = _text(data[header + 0x14 : header + 0x2E])
    compressed = bool(flags & _IT_COMPRESSED) and size > 0
    return Sample(name, place, size, silence, header, compressed, size)
