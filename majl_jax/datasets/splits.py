"""Splits of data sets that bring none: drawn by a seed, the same on every machine."""

import collections
import hashlib
import pathlib
from collections.abc import Iterable, Mapping

from majl_jax import formats

HELD_OUT = 10  # every so many go to test, and of the rest to valid
FEWEST = 3  # with fewer, a split would be empty


def shuffled(names: Iterable[str], *, seed: int | str) -> list[str]:
    """The names by the SHA-256 of seed and name: which of two comes first does not depend on the
    others.
    """
    return sorted(
        names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode(errors="replace")).digest()
    )


def seeded_split(names: Iterable[str], *, seed: int) -> dict[str, str]:
    """A split of every name: a tenth is test, a tenth of the others valid (one each at least), the
    rest train.

    Fewer than three names are all train.
    """
    order = shuffled(names, seed=seed)
    if len(order) < FEWEST:
        return dict.fromkeys(order, "train")
    test = max(1, round(len(order) / HELD_OUT))
    valid = max(1, round((len(order) - test) / HELD_OUT))
    splits = ["test"] * test + ["valid"] * valid + ["train"] * (len(order) - test - valid)
    return dict(zip(order, splits, strict=True))


def seeded_split_of_groups(groups: Mapping[str, str], *, seed: int) -> dict[str, str]:
    """The same for names of which those of one group stay together: {name: group}.

    In the order of the seed, each group that fits goes to test, then to valid; where none fits, a
    smallest one. Names of fewer than three groups are all train.
    """
    sizes = collections.Counter(groups.values())
    order = shuffled(sizes, seed=seed)
    if len(order) < FEWEST:
        return dict.fromkeys(groups, "train")
    split_of: dict[str, str] = {}
    for split in ("test", "valid"):
        left = [group for group in order if group not in split_of]
        room = max(1, round(sum(sizes[group] for group in left) / HELD_OUT))
        if all(sizes[group] > room for group in left):
            room = min(sizes[group] for group in left)
        for group in left:
            if sizes[group] <= room:
                split_of[group] = split
                room -= sizes[group]
    return {name: split_of.get(group, "train") for name, group in groups.items()}


def read_split(path: pathlib.Path) -> list[list[str]]:
    """Rows of words of a split list; lines that start with # are comments."""
    if not path.is_file():
        raise FileNotFoundError(
            f"Split list {path} is missing; it is part of the repository (data/splits) and of the "
            "package: restore the file, or install the package again."
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split() for line in lines if line.strip() and not line.startswith("#")]


SPLITS_FOLDER = formats.SPLITS
