"""Loaded tracks as .npz files, whose stems are written and read piece by piece."""

import math
import pathlib
import zipfile
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from majl_jax.datasets.cutting import Record

STEMS, REMARKS, CONTENT = "stems", "remarks", "content"
DTYPE = np.dtype("<i2")


class StemsOnDisk:
    """int16 [time, stem, channel] of which slices are read when they are asked for."""

    def __init__(self, path: pathlib.Path, offset: int, shape: tuple[int, ...]) -> None:
        self._path, self._offset, self.shape = path, offset, shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, where: slice) -> np.ndarray:
        start, stop, _ = where.indices(len(self))
        width = math.prod(self.shape[1:])
        count = max(0, stop - start) * width
        offset = self._offset + start * width * DTYPE.itemsize
        return np.fromfile(self._path, DTYPE, count, offset=offset).reshape(-1, *self.shape[1:])


def write(
    path: pathlib.Path,
    record: Record,
    stems: Iterable[np.ndarray],
    *,
    remarks: Callable[[], Sequence[str]] = tuple,
    content: str = "",
) -> None:
    """The arrays and numbers of a record, and its stems.

    stems: int16, block by block, as many samples as are valid.
    remarks: what was said of its files, asked for once they are read.
    content: what tells its files from others.
    """
    shape = None
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open(f"{STEMS}.npy", "w", force_zip64=True) as file:
            for block in stems:
                if shape is None:
                    shape = (record["valid_samples"], *block.shape[1:])
                    header = {"descr": DTYPE.str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(np.ascontiguousarray(block, DTYPE).data)
        told = {REMARKS: np.asarray([*remarks()], np.str_), CONTENT: content}
        for key, value in {**record, **told}.items():
            if key not in (STEMS, "track"):
                with archive.open(f"{key}.npy", "w") as file:
                    np.lib.format.write_array(file, np.asarray(value))


def read(path: pathlib.Path, identity: str) -> Record:
    """A record as it was written, its stems still on the disk."""
    with np.load(path) as arrays:
        keys = [key for key in arrays.files if key not in (STEMS, REMARKS, CONTENT)]
        record: Record = {key: arrays[key] for key in keys}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        file.seek(archive.getinfo(f"{STEMS}.npy").header_offset)
        head = file.read(30)
        file.seek(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), 1)
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
        offset = file.tell()
    return {**record, STEMS: StemsOnDisk(path, offset, shape), "track": identity}


def read_remarks(path: pathlib.Path) -> tuple[str, ...]:
    """What was said of the files of a track when it was written."""
    with np.load(path) as arrays:
        return tuple(arrays[REMARKS].tolist())


def read_content(path: pathlib.Path) -> str:
    """What tells the files of a track from others, as it was when they were read; empty in a file
    of an older version.
    """
    with np.load(path) as arrays:
        return str(arrays[CONTENT]) if CONTENT in arrays.files else ""
