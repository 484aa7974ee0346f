"""Which stem and which pitch of a data set stands in which place of a batch, so that unlike sets
mix.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

SILENT = ""  # the name of a place without a stem


def stem_numbers(
    stems: Sequence[str], wanted: Sequence[str], *, data_set: str
) -> Int[np.ndarray, " place"]:
    """The number of the stem in each place, len(stems) for a silent one.

    wanted: all of `stems`, once each, in any order, and "" for silent places; else ValueError.
    """
    if sorted(name for name in wanted if name != SILENT) != sorted(stems):
        raise ValueError(
            f"{data_set} has the stems {tuple(stems)}, which cannot be placed as {tuple(wanted)}: "
            'expected each of them once, and "" for silent places'
        )
    return np.asarray([list(stems).index(name) if name else len(stems) for name in wanted])


def place(
    crop: dict[str, np.ndarray],
    numbers: np.ndarray | None,
    *,
    voices: int | None = None,
    without_first: bool = False,
) -> dict[str, np.ndarray]:
    """The arrays of a record, or of a crop, with its stems and its pitches in their places.

    numbers: of `stem_numbers`; None keeps the stems. No sample is changed. Where no stem is known,
    stem 0 holds the mixture and stays where it is. A silent place is known where all stems are.

    voices: None puts the pitches where their stems are; a silent place has no pitch label. A
    number is that of voice places for the pitches of the mixture: they keep their order, and an
    empty voice, of f0 0, is a label where all of them are.

    without_first: of a set without what place 0 is for (`Source.without_first`): all stems are
    known, that place has no pitch in any frame, and pitches of the set itself are not looked at.
    """
    out = dict(crop)
    if numbers is not None:
        known = crop["has_stems"] | without_first
        as_they_are = first(len(known), len(numbers))
        out["stems"] = _take(crop["stems"], numbers if known.any() else as_they_are, axis=1)
        out["has_stems"] = np.append(known, known.all())[numbers]
    count = crop["f0_hz"].shape[1]
    labels = numbers if voices is None else first(count, voices)
    if without_first and labels is not None:
        labels = np.full(len(labels), count)
    if labels is not None:
        has_pitch, empty = crop["has_pitch"], np.zeros((len(crop["has_pitch"]), 1), bool)
        if voices is not None:
            empty = has_pitch.all(axis=1, keepdims=True)
        out["f0_hz"] = _take(crop["f0_hz"], labels, axis=1)
        out["has_pitch"] = np.concatenate([has_pitch, empty], axis=1)[:, labels]
        out["has_pitch"][:, 0] |= without_first
    return out


def first(count: int, places: int) -> Int[np.ndarray, " place"]:
    """Numbers that keep the first `count` entries where they are; `count` itself stands for an
    empty place.
    """
    return np.minimum(np.arange(places), count)


def _take(array: np.ndarray, numbers: np.ndarray, *, axis: int) -> np.ndarray:
    """Entries of an axis by number; the number past the last one gives zeros."""
    with_zeros = np.concatenate([array, np.zeros_like(array.take([0], axis))], axis)
    return with_zeros.take(numbers, axis)
