"""Tracks with some of their stems or sums of them: `prepare
--stems=vocals,accompaniment=bass+drums+other`.
"""

import dataclasses
import functools

import numpy as np

from majl_jax.datasets import stem_groups
from majl_jax.datasets.track import BadTrack, Recording, Track


def choose(tracks: list[Track], groups: stem_groups.Groups) -> list[Track]:
    """The tracks with the sources of `groups` for stems; what belongs to none is in no mixture."""
    return [
        dataclasses.replace(one, load=functools.partial(_load, one, dict(groups)), streamed=None)
        for one in tracks
    ]


def _load(track: Track, groups: stem_groups.Groups) -> Recording:
    """A voice of a stem alone keeps its pitch; a sum of stems has none, nor has a mixture that
    lacks some of its stems.
    """
    whole = track.load()
    if not whole.has_stems.all():
        raise BadTrack("not all of its stems are known, so none can be chosen by --stems")
    columns = [[whole.stems.index(stem) for stem in group] for group in groups.values()]
    f0_hz, has_pitch = whole.f0_hz, whole.has_pitch
    if whole.voices == 0:
        single = np.array([len(column) == 1 for column in columns])
        first = [column[0] for column in columns]
        f0_hz, has_pitch = f0_hz[:, first] * single, has_pitch[:, first] & single
    elif {stem for group in groups.values() for stem in group} != set(whole.stems):
        f0_hz, has_pitch = np.zeros_like(f0_hz), np.zeros_like(has_pitch)
    audio = stem_groups.of_stems(whole.audio, whole.stems, groups)
    # A sum may be beyond full scale; by one gain all still add up to the mixture.
    audio = audio / max(1.0, float(np.abs(audio).max(initial=0.0)))
    return dataclasses.replace(
        whole,
        audio=audio,
        stems=tuple(groups),
        has_stems=np.ones(len(groups), bool),
        f0_hz=f0_hz.astype(np.float32),
        has_pitch=has_pitch,
        notes=(),
    )
