"""Prepared data on disk: opening it, reading records and whole tracks, the sources of a stream.

A prepared data set is a folder of shards (written by `builder.py`) with an `index.json` that says
where each record lies. Reading needs neither TensorFlow nor the builder.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from majl_jax.datasets.cutting import INT16_SCALE, Layout, Record, cut, join, to_int16, whole
from majl_jax.datasets.stem_places import SILENT, stem_numbers

__all__ = ["INT16_SCALE", "Layout", "Record", "cut", "join", "to_int16", "whole"]

INDEX_FILE = "index.json"
REPORT_FILE = "report.json"
FORMATS = ("tfrecord", "array_record")

Folder = str | os.PathLike[str]
COLUMNS = ("shard", "offset", "length", "start_sample", "valid_samples")


class Source(NamedTuple):
    """One data set of a stream of batches.

    stems: which of the set's stems stands in which place of the batch's stem axis: all of them,
    once each, and "" for silent places; None keeps the set's own order.
    voices: number of places of the batch's voice axis. None: pitches stand where their stems do. A
    number: they are those of the mixture, in the set's order, and the rest of the places is empty.
    labels: False makes every pitch unknown, whatever the set says.
    """

    directory: Folder
    split: str
    weight: float
    stems: tuple[str, ...] | None = None
    voices: int | None = None
    labels: bool = True


# What to do about sources that do not fit each other.
ADVICE = {
    "stems": "; give every source its `stems`, one per place",
    "voices": "; give every source the same `voices`, the number of voice places",
}

AnySource = Source | tuple[Folder, str, float]


@dataclasses.dataclass(frozen=True)
class Split:
    """Where the records of one split lie: one entry per record in every list."""

    shards: tuple[str, ...]  # file names
    shard_bytes: tuple[int, ...]
    shard: np.ndarray
    offset: (
        np.ndarray
    )  # byte offset of the payload (tfrecord) or number in the shard (array_record)
    length: np.ndarray  # bytes of the payload
    track: tuple[str, ...]
    start_sample: np.ndarray
    valid_samples: np.ndarray

    def __len__(self) -> int:
        return len(self.track)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An open data set: its layout, its options and its splits."""

    directory: epath.Path
    layout: Layout
    file_format: str
    options: Mapping[str, Any]  # what it was made with
    splits: Mapping[str, Split]

    def split(self, name: str) -> Split:
        """The named split, or an error that lists the ones there are."""
        if name not in self.splits:
            raise KeyError(f"{self.directory} has no split {name!r}; it has {sorted(self.splits)}")
        return self.splits[name]

    def shard_path(self, split: str, shard: int) -> epath.Path:
        """Path of a shard of a split."""
        return self.directory / self.split(split).shards[shard]


def how_to_prepare(directory: Folder) -> str:
    """The command that makes the data set in this folder."""
    path = epath.Path(directory)
    return f"python -m majl_jax.prepare --dataset={path.name} --output={path.parent}"


def is_prepared(directory: Folder) -> bool:
    """Whether a complete data set lies in the folder."""
    return (epath.Path(directory) / INDEX_FILE).exists()


def open_prepared(directory: Folder) -> Prepared:
    """Reads the index of a prepared data set and checks that every shard is there, in full."""
    folder = epath.Path(directory)
    if not is_prepared(folder):
        state = "has no index.json" if folder.exists() else "does not exist"
        raise FileNotFoundError(
            f"No prepared data set in {directory} (the folder {state}). Make it with:\n"
            f"  {how_to_prepare(directory)}"
        )
    index = json.loads((folder / INDEX_FILE).read_text())
    layout = Layout(**{**index["layout"], "stems": tuple(index["layout"]["stems"])})
    splits = {}
    for name, columns in index["splits"].items():
        splits[name] = Split(
            shards=tuple(columns["shards"]),
            shard_bytes=tuple(columns["shard_bytes"]),
            track=tuple(columns["track"]),
            **{column: np.asarray(columns[column], np.int64) for column in COLUMNS},
        )
    # tensorflow_datasets changes `import` for all threads while it is imported: not beside Orbax's writers.
    parse_example(b"")
    prepared = Prepared(folder, layout, index["file_format"], index["options"], splits)
    for split in splits.values():
        for shard, size in zip(split.shards, split.shard_bytes, strict=True):
            path = folder / shard
            found = path.stat().length if path.exists() else None
            if found != size:
                state = "is missing" if found is None else f"has {found} bytes, expected {size}"
                raise FileNotFoundError(
                    f"Shard {path} {state}. Remove the folder {directory} and make it again with:\n"
                    f"  {how_to_prepare(directory)}"
                )
    return prepared


