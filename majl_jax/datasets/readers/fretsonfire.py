"""`fretsonfire`: eight metal and rock songs of the game Frets on Fire as guitar and rest, real
recordings from Debian packages.
"""

import functools
import pathlib

import numpy as np

from majl_jax.datasets import source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.track import Recording, Track, no_pitch, stack

STEMS = ("guitar", "rest")
FILES = {"guitar": "guitar.ogg", "rest": "song.ogg"}  # song.ogg is the song without the guitar
VOICES = 0
SONGS = pathlib.PurePosixPath("usr/share/games/fretsonfire/data/songs")
INSTALL = "apt install fretsonfire-songs-muldjord fretsonfire-songs-sectoid"
COPY = source_files.Copy(
    "the songs of Frets on Fire",
    f"*/SONG/{FILES['guitar']} (`{INSTALL}` puts them into /{SONGS}; "
    "the packages unpacked will do)",
)
SPLITS = {
    "mutilated_mime": "valid",
    "Metal madness": "test",
    "armygeddon": "test",
}  # the others: train
MEAN_S = 202.0
PEAK = 0.98  # of the mixture: the stems of most songs add up to more than full scale


def tracks(source: str | None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The songs below `source`, the game's folder of songs, or the folder that its packages were
    unpacked into.
    """
    del seed
    folder = COPY.root(source)
    root = folder / SONGS if (folder / SONGS).is_dir() else folder
    if root == pathlib.Path(root.anchor):  # all of the machine would be searched
        raise COPY.nothing(folder)
    folders = sorted(
        place for place in source_files.find_folders(root) if (place / FILES["guitar"]).is_file()
    )
    if not folders:
        raise COPY.nothing(folder)
    return [
        Track(
            id=folder.name.replace(" ", "_"),
            split=SPLITS.get(folder.name, "train"),
            group=folder.name,
            paths=tuple(folder / name for name in FILES.values()),
            seconds=MEAN_S,
            load=functools.partial(load, folder, grid=grid),
        )
        for folder in folders
    ]


def load(folder: pathlib.Path, *, grid: Grid) -> Recording:
    """Guitar and rest of a song, turned down together where their sum is louder than full scale."""
    stems = [source_files.read_audio(folder / FILES[stem], grid=grid) for stem in STEMS]
    audio = stack(stems, grid=grid)
    peak = np.abs(audio.sum(axis=1)).max(initial=0.0)
    audio = audio * np.float32(min(1.0, PEAK / max(peak, PEAK)))
    f0_hz, has_pitch = no_pitch(len(audio), stems=len(STEMS), grid=grid)
    return Recording(
        audio=audio,
        stems=STEMS,
        has_stems=np.ones(len(STEMS), bool),
        f0_hz=f0_hz,
        has_pitch=has_pitch,
        grid=grid,
    )
