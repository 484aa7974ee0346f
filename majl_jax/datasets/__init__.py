"""Data sets: one reader per data set, one builder for all, the input from disk or memory."""

import dataclasses
import functools
from collections.abc import Callable

from majl_jax.datasets import chorales, medleydb, mir1k, mir_st500, musdb18
from majl_jax.datasets.track import Track


@dataclasses.dataclass(frozen=True)
class Reader:
    """How a data set is listed: `tracks(source, *, sample_rate_hz, hop_samples, channels, seed)`."""

    tracks: Callable[..., list[Track]]
    stems: tuple[str, ...]
    channels: tuple[int, ...] = (1,)  # the numbers of channels it can give, the usual one first
    version: int = 1  # counted up when the reader gives other audio or labels than before
    needs_source: bool = True


def _chorales(view: str) -> Reader:
    tracks = functools.partial(chorales.tracks, view=view)
    return Reader(tracks=tracks, stems=chorales.STEMS, needs_source=False)


def _mir1k(**which: str) -> Reader:
    return Reader(functools.partial(mir1k.tracks, **which), mir1k.STEMS, version=2)


def _musdb18(edition: str, *, with_medleydb: bool = True) -> Reader:
    tracks = functools.partial(musdb18.tracks, edition=edition, with_medleydb=with_medleydb)
    return Reader(tracks, musdb18.STEMS, channels=(1, 2))


READERS: dict[str, Reader] = {
    "chorales": _chorales("full"),
    "chorales_stems": _chorales("stems"),
    "chorales_pitch": _chorales("pitch"),
    "mir1k": _mir1k(split_by="singer"),
    "mir1k_songs": _mir1k(split_by="song"),
    "mir1k_author": _mir1k(split_by="clip"),
    "mir1k_few": _mir1k(view="full"),
    "mir1k_stems": _mir1k(view="stems"),
    "mir1k_pitch": _mir1k(view="pitch"),
    "musdb18": _musdb18("aac"),
    "musdb18_hq": _musdb18("wav"),
    "musdb18_no_medleydb": _musdb18("aac", with_medleydb=False),
    "musdb18_hq_no_medleydb": _musdb18("wav", with_medleydb=False),
    "medleydb": Reader(medleydb.tracks, medleydb.STEMS),
    "mir_st500": Reader(mir_st500.tracks, mir_st500.STEMS),
}
