"""Reads arrays from weight files without running anything that is in them.

`.h5`, `.npz` (Chainer: `.model`), `.safetensors` and what torch.save wrote (`.pt`, `.pth`,
`.pth.tar`), as a zip archive or, before PyTorch 1.6, as pickles one after the other. A PyTorch
file holds a pickle, a program that may call any function: here it may only name tensors.
"""

import collections
import io
import json
import pathlib
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

Tensors = dict[str, np.ndarray]
_MAX_PICKLE_BYTES = 64 * 2**20
_OLD_TORCH = (0x1950A86A20F9469CFC6C, 1001)  # what its first two pickles say
_TORCH_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_SAFETENSORS_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError, MemoryError),
    OverflowError,
    *(struct.error, zipfile.BadZipFile, zlib.error, pickle.UnpicklingError),
)


class WeightFileError(ValueError):
    """A weight file that cannot be read, or that asks for more than arrays."""


def read_tensors(path: pathlib.Path) -> Tensors:
    """All arrays of a weight file by name; groups are joined by `/`, nested dicts by `.`."""
    path = pathlib.Path(path)
    readers: dict[str, Callable[[pathlib.Path], Tensors]] = {
        ".h5": read_h5,
        ".hdf5": read_h5,
        ".npz": read_npz,
        ".model": read_npz,  # as Chainer's examples name their .npz
        ".safetensors": read_safetensors,
        ".pt": read_torch,
        ".pth": read_torch,
        ".tar": read_torch,  # as in checkpoint.pth.tar
    }
    if path.suffix not in readers:
        raise WeightFileError(
            f"{path}: unknown kind of weight file, expected {', '.join(readers)}."
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weight file.")
    try:
        return readers[path.suffix](path)
    except WeightFileError:
        raise
    except _DAMAGE as error:
        raise WeightFileError(f"{path}: damaged or not a {path.suffix} file ({error}).") from error


def read_h5(path: pathlib.Path) -> Tensors:
    """Every data set of an HDF5 file under its full path, the leading / left out.

    One that lies in another file, which may be any of the disk, is a WeightFileError.
    """
    import h5py

    tensors: Tensors = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise WeightFileError(f"{path}: {name!r} lies in another file; it was not read.")
            tensors[name] = np.asarray(item)
        elif isinstance(item, h5py.Group):
            for link in item:
                if isinstance(item.get(link, getlink=True), h5py.ExternalLink):
                    raise WeightFileError(f"{path}: {link!r} leads to another file, not read.")

    with h5py.File(path, "r") as file:
        visit("", file)
        file.visititems(visit)
    return tensors


def read_npz(path: pathlib.Path) -> Tensors:
    """Every array of a NumPy archive; pickled objects are refused."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def read_safetensors(path: pathlib.Path) -> Tensors:
    """Every tensor of a safetensors file: length of the header, JSON header, raw bytes."""
    data = path.read_bytes()
    (header_bytes,) = struct.unpack("<Q", data[:8])
    if header_bytes > len(data) - 8:
        raise WeightFileError(f"{path}: the header is longer than the file.")
    header = json.loads(data[8 : 8 + header_bytes])
    body = memoryview(data)[8 + header_bytes :]
    tensors: Tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, stop = entry["data_offsets"]
        if not 0 <= start <= stop <= len(body):
            raise WeightFileError(f"{path}: tensor {name!r} lies outside the file.")
        values = np.frombuffer(body[start:stop], _SAFETENSORS_TYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"]).copy()
    return tensors


def read_torch(path: pathlib.Path) -> Tensors:
    """Every tensor of a file written by torch.save; nested dictionaries are joined by a dot."""
    content = _read_zipped(path) if zipfile.is_zipfile(path) else _read_old(path)
    tensors: Tensors = {}
    _flatten("", content, tensors)
    return tensors


def _read_zipped(path: pathlib.Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        pickles = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise WeightFileError(
                f"{path}: found {len(pickles)} data.pkl, expected 1. TorchScript archives are not"
                " supported: save the state_dict anew."
            )
        if pickles[0].file_size > _MAX_PICKLE_BYTES:
            raise WeightFileError(f"{path}: its pickle has {pickles[0].file_size} bytes, too many.")
        folder = pickles[0].filename.removesuffix("data.pkl")
        byteorder = folder + "byteorder"
        if byteorder in archive.namelist() and archive.read(byteorder) != b"little":
            raise WeightFileError("only little-endian PyTorch files are supported.")

        def storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
            # The key only picks a member of the opened archive: nothing is looked up on the disk.
            info = archive.getinfo(f"{folder}data/{key}")
            if info.file_size != count * dtype.itemsize:
                raise WeightFileError(
                    f"storage {key!r} has {info.file_size} bytes, expected"
                    f" {count * dtype.itemsize}."
                )
            return np.frombuffer(archive.read(info), dtype)

        return _TensorUnpickler(io.BytesIO(archive.read(pickles[0])), storage).load()


def _read_old(path: pathlib.Path) -> Any:
    """Pickles of two numbers, of the machine, of the content and of the storages' keys; then count
    and values of each storage.
    """
    data = path.read_bytes()
    file = io.BytesIO(data)
    wanted: dict[str, tuple[np.dtype, int]] = {}

    def none(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        raise WeightFileError(f"storage {key!r} stands where none belongs.")

    def note(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        if count * dtype.itemsize > len(data):
            raise WeightFileError(f"storage {key!r} would be larger than the file.")
        wanted[key] = dtype, count
        return np.zeros(count, dtype)

    if (_TensorUnpickler(file, none).load(), _TensorUnpickler(file, none).load()) != _OLD_TORCH:
        raise WeightFileError(f"{path}: no file of torch.save.")
    if not _TensorUnpickler(file, none).load()["little_endian"]:
        raise WeightFileError("only little-endian PyTorch files are supported.")
    start = file.tell()
    _TensorUnpickler(file, note).load()  # which storages there are; their values come after it
    found: dict[str, np.ndarray] = {}
    for key in _TensorUnpickler(file, none).load():
        dtype, count = wanted[key]
        (stored,) = struct.unpack("<q", file.read(8))
        if stored != count:
            raise WeightFileError(f"storage {key!r} has {stored} values, expected {count}.")
        values = file.read(count * dtype.itemsize)
        if len(values) != count * dtype.itemsize:
            raise WeightFileError(f"{path}: damaged, it ends within storage {key!r}.")
        found[key] = np.frombuffer(values, dtype)
    file.seek(start)
    return _TensorUnpickler(file, lambda key, dtype, count: found[key]).load()


def _flatten(prefix: str, value: Any, tensors: Tensors) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(f"{prefix}.{key}" if prefix else str(key), item, tensors)
    elif isinstance(value, np.ndarray):
        tensors[prefix] = value


class _Storage(NamedTuple):
    """A flat buffer of a file; a tuple, which the pickle cannot change."""

    values: np.ndarray


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles tensors, dictionaries and plain values; every other name is an error."""

    def __init__(
        self, file: io.BytesIO, storage: Callable[[str, np.dtype, int], np.ndarray]
    ) -> None:
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            # A fresh function per look-up: the pickle may set attributes of what it is given.
            return lambda *args: _strided(*args[:4])
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda tensor, *_: tensor
        if module == "torch" and name in _TORCH_STORAGES:
            return name
        raise WeightFileError(
            f"the file's pickle asks for {module}.{name}, which is not part of a tensor; it was "
            "not executed. Only state dictionaries are read: save model.state_dict() instead."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage"):
            raise WeightFileError(f"unknown kind of storage {pid!r}.")
        _, kind, key, _, count, *view = pid
        if any(part is not None for part in view) or not isinstance(count, int) or count < 0:
            raise WeightFileError(f"unknown kind of storage {pid!r}.")
        return _Storage(self._storage(key, np.dtype(_TORCH_STORAGES[kind]), count))


def _strided(storage: Any, offset: int, shape: tuple, strides: tuple) -> np.ndarray:
    flat = isinstance(storage, _Storage) and storage.values.ndim == 1
    if not flat or len(shape) != len(strides):
        raise WeightFileError("a tensor without a storage.")
    if any(not isinstance(n, int) or n < 0 for n in (offset, *shape, *strides)):
        raise WeightFileError(f"a tensor with offset {offset}, shape {shape}, strides {strides}.")
    values = storage.values
    if 0 in shape:
        return np.zeros(shape, values.dtype)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    # Strides of 0 repeat a value: without the second test they could ask for any amount of memory.
    if last >= values.size or np.prod(shape, dtype=object) > values.size:
        raise WeightFileError(f"a tensor of shape {shape} reaches outside its storage.")
    steps = tuple(stride * values.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(values[offset:], shape, steps).copy()
