"""`stems_named`: songs as folders of any number of parts, which a table of names sorts into stems.

A song is a folder with audio in it, or in folders in it that are called as stems are, or "stems".
The mixture is the sum of all that is not left out; a part that is there in two formats counts once.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from majl_jax.audio import libav
from majl_jax.datasets import name_table, source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.splits import seeded_split
from majl_jax.datasets.streamed import Stems, Streamed, together
from majl_jax.datasets.track import Track

SPLITS = {"train": "train", "valid": "valid", "validation": "valid", "test": "test"}
INSIDE = frozenset(
    {"stem", "stems", "track", "tracks", "multitrack", "multitracks", "audio", "raw"}
)
BESIDES = INSIDE | frozenset(
    {"lead", "main", "back", "backing", "background", "bg", "double", "doubles", "harmony", "group"}
    | {
        "bus",
        "dry",
        "wet",
        "left",
        "right",
        "l",
        "r",
        "live",
        "electric",
        "acoustic",
        "synth",
        "sy",
    }
)
"""What a folder of a stem may be called besides the stem."""
COPY = source_files.Copy(
    "stems",
    "SONG/PART.wav or SONG/STEM/PART.wav, also below train/, valid/ and test/",
    own=True,
)
LOOSE = "in no folder of a song"
BY_TABLE = "left out by the table of names"
Groups = Mapping[str, Sequence[pathlib.Path]]  # of a song: the files of each stem


@dataclasses.dataclass
class Song:
    """The files of a song by their stems."""

    name: str
    split: str  # "" where there are no folders of splits
    stems: dict[str, list[pathlib.Path]]
    left_out: list[pathlib.Path]
    fault: str = ""  # why none of it is used


def tracks(
    source: str | None, *, grid: Grid, seed: int = 0, names: str | None = None
) -> list[Track]:
    """The songs below `source`; without folders of splits a tenth is test, a tenth of the rest
    valid, drawn by the seed.

    names: a file of lines "STEM: PATTERN, PATTERN", which count before the built-in table.
    """
    table = name_table.read(names)
    songs = find_songs(source, table)
    stems = stems_of(songs, table, str(source))
    faults = {song.name: _fault(song) for song in songs}
    drawn = seeded_split((name for name, fault in faults.items() if not fault), seed=seed)
    out = []
    for song in songs:
        groups = {stem: tuple(song.stems.get(stem, ())) for stem in stems}
        audio = streamed(groups, song.left_out, grid=grid)
        paths = tuple(path for group in groups.values() for path in group)
        out.append(
            Track(
                id=source_files.identity(song.name),
                split=song.split or drawn.get(song.name, "train"),
                group=song.name,
                paths=paths or tuple(song.left_out),
                seconds=max(map(source_files.about_seconds, paths), default=0.0),
                load=audio.load,
                streamed=audio,
                left_out=faults[song.name],
            )
        )
    return out


def find_stems(source: str | None, *, names: str | None = None) -> tuple[str, ...]:
    """The stems of the table that any song below `source` has, in the order of the table."""
    table = name_table.read(names)
    return stems_of(find_songs(source, table), table, str(source))


def stems_of(songs: Sequence[Song], table: name_table.Table, source: str) -> tuple[str, ...]:
    """The stems of the table that any of the songs has; ValueError if those are fewer than two."""
    there = {stem for song in songs for stem in song.stems}
    found = tuple(stem for stem in name_table.stems(table) if stem in there)
    if len(found) < 2:
        raise ValueError(
            f"{source}: all files are of the stem {', '.join(found) or 'none'}, expected two stems"
            f" or more: give a table of your names by --names, lines {name_table.FORM}"
        )
    return found


def find_songs(source: str | None, table: name_table.Table) -> list[Song]:
    """The songs below a folder, in natural order."""
    root = COPY.root(source)
    divided = any((root / name).is_dir() for name in SPLITS)
    songs: dict[str, Song] = {}
    for path in _once(source_files.find_files(root)):
        *folders, name = path.relative_to(root).with_suffix("").parts
        split = SPLITS.get(folders[0]) if divided and folders else ""
        if split is None or len(folders) == bool(split):
            beside = source_files.OUTSIDE if split is None else LOOSE
            name = path.relative_to(root).as_posix()
            songs[name] = Song(name, split or "", {}, [path], beside)
            continue
        inside = [name]
        while len(folders) > 1 + bool(split) and _is_inside(folders[-1], table):
            inside.append(folders.pop())
        song = songs.setdefault("/".join(folders), Song("/".join(folders), split, {}, []))
        stem = name_table.stem_of(table, inside)
        group = song.left_out if stem == name_table.LEFT_OUT else song.stems.setdefault(stem, [])
        group.append(path)
    if not any(song.stems for song in songs.values()):
        raise COPY.nothing(root)
    return [*songs.values()]


def _once(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Of files of one folder that differ in their suffixes the one whose suffix comes first."""
    order = {suffix: number for number, suffix in enumerate(source_files.SUFFIXES)}
    best: dict[pathlib.Path, pathlib.Path] = {}
    for path in paths:
        other = best.setdefault(path.with_suffix(""), path)
        if order[path.suffix.lower()] < order[other.suffix.lower()]:
            best[path.with_suffix("")] = path
    return [path for path in paths if best[path.with_suffix("")] == path]


def _is_inside(folder: str, table: name_table.Table) -> bool:
    """Whether a folder is one of the stems of a song, and no song, by its name."""
    words = name_table.words_of(folder)
    return name_table.is_stem(table, folder, besides=BESIDES) or not {*words} - INSIDE


def _fault(song: Song) -> str:
    """Why a song is left out, if so."""
    if song.fault:
        return song.fault
    if len(song.stems) < 2:
        return f"{', '.join(song.stems) or 'nothing'} alone: expected two stems or more"
    faults = {libav.lacking(path) for group in song.stems.values() for path in group}
    return max(faults)


def streamed(groups: Groups, left_out: Sequence[pathlib.Path], *, grid: Grid) -> Streamed:
    """The sums of the files of each stem, silence where there are none; remarks say which is
    which.
    """
    plain = all([path.stem for path in paths] == [stem] for stem, paths in groups.items())
    told = (
        []
        if plain
        else [
            f"{stem}: {', '.join(path.stem for path in paths) or 'silence'}"
            for stem, paths in groups.items()
        ]
    )
    told += [f"{BY_TABLE}: {', '.join(path.stem for path in left_out)}"] * bool(left_out)
    remarks = ("; ".join(told),) * bool(told)
    blocks = functools.partial(_blocks, dict(groups), grid=grid)
    return Streamed(blocks, tuple(groups), known=True, grid=grid, remarks=remarks)


def _blocks(groups: Groups, *, grid: Grid) -> Iterator[Stems]:
    files = [path for paths in groups.values() for path in paths]
    ends = np.cumsum([len(paths) for paths in groups.values()])
    streams = {str(path): source_files.stream_audio(path, grid=grid) for path in files}
    for block in together(streams, grid=grid, pad=True, mixture_is_a_fault=True):
        sums = [
            block[:, end - len(paths) : end].sum(axis=1)
            for paths, end in zip(groups.values(), ends, strict=True)
        ]
        yield np.stack(sums, axis=1)
