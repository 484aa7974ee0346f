"""The bytes of a record in a shard, held against the checksum that was written with them.

A TFRecord is its length (uint64), the length's checksum (4 bytes), the payload and the payload's
checksum (4 bytes); https://www.tensorflow.org/tutorials/load_data/tfrecord. Of array_record shards
the library looks at the checksums.
"""

import functools
import importlib
import os
import struct
from typing import Any

import google_crc32c
from etils import epath

HEADER_BYTES, FOOTER_BYTES = 12, 4  # around the payload of a record in a TFRecord shard
CRC_MASK = 0xA282EAD8
LOCAL_FORMAT = "array_record is read from local disks only; prepare with --file_format=tfrecord"


class DamagedRecordError(ValueError):
    """A record that is not what was written."""


def is_local(path: str | os.PathLike[str]) -> bool:
    """Whether a path is of this machine's disks, not of an object store such as gs://."""
    return "://" not in os.fspath(path)


def read_payload(path: epath.Path, file_format: str, offset: int, length: int) -> bytes:
    """The payload of one record; DamagedRecordError, in words, where it is not what was written.

    Args:
        path: of the shard.
        file_format: "tfrecord" or "array_record".
        offset: byte where the payload begins (tfrecord), or its number (array_record).
        length: bytes of the payload.
    """
    if file_format == "array_record":
        return read_array_record(path, offset)
    with path.open("rb") as file:
        return read_tfrecord(file, offset, length)


def read_tfrecord(file: Any, offset: int, length: int) -> bytes:
    """The payload of `length` bytes at this byte of an open shard, a binary file."""
    file.seek(max(offset - HEADER_BYTES, 0))
    whole = file.read(HEADER_BYTES + length + FOOTER_BYTES)
    if len(whole) < HEADER_BYTES + length + FOOTER_BYTES:
        raise DamagedRecordError("the file ends before it does")
    said, said_checksum = struct.unpack_from("<QI", whole)
    payload = whole[HEADER_BYTES:-FOOTER_BYTES]
    (checksum,) = struct.unpack_from("<I", whole, HEADER_BYTES + length)
    if said != length:
        raise DamagedRecordError(
            f"the shard has one of {said} bytes there, index.json one of {length}"
        )
    if masked_crc32c(whole[:8]) != said_checksum or masked_crc32c(payload) != checksum:
        raise DamagedRecordError("its checksum is wrong")
    return payload


def masked_crc32c(payload: bytes) -> int:
    """The checksum that TFRecord writes: rotate_right(CRC-32C, 15) + a constant, of 32 bits."""
    plain = google_crc32c.value(payload)
    return ((plain >> 15 | plain << 17) + CRC_MASK) & 0xFFFFFFFF


def read_array_record(path: epath.Path, number: int) -> bytes:
    """The payload of the record of this number in its shard."""
    try:
        return array_record_reader(os.fspath(path)).read([number])[0]
    except Exception as error:  # the library has no error of its own
        raise DamagedRecordError(
            f"cannot be read ({type(error).__name__}: {str(error)[:100]})"
        ) from error


@functools.lru_cache(maxsize=64)
def array_record_reader(path: str) -> Any:
    """The open shard of an array_record data set."""
    if not is_local(path):
        raise ValueError(f"{path}: {LOCAL_FORMAT}")
    module = importlib.import_module("array_record.python.array_record_module")
    return module.ArrayRecordReader(path)
