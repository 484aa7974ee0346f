"""An object store in memory: TensorFlow's ram:// as a path like gs://, with what such stores
lack.
"""

import uuid

import pytest
from etils import epath
from etils.epath import backend, gpath, register

SCHEME = "ram"


def bucket(monkeypatch: pytest.MonkeyPatch) -> epath.Path:
    """An empty folder of the store, whose paths `epath.Path` knows until the test ends."""
    for name, value in {
        "_URI_PREFIXES": (*gpath._URI_PREFIXES, f"{SCHEME}://"),
        "_URI_SCHEMES": gpath._URI_SCHEMES | {SCHEME},
        "_URI_MAP_ROOT": {**gpath._URI_MAP_ROOT, f"{SCHEME}://": f"/{SCHEME}/"},
        "_PREFIX_TO_BACKEND": {**gpath._PREFIX_TO_BACKEND, SCHEME: backend.tf_backend},
    }.items():
        monkeypatch.setattr(gpath, name, value)
    monkeypatch.setitem(register._URI_PREFIXES_TO_CLS, f"{SCHEME}://", gpath.PosixGPath)
    monkeypatch.setattr(backend._TfBackend, "rename", _rename)
    return epath.Path(f"{SCHEME}://bucket-{uuid.uuid4().hex}/sets")


def _rename(self: backend.Backend, path: str, dst: str) -> None:
    """File by file: to such a store a folder is but the beginning of its files' names."""
    if not self.isdir(path):
        self.replace(path, dst)
        return
    self.makedirs(dst, exist_ok=True)
    for name in self.listdir(path):
        _rename(self, f"{path}/{name}", f"{dst}/{name}")
    self.rmtree(path)
