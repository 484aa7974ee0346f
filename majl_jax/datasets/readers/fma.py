"""`fma`: the Free Music Archive, 8,000 to 106,574 songs or excerpts of 30 s (Defferrard et al.
2017).

Audio only, no labels. Splits are the data set's own where its metadata are there, else all is
train.
"""

import csv
import pathlib

from majl_jax.datasets import notes, source_files, streamed
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.track import BadTrack, Track

STEMS = notes.MIXTURE
VOICES = 1
EDITIONS = ("fma_full", "fma_large", "fma_medium", "fma_small")
ARTIST = ("artist", "id")
SPLITS = {"training": "train", "validation": "valid", "test": "test"}
NO_ARTIST = ""
BITS_PER_S = 256_000  # about the mean over the data set, for the length from the size of a file
LONGEST_CELL = 1 << 24  # the biographies in the table are long
COPY = source_files.Copy(
    "FMA", "DDD/DDDDDD.mp3 (as fma_large.zip unpacks), and fma_metadata/tracks.csv in or beside it"
)


def tracks(source: str | None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The songs below `source`; group is the artist, where tracks.csv has its id.

    Songs that tracks.csv does not list are train and of no group.
    """
    del seed
    songs = find_songs(source)
    listed = read_metadata(songs)
    return [
        Track(
            id=name,
            split=SPLITS[split],
            group=artist,
            paths=(path,),
            seconds=path.stat().st_size * 8 / BITS_PER_S,
            load=audio.load,
            streamed=audio,
        )
        for name, path in sorted(songs.items())
        for audio in [streamed.unlabelled(path, grid=grid)]
        for split, artist in [listed.get(int(name), ("training", NO_ARTIST))]
    ]


def find_songs(source: str | None) -> dict[str, pathlib.Path]:
    """The file of each song; where several editions lie side by side, of the largest."""
    root = COPY.root(source)
    digit = "[0-9]"
    for folder in (root, *(root / edition for edition in EDITIONS)):
        found = folder.glob(f"{digit * 3}/{digit * 6}.mp3")
        if songs := {path.stem: path for path in found}:
            return songs
    raise COPY.nothing(root)


def read_metadata(songs: dict[str, pathlib.Path]) -> dict[int, tuple[str, str]]:
    """(split, artist) of each song that fma_metadata/tracks.csv lists, where it is there."""
    audio = next(iter(songs.values())).parents[1]
    for folder in (audio, audio.parent):
        if (path := folder / "fma_metadata" / "tracks.csv").is_file():
            return read_tracks_table(path)
    return {}


def read_tracks_table(path: pathlib.Path) -> dict[int, tuple[str, str]]:
    """(split, artist) by number: two lines of column names, one with the index name, then rows."""
    limit = csv.field_size_limit(LONGEST_CELL)
    expected = "expected the column (set, split): copy it again"
    out = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            names = list(zip(next(rows), next(rows), strict=True))
            split = names.index(("set", "split"))
            artist = names.index(ARTIST) if ARTIST in names else None
            for row in rows:
                if row and row[0].isdecimal():
                    if row[split] not in SPLITS:
                        raise ValueError(f"song {row[0]} is of split {row[split]!r}")
                    number = "" if artist is None else row[artist]
                    out[int(row[0])] = (row[split], f"artist {number}" if number else NO_ARTIST)
    except (ValueError, IndexError, StopIteration, csv.Error) as error:
        raise BadTrack(f"{path}: {error}; {expected}") from None
    finally:
        csv.field_size_limit(limit)
    return out
