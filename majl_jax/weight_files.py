"""Reads arrays from weight files without running anything that is in them.

`.h5`, `.npz` (Chainer: `.model`), `.safetensors` and PyTorch's zip archives (`.pt`, `.pth`). A PyTorch file holds a
pickle, a program that may call any function: here it may only name tensors.
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
from typing import Any

import ml_dtypes
import numpy as np

Tensors = dict[str, np.ndarray]

_MAX_PICKLE_BYTES = 64 * 2**20
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
    """Every data set of an HDF5 file under its full path, the leading / left out."""
    import h5py

    tensors: Tensors = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            tensors[name] = np.asarray(item)

    with h5py.File(path, "r") as file:
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
    with zipfile.ZipFile(path) as archive:
        pickles = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise WeightFileError(
                f"{path}: found {len(pickles)} data.pkl, expected 1. Files older than PyTorch 1.6 "
                "and TorchScript archives are not supported: save the state_dict anew."
            )
        if pickles[0].file_size > _MAX_PICKLE_BYTES:
            raise WeightFileError(f"{path}: its pickle has {pickles[0].file_size} bytes, too many.")
        unpickler = _TensorUnpickler(archive, pickles[0].filename.removesuffix("data.pkl"))
        content = unpickler.load()
    tensors: Tensors = {}
    _flatten("", content, tensors)
    return tensors


def _flatten(prefix: str, value: Any, tensors: Tensors) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(f"{prefix}.{key}" if prefix else str(key), item, tensors)
    elif isinstance(value, np.ndarray):
        tensors[prefix] = value


class _Storage:
    """A flat buffer of the archive, not yet read."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles tensors, dictionaries and plain values; every other name is an error."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(folder + "data.pkl")))
        self._archive = archive
        self._folder = folder
        byteorder = folder + "byteorder"
        if byteorder in archive.namelist() and archive.read(byteorder) != b"little":
            raise WeightFileError("only little-endian PyTorch files are supported.")

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
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise WeightFileError(f"unknown kind of storage {pid!r}.")
        _, kind, key, _, count = pid
        dtype = np.dtype(_TORCH_STORAGES[kind])
        # The key only picks a member of the opened archive: nothing is looked up on the disk.
        info = self._archive.getinfo(f"{self._folder}data/{key}")
        if info.file_size != count * dtype.itemsize:
            raise WeightFileError(
                f"storage {key!r} has {info.file_size} bytes, expected {count * dtype.itemsize}."
            )
        return _Storage(np.frombuffer(self._archive.read(info), dtype))


def _strided(storage: Any, offset: int, shape: tuple, strides: tuple) -> np.ndarray:
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
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
