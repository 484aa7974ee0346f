"""What is found in the bytes of an audio file, without decoding it."""

import dataclasses
import io
import os
import pathlib
from typing import NamedTuple


class Part(NamedTuple):
    """The bytes [start, stop) of a file, which are an audio file of their own."""

    start: int
    stop: int
    # (offset in the file, bytes that stand there): a length that the header should have
    patches: tuple[tuple[int, bytes], ...] = ()


@dataclasses.dataclass(frozen=True)
class Contents:
    """Where in a file audio lies, and what is wrong with it.

    parts: files joined to one; a whole, unchanged file is one part. samples: what the frames say,
    None if nothing.
    """

    kind: str
    parts: tuple[Part, ...] = ()
    samples: int | None = None
    # By so many of them decoders may differ.
    slack_samples: int = 0
    # Says how much is missing where the end is, or what cannot be decoded as it is meant.
    truncated: str = ""
    damaged: str = ""
    # Bytes that are no audio of this file and that no tag explains.
    remarks: tuple[str, ...] = ()
    # Whether libsndfile stops before the end.
    beyond_libsndfile: bool = False


class Stretch(io.RawIOBase):
    """A part of a file as if it were the whole file, its patches in place."""

    def __init__(self, path: pathlib.Path, part: Part) -> None:
        self._file = path.open("rb")
        self._part, self._at = part, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position, from the start of the part."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a position in the part."""
        length = self._part.stop - self._part.start
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at}.get(whence, length))
        return self._at

    def readinto(self, buffer) -> int:
        """Fills the buffer as far as the part goes."""
        start = self._part.start + self._at
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._part.stop - start))
        self._file.seek(start)
        count = self._file.readinto(view[:wanted])
        for offset, patch in self._part.patches:
            first, last = max(offset, start), min(offset + len(patch), start + count)
            if first < last:
                view[first - start : last - start] = patch[first - offset : last - offset]
        self._at += count
        return count

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()
