"""Which stem of a data set stands in which place of a batch, so that sets of unlike stems mix."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

SILENT = ""  # the name of a place without a stem


def stem_numbers(
    stems: Sequence[str], wanted: Sequence[str], *, data_set: str
) -> Int[np.ndarray, " place"]:
    """The number of the stem in each place, len(stems) for a silent one.

    wanted: all of `stems`, once each, in any order, then "" for silent places; else ValueError.
    """
    named = list(wanted[: len(stems)])
    if sorted(named) != sorted(stems) or any(name != SILENT for name in wanted[len(stems) :]):
        raise ValueError(
            f"{data_set} has the stems {tuple(stems)}, which cannot be placed as {tuple(wanted)}: "
            'expected each of them once, then "" for silent places'
        )
    return np.asarray([list(stems).index(name) if name else len(stems) for name in wanted])


def place(crop: dict[str, np.ndarray], numbers: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of a record, or of a crop, with its stems in their places.

    No sample is changed. Where no stem is known, stem 0 holds the mixture and stays where it is;
    labels always go by name. A silent place is known where all stems are; it has no pitch label.
    """
    count, known = len(crop["has_stems"]), crop["has_stems"]
    as_they_are = np.minimum(np.arange(len(numbers)), count)
    return {
        **crop,
        "stems": _take(crop["stems"], numbers if known.any() else as_they_are, axis=1),
        "has_stems": np.append(known, known.all())[numbers],
        "f0_hz": _take(crop["f0_hz"], numbers, axis=1),
        "has_pitch": _take(crop["has_pitch"], numbers, axis=1),
    }


def _take(array: np.ndarray, numbers: np.ndarray, *, axis: int) -> np.ndarray:
    """Entries of an axis by number; the number past the last one gives zeros."""
    with_zeros = np.concatenate([array, np.zeros_like(array.take([0], axis))], axis)
    return with_zeros.take(numbers, axis)
