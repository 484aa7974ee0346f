"""`medleydb`: the songs of MedleyDB with one singing melody, as voice and accompaniment (Bittner
et al. 2014).

A song is used if exactly one of its stems carries the melody and that stem is sung. The mixture is
the sum of the stems by definition; TRACK_MIX.wav, which need not equal it, is not read.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from majl_jax.datasets import source_files
from majl_jax.datasets.curves import on_frames, read_annotation
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.splits import SPLITS_FOLDER, read_split
from majl_jax.datasets.track import LENGTHS_DIFFER_S, BadTrack, Recording, Track, stack

STEMS = ("accompaniment", "voice")
SINGERS = frozenset({"male singer", "female singer", "vocalists"})
SPLIT_LIST = SPLITS_FOLDER / "medleydb.txt"
MEAN_S = 180.0
# As in the data set and as in the repository marl/medleydb, which holds the same annotations.
PITCH_FOLDERS = ("Annotations/Pitch_Annotations", "Annotations/Pitch")
MELODY_FOLDERS = ("Annotations/Melody_Annotations/MELODY{}", "Annotations/Melody/Melody{}")
COPY = source_files.Copy(
    "MedleyDB",
    "Audio/TRACK/TRACK_STEMS/TRACK_STEM_01.wav, Audio/TRACK/TRACK_METADATA.yaml (or "
    "Metadata/TRACK_METADATA.yaml), Annotations/Pitch_Annotations/TRACK_STEM_01.csv and "
    "Annotations/Melody_Annotations/MELODY1/TRACK_MELODY1.csv",
)
NO_METADATA = "no TRACK_METADATA.yaml beside the audio or in Metadata/"
OTHER_MELODY = "not exactly one melody stem, or it is not sung"
NO_ANNOTATION = "no annotation of the pitch of the voice (Pitch, MELODY1 or MELODY2)"


@dataclasses.dataclass(frozen=True)
class Annotation:
    """A file of f0, and whether it holds the voiced frames only (pitch) or every frame (melody)."""

    path: pathlib.Path
    voiced_only: bool


def tracks(source: str | None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The tracks below `source`; those of other melodies, or without a pitch annotation, left out.

    No artist is in two splits; artists not listed in data/splits/medleydb.txt are in train.
    """
    del seed
    root = COPY.root(source)
    folders = [path.parent for path in source_files.visible(root / "Audio", "*/*_STEMS")]
    if not folders:
        raise COPY.nothing(root)
    if not any((root / "Annotations").rglob("*.csv")):
        raise COPY.lacking(
            root,
            "annotations",
            ": copy the folder Annotations of the data set, or that of the repository marl/medleydb"
            " (data/Annotations)",
        )
    splits = dict(read_split(SPLIT_LIST))
    out = []
    for folder in folders:
        name, artist = folder.name, folder.name.split("_")[0]
        metadata = find_metadata(root, name)
        stems, voice, fault = choose(metadata, folder)
        annotation = None if fault else find_annotation(root, name, stems[voice].stem)
        out.append(
            Track(
                id=name,
                split=splits.get(artist, "train"),
                group=artist,
                paths=stems if annotation is None else (*stems, annotation.path),
                seconds=MEAN_S,
                load=functools.partial(
                    load,
                    stems,
                    voice=voice,
                    annotation=annotation,
                    fault=fault or NO_ANNOTATION,
                    grid=grid,
                ),
                left_out=fault or ("" if annotation else NO_ANNOTATION),
            )
        )
    return out


def find_metadata(root: pathlib.Path, name: str) -> pathlib.Path | None:
    """The metadata file of a track."""
    for folder in (root / "Audio" / name, root / "Metadata"):
        if (path := folder / f"{name}_METADATA.yaml").is_file():
            return path
    return None


