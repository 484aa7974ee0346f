"""`fretsonfire`: eight metal and rock songs of the game Frets on Fire as guitar and rest, real recordings from Debian packages."""

import functools
import pathlib

import numpy as np

from majl_jax.audio import files
from majl_jax.datasets import source_files
from majl_jax.datasets.track import Recording, Track, no_pitch, stack

STEMS = ("guitar", "rest")
FILES = {"guitar": "guitar.ogg", "rest": "song.ogg"}  # song.ogg is the song without the guitar
VOICES = 0
SONGS = pathlib.PurePosixPath("usr/share/games/fretsonfire/data/songs")
INSTALL = "apt install fretsonfire-songs-muldjord fretsonfire-songs-sectoid"
SPLITS = {
    "mutilated_mime": "valid",
    "Metal madness": "test",
    "armygeddon": "test",
}  # the others: train
MEAN_S = 202.0
PEAK = 0.98  # of the mixture: the stems of most songs add up to more than full scale


def tracks(
    source: str | None,
    *,
    sample_rate_hz: int,
    hop_samples: int,
    channels: int = 1,
    seed: int = 0,
) -> list[Track]:
    """The songs below `source`, the game's folder of songs, or the folder that its packages were unpacked into."""
    del seed
    if source is None:
        raise ValueError(
            f"--source is missing: the folder of songs, /{SONGS} after `{INSTALL}` (or any folder that the packages are unpacked in)"
        )
    root = pathlib.Path(source)
    root = root / SONGS if (root / SONGS).is_dir() else root
    folders = sorted(
        folder for folder in source_files.find_folders(root) if (folder / FILES["guitar"]).is_file()
    )
    if not folders:
        raise FileNotFoundError(
            f"{source} has no */SONG/{FILES['guitar']}; expected the songs of Frets on Fire: `{INSTALL}`"
        )
    return [
        Track(
            id=folder.name.replace(" ", "_"),
            split=SPLITS.get(folder.name, "train"),
            group=folder.name,
            paths=tuple(folder / name for name in FILES.values()),
            seconds=MEAN_S,
            load=functools.partial(
                load,
                folder,
                sample_rate_hz=sample_rate_hz,
                hop_samples=hop_samples,
                channels=channels,
            ),
        )
        for folder in folders
    ]


def load(
    folder: pathlib.Path, *, sample_rate_hz: int, hop_samples: int, channels: int
) -> Recording:
    """Guitar and rest of a song, turned down together where their sum is louder than full scale."""
    stems = [
        files.read(folder / FILES[stem], sample_rate_hz=sample_rate_hz, channels=channels)[0]
        for stem in STEMS
    ]
    audio = stack(stems, sample_rate_hz=sample_rate_hz)
    peak = np.abs(audio.sum(axis=1)).max(initial=0.0)
    audio = audio * np.float32(min(1.0, PEAK / max(peak, PEAK)))
    f0_hz, has_pitch = no_pitch(len(audio), stems=len(STEMS), hop_samples=hop_samples)
    return Recording(
        audio=audio,
        stems=STEMS,
        has_stems=np.ones(len(STEMS), bool),
        f0_hz=f0_hz,
        has_pitch=has_pitch,
        sample_rate_hz=sample_rate_hz,
        hop_samples=hop_samples,
    )
