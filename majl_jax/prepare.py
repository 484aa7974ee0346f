"""A data set to shards on disk: `python -m majl_jax.prepare --dataset=chorales`.

Tracks are loaded by several processes into a work folder beside the result, then written as shards.
A run that was killed goes on where it stopped; a finished data set is left alone. Exit code 0:
prepared; 1: not prepared.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from importlib import metadata
from typing import Any

import numpy as np

from majl_jax import datasets
from majl_jax.audio import silence
from majl_jax.datasets import loading, records, track

SPLITS = ("train", "valid", "test")
# At the end the work folder, the shards and the builder's sorting area hold the audio once each.
COPIES_ON_DISK = 3
SKIPPED_SHOWN = 20


class PrepareError(RuntimeError):
    """The data set could not be prepared; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides the content of a prepared data set."""

    dataset: str
    source: str | None
    sample_rate_hz: int
    hop_samples: int
    channels: int
    record_seconds: float
    tracks: dict[str, int] | None
    seed: int
    file_format: str
    reader_version: int
    drop_silence: bool = False

    def layout(self) -> records.Layout:
        """The layout of the records."""
        reader = datasets.READERS[self.dataset]
        hops = round(self.record_seconds * self.sample_rate_hz / self.hop_samples)
        return records.Layout(
            stems=reader.stems_of(self.source),
            channels=self.channels,
            sample_rate_hz=self.sample_rate_hz,
            hop_samples=self.hop_samples,
            record_samples=hops * self.hop_samples,
            voices=reader.voices,
        )


def prepare(
    options: Options, output: pathlib.Path, *, processes: int, max_bad_fraction: float
) -> pathlib.Path:
    """Prepares one data set below `output` and returns its folder."""
    directory = output / options.dataset
    wanted = dataclasses.asdict(options)
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:8]
    work = output / f".{options.dataset}.work-{digest}"
    if records.is_prepared(directory):
        _refuse_other_options(directory, wanted)
        shutil.rmtree(work, ignore_errors=True)  # of a run killed at its very end
        print(f"{options.dataset}: already prepared in {directory}")
        return directory
    tracks, left_out = list_tracks(options)
    _print_disk_need(tracks, options, output)
    work.mkdir(parents=True, exist_ok=True)
    with loading.Lock(work):
        started = time.monotonic()
        skipped = loading.load_all(tracks, options.layout(), work, processes=processes)
        report = {
            "dataset": options.dataset,
            "tracks": {split: _count(tracks, split, skipped) for split in SPLITS},
            "skipped": skipped,
            "left_out": left_out,
            "silent_records": {},  # counted while they are written
            "versions": _versions(),
        }
        _print_report(report, work)
        _refuse_many_bad(skipped, tracks, max_bad_fraction)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # keeps TensorFlow quiet when imported
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
        from majl_jax.datasets import builder

        print(f"{options.dataset}: writing shards", flush=True)
        builder.write_dataset(
            directory,
            {
                split: _records(tracks, split, report, options, work)
                for split, count in report["tracks"].items()
                if count
            },
            layout=options.layout(),
            options=wanted,
            report=report,
            file_format=options.file_format,
        )
        shutil.rmtree(work)
    if silent := sum(report["silent_records"].values()):
        print(f"{options.dataset}: {silent} records left out, half or more of them is silence")
    size_mb = sum(path.stat().st_size for path in directory.iterdir()) / 1e6
    seconds = time.monotonic() - started
    print(f"{options.dataset}: {size_mb:.0f} MB in {directory}, {seconds:.0f} s")
    return directory


def list_tracks(options: Options) -> tuple[list[track.Track], dict[str, list[str]]]:
    """The tracks to prepare, at most so many per split as the options say, and which are left out why."""
    found = datasets.READERS[options.dataset].tracks(
        options.source,
        sample_rate_hz=options.sample_rate_hz,
        hop_samples=options.hop_samples,
        channels=options.channels,
        seed=options.seed,
    )
    left_out: dict[str, list[str]] = {}
    for one in found:
        if one.left_out:
            left_out.setdefault(one.left_out, []).append(one.id)
    chosen = []
    for split in SPLITS:
        of_split = [one for one in found if one.split == split and not one.left_out]
        limit = None if options.tracks is None else options.tracks.get(split)
        chosen += of_split[:limit]
    if not chosen:
        raise PrepareError(f"{options.dataset}: no tracks found in {options.source}")
    return chosen, left_out


def _records(
    tracks: Sequence[track.Track],
    split: str,
    report: dict[str, Any],
    options: Options,
    work: pathlib.Path,
) -> Iterator[records.Record]:
    """The records of a split, without silent ones if that is wanted; `report` counts those by track."""
    layout, counts = options.layout(), report["silent_records"]
    for one in tracks:
        if one.split == split and one.id not in report["skipped"]:
            with np.load(loading.cached(work, one.id)) as arrays:
                whole = {key: arrays[key] for key in arrays.files}
            for record in records.cut({**whole, "track": one.id}, layout):
                mixture = record["stems"][: record["valid_samples"]].sum(axis=1, dtype=np.int32)
                if options.drop_silence and silence.mostly_silent(mixture):
                    counts[one.id] = counts.get(one.id, 0) + 1
                else:
                    yield record


def _versions() -> dict[str, str]:
    """Versions of what decides the samples of a rendered or resampled track."""
    names = ("majl_jax", "midirenderer", "music21", "numpy", "pretty_midi", "soundfile", "soxr")
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _count(tracks: Sequence[track.Track], split: str, skipped: dict[str, str]) -> int:
    return sum(one.split == split and one.id not in skipped for one in tracks)


def _refuse_other_options(directory: pathlib.Path, wanted: dict[str, Any]) -> None:
    prepared = records.open_prepared(directory)
    made_with = {
        "channels": prepared.layout.channels,
        "drop_silence": False,
        **prepared.options,
    }
    differences = [
        f"{name}={made_with.get(name)} then, {wanted[name]} now"
        for name in wanted
        if made_with.get(name) != wanted[name]
    ]
    if differences:
        raise PrepareError(
            f"{directory} was prepared with other options ({'; '.join(differences)}). "
            "Choose another --output, or remove that folder."
        )


def _refuse_many_bad(
    skipped: dict[str, str], tracks: Sequence[track.Track], max_bad_fraction: float
) -> None:
    if len(skipped) == len(tracks):
        raise PrepareError("No track could be used; the reasons stand above.")
    if len(skipped) > max_bad_fraction * len(tracks):
        raise PrepareError(
            f"{len(skipped)} of {len(tracks)} tracks are bad, more than "
            f"--max_bad_fraction={max_bad_fraction}. "
            "Mend the files (the reasons stand above) or raise the limit; good tracks are kept "
            "for the next run."
        )


def _print_disk_need(tracks: Sequence[track.Track], options: Options, output: pathlib.Path) -> None:
    layout = options.layout()
    values = len(layout.stems) * layout.channels * layout.sample_rate_hz
    overlap_s = options.record_seconds / 2  # on average, of a track's last record
    final_mb = sum(one.seconds + overlap_s for one in tracks) * values * 2 / 1e6
    existing = next(path for path in (output, *output.absolute().parents) if path.exists())
    free_mb = shutil.disk_usage(existing).free / 1e6
    print(
        f"{options.dataset}: {len(tracks)} tracks, about {final_mb:.0f} MB, "
        f"{COPIES_ON_DISK * final_mb:.0f} MB while "
        f"at work; {free_mb:.0f} MB are free in {output}",
        flush=True,
    )
    if COPIES_ON_DISK * final_mb > free_mb:
        raise PrepareError(
            "The disk is too full for that; choose another --output or fewer --tracks."
        )


def _print_report(report: dict[str, Any], work: pathlib.Path) -> None:
    path = work / records.REPORT_FILE
    path.write_text(json.dumps(report, indent=2))
    counts = ", ".join(f"{count} {split}" for split, count in report["tracks"].items())
    skipped = report["skipped"]
    print(f"{report['dataset']}: {counts}; {len(skipped)} skipped", flush=True)
    for identity, reason in list(skipped.items())[:SKIPPED_SHOWN]:
        print(f"  skipped {identity}: {reason}")
    if len(skipped) > SKIPPED_SHOWN:
        print(f"  … {len(skipped) - SKIPPED_SHOWN} more: {path}")
    for reason, identities in report["left_out"].items():
        print(f"  {len(identities)} left out: {reason}")


def parse_tracks(text: str) -> dict[str, int]:
    """`40` or `train=40,valid=8` to the largest number of tracks per split."""
    try:
        if "=" not in text:
            return dict.fromkeys(SPLITS, _positive(text))
        limits = dict(part.split("=") for part in text.split(","))
        if not limits.keys() <= set(SPLITS):
            raise ValueError
        return {split: _positive(value, least=0) for split, value in limits.items()}
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a number, or train=N,valid=N,test=N"
        ) from None


def _positive(text: str, least: int = 1) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from {least} on")
    return int(text)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m majl_jax.prepare", description=__doc__)
    parser.add_argument(
        "--dataset", required=True, help=f"one or more of {','.join(datasets.READERS)}"
    )
    parser.add_argument("--source", help="folder of the data set, where it is not built in")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("data/prepared"))
    parser.add_argument("--sample_rate_hz", type=_positive, default=16000)
    parser.add_argument("--hop_samples", type=_positive, default=320, help="between label frames")
    parser.add_argument("--channels", type=_positive, help="of the audio; by default mono")
    parser.add_argument("--record_seconds", type=float, default=12.0)
    parser.add_argument("--tracks", type=parse_tracks, help="at most so many per split")
    parser.add_argument("--processes", type=_positive, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0, help="of what a built-in data set draws")
    parser.add_argument("--file_format", choices=records.FORMATS, default="tfrecord")
    parser.add_argument(
        "--drop_silence", action="store_true", help="leave out records of which half is silence"
    )
    parser.add_argument("--max_bad_fraction", type=float, default=0.1)
    parsed = parser.parse_args(arguments)
    parsed.dataset = parsed.dataset.split(",")
    if unknown := [name for name in parsed.dataset if name not in datasets.READERS]:
        parser.error(
            f"unknown data set {', '.join(unknown)}; there are {', '.join(datasets.READERS)}"
        )
    for name in parsed.dataset:
        choices = datasets.READERS[name].channels
        if parsed.channels not in (None, *choices):
            parser.error(
                f"--channels={parsed.channels}: {name} has {' or '.join(map(str, choices))}"
            )
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares the data sets of the command line."""
    parsed = parse_arguments(arguments)
    shared = (
        "sample_rate_hz",
        "hop_samples",
        "record_seconds",
        "tracks",
        "seed",
        "file_format",
        "drop_silence",
    )
    try:
        for name in parsed.dataset:
            reader = datasets.READERS[name]
            source = parsed.source if reader.needs_source else None
            values = {key: getattr(parsed, key) for key in shared}
            values["channels"] = parsed.channels or reader.channels[0]
            prepare(
                Options(dataset=name, source=source, reader_version=reader.version, **values),
                parsed.output,
                processes=parsed.processes,
                max_bad_fraction=parsed.max_bad_fraction,
            )
    except (PrepareError, OSError, ValueError, ImportError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    except BrokenProcessPool:
        print(
            "prepare: a worker process was killed (out of memory?). The same command goes on "
            "from here; fewer --processes need less memory.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("prepare: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
