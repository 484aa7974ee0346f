"""The sources of a stream of batches: which prepared sets it mixes, and where their stems and
pitches stand in a batch.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from majl_jax.datasets.cutting import Layout
from majl_jax.datasets.input.stem_places import SILENT, stem_numbers
from majl_jax.datasets.records import Folder, Prepared, open_prepared
from majl_jax.datasets.stem_groups import Groups, Places, places


class Source(NamedTuple):
    """One data set of a stream of batches.

    stems: which of the set's stems stands in which place of the batch's stem axis: all of them,
    once each, and "" for silent places; None keeps the set's own order.
    voices: number of places of the batch's voice axis. None: pitches stand where their stems do. A
    number: they are those of the mixture, in the set's order, and the rest of the places is empty.
    labels: False makes every pitch unknown, whatever the set says.
    without_first: whether the set has nothing of what place 0 is for, as music without voices where
    that is the voice: its mixtures are what accompanies it, and the silent place 0 is a label, of
    stem and pitch. Pitches of its own do not count.
    """

    directory: Folder
    split: str
    weight: float
    stems: tuple[str, ...] | None = None
    voices: int | None = None
    labels: bool = True
    without_first: bool = False


# What to do about sources that do not fit each other.
ADVICE = {
    "stems": "; give every source its `stems`, one per place",
    "voices": "; give every source the same `voices`, the number of voice places",
}
AnySource = Source | tuple[Folder, str, float]


class Opened(NamedTuple):
    """An open source: where its records are, which stem goes where (None: as they are), how many
    voices.
    """

    prepared: Prepared
    split: str
    weight: float
    records: np.ndarray  # numbers of the records that take part
    stem_numbers: np.ndarray | None
    voices: int | None
    labels: bool
    without_first: bool


def open_sources(sources: Sequence[AnySource], *, min_valid_samples: int = 0) -> list[Opened]:
    """Opens the sources of one stream.

    Records with fewer valid samples than `min_valid_samples` are left out. Sets that differ in
    channels, rate or hop, or whose stems or voices do not fit each other, are an error.
    """
    if not sources:
        raise ValueError("sources is empty; expected (directory, split, weight) at least once")
    rows: Sequence[tuple[Any, ...]] = sources
    complete, opened = [Source(*row) for row in rows], []
    for directory, split, weight, stems, voices, labels, without_first in complete:
        prepared = open_prepared(directory)
        numbers = np.flatnonzero(prepared.split(split).valid_samples >= max(min_valid_samples, 1))
        if not len(numbers):
            raise ValueError(
                f"Split {split!r} of {directory} has no record with {min_valid_samples} valid "
                "samples"
            )
        placed = None
        if stems is not None:
            placed = stem_numbers(prepared.layout.stems, stems, data_set=str(directory))
        if not (without_first and voices is None):
            voices = _voice_places(prepared.layout, stems, voices, data_set=directory)
        if without_first and (stems is None or stems[0] != SILENT):
            raise ValueError(
                f"{directory} is without what place 0 is for, and `Source.stems` is {stems};"
                f' expected "" first'
            )
        flags = bool(labels), bool(without_first)
        opened.append(Opened(prepared, split, float(weight), numbers, placed, voices, *flags))
    _refuse_unequal(complete, opened)
    return opened


def _voice_places(
    layout: Layout, stems: tuple[str, ...] | None, voices: int | None, *, data_set: Folder
) -> int | None:
    """The number of places for the pitches of the mixture; None where each stands with its stem."""
    if voices is None:
        if layout.voices_are_stems:
            return None
        if stems is not None:
            raise ValueError(
                f"{data_set} has {layout.voices} pitches of the mixture, which belong to no stem:"
                f" they cannot be placed with its stems as {stems}; give `Source.voices`, the"
                " number of voice places, or another set"
            )
        return layout.pitch_voices
    if layout.pitch_voices > voices:
        raise ValueError(
            f"{data_set} has {layout.pitch_voices} voices, more than {voices} places: raise"
            " `Source.voices`"
        )
    return voices


def _refuse_unequal(sources: Sequence[Source], opened: Sequence[Opened]) -> None:
    first, first_voices = opened[0].prepared, _voices_in_words(sources[0], opened[0])
    first_stems, placed = sources[0].stems or first.layout.stems, sources[0].stems is not None
    for source, one in zip(sources[1:], opened[1:], strict=True):
        other, voices = one.prepared, _voices_in_words(source, one)
        stems = source.stems or other.layout.stems
        if placed or source.stems is not None:  # whoever names stems says what they stand for
            fits = len(stems) == len(first_stems)
        else:
            fits = stems == first_stems
        differences: list[tuple[str, Any, Any]] = [] if fits else [("stems", stems, first_stems)]
        if fits and voices != first_voices:
            differences.append(("voices", voices, first_voices))
        for name in ("channels", "sample_rate_hz", "hop_samples"):
            there, here = getattr(other.layout, name), getattr(first.layout, name)
            if there != here:
                differences.append((name, there, here))
        for name, there, here in differences:
            advice = ADVICE.get(name, "")
            raise ValueError(
                f"{other.directory} cannot be mixed with {first.directory}: {name} is {there} "
                f"there, {here} here{advice}"
            )


def _voices_in_words(source: Source, one: Opened) -> str:
    if one.voices is not None:
        return f"{one.voices} of the mixture"
    return f"one per stem ({len(source.stems or one.prepared.layout.stems)})"


def target_first(
    prepared_layout: Layout,
    target_names: Sequence[str],
    places: int,
    *,
    data_set: Folder = "the data set",
) -> tuple[str, ...]:
    """`Source.stems` that put the stem named in `target_names` first, the others in their order.

    "" fills up to `places`. Not exactly one such stem, or more stems than places, is an error
    that names `data_set`.
    """
    stems = prepared_layout.stems
    found = [name for name in stems if name in target_names]
    if len(found) != 1:
        raise ValueError(
            f"{data_set} has the stems {stems}; expected exactly one of {tuple(target_names)} "
            f"among them, found {found or 'none'}"
        )
    if len(stems) > places:
        raise ValueError(f"{data_set} has {len(stems)} stems {stems}, more than {places} places")
    others = (name for name in stems if name != found[0])
    return (found[0], *others, *[SILENT] * (places - len(stems)))


def silence_first(prepared_layout: Layout, places: int, *, data_set: Folder) -> tuple[str, ...]:
    """`Source.stems` of a set without the target: place 0 is silent, its stems follow.

    More than fit into `places` is an error that names `data_set`.
    """
    stems = prepared_layout.stems
    if len(stems) >= places:
        raise ValueError(
            f"{data_set} has {len(stems)} stems {stems}, more than fit beside a silent one into"
            f" {places} places"
        )
    return (SILENT, *stems, *[SILENT] * (places - 1 - len(stems)))


def parse_shares(text: str) -> dict[str, float]:
    """`fma: 3, musdb18_hq: 1` to the share of each data set, which add up to 1; without numbers
    all shares are equal.

    Raises ValueError for a name that stands there twice and a number that is not above 0.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition(":"))
        try:
            share = float(number or 1.0)
        except ValueError:
            share = -1.0
        if not name or name in found or not 0.0 < share < float("inf"):
            raise ValueError(
                f"{text!r}: expected data sets, each once, with shares above 0 or without, as in"
                " 'fma: 3, musdb18_hq: 1'"
            )
        found[name] = share
    total = sum(found.values())
    return {name: share / total for name, share in found.items()}


