"""Whole files or none: a file appears under its name once it is complete and on disk."""

import contextlib
import os
import pathlib


def write_text(path: pathlib.Path, text: str) -> None:
    """Replace a text file in one go."""
    write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Replace a file in one go: whatever happens, the old or the new one is there, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise no_write(path, error) from error


def no_write(path: pathlib.Path, error: OSError) -> OSError:
    return OSError(
        error.errno,
        f"could not write {path}: {error.strerror}. What was saved before is whole: check the "
        "space and the rights there, then run the same command again",
    )
