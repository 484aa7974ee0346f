"""Fixed excerpts of prepared data: the same ones for every model, so that their scores can be
compared in pairs.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from majl_jax.audio import int16
from majl_jax.datasets import records, stem_groups

# Per excerpt, before a data set counts as one in which its sources never sound together
TRIES = 200


class Excerpt(NamedTuple):
    """A stretch of a track (`name`: track@second) and its sources."""

    name: str
    sources: Float32[np.ndarray, "time source"]


def fixed_excerpts(
    directory: records.Folder,
    split: str,
    groups: stem_groups.Groups,
    *,
    count: int,
    samples: int,
    seed: int,
    coherent: bool = True,
    threshold_db: float = -45.0,
) -> Iterator[Excerpt]:
    """`count` excerpts at random places of random records, where each source has an RMS above
    `threshold_db`.

    Excerpt i depends on the seed and i alone. A track shorter than an excerpt is filled up with
    zeros.

    Args:
        directory: a prepared data set.
        split: of it.
        groups: the stems that make up each source.
        count: how many excerpts.
        samples: length of one.
        seed: of their places.
        coherent: whether all sources are of one place; otherwise each has its own.
        threshold_db: least level of each source, dB of full scale.
    """
    prepared = records.open_prepared(directory)
    stem_groups.places({str(directory): groups}, {str(directory): prepared.layout.stems})
    if prepared.layout.record_samples < samples:
        raise ValueError(
            f"{directory} has records of {prepared.layout.record_samples} samples, shorter than"
            f" excerpts of {samples}: prepare it with longer --record_seconds, or take shorter"
            " excerpts"
        )
    valid = prepared.split(split).valid_samples
    numbers = np.flatnonzero(valid >= min(samples, valid.max()))
    for number in range(count):
        yield _excerpt(
            prepared,
            split,
            groups,
            numbers,
            np.random.default_rng([seed, number]),
            samples=samples,
            coherent=coherent,
            threshold_db=threshold_db,
        )


def _excerpt(
    prepared: records.Prepared,
    split: str,
    groups: stem_groups.Groups,
    numbers: np.ndarray,
    rng: np.random.Generator,
    *,
    samples: int,
    coherent: bool,
    threshold_db: float,
) -> Excerpt:
    for _ in range(TRIES):
        draws = 1 if coherent else len(groups)
        pieces = [_piece(prepared, split, groups, numbers, rng, samples) for _ in range(draws)]
        columns = [pieces[i % draws].sources[:, i] for i in range(len(groups))]
        sources = np.stack(columns, axis=1)
        loud = np.mean(np.square(sources), axis=0) > 10 ** (threshold_db / 10)
        if loud.all():
            return Excerpt(" + ".join(piece.name for piece in pieces), sources)
    raise ValueError(
        f"{prepared.directory}: in {TRIES} excerpts of {split} its sources {', '.join(groups)}"
        f" never sounded together above {threshold_db:g} dB; check the stems, or lower threshold_db"
    )


def _piece(
    prepared: records.Prepared,
    split: str,
    groups: stem_groups.Groups,
    numbers: np.ndarray,
    rng: np.random.Generator,
    samples: int,
) -> Excerpt:
    record = records.read_record(prepared, split, int(rng.choice(numbers)))
    start = int(rng.integers(max(record["valid_samples"] - samples, 0) + 1))
    known = record["has_stems"][:, None]  # silence is tried again
    stems = int16.to_float(record["stems"][start : start + samples] * known)
    sources = stem_groups.of_stems(stems, prepared.layout.stems, groups).mean(axis=2)
    second = (record["start_sample"] + start) / prepared.layout.sample_rate_hz
    return Excerpt(f"{record['track']}@{second:.3f}", sources)


def in_batches(
    excerpts: Iterator[Excerpt], size: int
) -> Iterator[tuple[Sequence[str], Float32[np.ndarray, "batch time source"]]]:
    """Names and sources of `size` excerpts at a time; the last batch is filled up with silence,
    which has no name.
    """
    while part := [one for _, one in zip(range(size), excerpts, strict=False)]:
        silence = [np.zeros_like(part[0].sources)] * (size - len(part))
        yield [one.name for one in part], np.stack([*(one.sources for one in part), *silence])
