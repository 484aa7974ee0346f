"""`musdb18`, `musdb18_hq`: MUSDB18, 150 songs as four stems (Rafii et al. 2017), AAC or WAV.

The mixture is the sum of the stems by definition. The mixture that MUSDB18 brings along is not
read: in the AAC edition it differs from that sum, by 15 to 32 dB in two excerpts.
"""

import functools
import pathlib
from collections.abc import Iterator

from majl_jax.audio.resampling import Block
from majl_jax.datasets import source_files, stem_mp4
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.splits import SPLITS_FOLDER, read_split
from majl_jax.datasets.streamed import Stems, Streamed, together
from majl_jax.datasets.track import Track

STEMS = ("drums", "bass", "other", "vocals")
STREAMS = {"drums": 1, "bass": 2, "other": 3, "vocals": 4}  # of a stem.mp4; 0 is the mixture
SPLIT_LIST = SPLITS_FOLDER / "musdb18.txt"
MEAN_S = 236.0
IN_MEDLEYDB = "it is in MedleyDB as well"
COPIES = {
    "aac": source_files.Copy(
        "MUSDB18", "train/ARTIST - TITLE.stem.mp4 and test/ARTIST - TITLE.stem.mp4"
    ),
    "wav": source_files.Copy(
        "MUSDB18-HQ",
        "train/ARTIST - TITLE/{drums,bass,other,vocals}.wav and the same below test/",
    ),
}


def tracks(
    source: str | None,
    *,
    grid: Grid,
    seed: int = 0,
    edition: str = "aac",
    with_medleydb: bool = True,
) -> list[Track]:
    """The songs below `source`; 14 songs of train/ are valid.

    Args:
        source: the folder of MUSDB18.
        grid: of audio and labels.
        seed: does not matter.
        edition: "aac" (stem.mp4) or "wav" (MUSDB18-HQ).
        with_medleydb: False leaves out the songs that are in MedleyDB.
    """
    del seed
    if edition == "aac" and not stem_mp4.can_be_read():
        raise ModuleNotFoundError(
            "musdb18 reads stem.mp4 files with PyAV, which is not installed: `pip install av`; "
            "or prepare musdb18_hq, whose files are WAV"
        )
    listed = {kind: set[str]() for kind in ("valid", "medleydb")}
    for kind, *name in read_split(SPLIT_LIST):
        listed[kind].add(" ".join(name))
    of_song = functools.partial(streamed, grid=grid)
    return [
        Track(
            id=f"{folder}/{name}",
            split="valid" if folder == "train" and name in listed["valid"] else folder,
            group=name.split(" - ")[0],
            paths=(path,),
            seconds=MEAN_S,
            load=audio.load,
            streamed=audio,
            left_out="" if with_medleydb or name not in listed["medleydb"] else IN_MEDLEYDB,
        )
        for folder, name, path in find_songs(source, edition)
        for audio in [of_song(path)]
    ]


def find_songs(source: str | None, edition: str) -> list[tuple[str, str, pathlib.Path]]:
    """(train or test, name, file or folder) of every song of a copy."""
    root, found = COPIES[edition].root(source), []
    for folder in ("train", "test"):
        for path in source_files.visible(root / folder, "*"):
            if edition == "aac" and path.name.endswith(".stem.mp4"):
                found.append((folder, path.name.removesuffix(".stem.mp4"), path))
            elif edition == "wav" and path.is_dir() and source_files.visible(path, "*.wav"):
                found.append((folder, path.name, path))
    if not found:
        raise COPIES[edition].nothing(root)
    return found


def streamed(path: pathlib.Path, *, grid: Grid) -> Streamed:
    """The four stems of one song, without pitch labels."""
    return Streamed(functools.partial(_blocks, path, grid=grid), STEMS, known=True, grid=grid)


def _blocks(path: pathlib.Path, *, grid: Grid) -> Iterator[Stems]:
    def stem(name: str) -> Iterator[Block]:
        if path.suffix == ".mp4":
            return stem_mp4.stream(
                path, STREAMS[name], sample_rate_hz=grid.sample_rate_hz, channels=grid.channels
            )
        return source_files.stream_audio(path / f"{name}.wav", grid=grid)

    return together({name: stem(name) for name in STEMS}, grid=grid)
