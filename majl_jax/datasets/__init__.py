"""Data sets: one reader per data set, one builder for all, the input from disk or memory."""

import dataclasses
import functools
from collections.abc import Callable

from majl_jax.datasets import chorales, mir1k
from majl_jax.datasets.track import Track


@dataclasses.dataclass(frozen=True)
class Reader:
    """How a data set is listed: `tracks(source, *, sample_rate_hz, hop_samples, seed)`."""

    tracks: Callable[..., list[Track]]
    stems: tuple[str, ...]
    channels: int = 1
    version: int = 1  # counted up when the reader gives other audio or labels than before
    needs_source: bool = True


def _chorales(view: str) -> Reader:
    tracks = functools.partial(chorales.tracks, view=view)
    return Reader(tracks=tracks, stems=chorales.STEMS, needs_source=False)


READERS: dict[str, Reader] = {
    "chorales": _chorales("full"),
    "chorales_stems": _chorales("stems"),
    "chorales_pitch": _chorales("pitch"),
    "mir1k": Reader(tracks=mir1k.tracks, stems=mir1k.STEMS),
}
