"""Options of a call and files that appear once they are complete."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from majl_jax import atomic


@contextlib.contextmanager
def drafts(paths: Sequence[pathlib.Path]) -> Iterator[list[pathlib.Path]]:
    """Drafts of files of one folder, which appear under their names if nothing fails."""
    folder = paths[0].parent
    try:
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(atomic.draft(path)) for path in paths]
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
    pitch_bends: bool = False
    """Whether the notes of pitches.mid are bent to the pitch of every frame."""
    devices: Sequence[Any] | None = None
