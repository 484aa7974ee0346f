"""`slakh2100`, `slakh2100_redux`, `slakh2100_author`, `babyslakh`: Slakh2100, rendered songs
(Manilow et al. 2019).

The stems of a song by their General MIDI program (counted from 0): piano 0 to 7, guitar 24 to 31,
bass 32 to 39, drums (`is_drum`, or 128), others all else. A group is the sum of its stems, and
silent where a song has none of it; the mixture is the sum of the groups, and mix.flac is not read.
A stem without an audio file is not in the sum and is counted as left out.
"""

import functools
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from majl_jax.datasets import source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.splits import seeded_split
from majl_jax.datasets.track import (
    LENGTHS_DIFFER_S,
    BadTrack,
    Recording,
    Track,
    no_pitch,
    stack,
)

STEMS = ("bass", "drums", "guitar", "piano", "others")
PROGRAMS = {"piano": range(8), "guitar": range(24, 32), "bass": range(32, 40)}
DRUMS_PROGRAM = 128
EDITIONS = ("original", "redux", "author", "baby")
NAMES = dict(
    zip(
        EDITIONS,
        ("slakh2100", "slakh2100_redux", "slakh2100_author", "babyslakh"),
        strict=True,
    )
)
ARCHIVES = {  # as they unpack
    "original": ("slakh2100_flac",),
    "redux": ("slakh2100_flac_redux",),
    "author": ("slakh2100_flac", "slakh2100_flac_redux"),
    "baby": ("babyslakh_16k",),
}
SPLITS = {"train": "train", "validation": "valid", "test": "test"}
OMITTED = "omitted"
TRAIN_TRACKS = {"original": 1500, "redux": 1289}
ALL_TRACKS = 2100
BABY_TRAIN, BABY_VALID = 16, 18  # the numbers of their last tracks
MEAN_S = 249.0
FILES = "metadata.yaml and stems/S00.flac ... (or .wav)"
TREES = {
    "original": "{train,validation,test}/Track00001/ with " + FILES,
    "redux": "{train,validation,test,omitted}/Track00001/ with " + FILES,
    "author": "[{train,validation,test,omitted}/]Track00001/ with " + FILES,
    "baby": "Track00001/ with " + FILES,
}
IN_OMITTED = "in omitted/: its MIDI file is that of another track as well"
NO_AUDIO = "no audio in stems/"
NOT_RENDERED = "a stem without audio (audio_rendered: false)"
NO_FILE = "a stem without audio, though audio_rendered is true: its file is missing"
NOT_LISTED = "a stem that metadata.yaml does not list"


class Stem(NamedTuple):
    """A stem of metadata.yaml: its group, one of `STEMS`, and whether it is said to have audio."""

    group: str
    rendered: bool


def tracks(
    source: str | None, *, grid: Grid, seed: int = 0, edition: str = "original"
) -> list[Track]:
    """The songs below `source`, and beside them the stems that are left out.

    edition: "original" and "redux", split by their folders, without omitted/; "author", all 2100
    songs, a tenth of them test and a tenth of the others valid, drawn by the seed (the list of
    arXiv 2010.12650 is not published); "baby", the 20 songs of babyslakh: 16 train, 2 valid, 2
    test, in their order.
    """
    root, found = find_songs(source, edition)
    drawn = seeded_split((f"Track{n:05}" for n in range(1, ALL_TRACKS + 1)), seed=seed)
    out = []
    for folder in found:
        place = folder.relative_to(root)
        split, audio = split_of(place, edition, drawn), find_audio(folder)
        if edition == "redux" and place.parts[0] == OMITTED:
            left_out = IN_OMITTED
        else:
            left_out = "" if audio else NO_AUDIO
        one = Track(
            id=place.as_posix(),
            split=split,
            group=folder.name,
            paths=(folder / "metadata.yaml", *audio.values()),
            seconds=MEAN_S,
            load=functools.partial(load, folder, grid=grid),
            left_out=left_out,
        )
        out.append(one)
        for name, reason in ({} if left_out else left_out_stems(folder)).items():
            out.append(Track(f"{one.id}/{name}", split, one.load, left_out=reason))
    return out


def split_of(place: pathlib.Path, edition: str, drawn: dict[str, str]) -> str:
    """The split of a song at a place in its copy; drawn: those of "author", by the name of the
    song.
    """
    match edition:
        case "author":
            return drawn.get(place.name, "train")
        case "baby":
            number = int(place.name.removeprefix("Track"))
            if number <= BABY_TRAIN:
                return "train"
            return "valid" if number <= BABY_VALID else "test"
    return SPLITS.get(place.parts[0], "train")


def find_songs(source: str | None, edition: str) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """The folder of a copy, and those of its songs."""
    if edition not in EDITIONS:
        raise ValueError(f"expected an edition of {EDITIONS}; got {edition!r}")
    copy = source_files.Copy(NAMES[edition], TREES[edition])
    folder = copy.root(source)
    inside = [folder / archive for archive in ARCHIVES[edition]]
    root = next((path for path in inside if path.is_dir()), folder)
    folders = sorted(path for path in root.glob("*") if path.is_dir())
    songs = [path for path in folders if _is_song(path)] if edition in ("author", "baby") else []
    counts = {}
    for folder in folders if edition != "baby" else []:
        below = sorted(filter(_is_song, folder.glob("Track*")))
        if below and folder.name not in (*SPLITS, OMITTED):
            raise ValueError(
                f"{folder} has tracks in it, but is none of {', '.join(SPLITS)} and {OMITTED}: "
                "what is it? Rename it, or move it away"
            )
        songs += below
        counts[folder.name] = len(below)
    if not songs:
        raise copy.nothing(folder)
    if edition == "original" and counts.get(OMITTED):
        raise ValueError(f"{root} has {OMITTED}/, so it is {NAMES['redux']}: name that one")
    if counts.get("train", 0) > TRAIN_TRACKS.get(edition, ALL_TRACKS):
        raise ValueError(
            f"{root}/train has {counts['train']} tracks, that of {copy.title}"
            f" {TRAIN_TRACKS[edition]}: is it another edition?"
        )
    return root, songs


