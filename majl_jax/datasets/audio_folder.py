"""`audio_folder`: any folder of audio files, unlabelled music or drums of one's own. No labels.

Files below `train/`, `valid/` and `test/` are of that split; without such folders all are train.
"""

import functools
import hashlib
import pathlib
import re
import urllib.parse

import numpy as np

from majl_jax.datasets import note_labels
from majl_jax.datasets.track import Recording, Track, no_pitch

STEMS = note_labels.MIXTURE
VOICES = 1
SPLITS = ("train", "valid", "test")
SUFFIXES = (*note_labels.AUDIO_SUFFIXES, ".oga", ".opus", ".aif", ".aiff")
UNREADABLE_SUFFIXES = (".m4a", ".aac", ".mp4", ".webm", ".wma")
HEADER_SUFFIXES = (".wav", ".flac", ".aif", ".aiff")  # their headers say the length at once
COMPRESSED_BITS_PER_S = 192_000  # a guess for the others, from the size of the file
LONGEST_ID = 200  # characters once quoted: an id becomes a file name
OUTSIDE = "beside the folders train, valid and test: move it into one of them"


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
        out.append(
            Track(
                id=identity(inside.as_posix()),
                split=top if divided and top in SPLITS else "train",
                group=inside.parent.as_posix(),
                paths=(path,),
                seconds=about_seconds(path),
                load=functools.partial(
                    load,
                    path,
                    sample_rate_hz=sample_rate_hz,
                    hop_samples=hop_samples,
                    channels=channels,
                ),
                left_out=_fault(path) or ("" if top in SPLITS or not divided else OUTSIDE),
            )
        )
    return out


def _fault(path: pathlib.Path) -> str:
    """Why a file cannot be read, if so."""
    suffix = path.suffix.lower()
    if suffix not in UNREADABLE_SUFFIXES:
        return ""
    return f"{suffix} files cannot be read: convert them to .wav or .flac"


def find_files(root: pathlib.Path) -> list[pathlib.Path]:
    """The audio files below a folder in natural order: "2.wav" before "10.wav"."""
    found = [
        path
        for path in root.rglob("*")
        if path.suffix.lower() in (*SUFFIXES, *UNREADABLE_SUFFIXES)
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and path.is_file()
    ]
    return sorted(found, key=lambda path: natural_key(path.relative_to(root).as_posix()))


def natural_key(text: str) -> tuple[list[tuple[int, str]], str]:
    """A key to sort by, in which numbers count as numbers and capitals do not."""
    words = re.findall(r"[0-9]+|[^0-9]+", text.casefold())
    return [(int(word), "") if word[0] in "0123456789" else (-1, word) for word in words], text


def identity(name: str) -> str:
    """The id of a file: its path in the folder, shortened where it would be too long a file name."""
    if len(urllib.parse.quote(name, safe="")) <= LONGEST_ID:
        return name
    end = pathlib.PurePosixPath(name).name[-16:]
    return f"{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:16]} {end}"


def about_seconds(path: pathlib.Path) -> float:
    """About how long a file is, without decoding it."""
    if path.suffix.lower() in HEADER_SUFFIXES:
        return note_labels.header_seconds(path)
    return path.stat().st_size * 8 / COMPRESSED_BITS_PER_S


def load(
    path: pathlib.Path, *, sample_rate_hz: int, hop_samples: int, channels: int = 1
) -> Recording:
    """One file as a mixture without any label."""
    audio = note_labels.read_mixture(path, sample_rate_hz=sample_rate_hz, channels=channels)
    f0_hz, has_pitch = no_pitch(len(audio), stems=VOICES, hop_samples=hop_samples)
    return Recording(
        audio=audio,
        stems=STEMS,
        has_stems=np.zeros(1, bool),
        f0_hz=f0_hz,
        has_pitch=has_pitch,
        sample_rate_hz=sample_rate_hz,
        hop_samples=hop_samples,
        voices=VOICES,
    )
