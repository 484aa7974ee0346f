"""Loading and cutting of tracks as an Apache Beam pipeline."""

import dataclasses
import functools
import json
import pickle
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from majl_jax.datasets import track
from majl_jax.datasets.beam import apache_beam
from majl_jax.datasets.cutting import Layout
from majl_jax.prepare import loading

OUTCOMES = "outcomes"
TRACKS_PER_CHUNK = 1000


def records_of(
    tracks: Sequence[track.Track], layout: Layout, *, drop_silence: bool, outcomes: epath.PathLike
) -> Any:
    """A Beam transform to the records of the tracks; what became of each track is written to
    `outcomes`.
    """
    beam = apache_beam()

    work = functools.partial(_load_and_cut, layout=layout, drop_silence=drop_silence)

    def expand(begin):
        made = (
            begin
            | "Tracks" >> beam.Create(pack(tracks))
            | "Unpack" >> beam.FlatMap(unpack)
            | "Spread" >> beam.Reshuffle()
            | "LoadAndCut" >> beam.FlatMap(work).with_outputs(OUTCOMES, main="records")
        )
        _ = (
            made[OUTCOMES]
            | "Collect" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
            | "Report" >> beam.Map(_write_outcomes, path=outcomes)
        )
        return made["records"]

    return beam.ptransform_fn(expand)()


def read_outcomes(
    paths: Iterable[epath.PathLike], tracks: Sequence[track.Track]
) -> Mapping[str, loading.Outcome]:
    """What became of each track, in the order of the tracks."""
    rows = [row for path in paths for row in json.loads(epath.Path(path).read_text())]
    found = {row["track"]: loading.Outcome(**row) for row in rows}
    if lost := [one.id for one in tracks if one.id not in found]:
        raise RuntimeError(f"Beam gave no outcome for {len(lost)} tracks, {lost[0]} among them")
    return {one.id: found[one.id] for one in tracks}


def pack(tracks: Sequence[track.Track]) -> list[bytes]:
    """The tracks in few compressed pieces: runners limit the size of the job that they are sent."""
    pickled = [pickle.dumps(one) for one in tracks]
    starts = range(0, len(pickled), TRACKS_PER_CHUNK)
    return [zlib.compress(pickle.dumps(pickled[i : i + TRACKS_PER_CHUNK])) for i in starts]


def unpack(chunk: bytes) -> list[bytes]:
    """The tracks of a piece, each still pickled: no coder of Beam's has to know what a track is."""
    return pickle.loads(zlib.decompress(chunk))


def _load_and_cut(pickled: bytes, *, layout: Layout, drop_silence: bool) -> Iterator[Any]:
    beam = apache_beam()
    for made in loading.load_and_cut(pickle.loads(pickled), layout, drop_silence=drop_silence):
        if isinstance(made, loading.Outcome):
            yield beam.pvalue.TaggedOutput(OUTCOMES, dataclasses.asdict(made))
        else:
            yield made


def _write_outcomes(rows: list[dict[str, Any]], path: epath.PathLike) -> None:
    ordered = sorted(rows, key=lambda row: row["track"])
    epath.Path(path).write_text(json.dumps(ordered))
