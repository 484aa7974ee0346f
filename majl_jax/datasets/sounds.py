"""Whether data sets are recordings or rendered, and that in words."""

from collections.abc import Mapping, Sequence


def of(names: Sequence[str]) -> dict[str, str]:
    """Of data sets, by the names of their folders: "real", "synthetic", "own" files, or
    "unknown".
    """
    from majl_jax.datasets.readers import READERS

    readers = {name: READERS.get(name.rsplit("/", 1)[-1]) for name in names}
    return {name: one.sound if one else "unknown" for name, one in readers.items()}


def in_words(sounds: Mapping[str, str]) -> str:
    """Data sets by their names, and whether they are recordings: what `of` gives, as text."""
    by_sound: dict[str, list[str]] = {}
    for name, sound in sounds.items():
        by_sound.setdefault(sound, []).append(name)
    only = " only" if list(by_sound) == ["synthetic"] else ""
    return ", ".join(f"{', '.join(found)} ({kind}{only})" for kind, found in by_sound.items())
