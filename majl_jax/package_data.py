"""Files that are no code: in a checkout beside the package, in an installed one inside of it."""

import pathlib

_PACKAGE = pathlib.Path(__file__).resolve().parent


def folder(name: str, *, in_checkout: str) -> pathlib.Path:
    """Where files are that setup.py puts into the package `majl_jax.NAME`."""
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parent / in_checkout


CONFIGS = folder("configs", in_checkout="configs")
SPLITS = folder("splits", in_checkout="data/splits")
