"""`stems_coherent`, `stems_coherent_by_source`, `stems_incoherent`: stems of one's own, named by
their folders.

| layout | files | a track is |
|---|---|---|
| by song (coherent) | SONG/SOURCE.wav or SONG/SOURCE/SOURCE.wav | a song |
| by source (coherent) | SOURCE/SONG.wav, as in nussl's MixSourceFolder | the files of one name |
| incoherent | SOURCE/any name.wav, in subfolders or not | one file of each, by the seed |

All may be below train/, valid/ (or validation/) and test/; else a tenth is test and a tenth of the
rest valid, drawn by the seed. The mixture is the sum of the stems: a folder or file named mix,
mixture, mixdown (in any case) is not read, and a song in which one of three or more stems is the
sum of the others cannot be used.

Of incoherent stems, every file is in a track. Where a source has fewer files than another, its
files are used again: with silence instead there would be nothing to separate, and no score is
defined on it. Shorter files end in silence.
"""

import collections
import functools
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from majl_jax.audio import libav
from majl_jax.datasets import source_files, stem_pairs
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.splits import seeded_split
from majl_jax.datasets.streamed import Stems, Streamed, together
from majl_jax.datasets.track import Track

TREES = {
    "by_song": "SONG/SOURCE.wav or SONG/SOURCE/SOURCE.wav",
    "by_source": "SOURCE/SONG.wav, of the same name in the folder of every source",
    "incoherent": "SOURCE/any name.wav",
}
COPIES = {
    layout: source_files.Copy(
        "stems", f"{tree}, or the same below train/, valid/ and test/", own=True
    )
    for layout, tree in TREES.items()
}
SPLITS = {"train": "train", "valid": "valid", "validation": "valid", "test": "test"}
# Without what is no letter.
MIXTURES = frozenset(
    {
        "mix",
        "mixture",
        "mixdown",
        "fullmix",
        "stereomix",
        "finalmix",
        "originalmix",
        "linearmixture",
    }
)
MOST_STEMS = 16
ELSEWHERE = "not where this layout has files"
NO_AUDIO = "no audio file in it"


class File(NamedTuple):
    """An audio file: of which song and source it is, or why it is left out."""

    path: pathlib.Path
    split: str  # "" where there are no folders of splits
    song: str
    source: str
    left_out: str = ""


def tracks(
    source: str | None, *, grid: Grid, seed: int = 0, layout: str = "by_song"
) -> list[Track]:
    """The songs below `source`, or made-up ones of unrelated files; beside them all that is left
    out.

    ValueError where the folders cannot be of this layout.
    """
    found = find_files(source, layout)
    root, stems = pathlib.Path(str(source)), stems_of(found, str(source), layout)
    of_files = functools.partial(streamed, grid=grid, pad=layout == "incoherent")
    left_out = [
        Track(
            id=source_files.identity(one.path.relative_to(root).as_posix()),
            split=one.split or "train",
            paths=(one.path,),
            load=of_files({one.source: one.path}).load,
            left_out=one.left_out,
        )
        for one in found
        if one.left_out
    ]
    used = [one for one in found if not one.left_out]
    if layout == "incoherent":
        of_source = {
            stem: {one.path: one.split for one in used if one.source == stem} for stem in stems
        }
        return stem_pairs.tracks(of_source, root=root, of_files=of_files, seed=seed) + left_out
    return _songs(used, stems, f"{source}: {COPIES[layout].expected}", of_files, seed) + left_out


def _songs(
    used: Sequence[File],
    stems: tuple[str, ...],
    expected: str,
    of_files: Callable[..., Streamed],
    seed: int,
) -> list[Track]:
    """The songs of coherent stems; those with other stems than most are left out."""
    songs: dict[tuple[str, str], dict[str, pathlib.Path]] = collections.defaultdict(dict)
    for one in used:
        paths = songs[one.split, one.song]
        # Of a file that is there twice, the lossless one is read.
        paths[one.source] = min(paths.get(one.source, one.path), one.path, key=_suffix_number)
    names = {(split, song): f"{split}/{song}" if split else song for split, song in songs}
    faults = {key: _unlike(paths, stems) for key, paths in songs.items()}
    if all(faults.values()):
        raise ValueError(
            f"{expected}; no song has {', '.join(stems)} and nothing else: is a name misspelt?"
        )
    drawn = seeded_split((names[key] for key, fault in faults.items() if not fault), seed=seed)
    audio = {
        key: of_files({stem: paths[stem] for stem in stems if stem in paths})
        for key, paths in songs.items()
    }
    return [
        Track(
            id=source_files.identity(names[key]),
            split=key[0] or drawn.get(names[key], "train"),
            group=key[1],
            paths=tuple(paths.values()),
            seconds=max(map(source_files.about_seconds, paths.values())),
            load=audio[key].load,
            streamed=audio[key],
            left_out=faults[key],
        )
        for key, paths in songs.items()
    ]


def _suffix_number(path: pathlib.Path) -> int:
    return source_files.SUFFIXES.index(path.suffix.lower())


