"""Finding and reading the files of a data set as its authors distribute it."""

import csv
import dataclasses
import hashlib
import os
import pathlib
import re
import urllib.parse
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32

from majl_jax.audio import files, libav
from majl_jax.audio.resampling import Block
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.track import BadTrack, printable

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")  # in this order, where a track is there twice


@dataclasses.dataclass(frozen=True)
class Copy:
    """What a reader finds at --source: a copy of `title`, in whose folder `tree` lies.

    own: there is no such data set, `title` says what files of one's own they are.
    """

    title: str
    tree: str
    own: bool = False

    @property
    def expected(self) -> str:
        """What an error says of the layout."""
        return f"expected {self.tree}" + ("" if self.own else " in it")

    def root(self, source: str | None) -> pathlib.Path:
        """The folder; ValueError without --source, FileNotFoundError where it is no folder."""
        if source is None:
            folder = f"a folder of {self.title}" if self.own else f"the folder of {self.title}"
            raise ValueError(f"--source is missing: {folder}; {self.expected}")
        root = pathlib.Path(source)
        if not root.is_dir():
            raise self.nothing(root, ", but that is no folder")
        return root

    def nothing(self, root: pathlib.Path | str, why: str = "") -> FileNotFoundError:
        """The error of a folder in which nothing of the data set is."""
        if self.own:
            return FileNotFoundError(f"{root}: no {self.title} found; {self.expected}{why}")
        return FileNotFoundError(f"{root} is no copy of {self.title}: {self.expected}{why}")

    def lacking(self, root: pathlib.Path, what: str, advice: str = "") -> FileNotFoundError:
        """The error of a folder in which the data set is, but none of `what`."""
        return FileNotFoundError(f"{root} has no {what}; {self.expected}{advice}")


def find_audio(path: pathlib.Path) -> pathlib.Path | None:
    """The audio file of this name, in the format of its suffix or in another that can be read."""
    for suffix in (path.suffix, *AUDIO_SUFFIXES):
        if (other := path.with_suffix(suffix)).is_file():
            return other
    return None


def read_audio(path: pathlib.Path, *, grid: Grid) -> Float32[np.ndarray, "time channel"]:
    """The audio of a file at the rate and in the channels of a grid; raises AudioFileError."""
    return files.read(path, sample_rate_hz=grid.sample_rate_hz, channels=grid.channels)[0]


def stream_audio(path: pathlib.Path, *, grid: Grid) -> Iterator[Block]:
    """The same block by block."""
    return files.stream(path, sample_rate_hz=grid.sample_rate_hz, channels=grid.channels)


def header_seconds(path: pathlib.Path) -> float:
    """The length that the header of a file says; 0 where it cannot be used."""
    try:
        return files.inspect(path, headers_only=True).seconds
    except files.AudioFileError:
        return 0.0


def read_table(path: pathlib.Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file by the names in its first line; raises BadTrack without `columns`."""
    expected = f"expected a CSV file with the columns {', '.join(columns)}"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, restval="")
            missing = set(columns) - set(table.fieldnames or ())
            if missing:
                raise BadTrack(f"{path}: has no column {min(missing)!r}; {expected}")
            return list(table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadTrack(f"{path}: not a table ({error}); {expected}: copy it again") from None


SUFFIXES = (
    *(*AUDIO_SUFFIXES, ".oga", ".opus", ".aif", ".aiff", ".aifc", ".w64", ".caf", ".au"),
    *libav.SUFFIXES,
)
HEADER_SUFFIXES = (".wav", ".flac", ".aif", ".aiff")  # their headers say the length at once
COMPRESSED_BITS_PER_S = 192_000  # a guess for the others, from the size of the file
LONGEST_ID = 200  # characters once quoted: an id becomes a file name
OUTSIDE = "beside the folders train, valid and test: move it into one of them"


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


def visible(folder: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    """What matches in a folder, sorted, but for hidden files, as the ._ that a Mac leaves."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def find_files(root: pathlib.Path) -> list[pathlib.Path]:
    """The audio files below a folder, without hidden ones, in natural order: 2.wav before
    10.wav.
    """
    found = [
        path
        for folder in find_folders(root)
        for path in visible(folder, "*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    return sorted(found, key=lambda path: natural_key(path.relative_to(root).as_posix()))


def natural_key(text: str) -> tuple[list[tuple[int, str]], str]:
    """A key to sort by, in which numbers count as numbers and capitals do not."""
    words = re.findall(r"[0-9]+|[^0-9]+", text.casefold())
    return [(int(word), "") if word[0] in "0123456789" else (-1, word) for word in words], text


def identity(name: str) -> str:
    """The id of a file: its path in the folder, shortened where it would be too long a file
    name.
    """
    name = printable(name)
    if len(urllib.parse.quote(name, safe="")) <= LONGEST_ID:
        return name
    end = pathlib.PurePosixPath(name).name[-16:]
    return f"{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:16]} {end}"


def about_seconds(path: pathlib.Path) -> float:
    """About how long a file is, without decoding it."""
    if path.suffix.lower() in HEADER_SUFFIXES:
        return header_seconds(path)
    return path.stat().st_size * 8 / COMPRESSED_BITS_PER_S


SPLITS = {"train": "train", "validation": "valid", "test": "test"}


def find_table(
    source: str | None, pattern: str, columns: tuple[str, ...], *, copy: Copy
) -> tuple[pathlib.Path, list[dict[str, str]]]:
    """The folder of a copy and the rows of its table, in which `split` and `duration` are checked.

    The table is the last file called `pattern` in `source`, or one folder further in, as the
    archives unpack. Raises FileNotFoundError without one, BadTrack for bad rows.
    """
    root = copy.root(source)
    found = sorted(root.glob(pattern)) or sorted(root.glob(f"*/{pattern}"))
    if not found:
        raise copy.nothing(root)
    rows = read_table(found[-1], columns)
    for number, row in enumerate(rows, 1):
        place = f"{found[-1]}, row {number}"
        if row["split"] not in SPLITS:
            raise ValueError(f"{place}: split is {row['split']!r}; expected one of {[*SPLITS]}")
        for column in columns:
            path = pathlib.PurePosixPath(row[column])
            if column.endswith("_filename") and (path.is_absolute() or ".." in path.parts):
                raise ValueError(f"{place}: {column} is {row[column]!r}; expected a path inside")
        try:
            float(row["duration"])
        except ValueError:
            raise ValueError(
                f"{place}: duration is {row['duration']!r}; expected seconds"
            ) from None
    if not rows:
        raise ValueError(f"{found[-1]}: lists nothing; copy it again")
    return found[-1].parent, rows
