"""`debian_music`: 17.5 hours of produced music of free games, from ten Debian packages. No labels.

The packages are installed, or unpacked (`dpkg -x`) into one folder or into one each; archives
(.pk3, .zip) are read as they are.
"""

import functools
import os
import pathlib
import tempfile
import urllib.parse
import zipfile
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import numpy as np

from majl_jax.audio import files
from majl_jax.datasets import notes, source_files, splits
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.streamed import Streamed, one_stem
from majl_jax.datasets.track import BadTrack, Track

STEMS = notes.MIXTURE
VOICES = 1
LIST = splits.SPLITS_FOLDER / "debian_music.txt"
SPLITS = ("train", "valid", "test")
# Where the music of each package lies: a folder, or an archive.
PACKAGES = {
    "asc-music": "usr/share/games/asc/music",
    "colobot-common-sounds": "usr/share/games/colobot/music",
    "drascula-music": "usr/share/scummvm/drascula/audio",
    "hyperrogue-music": "usr/share/hyperrogue/music",
    "nexuiz-music": "usr/share/games/nexuiz/data/music.pk3",
    "planetblupi-music-ogg": "usr/share/planetblupi/music",
    "singularity-music": "usr/share/games/singularity/music",
    "ufoai-music": "usr/share/games/ufoai/base/0music.pk3",
    "warzone2100-music": "usr/share/games/warzone2100/music",
    "wesnoth-1.16-music": "usr/share/games/wesnoth/1.16/data/core/music",
}
ARCHIVES = (".pk3", ".zip")
INSTALL = "apt-get install --no-install-recommends"
COPY = source_files.Copy(
    "the music packages of Debian",
    f"usr/share/... of one of them or more, as in / once they are installed ({INSTALL}"
    f" {' '.join(PACKAGES)}: 816 MB), or where they are unpacked by dpkg -x",
)
UNLISTED = "not in data/splits/debian_music.txt: of another version of its package?"
REASONS = {
    "too_short": "shorter than 20 s",
    "ambience": "ambience, no music",
    "damaged": "it has fewer samples than its last page says",
    "near_duplicate": "nearly the same as another track",
    "silence": "most of it is silence",
}


class File(NamedTuple):
    """A file of music, or one in an archive."""

    path: pathlib.Path
    member: str = ""  # where it is in an archive

    @property
    def name(self) -> str:
        """Its own name."""
        return pathlib.PurePosixPath(self.member or self.path.name).name


def tracks(source: str | None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The files of the packages below `source`, / where they are installed; group is the artist.

    Beside them what is left out: packages that are not there, and files by the list.
    """
    del seed
    root = COPY.root(source)
    listed = {row[0]: row[1:] for row in splits.read_split(LIST)}
    found = {package: find_files(root, place) for package, place in PACKAGES.items()}
    if not any(found.values()):
        raise COPY.nothing(root)
    out = []
    for package, inside in found.items():
        if not inside:
            out.append(
                Track(package, "train", _nothing, left_out=f"not there: {INSTALL} {package}")
            )
        for one in inside:
            name = f"{package}/{urllib.parse.quote(one.name)}"
            artist, _, split, seconds = listed.get(name, ("", "", "", "0"))
            audio = streamed(one, grid=grid)
            out.append(
                Track(
                    id=source_files.identity(f"{package}/{one.name}"),
                    split=split if split in SPLITS else "train",
                    group=artist,
                    paths=(one.path,),
                    seconds=float(seconds),
                    load=audio.load,
                    streamed=audio,
                    left_out="" if split in SPLITS else REASONS.get(split, UNLISTED),
                )
            )
    return out


def find_files(root: pathlib.Path, place: str) -> list[File]:
    """The audio at this place below a folder, or below a folder in it, in natural order."""
    # os.path says no of a folder that is not to be entered, where pathlib raises.
    for folder in (root, *sorted(path for path in root.glob("*") if os.path.isdir(path))):
        if os.path.isdir(path := folder / place):
            return [File(one) for one in source_files.find_files(path)]
        if path.suffix in ARCHIVES and os.path.isfile(path):
            return in_archive(path)
    return []


def in_archive(path: pathlib.Path) -> list[File]:
    """The audio in an archive, in natural order; ValueError where it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [one for one in archive.infolist() if not one.is_dir()]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: {error}; expected a zip archive: install it again") from None
    audio = [
        File(path, one.filename)
        for one in inside
        if pathlib.PurePosixPath(one.filename).suffix.lower() in source_files.SUFFIXES
    ]
    return sorted(audio, key=lambda one: source_files.natural_key(one.member))


def _nothing() -> NoReturn:
    """Stands for the audio of a package that is not there."""
    raise BadTrack("its package is not there")


def streamed(file: File, *, grid: Grid) -> Streamed:
    """The audio of a file or of one in an archive, block by block."""
    blocks = functools.partial(_blocks, file, grid=grid)
    return Streamed(blocks, STEMS, known=False, grid=grid, voices=VOICES)


def _blocks(file: File, *, grid: Grid) -> Iterator[np.ndarray]:
    with tempfile.TemporaryDirectory(prefix="majl_jax_archive_") as folder:
        path = file.path
        try:
            if file.member:
                path = pathlib.Path(folder) / file.name
                with zipfile.ZipFile(file.path) as archive:
                    path.write_bytes(archive.read(file.member))
            yield from one_stem(source_files.stream_audio(path, grid=grid))
        except (files.AudioFileError, zipfile.BadZipFile) as error:
            of_member = f"{file.path}: {error}".replace(str(path), file.member)
            raise BadTrack(of_member if file.member else str(error)) from error