def _unlike(paths: Mapping[str, pathlib.Path], stems: tuple[str, ...]) -> str:
    """Why a song with these stems is left out, if so."""
    missing = [stem for stem in stems if stem not in paths]
    others = [name for name in paths if name not in stems]
    told = [f"without {', '.join(missing)}"] if missing else []
    told += [f"with {', '.join(others)}, which most songs do not have"] if others else []
    return " and ".join(told)


def find_stems(source: str | None, *, layout: str) -> tuple[str, ...]:
    """The names of the stems below `source`, in alphabetical order."""
    return stems_of(find_files(source, layout), str(source), layout)


def stems_of(found: Sequence[File], source: str, layout: str) -> tuple[str, ...]:
    """The names of the sources of the files; of songs, those that at least half of them have."""
    has = {(one.split, one.song, one.source) for one in found if not one.left_out}
    songs = {(split, song) for split, song, _ in has}
    counts = collections.Counter(name for *_, name in has)
    least = len(songs) / 2 if layout == "by_song" else 1
    stems = tuple(sorted(name for name, count in counts.items() if count >= least))
    if not 2 <= len(stems) <= MOST_STEMS:
        other = {"by_song": "stems_coherent_by_source", "by_source": "stems_coherent"}.get(layout)
        advice = f"; if it is the other way round, use {other}" if other else ""
        named = ", ".join(stems[:4]) + ", ..." * (len(stems) > 4)
        raise ValueError(
            f"{source} has {len(stems)} sources ({named}), expected 2 to {MOST_STEMS}:"
            f" {COPIES[layout].expected}{advice}"
        )
    return stems


def find_files(source: str | None, layout: str) -> list[File]:
    """The audio files below `source` but those of mixtures; ValueError where the folder of a
    source is empty.
    """
    if layout not in COPIES:
        raise ValueError(f"expected a layout of {tuple(COPIES)}; got {layout!r}")
    root = COPIES[layout].root(source)
    tops = [name for name in SPLITS if (root / name).is_dir()]
    out = []
    for path in source_files.find_files(root):
        parts = (*path.relative_to(root).parts[:-1], path.stem)
        if tops and parts[0] not in tops:
            out.append(File(path, "", "", "", source_files.OUTSIDE))
            continue
        split = SPLITS[parts[0]] if tops else ""
        parts = parts[1:] if tops else parts
        if is_mixture(parts, layout):
            continue
        placed = place(parts, layout)
        fault = libav.lacking(path) or ("" if placed else ELSEWHERE)
        out.append(File(path, split, *(placed or ("", "")), fault))
    if all(one.left_out for one in out):
        raise COPIES[layout].nothing(root)
    if layout == "by_song" and any(is_mixture_name(one.song) for one in out):
        raise ValueError(f"{source} has a folder of mixtures, so use stems_coherent_by_source")
    return out + _empty_folders(root, tops, out, layout)


def is_mixture(parts: tuple[str, ...], layout: str) -> bool:
    """Whether a file, by its path without suffix, is a mixture."""
    return is_mixture_name(parts[-1 if layout == "by_song" else 0])


def is_mixture_name(name: str) -> bool:
    """Whether a name is one that mixtures have: Mix, mix-down, "Full Mix"."""
    return re.sub("[^a-z]", "", name.casefold()) in MIXTURES


def place(parts: tuple[str, ...], layout: str) -> tuple[str, str] | None:
    """(song, source) of a file by its path without suffix; None where it has no place."""
    match layout, parts:
        case "by_song", (song, name):
            return song, name
        case "by_song", (song, folder, name) if folder == name:
            return song, name
        case "by_source", (name, song):
            return song, name
        case "incoherent", (name, _, *_):
            return "", name
    return None


def _empty_folders(
    root: pathlib.Path, tops: Sequence[str], found: Sequence[File], layout: str
) -> list[File]:
    """Folders of songs without audio; one of a source is a ValueError, as its name may be a stem
    that is missing.
    """
    out = []
    for top in tops or [""]:
        for folder in sorted(path for path in (root / top).iterdir() if path.is_dir()):
            hidden = folder.name.startswith(".") or is_mixture_name(folder.name)
            if hidden or any(one.path.is_relative_to(folder) for one in found):
                continue
            if layout != "by_song":
                raise ValueError(f"{folder}: {NO_AUDIO}; {COPIES[layout].expected}")
            out.append(File(folder, SPLITS.get(top, ""), "", "", NO_AUDIO))
    return out


def streamed(paths: Mapping[str, pathlib.Path], *, grid: Grid, pad: bool = False) -> Streamed:
    """The files by their stems, without pitch labels.

    pad: they do not belong together, and may be of any lengths.
    """
    blocks = functools.partial(_blocks, dict(paths), grid=grid, pad=pad)
    return Streamed(blocks, tuple(paths), known=True, grid=grid)


def _blocks(paths: Mapping[str, pathlib.Path], *, grid: Grid, pad: bool) -> Iterator[Stems]:
    return together(
        {stem: source_files.stream_audio(path, grid=grid) for stem, path in paths.items()},
        grid=grid,
        pad=pad,
        mixture_is_a_fault=not pad,
    )