def check_grid(prepared: Prepared, *, sample_rate_hz: int, hop_samples: int) -> None:
    """Raises ValueError where a prepared set has another rate or hop than a config."""
    for name, wanted in (("sample_rate_hz", sample_rate_hz), ("hop_samples", hop_samples)):
        if (found := getattr(prepared.layout, name)) != wanted:
            raise ValueError(
                f"{prepared.directory} was prepared with {name} = {found}, the config has {wanted}: "
                f"prepare it again with --{name}={wanted} and another --output, or change "
                f"config.data.{name}"
            )


def read_record(prepared: Prepared, split: str, number: int) -> Record:
    """One record by its number, read from disk."""
    where = prepared.split(split)
    path = prepared.shard_path(split, int(where.shard[number]))
    offset, length = int(where.offset[number]), int(where.length[number])
    if prepared.file_format == "array_record":
        payload = array_record_reader(str(path)).read([offset])[0]
    else:
        with path.open("rb") as file:
            file.seek(offset)
            payload = file.read(length)
    return parse(payload, prepared.layout)


def parse_example(payload: bytes) -> Any:
    """The protocol buffer of a record."""
    from tensorflow_datasets.proto import tf_example_pb2  # needs protobuf, not TensorFlow

    return getattr(tf_example_pb2, "Example").FromString(payload)  # noqa: B009  made at import time


def parse(payload: bytes, layout: Layout) -> Record:
    """A serialised tf.train.Example to a record."""
    feature = parse_example(payload).features.feature
    record: Record = {
        key: np.frombuffer(feature[key].bytes_list.value[0], dtype).reshape(shape)
        for key, (shape, dtype) in layout.arrays().items()
    }
    record["track"] = feature["track"].bytes_list.value[0].decode()
    for key in ("start_sample", "valid_samples"):
        record[key] = int(feature[key].int64_list.value[0])
    return record


def in_order(split: Split) -> np.ndarray:
    """Numbers of the records, sorted by track and then by time."""
    return np.lexsort((split.start_sample, np.unique(split.track, return_inverse=True)[1]))


def read_records(directory: Folder, split: str) -> Iterator[Record]:
    """All records of a split, track by track and in time order."""
    prepared = open_prepared(directory)
    for number in in_order(prepared.split(split)):
        yield read_record(prepared, split, int(number))


def read_tracks(directory: Folder, split: str) -> Iterator[Record]:
    """All tracks of a split, whole: `stems` and labels have the length of the track."""
    prepared = open_prepared(directory)
    where = prepared.split(split)
    numbers = in_order(where)
    tracks = np.asarray(where.track)[numbers]
    breaks = np.flatnonzero(tracks[1:] != tracks[:-1]) + 1
    for group in np.split(numbers, breaks):
        yield join([read_record(prepared, split, int(n)) for n in group], prepared.layout)


@functools.lru_cache(maxsize=64)
def array_record_reader(path: str) -> Any:
    """The open shard of an array_record data set."""
    import importlib

    module = importlib.import_module("array_record.python.array_record_module")
    return module.ArrayRecordReader(path)


class Opened(NamedTuple):
    """An open source: where its records are, which stem goes where (None: as they are), how many voices."""

    prepared: Prepared
    split: str
    weight: float
    records: np.ndarray  # numbers of the records that take part
    stem_numbers: np.ndarray | None
    voices: int | None
    labels: bool


def open_sources(sources: Sequence[AnySource], *, min_valid_samples: int = 0) -> list[Opened]:
    """Opens the sources of one stream.

    Records with fewer valid samples than `min_valid_samples` are left out. Sets that differ in
    channels, rate or hop, or whose stems or voices do not fit each other, are an error.
    """
    if not sources:
        raise ValueError("sources is empty; expected (directory, split, weight) at least once")
    rows: Sequence[tuple[Any, ...]] = sources
    complete, opened = [Source(*row) for row in rows], []
    for directory, split, weight, stems, voices, labels in complete:
        prepared = open_prepared(directory)
        numbers = np.flatnonzero(prepared.split(split).valid_samples >= max(min_valid_samples, 1))
        if not len(numbers):
            raise ValueError(
                f"Split {split!r} of {directory} has no record with {min_valid_samples} valid "
                "samples"
            )
        placed = None
        if stems is not None:
            placed = stem_numbers(prepared.layout.stems, stems, data_set=str(directory))
        voices = _voice_places(prepared.layout, stems, voices, data_set=directory)
        opened.append(Opened(prepared, split, float(weight), numbers, placed, voices, bool(labels)))
    _refuse_unequal(complete, opened)
    return opened


