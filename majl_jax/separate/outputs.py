"""Options of a call and files that appear once they are complete."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def drafts(paths: Sequence[pathlib.Path]) -> Iterator[pathlib.Path]:
    """A folder for drafts of the files, which appear under their names if nothing fails."""
    folder = paths[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".part") as draft:
            yield pathlib.Path(draft)
            for path in paths:
                os.replace(pathlib.Path(draft) / path.name, path)
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # succeeds only where nothing was written


@dataclasses.dataclass(frozen=True)
class Options:
    """How a file is treated."""

    overlap: float = 0.5
    batch_size: int = 8
    pitch_only: bool = False
    threshold: float = 0.5
    subtype: str = "FLOAT"
    overwrite: bool = False
    allow_truncated: bool = False
    picture: bool = True
    devices: Sequence[Any] | None = None


@contextlib.contextmanager
def whole_text(path: pathlib.Path) -> Iterator[Any]:
    """A text file that appears under its name once it is complete."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with draft.open("w", encoding="utf-8") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
