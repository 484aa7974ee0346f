"""Prepares a data set: tracks are loaded, cut into records and written as shards.

Several processes of this machine, or the workers of a Beam pipeline, load them into a work folder
first. `python -m majl_jax.prepare` is the command line.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

from etils import epath

from majl_jax.datasets import records, track
from majl_jax.prepare import beam, disk, loading, places
from majl_jax.prepare.places import Places
from majl_jax.prepare.selection import SPLITS, Options, PrepareError, content_of, list_tracks

SKIPPED_SHOWN = 20
# The key of an index's options that says which files a data set was made of.
CONTENT = "content"


@dataclasses.dataclass(frozen=True)
class Job:
    """All there is to know of a data set before its tracks are loaded."""

    options: Options
    layout: records.Layout
    tracks: Sequence[track.Track]
    left_out: Mapping[str, list[str]]
    places: Places
    max_bad_fraction: float
    lean: bool  # loaded tracks are deleted as they are written


def prepare(
    options: Options,
    output: records.Folder,
    *,
    processes: int,
    max_bad_fraction: float,
    work: records.Folder | None = None,
    beam_options: str | None = None,
) -> epath.Path:
    """Prepares one data set, unless it is there, and returns its folder.

    Args:
        options: what is prepared.
        output: the folder that its folder lies in, also gs://bucket/folder.
        processes: how many load tracks.
        max_bad_fraction: with a larger share of bad tracks it is a PrepareError.
        work: a folder of this machine for what is not finished; by default `output`, or a
            temporary one.
        beam_options: of an Apache Beam pipeline, whose workers load the tracks; None is without
            Beam.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # keeps TensorFlow quiet when imported
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    wanted = dataclasses.asdict(options)
    where = places.find(wanted, output, work, by_beam=beam_options is not None)
    directory = where.directory
    if _is_there(where, options):
        return directory
    if options.file_format == "array_record" and not records.is_local(directory):
        raise PrepareError(f"{directory}: {records.LOCAL_FORMAT}")
    if options.file_format == "tfrecord" and importlib.util.find_spec("tensorflow") is None:
        raise PrepareError(
            "shards of --file_format=tfrecord are written with TensorFlow, which is not installed:"
            " pip install tensorflow-cpu, or do without it: --file_format=array_record, and"
            " --config.data.reader=memory to train"
        )
    pipeline = None if beam_options is None else beam.pipeline_options(beam_options)
    job = None
    if not places.is_written(where):
        job = _plan(options, where, max_bad_fraction, by_beam=pipeline is not None)
    where.lock.parent.mkdir(parents=True, exist_ok=True)
    with loading.Lock(where.lock, directory):
        # Another run may have written it since.
        if _is_there(where, options):
            return directory
        where.work.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        with loading.Lock(where.work / "lock", where.work):
            _write(options, where, job, processes, pipeline)
            places.remove_work(where)
    _print_done(directory, time.monotonic() - started)
    return directory


def _is_there(where: Places, options: Options) -> bool:
    """Whether the data set is prepared, and says so; PrepareError if with other options."""
    if not places.is_prepared(where.directory):
        return False
    _refuse_other_options(where.directory, options)
    places.remove_work(where)  # of a run killed at its very end
    print(f"{options.dataset}: already prepared in {where.directory}")
    return True


def _write(options: Options, where: Places, job: Job | None, processes: int, pipeline: Any) -> None:
    """Loads what there is to load and writes the data set."""
    from majl_jax.datasets import builder

    builder.refuse(where.directory, options.file_format)
    splits: dict[str, Any] = {}
    report: dict[str, Any] = {}
    content = {}
    if job is not None:
        content = {CONTENT: content_of(job.tracks)}  # of the files as they are before they are read
        splits, report = _load(job, processes, pipeline)
    builder.write_dataset(
        where.directory,
        splits,
        layout=options.layout(),
        options=dataclasses.asdict(options) | content,
        report=report,
        file_format=options.file_format,
        draft=where.draft,
    )


def _absolute(options: Options) -> Options:
    """The same source for workers that run in another folder."""
    if options.source is None:
        return options
    return dataclasses.replace(options, source=os.path.abspath(options.source))


def _plan(options: Options, where: Places, max_bad_fraction: float, *, by_beam: bool) -> Job:
    """Lists the tracks and says how much disk they need, before anything is written."""
    tracks, left_out = list_tracks(_absolute(options) if by_beam else options)
    layout, leftovers = options.layout(), [where.work, records.draft_of(where.directory)]
    if by_beam and where.draft is not None:  # tracks that were loaded here stay, unused
        leftovers = [where.draft]
    lean = disk.check(
        f"{options.dataset}: {len(tracks)} tracks",
        disk.size_mb(tracks, layout),
        output=where.directory.parent,
        work=where.work,
        leftovers=leftovers,
        by_beam=by_beam,
    )
    return Job(options, layout, tracks, left_out, where, max_bad_fraction, lean)


