"""Which stems of which data sets make up the sources of a task: "musdb18: vocals,
accompaniment=bass+drums+other".
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped

FORM = '"SET: source, source=stem+stem; SET: ..."'
Groups = Mapping[str, tuple[str, ...]]  # of one data set: source to the stems it is the sum of


@dataclasses.dataclass(frozen=True)
class Places:
    """How the stem axis of a batch is divided: `members` places for each source, in their order,
    then those left out.
    """

    sources: tuple[str, ...]  # in alphabetical order: their numbers are the same in every data set
    members: int
    left_out: int  # places of stems that belong to no source


def parse(text: str) -> dict[str, Groups]:
    """The groups of each data set that a text of the form above names; the sets must have the same
    sources.

    A source without "=" is the stem of its name. Stems that are not mentioned are left out of the
    mixture.
    """
    found: dict[str, Groups] = {}
    for part in text.split(";"):
        data_set, colon, rest = (piece.strip() for piece in part.partition(":"))
        groups = parse_sources(rest)
        if not colon or not data_set or data_set in found:
            raise _wrong(text)
        found[data_set] = dict(sorted(groups.items()))
    names = [tuple(groups) for groups in found.values()]
    if len(set(names)) > 1 or len(names[0]) < 2:
        listed = ", ".join(f"{one}: {sources}" for one, sources in zip(found, names, strict=True))
        raise ValueError(
            f"{text!r} has the sources {listed}; expected two or more, the same of every set"
        )
    return found


def parse_sources(text: str) -> dict[str, tuple[str, ...]]:
    """The groups of one data set, "source, source=stem+stem", in their order."""
    items = text.split(",")
    groups = dict(_group(item.strip(), text) for item in items)
    if len(groups) != len(items):
        raise _wrong(text)
    return groups


def _group(item: str, text: str) -> tuple[str, tuple[str, ...]]:
    source, _, stems = item.partition("=")
    members = tuple(stem.strip() for stem in (stems or source).split("+"))
    if not source.strip() or not all(members) or len(set(members)) != len(members):
        raise _wrong(text)
    return source.strip(), members


def _wrong(text: str) -> ValueError:
    return ValueError(f"{text!r} does not say which sources a set has; expected {FORM}")


def places(groups: Mapping[str, Groups], stems: Mapping[str, Sequence[str]]) -> Places:
    """The places that all sets fit into; stems: of each set. A stem it does not have, or in two
    sources, is an error.
    """
    members, left_out = 1, 0
    for data_set, sources in groups.items():
        used = [stem for group in sources.values() for stem in group]
        if unknown := sorted(set(used) - set(stems[data_set])):
            raise ValueError(
                f"{data_set} has the stems {', '.join(stems[data_set])}; its sources name"
                f" {', '.join(unknown)}"
            )
        if len(set(used)) != len(used):
            raise ValueError(f"{data_set}: a stem is in two sources: {dict(sources)}")
        members = max(members, *map(len, sources.values()))
        left_out = max(left_out, len(stems[data_set]) - len(used))
    return Places(tuple(next(iter(groups.values()))), members, left_out)


def of_stems(
    stems: Shaped[np.ndarray, "time stem channel"], names: Sequence[str], groups: Groups
) -> Shaped[np.ndarray, "time source channel"]:
    """The sources of a record whose stems have these names."""
    sums = [
        stems[:, [list(names).index(stem) for stem in group]].sum(1) for group in groups.values()
    ]
    return np.stack(sums, axis=1)