def _voice_places(
    layout: Layout, stems: tuple[str, ...] | None, voices: int | None, *, data_set: Folder
) -> int | None:
    """The number of places for the pitches of the mixture; None where each stands with its stem."""
    if voices is None:
        if layout.voices_are_stems:
            return None
        if stems is not None:
            raise ValueError(
                f"{data_set} has {layout.voices} pitches of the mixture, which belong to no stem: they cannot be "
                f"placed with its stems as {stems}; give `Source.voices`, the number of voice places, or another set"
            )
        return layout.pitch_voices
    if layout.pitch_voices > voices:
        raise ValueError(
            f"{data_set} has {layout.pitch_voices} voices, more than {voices} places: raise `Source.voices`"
        )
    return voices


def _refuse_unequal(sources: Sequence[Source], opened: Sequence[Opened]) -> None:
    first, first_voices = opened[0].prepared, _voices_in_words(sources[0], opened[0])
    first_stems, placed = sources[0].stems or first.layout.stems, sources[0].stems is not None
    for source, one in zip(sources[1:], opened[1:], strict=True):
        other, voices = one.prepared, _voices_in_words(source, one)
        stems = source.stems or other.layout.stems
        if placed or source.stems is not None:  # whoever names stems says what they stand for
            fits = len(stems) == len(first_stems)
        else:
            fits = stems == first_stems
        differences: list[tuple[str, Any, Any]] = [] if fits else [("stems", stems, first_stems)]
        if fits and voices != first_voices:
            differences.append(("voices", voices, first_voices))
        for name in ("channels", "sample_rate_hz", "hop_samples"):
            there, here = getattr(other.layout, name), getattr(first.layout, name)
            if there != here:
                differences.append((name, there, here))
        for name, there, here in differences:
            advice = ADVICE.get(name, "")
            raise ValueError(
                f"{other.directory} cannot be mixed with {first.directory}: {name} is {there} "
                f"there, {here} here{advice}"
            )


def _voices_in_words(source: Source, one: Opened) -> str:
    if one.voices is not None:
        return f"{one.voices} of the mixture"
    return f"one per stem ({len(source.stems or one.prepared.layout.stems)})"


def target_first(
    prepared_layout: Layout,
    target_names: Sequence[str],
    places: int,
    *,
    data_set: Folder = "the data set",
) -> tuple[str, ...]:
    """`Source.stems` that put the stem named in `target_names` first, the others in their order.

    "" fills up to `places`. Not exactly one such stem, or more stems than places, is an error
    that names `data_set`.
    """
    stems = prepared_layout.stems
    found = [name for name in stems if name in target_names]
    if len(found) != 1:
        raise ValueError(
            f"{data_set} has the stems {stems}; expected exactly one of {tuple(target_names)} "
            f"among them, found {found or 'none'}"
        )
    if len(stems) > places:
        raise ValueError(f"{data_set} has {len(stems)} stems {stems}, more than {places} places")
    others = (name for name in stems if name != found[0])
    return (found[0], *others, *[SILENT] * (places - len(stems)))


def mixture_sources(
    shares: Mapping[Any, float], split: str, *, unlabelled: Collection[Any] = ()
) -> list[Source]:
    """Sources for who needs only mixtures and their pitches: each set by its share, all of one shape.

    shares: weight per folder of prepared data. Sets with fewer stems or voices than the largest get
    silent stems and empty voices. unlabelled: the folders whose labels are not to be looked at.
    """
    layouts = {folder: open_prepared(folder).layout for folder in shares}
    places = max(len(layout.stems) for layout in layouts.values())
    voices = max(layout.pitch_voices for layout in layouts.values())
    return [
        Source(
            folder,
            split,
            float(share),
            (*layouts[folder].stems, *[SILENT] * (places - len(layouts[folder].stems))),
            voices,
            folder not in unlabelled,
        )
        for folder, share in shares.items()
    ]
