"""The songs that a call names, as files, folders and patterns, and where the outputs of each go."""

import collections
import glob
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from majl_jax.audio import files


class Song(NamedTuple):
    """One file."""

    path: str
    folder: pathlib.Path
    """Gets what is made of it."""


def songs(arguments: Sequence[str], output: pathlib.Path) -> tuple[list[Song], list[str]]:
    """The songs, each with a folder of its own below `output`, and of arguments that name none,
    why.

    A folder stands for the audio files in it and below it, a pattern (`music/**/*.flac`, where no
    file is called so) for those that match; their tree is mirrored. Where `output` lies in it, what
    an earlier call made there is left out; where `output` is it, only a pattern that ends as audio
    files do and names none further in (`music/*.flac`) is taken. A song in a tree is called by its
    whole name where another one beside it differs in its suffix only; what else is of one name gets
    a number.
    """
    found: list[tuple[str, pathlib.PurePath, bool]] = []
    faults = []
    for argument in arguments:
        path = pathlib.Path(argument)
        is_pattern = not path.exists() and glob.has_magic(argument)
        if not is_pattern and not path.is_dir():
            found.append((argument, pathlib.PurePath(path.name), False))
            continue
        root = _fixed_part(argument) if is_pattern else path
        if output.resolve() == root.resolve() and (not is_pattern or _goes_deeper(path, root)):
            faults.append(
                f"{argument}: the outputs would lie among the songs; choose another --output"
            )
            continue
        inside = _matching(argument) if is_pattern else _below(path)
        if root.resolve() in output.resolve().parents:
            inside = [one for one in inside if output.resolve() not in one.resolve().parents]
        found += [(str(one), one.relative_to(root), True) for one in inside]
        if not inside:
            where = "matches no audio file" if is_pattern else "holds no audio file"
            faults.append(f"{argument}: {where}; expected {', '.join(_suffixes())}")
    return list(_apart(found, output)), faults


def left_out(arguments: Sequence[str], output: pathlib.Path) -> list[str]:
    """For each folder of songs that holds other files as well, how many, and of which suffixes."""
    from majl_jax.datasets import source_files

    told = []
    for folder in filter(pathlib.Path.is_dir, map(pathlib.Path, arguments)):
        kinds = collections.Counter(
            path.suffix or path.name
            for place in source_files.find_folders(folder)
            if output.resolve() not in (place.resolve(), *place.resolve().parents)
            for path in source_files.visible(place, "*")
            if path.is_file()
        )
        others = [one for one in kinds.most_common() if one[0].lower() not in _suffixes()]
        if 0 < len(others) < len(kinds):
            shown = ", ".join(f"{count} {kind}" for kind, count in others[:8])
            told.append(f"{folder}: no audio by their names, left out: {shown}")
    return told


def _suffixes() -> tuple[str, ...]:
    from majl_jax.datasets import source_files

    return source_files.SUFFIXES


def _below(folder: pathlib.Path) -> list[pathlib.Path]:
    from majl_jax.datasets import source_files

    return source_files.find_files(folder)


def _matching(pattern: str) -> list[pathlib.Path]:
    """Audio files that a pattern names, and those below folders that it names."""
    found: dict[pathlib.Path, None] = {}
    for name in sorted(glob.glob(pattern, recursive=True)):
        path = pathlib.Path(name)
        if path.is_dir():
            found |= dict.fromkeys(_below(path))
        elif path.suffix.lower() in _suffixes():
            found[path] = None
    return [*found]


def _fixed_part(pattern: str) -> pathlib.Path:
    """The folder of a pattern above its first part that varies."""
    parts = pathlib.Path(pattern).parts
    return pathlib.Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))


def _goes_deeper(pattern: pathlib.Path, root: pathlib.Path) -> bool:
    """Whether a pattern may name folders in its fixed part, or what is in them."""
    is_deep = len(pattern.parts) > len(root.parts) + 1
    return is_deep or pattern.suffix.lower() not in _suffixes()


def _apart(
    found: Sequence[tuple[str, pathlib.PurePath, bool]], output: pathlib.Path
) -> Iterator[Song]:
    """Songs in folders of their own: `path` to be `place` below `output`, from a tree or not."""
    beside = collections.Counter(place.with_suffix("") for _, place, in_tree in found if in_tree)
    taken: set[pathlib.Path] = set()
    for path, place, in_tree in found:
        alone = not in_tree or beside[place.with_suffix("")] == 1
        name = files.safe_name(place.stem if alone else place.name)
        above = output.joinpath(*map(files.safe_name, place.parent.parts))
        tries = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        folder = next(above / one for one in tries if above / one not in taken)
        taken.add(folder)
        yield Song(path, folder)
