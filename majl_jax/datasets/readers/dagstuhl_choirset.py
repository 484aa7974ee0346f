"""`dagstuhl_choirset`: the Dagstuhl ChoirSet, male against female voices of a choir (Rosenzweig et
al. 2020).

Stems as in Bugler, Pardo and Seetharaman (arXiv 2010.12650): female = soprano + alto, male = tenor
+ bass, each the dynamic microphone (DYN) of one singer. Used are the takes in which all four parts
have one: 83 of the 108 of version 1.2.3, not the solos and the takes of basses. The mixture is the
sum of the four; the room microphones are not read.
"""

import collections
import functools
import pathlib
import re

import numpy as np

from majl_jax.datasets import source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.splits import seeded_split
from majl_jax.datasets.track import Recording, Track, no_pitch, stack

STEMS = ("female", "male")
PARTS_OF = {"female": ("S", "A"), "male": ("T", "B")}
PARTS = ("S", "A", "T", "B")
VOICES = 0
AUDIO_FOLDER = "audio_wav_22050_mono"
ARCHIVES = "DagstuhlChoirSet_V*"  # as it unpacks
SINGER = re.compile(r"(?P<take>DCS_.+)_(?P<part>[SATB])(?P<singer>\d+)_(?P<microphone>DYN|LRX|HSM)")
COPY = source_files.Copy(
    "the Dagstuhl ChoirSet", f"{AUDIO_FOLDER}/DCS_PIECE_SETTING_TAKE_" + "{S1,A2,T2,B2}_DYN.wav"
)
NOT_ALL_PARTS = "not every part (S, A, T, B) has a singer with a DYN microphone"


def tracks(source: str | None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The takes below `source`; those without a DYN microphone in each part left out.

    Of each piece, a tenth of the takes is test and a tenth of the others valid, drawn by the seed.
    Takes of the same piece by the same singers are in all splits, as a split by take means.
    """
    root = COPY.root(source)
    takes = find_takes(root)
    if not takes:
        raise COPY.nothing(root)
    of_piece = collections.defaultdict(list)
    for name, parts in takes.items():
        if set(parts) == set(PARTS):
            of_piece[piece(name)].append(name)
    splits: dict[str, str] = {}
    for names in of_piece.values():
        splits |= seeded_split(names, seed=seed)
    return [
        Track(
            id=name,
            split=splits.get(name, "train"),
            group=piece(name),
            paths=tuple(parts.values()),
            seconds=source_files.header_seconds(parts["S"]) if "S" in parts else 0.0,
            load=functools.partial(load, parts, grid=grid),
            left_out="" if name in splits else NOT_ALL_PARTS,
        )
        for name, parts in takes.items()
    ]


def piece(take: str) -> str:
    """The piece of a take: LI (Locus Iste), TP (Tebe Poem) or SE (exercises)."""
    return take.split("_")[1]


def find_takes(root: pathlib.Path) -> dict[str, dict[str, pathlib.Path]]:
    """Of every take with a microphone of a singer, the DYN file of each part that has one.

    Where several singers of a part have one, it is that of the lowest number.
    """
    folders = [root / AUDIO_FOLDER, *sorted(root.glob(f"{ARCHIVES}/{AUDIO_FOLDER}"))]
    folder = next((path for path in folders if path.is_dir()), None)
    found: dict[str, dict[str, tuple[int, pathlib.Path]]] = {}
    for path in sorted(folder.glob("*.wav")) if folder else []:
        match = SINGER.fullmatch(path.stem)
        if match is None:
            continue
        parts = found.setdefault(match["take"], {})
        one = int(match["singer"]), path
        if match["microphone"] == "DYN":
            parts[match["part"]] = min(parts.get(match["part"], one), one)
    return {
        take: {part: parts[part][1] for part in PARTS if part in parts}
        for take, parts in sorted(found.items())
    }


def load(parts: dict[str, pathlib.Path], *, grid: Grid) -> Recording:
    """One take: the sum of its female and of its male parts, without pitch labels."""
    four = stack(
        [source_files.read_audio(parts[part], grid=grid) for part in PARTS],
        grid=grid,
    )
    audio = stack(
        [four[:, [PARTS.index(part) for part in PARTS_OF[stem]]].sum(axis=1) for stem in STEMS],
        grid=grid,
    )
    f0_hz, has_pitch = no_pitch(len(audio), stems=len(STEMS), grid=grid)
    return Recording(
        audio=audio,
        stems=STEMS,
        has_stems=np.ones(len(STEMS), bool),
        f0_hz=f0_hz,
        has_pitch=has_pitch,
        grid=grid,
    )
