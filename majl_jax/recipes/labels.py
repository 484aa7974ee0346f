"""Whether data sets have the labels that the stages of a run need, looked at before any trains.

A loss over no label is 0, and what it would have taught is never learnt, without an error.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from majl_jax.datasets import records

STEMS, PITCH, BOTH = "stems", "pitch", "stems with pitch"
FITS = {
    BOTH: "fits majl and every other recipe",
    STEMS: "fits transfer, jukebox, mixit and, as config.data.stems_only, majl",
    PITCH: "fits ss_mpe and, as config.data.pitch_only, majl",
    None: "fits what needs no labels: pretrain of mixit, music of jukebox, and"
    " config.data.unlabelled of ss_mpe",
}


def require(
    prepared: records.Prepared,
    split: str,
    needs: Mapping[str, str],
    *,
    stem: int | None = None,
) -> None:
    """ValueError where a data set has no record with the labels that something needs.

    Args:
        prepared: the data set.
        split: of it, which has to be there.
        needs: what is needed (STEMS, PITCH or, in one record, BOTH) by who needs it, as a field of
            the config with its value.
        stem: whose; None: of all stems, and all pitches of a frame.
    """
    if split not in prepared.splits:
        raise ValueError(
            f"{prepared.directory} has no split {split}, only {', '.join(sorted(prepared.splits))};"
            f" prepare it again with tracks for {split}"
        )
    wanted, there, of_all = set(needs.values()), set(), set()
    for record in _firsts_first(prepared, split):
        if wanted <= there:
            return
        there |= _labels(record, stem)
        of_all |= _labels(record, None)
    for who, what in needs.items():
        if what not in there:
            name = "" if stem is None else f" of {prepared.layout.stems[stem]}"
            best = next((kind for kind in FITS if kind in of_all), None)
            raise ValueError(
                f"no record of {prepared.directory}, split {split}, has {what}{name}, which {who}"
                f" needs; what is there {FITS[best]}"
            )


def _labels(record: records.Record, stem: int | None) -> set[str]:
    """What a record has labels of."""
    stems, pitch = record["has_stems"], record["has_pitch"]
    known = stems.all() if stem is None else stems[stem]
    heard = (pitch.all(axis=1) if stem is None else pitch[:, stem]).any()
    found = {STEMS: known, PITCH: heard, BOTH: known and heard}
    return {what for what, there in found.items() if there}


def _firsts_first(prepared: records.Prepared, split: str) -> Iterator[records.Record]:
    """The records of a split: of each track the first, as one tells of the others mostly; then
    those.
    """
    where = prepared.split(split)
    _, firsts = np.unique(where.track, return_index=True)
    others = np.setdiff1d(np.arange(len(where)), firsts)
    for number in [*firsts.tolist(), *others.tolist()]:
        yield records.read_record(prepared, split, number)
