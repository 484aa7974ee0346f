"""A data set to shards: `python -m majl_jax.prepare --dataset=chorales`.

Tracks are loaded by several processes into a work folder, with --beam by the workers of an Apache
Beam pipeline, then written as shards. A run that was killed goes on where it stopped; a
finished data set is left alone. Exit code 0: prepared; 1: not prepared. With --check nothing is
prepared: data sets, prepared or as they come, are looked at; 1: there is an error in them.
"""

import argparse
import os
import pathlib
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool

from etils import epath

from majl_jax import terminal
from majl_jax.datasets import readers, records
from majl_jax.prepare.preparation import prepare
from majl_jax.prepare.selection import SPLITS, Options, PrepareError

FLAGS_OF_READERS = ("octave", "margin_s", "names")


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


def _folder(text: str) -> epath.Path:
    try:
        return epath.Path(text)
    except KeyError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a folder, or one on an object store such as gs://bucket/folder"
        ) from None


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if not (parsed.dataset or parsed.check or parsed.list):
        parser.error(
            f"--dataset is missing; --list says what there is: {', '.join(readers.READERS)}"
        )
    parsed.dataset = parsed.dataset.split(",") if parsed.dataset else []
    if unknown := [name for name in parsed.dataset if name not in readers.READERS]:
        parser.error(
            f"unknown data set {', '.join(unknown)}; there are {', '.join(readers.READERS)}"
        )
    if parsed.beam_options is not None and not parsed.beam:
        parser.error("--beam_options are for --beam only")
    if parsed.report is not None and not parsed.check:
        parser.error(f"--report is for --check; what preparing did lies in {records.REPORT_FILE}")
    if parsed.check and parsed.beam:
        parser.error("--check looks at data sets here, without --beam")
    for name in parsed.dataset:
        choices = readers.READERS[name].channels
        if parsed.channels not in (None, *choices):
            parser.error(
                f"--channels={parsed.channels}: {name} has {' or '.join(map(str, choices))}"
            )
        for flag in FLAGS_OF_READERS:
            if getattr(parsed, flag) not in ("", None) and flag not in readers.READERS[name].flags:
                takers = [other for other, one in readers.READERS.items() if flag in one.flags]
                parser.error(f"--{flag} is for {', '.join(takers)}, not for {name}")
    return parsed


def _parser() -> argparse.ArgumentParser:
    parser = terminal.Parser(prog=terminal.program("prepare"), description=__doc__)
    parser.add_argument("--dataset", default="", help=f"one or more of {','.join(readers.READERS)}")
    parser.add_argument("--source", help="folder of the data set, where it is not built in")
    parser.add_argument(
        "--output", type=_folder, default="data/prepared", help="a folder, or gs://bucket/folder"
    )
    parser.add_argument(
        "--work",
        type=pathlib.Path,
        help="local folder of what is not finished; by default --output",
    )
    parser.add_argument(
        "--processes", type=_positive, default=os.cpu_count() or 1, help="default: one per core"
    )
    _add_content(parser)
    parser.add_argument(
        "--max_bad_fraction",
        type=float,
        default=0.1,
        help="with more bad tracks nothing is written (default: 0.1)",
    )
    parser.add_argument(
        "--beam",
        action="store_true",
        help="load tracks with Apache Beam, see docs/data/prepare.md",
    )
    parser.add_argument(
        "--beam_options", metavar='"--runner=… --…"', help="of the pipeline; by default here"
    )
    parser.add_argument(
        "--check", action="store_true", help="say what is wrong with data sets, prepare nothing"
    )
    parser.add_argument(
        "--list", action="store_true", help="say what data sets there are, and which are here"
    )
    parser.add_argument("--report", type=pathlib.Path, help="of --check, a JSON file")
    parser.add_argument("--debug", action="store_true", help=terminal.DEBUG_HELP)
    return parser


def _add_content(parser: argparse.ArgumentParser) -> None:
    """The flags that decide what is in a data set."""
    parser.add_argument(
        "--sample_rate_hz", type=_positive, default=16000, help="of the audio (default: 16000)"
    )
    parser.add_argument(
        "--hop_samples", type=_positive, default=320, help="of a label frame (default: 320)"
    )
    parser.add_argument("--channels", type=_positive, help="of the audio; by default mono")
    parser.add_argument(
        "--record_seconds", type=float, default=12.0, help="of a record (default: 12)"
    )
    parser.add_argument(
        "--tracks", type=parse_tracks, help="at most so many per split: 40, or train=40,valid=8"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what a built-in data set draws")
    parser.add_argument(
        "--file_format", choices=records.FORMATS, default="tfrecord", help="default: tfrecord"
    )
    parser.add_argument(
        "--drop_silence", action="store_true", help="leave out records of which half is silence"
    )
    parser.add_argument(
        "--stems", default="", metavar="STEM,NAME=STEM+STEM", help="only these, or sums of them"
    )
    parser.add_argument(
        "--octave",
        default="",
        metavar="heard|written|N",
        help="of ultrastar: as heard (by default), as written, or N octaves higher than written",
    )
    parser.add_argument(
        "--margin_s",
        type=float,
        help="of ultrastar: frames nearer to where the notes change are no label",
    )
    parser.add_argument(
        "--names", default="", metavar="FILE", help="of stems_named: which name is of which stem"
    )


def _options(parsed: argparse.Namespace, name: str) -> Options:
    reader = readers.READERS[name]
    source = parsed.source if reader.needs_source else None
    if source is not None and records.is_local(source):
        source = os.path.abspath(source)  # the same text for the same folder
    return Options(
        dataset=name,
        source=source,
        channels=parsed.channels or reader.channels[0],
        reader_version=reader.version,
        **{key: getattr(parsed, key) for key in records.SHARED_FLAGS},
    )


@terminal.command
def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares the data sets of the command line, or looks at them."""
    parsed = parse_arguments(arguments)
    if parsed.list:
        from majl_jax.prepare import catalogue

        print(catalogue.text(parsed.output, width=shutil.get_terminal_size((120, 24)).columns))
        return 0
    try:
        wanted = [_options(parsed, name) for name in parsed.dataset]
        if parsed.check:
            from majl_jax.prepare import check  # with much that preparing does not need

            return check.command(
                parsed.output, wanted, processes=parsed.processes, report=parsed.report
            )
        for options in wanted:
            prepare(
                options,
                parsed.output,
                processes=parsed.processes,
                max_bad_fraction=parsed.max_bad_fraction,
                work=parsed.work,
                beam_options=(parsed.beam_options or "") if parsed.beam else None,
            )
    except BrokenProcessPool as error:
        raise PrepareError(
            "a worker process was killed (out of memory?). The same command goes on from here; "
            "fewer --processes need less memory."
        ) from error
    except KeyboardInterrupt:
        print("prepare: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