def _load(job: Job, processes: int, pipeline: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Loads the tracks into the work folder; returns per split the records that are cut from there,
    and the report, which is complete once those are written.
    """
    tracks, layout, loaded = job.tracks, job.layout, job.places.loaded
    if pipeline is None:
        found = loading.load_all(tracks, layout, pathlib.Path(loaded), processes=processes)
    else:
        found = beam.load_all(tracks, layout, loaded, options=pipeline)
    report = _report(job, found)
    _refuse_many_bad(job, report["skipped"], "good tracks are kept for the next run.")
    print(f"{job.options.dataset}: writing shards", flush=True)
    splits = {
        split: _records(job, split, report) for split, count in report["tracks"].items() if count
    }
    return splits, report


def _records(job: Job, split: str, report: dict[str, Any]) -> Iterator[records.Record]:
    """The records of a split, without silent ones if that is wanted; `report` counts those by
    track.
    """
    places, drop_silence = job.places, job.options.drop_silence
    for one in job.tracks:
        if one.split != split or one.id in report["skipped"]:
            continue
        with loading.at_hand(places.loaded, one.id, here=places.work) as whole:
            for made in loading.cut(whole, job.layout, drop_silence=drop_silence):
                if not isinstance(made, loading.Outcome):
                    yield made
                elif made.silent_records:
                    report["silent_records"][one.id] = made.silent_records
        if job.lean:
            loading.cached(places.loaded, one.id).unlink()


def _report(job: Job, found: Mapping[str, loading.Outcome]) -> dict[str, Any]:
    """What became of the tracks, printed and kept; silent records are counted later."""
    found = dict(sorted(found.items()))
    skipped = {name: one.skipped for name, one in found.items() if one.skipped}
    remarks = {name: [*one.remarks] for name, one in found.items() if one.remarks}
    report = {
        "dataset": job.options.dataset,
        "tracks": {
            split: sum(one.split == split and one.id not in skipped for one in job.tracks)
            for split in SPLITS
        },
        "skipped": skipped,
        "left_out": dict(job.left_out),
        "remarks": remarks,
        "silent_records": {},
        "versions": _versions(),
    }
    path = job.places.work / records.REPORT_FILE
    path.write_text(json.dumps(report, indent=2))
    counts = ", ".join(f"{count} {split}" for split, count in report["tracks"].items())
    print(f"{job.options.dataset}: {counts}; {len(skipped)} skipped", flush=True)
    lines = [f"  skipped {identity}: {reason}" for identity, reason in skipped.items()]
    _print_some(lines, path)
    _print_some([f"  {identity}: {'; '.join(told)}" for identity, told in remarks.items()], path)
    for reason, identities in job.left_out.items():
        print(f"  {len(identities)} left out: {reason}")
    return report


def _print_some(lines: Sequence[str], path: pathlib.Path) -> None:
    for line in lines[:SKIPPED_SHOWN]:
        print(line)
    if len(lines) > SKIPPED_SHOWN:
        print(f"  … {len(lines) - SKIPPED_SHOWN} more: {path}")


def _refuse_many_bad(job: Job, skipped: Mapping[str, str], what_now: str) -> None:
    if len(skipped) == len(job.tracks):
        raise PrepareError("No track could be used; the reasons stand above.")
    if len(skipped) > job.max_bad_fraction * len(job.tracks):
        raise PrepareError(
            f"{len(skipped)} of {len(job.tracks)} tracks are bad, more than "
            f"--max_bad_fraction={job.max_bad_fraction}. "
            f"Mend the files (the reasons stand above) or raise the limit; {what_now}"
        )


def _refuse_other_options(directory: epath.Path, options: Options) -> None:
    prepared, wanted = records.open_prepared(directory), dataclasses.asdict(options)
    usual = {
        field.name: field.default
        for field in dataclasses.fields(options)
        if field.default is not dataclasses.MISSING
    }
    made_with = usual | {"channels": prepared.layout.channels} | dict(prepared.options)
    different = [name for name in wanted if made_with.get(name) != wanted[name]]
    if different == ["source"] and CONTENT in made_with:
        # The same files may lie elsewhere now.
        tracks, _ = list_tracks(options)
        if content_of(tracks) == made_with[CONTENT]:
            return
    if different:
        told = (f"{name}={made_with.get(name)} then, {wanted[name]} now" for name in different)
        recorded = CONTENT in made_with
        others = ", which holds other files" if recorded else ", and its files are not recorded"
        others *= different == ["source"]
        raise PrepareError(
            f"{directory} was prepared with other options ({'; '.join(told)}{others}). "
            "Choose another --output, or remove that folder."
        )


def _print_done(directory: epath.Path, seconds: float) -> None:
    name, report = directory.name, json.loads((directory / records.REPORT_FILE).read_text())
    if silent := sum(report["silent_records"].values()):
        print(f"{name}: {silent} records left out, half or more of them is silence")
    splits = records.open_prepared(directory).splits.values()
    size_mb = sum(sum(split.shard_bytes) for split in splits) / 1e6
    print(f"{name}: {size_mb:.0f} MB in {directory}, {seconds:.0f} s")


def _versions() -> dict[str, str]:
    """Versions of what decides the samples of a rendered or resampled track."""
    names = ("majl_jax", "midirenderer", "music21", "numpy", "pretty_midi", "soundfile", "soxr")
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
