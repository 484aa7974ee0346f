"""What is to be prepared: the options that decide the content of a data set, and the tracks they
select.
"""

import contextlib
import dataclasses
import hashlib
import importlib.util
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from majl_jax.datasets import readers, records, stem_groups, track
from majl_jax.datasets.grid import Grid
from majl_jax.prepare import chosen_stems

SPLITS = ("train", "valid", "test")
_PIECE = 1 << 16


class PrepareError(RuntimeError):
    """The data set could not be prepared; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides the content of a prepared data set."""

    dataset: str
    source: str | None
    sample_rate_hz: int
    hop_samples: int
    channels: int
    record_seconds: float
    tracks: dict[str, int] | None
    seed: int
    file_format: str
    reader_version: int
    drop_silence: bool = False
    stems: str = ""  # "stem, name=stem+stem"; empty: all, as they are
    octave: str = ""  # this and what follows: flags of some readers; empty or None: as they have it
    margin_s: float | None = None
    names: str = ""
    # What the table of names says: with another one parts are of other stems.
    names_content: str = dataclasses.field(default="", init=False)
    # Counted up when sums of stems come out otherwise than before; 0 without sums.
    sums_version: int = dataclasses.field(default=0, init=False)

    def __post_init__(self) -> None:
        if "+" in self.stems:
            object.__setattr__(self, "sums_version", 1)
        if self.names and os.path.isfile(self.names):  # else the reader says so
            table = pathlib.Path(self.names).read_bytes()
            object.__setattr__(self, "names_content", hashlib.sha256(table).hexdigest()[:16])

    @property
    def grid(self) -> Grid:
        """The grid that audio and labels are brought to."""
        return Grid(self.sample_rate_hz, self.hop_samples, self.channels)

    def of_reader(self) -> dict[str, Any]:
        """What the reader is told besides the grid and the seed."""
        told = {name: getattr(self, name) for name in readers.READERS[self.dataset].flags}
        return {name: value for name, value in told.items() if value not in ("", None)}

    def groups(self) -> stem_groups.Groups:
        """The stems of the records and what of the data set each is the sum of; ValueError where
        it has not that stem.
        """
        stems = readers.READERS[self.dataset].stems_of(self.source, **self.of_reader())
        if not self.stems:
            return {stem: (stem,) for stem in stems}
        groups = stem_groups.parse_sources(self.stems)
        stem_groups.places({self.dataset: groups}, {self.dataset: stems})
        return groups

    def leaves_stems_out(self) -> bool:
        """Whether stems of the data set are in none of the records' stems."""
        reader = readers.READERS[self.dataset]
        used = {stem for group in self.groups().values() for stem in group}
        return bool(set(reader.stems_of(self.source, **self.of_reader())) - used)

    def layout(self) -> records.Layout:
        """The layout of the records."""
        reader = readers.READERS[self.dataset]
        hops = round(self.record_seconds * self.sample_rate_hz / self.hop_samples)
        return records.Layout(
            stems=tuple(self.groups()),
            channels=self.channels,
            sample_rate_hz=self.sample_rate_hz,
            hop_samples=self.hop_samples,
            record_samples=hops * self.hop_samples,
            voices=reader.voices,
            octave_known=reader.octave_known,
        )


def list_tracks(options: Options) -> tuple[list[track.Track], dict[str, list[str]]]:
    """The tracks to prepare, at most so many per split as the options say, and which are left out
    why.
    """
    reader = readers.READERS[options.dataset]
    if lacking := [name for name in reader.needs if importlib.util.find_spec(name) is None]:
        raise PrepareError(
            f"{options.dataset} needs {', '.join(lacking)}, not installed: pip install "
            f"{' '.join(lacking)}"
        )
    found = reader.tracks(
        options.source, grid=options.grid, seed=options.seed, **options.of_reader()
    )
    if options.stems:
        found = chosen_stems.choose(found, options.groups())
    found = [dataclasses.replace(one, id=track.printable(one.id)) for one in found]
    left_out: dict[str, list[str]] = {}
    for one in found:
        if one.left_out:
            left_out.setdefault(one.left_out, []).append(one.id)
    chosen = []
    for split in SPLITS:
        of_split = [one for one in found if one.split == split and not one.left_out]
        limit = None if options.tracks is None else options.tracks.get(split)
        chosen += of_split[:limit]
    if not chosen:
        raise PrepareError(f"{options.dataset}: no tracks found in {options.source}")
    _refuse_repeated(chosen, options.dataset)
    return chosen, left_out


def _refuse_repeated(tracks: Sequence[track.Track], dataset: str) -> None:
    """Two tracks of one id would be stored as one of them, twice."""
    first: dict[str, track.Track] = {}
    for one in tracks:
        if (other := first.setdefault(one.id, one)) is not one:
            raise PrepareError(
                f"{dataset}: two tracks are called {one.id!r}, {_place(other)} and {_place(one)}:"
                " rename one of them"
            )


def _place(one: track.Track) -> str:
    return track.printable(f"{one.paths[0]} ({one.split})") if one.paths else f"one of {one.split}"


def content_of(tracks: Sequence[track.Track]) -> str:
    """What tells the content of the tracks' files from another, wherever they lie: of each its
    size, and its first, middle and last 64 KiB.
    """
    digest = hashlib.sha256()
    for one in tracks:
        digest.update(f"{one.id}\0{one.split}\0".encode())
        for path in one.paths:
            inside = sorted(path.rglob("*")) if path.is_dir() else [path]
            for file in filter(pathlib.Path.is_file, inside):
                _add_file(digest, file)
    return digest.hexdigest()[:16]


def _add_file(digest: Any, path: pathlib.Path) -> None:
    digest.update(os.fsencode(path.name))
    # A file that cannot be read is said, and skipped, where its track is loaded.
    with contextlib.suppress(OSError), path.open("rb") as file:
        size = path.stat().st_size
        digest.update(f"\0{size}\0".encode())
        for start in sorted({0, max(0, size // 2 - _PIECE // 2), max(0, size - _PIECE)}):
            file.seek(start)
            digest.update(file.read(_PIECE))
