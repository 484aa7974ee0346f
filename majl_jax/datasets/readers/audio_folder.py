"""`audio_folder`: any folder of audio files, unlabelled music or drums of one's own. No labels.

Files below `train/`, `valid/` and `test/` are of that split; without such folders all are train.
"""

import functools
import os
import pathlib
from collections.abc import Iterator

from majl_jax.audio import files, libav
from majl_jax.datasets import source_files
from majl_jax.datasets.notes import STEMS, VOICES
from majl_jax.datasets.source_files import OUTSIDE, SUFFIXES, about_seconds, find_files, identity
from majl_jax.datasets.streamed import Stems, Streamed, one_stem
from majl_jax.datasets.track import BadTrack, Track

SPLITS = ("train", "valid", "test")
SNDFILE_SUFFIXES = (*source_files.AUDIO_SUFFIXES, ".oga", ".opus", ".aif", ".aiff")


def tracks(
    source: str | None,
    *,
    sample_rate_hz: int,
    hop_samples: int,
    channels: int = 1,
    seed: int = 0,
) -> list[Track]:
    """The audio files below `source`, in natural order; hidden files are passed over."""
    del seed
    expected = f"expected audio files ({', '.join(SUFFIXES)}) in it, in subfolders or not"
    if source is None:
        raise ValueError(f"--source is missing: a folder; {expected}")
    root = pathlib.Path(source)
    found = find_files(root)
    if not any(path.suffix.lower() in SUFFIXES for path in found):
        raise FileNotFoundError(f"{source}: no audio files found; {expected}")
    divided = any((root / split).is_dir() for split in SPLITS)
    out = []
    for path in found:
        inside = path.relative_to(root)
        top = inside.parts[0] if len(inside.parts) > 1 else ""
        audio = streamed(
            path, sample_rate_hz=sample_rate_hz, hop_samples=hop_samples, channels=channels
        )
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


def find_folders(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder and all below it, linked ones as well, but none inside itself."""
    above = {root: frozenset({root.resolve()})}
    for place, names, _ in os.walk(root, followlinks=True):
        folder = pathlib.Path(place)
        yield folder
        for name in [*names]:
            real = (folder / name).resolve()
            if name.startswith(".") or real in above[folder]:
                names.remove(name)
            else:
                above[folder / name] = above[folder] | {real}


def streamed(
    path: pathlib.Path, *, sample_rate_hz: int, hop_samples: int, channels: int = 1
) -> Streamed:
    """One file as a mixture, read block by block."""
    blocks = functools.partial(_blocks, path, sample_rate_hz=sample_rate_hz, channels=channels)
    return Streamed(
        blocks,
        STEMS,
        known=False,
        sample_rate_hz=sample_rate_hz,
        hop_samples=hop_samples,
        channels=channels,
        voices=VOICES,
    )


def _blocks(path: pathlib.Path, *, sample_rate_hz: int, channels: int) -> Iterator[Stems]:
    blocks = files.stream(path, sample_rate_hz=sample_rate_hz, channels=channels)
    try:
        yield from one_stem(blocks)
    except files.AudioFileError as error:
        raise BadTrack(str(error)) from error