def _is_song(folder: pathlib.Path) -> bool:
    return folder.is_dir() and re.fullmatch(r"Track\d{5}", folder.name) is not None


def find_audio(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The audio files of a song by the names of their stems."""
    names = {path.stem for path in (folder / "stems").glob("S*")}
    found = {name: source_files.find_audio(folder / "stems" / f"{name}.flac") for name in names}
    return {name: path for name, path in sorted(found.items()) if path is not None}


def left_out_stems(folder: pathlib.Path) -> dict[str, str]:
    """Which stems of a song are not in its groups, and why; none where its metadata cannot be
    used.
    """
    try:
        listed = read_stems(folder / "metadata.yaml")
    except BadTrack:  # `load` says so
        return {}
    audio = find_audio(folder)
    out = {name: NOT_LISTED for name in audio if name not in listed}
    for name, stem in listed.items():
        if name not in audio:
            out[name] = NO_FILE if stem.rendered else NOT_RENDERED
    return out


def group_of(program: int, *, is_drum: bool) -> str:
    """The group, one of `STEMS`, of a General MIDI program from 0 to 128; 128 are drums."""
    if is_drum or program == DRUMS_PROGRAM:
        return "drums"
    return next((name for name, programs in PROGRAMS.items() if program in programs), "others")


def read_stems(path: pathlib.Path) -> dict[str, Stem]:
    """The stems that a metadata.yaml lists; a BadTrack names the file and the key at fault."""
    import yaml

    expected = "expected stems: {S00: {program_num: 0 to 128, is_drum: true or false}, ...}"
    try:
        # The same as yaml.safe_load, by the C library where there is one: six times as fast.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        content: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except FileNotFoundError:
        raise BadTrack(f"{path}: no such file; {expected}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = " ".join(str(error).split())[:80]
        raise BadTrack(f"{path}: not YAML ({first}); {expected}") from None
    rows = content.get("stems") if isinstance(content, dict) else None
    if not isinstance(rows, dict) or not rows:
        raise BadTrack(f"{path}: has no stems; {expected}")
    out = {}
    for name, row in rows.items():
        if not isinstance(row, dict):
            raise BadTrack(f"{path}: stems.{name} is {row!r}; {expected}")
        program, is_drum = row.get("program_num"), row.get("is_drum")
        if type(program) is not int or not 0 <= program <= DRUMS_PROGRAM:
            raise BadTrack(f"{path}: stems.{name}.program_num is {program!r}; {expected}")
        if not isinstance(is_drum, bool):
            raise BadTrack(f"{path}: stems.{name}.is_drum is {is_drum!r}; {expected}")
        # babyslakh says false of stems whose files are there: the file decides, this is only said.
        rendered = row.get("audio_rendered") is not False
        out[str(name)] = Stem(group_of(program, is_drum=is_drum), rendered)
    return out


def load(folder: pathlib.Path, *, grid: Grid) -> Recording:
    """The groups of one song, without pitch labels."""
    listed = read_stems(folder / "metadata.yaml")
    audio = {name: path for name, path in find_audio(folder).items() if name in listed}
    if not audio:
        raise BadTrack(f"{folder}/stems: none of the stems in metadata.yaml has audio")
    groups = {stem: np.zeros((1, grid.channels), np.float32) for stem in STEMS}
    samples = {}
    for name, path in audio.items():
        one = source_files.read_audio(path, grid=grid)
        group = listed[name].group
        groups[group] = add(groups[group], one)
        samples[path] = len(one)
    shortest, longest = min(samples, key=samples.__getitem__), max(samples.values())
    if longest - samples[shortest] > LENGTHS_DIFFER_S * grid.sample_rate_hz:
        raise BadTrack(
            f"{shortest}: {grid.seconds(samples[shortest]):.2f} s, while another stem of the song"
            f" is {grid.seconds(longest):.2f} s long: is it cut off?"
        )
    silence = np.zeros((longest, grid.channels), np.float32)
    stems = stack([add(groups[stem], silence) for stem in STEMS], grid=grid)
    f0_hz, has_pitch = no_pitch(len(stems), stems=len(STEMS), grid=grid)
    return Recording(
        audio=stems,
        stems=STEMS,
        has_stems=np.ones(len(STEMS), bool),
        f0_hz=f0_hz,
        has_pitch=has_pitch,
        grid=grid,
    )


def add(
    one: Float32[np.ndarray, "time_1 channel"], other: Float32[np.ndarray, "time_2 channel"]
) -> Float32[np.ndarray, "time_3 channel"]:
    """Their sum, as long as the longer of the two."""
    long, short = (one, other) if len(one) >= len(other) else (other, one)
    out = long.copy()
    out[: len(short)] += short
    return out
