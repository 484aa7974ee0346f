"""Which stem a file is a part of, by the words of its name: "VOX LEAD", "Kick 2", "SY BASS"."""

import fnmatch
import pathlib
import re
from collections.abc import Collection, Sequence

LEFT_OUT = "-"
REST = ("*",)
# What the names of mixes end in: "Rough Mix", "Song_MIX".
MIXES = ("mix", "mixture", "mixdown", "master")
FORM = f'"STEM: PATTERN, PATTERN", a stem {LEFT_OUT} being what is left out'
Pattern = tuple[str, ...]  # of as many words that follow each other
Table = tuple[tuple[str, tuple[Pattern, ...]], ...]
_LETTER = r"[^\W\d_]"
_NUMBER = re.compile(rf"((?<!{_LETTER})v)?\d+\s*(bits?|k?hz|k)?(?!{_LETTER})", re.IGNORECASE)

_BUILT_IN = """
-: mix, mixture, mixdown, full mix, stereo mix, final mix, original mix, master, linear mixture
-: click, click track, metronome, talkback, reference
vocals: vox*, *vox, voc, vocs, vocal*, voice*, bgv*, bv, bvs, choir*, singer*, singing, rap
vocals: adlib*, speech
drums: drum*, *drum, *drums, kick*, kik, bd, k, snare*, snr, sn, hat, hats, hihat*, hh, clap*
drums: cymbal*, crash*, ride, rides, tom, toms, perc*, prc, shaker*, tamb*, tambourine, conga*
drums: bongo*, cowbell, rim*, overhead*, oh, ohs, beat, beats, *beat, break, breaks, fill, fills
drums: tops, loop drum*, cajon, timpani
bass: bass, *bass, basses, sub, 808
other: *
"""


def parse(text: str, *, name: str) -> Table:
    """The lines of a table, from the first on; # begins a comment. ValueError for another line.

    name: of the file, for errors.
    """
    table = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        stem, _, patterns = line.partition(":")
        found = tuple(_pattern(one) for one in patterns.split(","))
        if not stem.strip() or not all(found):
            raise ValueError(f"{name}, line {number}: {line[:60]!r}; expected {FORM}")
        table.append((stem.strip(), found))
    return tuple(table)


def read(path: str | None) -> Table:
    """The table of a file, and below it the built-in one; without a file that alone."""
    if path is None:
        return BUILT_IN
    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such table of names; expected lines {FORM}")
    return parse(file.read_text(encoding="utf-8-sig"), name=str(file)) + BUILT_IN


def stems(table: Table) -> tuple[str, ...]:
    """The stems of a table in its order."""
    return tuple(dict.fromkeys(stem for stem, _ in table if stem != LEFT_OUT))


def stem_of(table: Table, names: Sequence[str]) -> str:
    """The stem of a file by its name and, where no pattern but * fits that, those of its folders,
    the nearest first.

    Of the lines that fit a name the first counts. Where none fits, a name that ends as those of
    mixes do is left out.
    """
    for name in names:
        if (stem := named(table, name)) is not None:
            return stem
    if any(word in MIXES for word in _without_numbers(names[0])[-1:]):
        return LEFT_OUT
    return next((stem for stem, patterns in table if REST in patterns), LEFT_OUT)


def named(table: Table, name: str) -> str | None:
    """The first stem that a pattern other than * gives a name; None without one.

    A pattern fits words that follow each other; of what is left out, the whole name, with or
    without its numbers, as there are mixes of drums alone.
    """
    words = words_of(name)
    for stem, patterns in table:
        whole = stem == LEFT_OUT
        spelt = (words, _without_numbers(name)) if whole else (words,)
        patterns = [pattern for pattern in patterns if pattern != REST]
        if any(_fits(pattern, one, whole=whole) for pattern in patterns for one in spelt):
            return stem
    return None


def is_stem(table: Table, name: str, *, besides: Collection[str]) -> bool:
    """Whether a name is that of a stem and of nothing else: every word of it, numbers apart, is one
    of `besides` or fits a pattern, one at least a pattern. "Lead Vox 2" is one with "lead"
    besides; "Tom Sawyer" is none.
    """
    words = [word for word in words_of(name) if not word.isdigit()]
    fits = [word for word in words if named(table, word) is not None]
    left = [word for word in words if word not in fits and word not in besides]
    whole = any(
        pattern != REST and len(pattern) == len(words) and _fits(pattern, words, whole=True)
        for _, patterns in table
        for pattern in patterns
    )
    return whole or (bool(fits) and not left)


def words_of(name: str) -> list[str]:
    """The words and numbers of a name in small letters: "LeadVox_2" has lead, vox and 2."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W\d_]+|\d+", name.casefold())


def _without_numbers(name: str) -> list[str]:
    """The words of a name but for numbers and what they count: "Master 24bit" has master alone."""
    return words_of(_NUMBER.sub(" ", name))


def _fits(pattern: Pattern, words: Sequence[str], *, whole: bool) -> bool:
    if whole and len(words) != len(pattern):
        return False
    starts = range(len(words) - len(pattern) + 1)
    return any(all(map(fnmatch.fnmatchcase, words[at:], pattern)) for at in starts)


def _pattern(text: str) -> Pattern:
    return tuple(re.findall(r"[^\s_+&.-]+", text.casefold()))


BUILT_IN = parse(_BUILT_IN, name="the table")
