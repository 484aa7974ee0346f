"""`musdb18`, `musdb18_hq`: MUSDB18, 150 songs as four stems (Rafii et al. 2017), AAC or WAV.

The mixture is the sum of the stems by definition. The mixture that MUSDB18 brings along is not read: in
the AAC edition it differs from that sum, by 15 to 32 dB in two excerpts.
"""

import functools
import pathlib
from collections.abc import Iterator

from majl_jax.audio import files
from majl_jax.audio.resampling import Block
from majl_jax.datasets import source_files, stem_mp4
from majl_jax.datasets.splits import SPLITS_FOLDER, read_split
from majl_jax.datasets.streamed import Stems, Streamed, together
from majl_jax.datasets.track import Track

STEMS = ("drums", "bass", "other", "vocals")
STREAMS = {"drums": 1, "bass": 2, "other": 3, "vocals": 4}  # of a stem.mp4; 0 is the mixture
SPLIT_LIST = SPLITS_FOLDER / "musdb18.txt"
MEAN_S = 236.0
IN_MEDLEYDB = "it is in MedleyDB as well"
TREES = {
    "aac": "train/ARTIST - TITLE.stem.mp4 and test/ARTIST - TITLE.stem.mp4",
    "wav": "train/ARTIST - TITLE/{drums,bass,other,vocals}.wav and the same below test/",
}


def tracks(
    source: str | None,
    *,
    sample_rate_hz: int,
    hop_samples: int,
    channels: int = 1,
    seed: int = 0,
    edition: str = "aac",
    with_medleydb: bool = True,
) -> list[Track]:
    """The songs below `source`, of the "aac" (stem.mp4) or the "wav" edition (MUSDB18-HQ).

    14 songs of train/ are valid. with_medleydb: False leaves out the songs that are in MedleyDB.
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
    of_song = functools.partial(
        streamed, sample_rate_hz=sample_rate_hz, hop_samples=hop_samples, channels=channels
    )
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
    name = {"aac": "MUSDB18", "wav": "MUSDB18-HQ"}[edition]
    expected = f"expected {TREES[edition]} in it"
    if source is None:
        raise ValueError(f"--source is missing: the folder of {name}; {expected}")
    found = []
    for folder in ("train", "test"):
        for path in source_files.visible(pathlib.Path(source) / folder, "*"):
            if edition == "aac" and path.name.endswith(".stem.mp4"):
                found.append((folder, path.name.removesuffix(".stem.mp4"), path))
            elif edition == "wav" and path.is_dir() and source_files.visible(path, "*.wav"):
                found.append((folder, path.name, path))
    if not found:
        raise FileNotFoundError(f"{source} is no copy of {name}: {expected}")
    return found


def streamed(
    path: pathlib.Path, *, sample_rate_hz: int, hop_samples: int, channels: int
) -> Streamed:
    """The four stems of one song, without pitch labels."""
    blocks = functools.partial(_blocks, path, sample_rate_hz=sample_rate_hz, channels=channels)
    return Streamed(
        blocks,
        STEMS,
        known=True,
        sample_rate_hz=sample_rate_hz,
        hop_samples=hop_samples,
        channels=channels,
    )


def _blocks(path: pathlib.Path, *, sample_rate_hz: int, channels: int) -> Iterator[Stems]:
    def stem(name: str) -> Iterator[Block]:
        if path.suffix == ".mp4":
            return stem_mp4.stream(
                path, STREAMS[name], sample_rate_hz=sample_rate_hz, channels=channels
            )
        return files.stream(path / f"{name}.wav", sample_rate_hz=sample_rate_hz, channels=channels)

    return together({name: stem(name) for name in STEMS}, sample_rate_hz=sample_rate_hz)