def choose(
    metadata: pathlib.Path | None, folder: pathlib.Path
) -> tuple[tuple[pathlib.Path, ...], int, str]:
    """The stem files of a track, which of them is the voice, and why the track is not to be
    used.
    """
    if metadata is None:
        return (), 0, NO_METADATA
    try:
        rows = read_stems(metadata)
    except BadTrack as error:
        return (), 0, str(error)
    sung = [
        number
        for number, (_, instruments, component) in enumerate(rows)
        if component == "melody" and instruments and SINGERS.issuperset(instruments)
    ]
    if len(sung) != 1 or sum(component == "melody" for *_, component in rows) != 1:
        return (), 0, OTHER_MELODY
    stems = tuple(folder / f"{folder.name}_STEMS" / file for file, *_ in rows)
    if len(stems) < 2:
        return (), 0, "no stem besides the voice"
    return stems, sung[0], ""


def read_stems(path: pathlib.Path) -> list[tuple[str, list[str], str]]:
    """(file name, instruments, component) of the stems that a metadata file lists."""
    import yaml

    expected = "expected stems: {S01: {component, instrument, filename}, ...}"
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows = []
        for _, stem in sorted(content["stems"].items()):
            instruments = stem["instrument"]
            instruments = instruments if isinstance(instruments, list) else [instruments]
            rows.append((str(stem["filename"]), [*map(str, instruments)], stem["component"] or ""))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = " ".join(str(error).split())[:80]
        raise BadTrack(f"{path}: not YAML ({first}); {expected}") from None
    except (AttributeError, KeyError, TypeError) as error:
        raise BadTrack(f"{path}: {type(error).__name__} {error}; {expected}") from None
    return rows


def find_annotation(root: pathlib.Path, name: str, voice: str) -> Annotation | None:
    """The pitch annotation of the stem `voice`, else MELODY1, else MELODY2 of the track `name`.

    MELODY1 and MELODY2 follow the predominant melody, which the only melody stem is.
    """
    for folder in PITCH_FOLDERS:
        if (path := root / folder / f"{voice}.csv").is_file():
            return Annotation(path, voiced_only=True)
    for number in (1, 2):
        for folder in MELODY_FOLDERS:
            path = root / folder.format(number) / f"{name}_MELODY{number}.csv"
            if path.is_file():
                return Annotation(path, voiced_only=False)
    return None


def load(
    stems: tuple[pathlib.Path, ...],
    *,
    voice: int,
    annotation: Annotation | None,
    fault: str = "",
    grid: Grid,
) -> Recording:
    """The voice, the sum of the other stems, and the pitch of the voice.

    Args:
        stems: the files of all stems.
        voice: which of them is the voice.
        annotation: its pitch; None is a BadTrack.
        fault: the reason of that.
        grid: of audio and labels.
    """
    if annotation is None:
        raise BadTrack(fault)
    rows = read_annotation(annotation.path)
    given = []
    for path in stems:
        one = source_files.read_audio(path, grid=grid)
        given.append(one)
    lengths = sorted(len(one) for one in given)
    if lengths[-1] - lengths[0] > LENGTHS_DIFFER_S * grid.sample_rate_hz:
        short = stems[int(np.argmin([len(one) for one in given]))]
        raise BadTrack(
            f"{short}: {grid.seconds(lengths[0]):.2f} s, while another stem of the track is "
            f"{grid.seconds(lengths[-1]):.2f} s long: is it cut off?"
        )
    accompaniment = np.zeros((lengths[-1], grid.channels), np.float32)
    for number, one in enumerate(given):
        if number != voice:
            accompaniment[: len(one)] += one
    audio = stack([accompaniment, given[voice]], grid=grid)
    frames = grid.frame_count(len(audio))
    f0_hz, has_pitch = np.zeros((frames, 2), np.float32), np.zeros((frames, 2), bool)
    f0_hz[:, 1], has_pitch[:, 1] = on_frames(
        rows, voiced_only=annotation.voiced_only, frames=frames, grid=grid
    )
    return Recording(
        audio=audio,
        stems=STEMS,
        has_stems=np.ones(len(STEMS), bool),
        f0_hz=f0_hz,
        has_pitch=has_pitch,
        grid=grid,
    )
