"""`audio_folder`: any folder of audio files, unlabelled music or drums of one's own. No labels.

Files below `train/`, `valid/` and `test/` are of that split; without such folders all are train.
"""

from majl_jax.audio import libav
from majl_jax.datasets import notes, streamed
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.source_files import (
    OUTSIDE,
    SUFFIXES,
    Copy,
    about_seconds,
    find_files,
    identity,
)
from majl_jax.datasets.track import Track

STEMS = notes.MIXTURE
VOICES = 1
SPLITS = ("train", "valid", "test")
COPY = Copy("audio files", f"{', '.join(SUFFIXES)} in it, in subfolders or not", own=True)


def tracks(source: str | None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The audio files below `source`, in natural order; hidden files are passed over."""
    del seed
    root = COPY.root(source)
    found = find_files(root)
    if not any(path.suffix.lower() in SUFFIXES for path in found):
        raise COPY.nothing(root)
    divided = any((root / split).is_dir() for split in SPLITS)
    out = []
    for path in found:
        inside = path.relative_to(root)
        top = inside.parts[0] if len(inside.parts) > 1 else ""
        audio = streamed.unlabelled(path, grid=grid)
        out.append(
            Track(
                id=identity(inside.as_posix()),
                split=top if divided and top in SPLITS else "train",
                group=inside.parent.as_posix(),
                paths=(path,),
                seconds=about_seconds(path),
                load=audio.load,
                streamed=audio,
                left_out=libav.lacking(path) or ("" if top in SPLITS or not divided else OUTSIDE),
            )
        )
    return out
