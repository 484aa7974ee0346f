"""What can be wrong between splits, and between data sets that lie side by side: the same audio
twice, other layouts.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from majl_jax.prepare.check import duplicates
from majl_jax.prepare.check.facts import MIXTURE
from majl_jax.prepare.check.findings import Checked, Finding


class Place(NamedTuple):
    """Whose a signal is."""

    data_set: int
    split: str
    track: str


class Pair(NamedTuple):
    """Two tracks with audio in common: the same samples or the same sound, of their mixtures or of
    stems.
    """

    first: Place
    second: Place
    exact: bool
    signals: tuple[str, str]

    @property
    def mixtures(self) -> bool:
        """Whether all of the one is in the other."""
        return self.signals == (MIXTURE, MIXTURE)


def repeated(sets: Sequence[Checked]) -> list[tuple[int, Finding]]:
    """Tracks, samples and sounds that occur twice, each finding with the number of the set it
    belongs to.
    """
    out = [(number, finding) for number, one in enumerate(sets) for finding in _same_ids(one)]
    grouped: dict[tuple[int, str, str], list[str]] = {}
    for pair in find_pairs(sets):
        name = _name(pair)
        if name is None:
            continue
        same_set = pair.first.data_set == pair.second.data_set
        splits = sorted({pair.first.split, pair.second.split})
        label = " and ".join(splits) if same_set else ""
        key = (pair.first.data_set, name, label)
        grouped.setdefault(key, []).append(_in_words(pair, sets))
    for (number, name, label), where in grouped.items():
        plural = "pair" if len(where) == 1 else "pairs"
        out.append((number, Finding(name, label, f"{len(where)} {plural} of tracks", tuple(where))))
    return out


def other_layouts(sets: Sequence[Checked]) -> list[tuple[int, Finding]]:
    """Sets side by side whose rates, hops or channels differ from the first one's, which rules out
    mixing them.
    """
    known = [(number, one) for number, one in enumerate(sets) if one.layout is not None]
    out = []
    for number, one in known[1:]:
        _, first = known[0]
        differences = [
            f"{name} is {getattr(one.layout, name)}, in {first.name} {getattr(first.layout, name)}"
            for name in ("sample_rate_hz", "hop_samples", "channels")
            if getattr(one.layout, name) != getattr(first.layout, name)
        ]
        if differences:
            out.append((number, Finding("layouts differ", "", "; ".join(differences))))
    return out


def _same_ids(checked: Checked) -> Iterator[Finding]:
    splits: dict[str, list[str]] = {}
    for split, track in checked.facts:
        splits.setdefault(track, []).append(split)
    where = tuple(f"{t} ({', '.join(found)})" for t, found in splits.items() if len(found) > 1)
    if where:
        what = f"{len(where)} of {len(splits)} tracks"
        yield Finding("same track in two splits", "", what, where)


def find_pairs(sets: Sequence[Checked]) -> list[Pair]:
    """Every two tracks with audio in common, by the strongest thing that they share."""
    places, owners, names, digests, fingerprints = [], [], [], [], []
    for number, checked in enumerate(sets):
        for (split, track), one in checked.facts.items():
            places.append(Place(number, split, track))
            for name, prints in one.digests.items():
                owners.append(len(places) - 1)
                names.append(name)
                digests.append(prints)
                fingerprints.append(one.fingerprints[name])
    best: dict[tuple[int, int], Pair] = {}
    exact = duplicates.same_samples(digests, owners)
    similar = duplicates.same_sound(fingerprints, owners)
    for twins, is_exact in [*((t, True) for t in exact), *((t, False) for t in similar)]:
        first, second = sorted((twins.first, twins.second), key=lambda signal: owners[signal])
        key = (owners[first], owners[second])
        signals = (names[first], names[second])
        pair = Pair(places[key[0]], places[key[1]], is_exact, signals)
        old = best.get(key)
        if old is None or (pair.mixtures, pair.exact) > (old.mixtures, old.exact):
            best[key] = pair
    return list(best.values())


def _name(pair: Pair) -> str | None:
    """Which kind of finding a pair is; stems that two tracks of one split share are none."""
    if pair.first.data_set != pair.second.data_set:
        return "same sound in two sets" if pair.first.split != pair.second.split else None
    if pair.first.split == pair.second.split:
        if not pair.mixtures:
            return None
        return "same audio twice" if pair.exact else "same sound twice"
    if not pair.mixtures:
        return "same stem in two splits"
    return "same audio in two splits" if pair.exact else "same sound in two splits"


def _in_words(pair: Pair, sets: Sequence[Checked]) -> str:
    sides = []
    for place, signal in zip((pair.first, pair.second), pair.signals, strict=True):
        data_set = "" if pair.first.data_set == pair.second.data_set else sets[place.data_set].name
        of_stem = "" if signal == MIXTURE else f" ({signal})"
        folder = "/".join(part for part in (data_set, place.split) if part)
        sides.append(f"{folder}: {place.track}{of_stem}")
    return " = ".join(sides)