def mixture_sources(
    shares: Mapping[Any, float], split: str, *, unlabelled: Collection[Any] = ()
) -> list[Source]:
    """Sources for who needs only mixtures and their pitches: each set by its share, all of one
    shape.

    shares: weight per folder of prepared data. Sets with fewer stems or voices than the largest
    get silent stems and empty voices. unlabelled: the folders whose labels are not to be looked
    at.
    """
    layouts = {folder: open_prepared(folder).layout for folder in shares}
    places = max(len(layout.stems) for layout in layouts.values())
    voices = max(layout.pitch_voices for layout in layouts.values())
    return [
        Source(
            folder,
            split,
            float(share),
            (*layouts[folder].stems, *[SILENT] * (places - len(layouts[folder].stems))),
            voices,
            folder not in unlabelled,
        )
        for folder, share in shares.items()
    ]


def group_sources(
    folders: Mapping[str, Folder], groups: Mapping[str, Groups], split: str
) -> tuple[list[Source], Places]:
    """The sets as parts of one stream, each with as many examples as it has tracks, and their
    places.

    Reshape [time, place, channel] to sources by `audio.mixing.group`, after leaving out the last
    `left_out` places.
    """
    prepared = {name: open_prepared(folders[name]) for name in groups}
    stems = {name: one.layout.stems for name, one in prepared.items()}
    where = places(groups, stems)
    # Whose pitches they are does not matter here, but all sets have to have as many.
    voices = max(one.layout.pitch_voices for one in prepared.values())
    sources = []
    for name, of_set in groups.items():
        row: list[str] = []
        for group in of_set.values():
            row += [*group, *[SILENT] * (where.members - len(group))]
        rest = [stem for stem in stems[name] if stem not in row]
        row += [*rest, *[SILENT] * (where.left_out - len(rest))]
        tracks = len(set(prepared[name].split(split).track))
        sources.append(Source(folders[name], split, float(tracks), tuple(row), voices))
    return sources, where
