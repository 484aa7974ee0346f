"""Audio files in, stems, pitch and pictures out.

    python -m majl_jax.separate song.mp3 --output=DIR
    python -m majl_jax.separate song.mp3 --checkpoint=RUN --output=DIR

The first takes the model `voice`, which comes with the package: the singing voice, its pitch, and
what accompanies it; the second what a training run has learnt.

Each song gets a folder DIR/<song>/ with <stem>.wav, accompaniment.wav (the song minus the stem),
pitch.csv (time,frequency,confidence; 0 Hz = unvoiced) and picture.png. Stems have the song's
sample rate and channels. Memory does not grow with the length of a song, but for a run of ss_mpe.
Of folders all audio files are songs, also further in; DIR mirrors their tree.

A run of the recipe transfer gives all of its sources; its pre-training (--stage=pretrain), which
has no masks, clusters each song by k-means. A folder of runs of the recipe jukebox, one per stem,
gives all of their stems. A run of the recipe ss_mpe transcribes instead: pitches.csv (a line per
pitch: time,frequency,confidence), pitches.txt (a line per frame: time, then all pitches in Hz,
separated by tabs), pitches.mid (notes) and picture.png.

--pitch_only writes pitch and picture alone; without --checkpoint it uses the published weights of
CREPE (the smallest that is installed) and needs no training. Other published weights:
--weights=FILE --architecture=NAME.
"""

import argparse
import contextlib
import pathlib
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from majl_jax import atomic, terminal
from majl_jax.audio import files, libav
from majl_jax.separate import inputs, loading, published

if TYPE_CHECKING:  # JAX is loaded only once the command line has been understood
    from majl_jax.separate.outputs import Options
    from majl_jax.separate.pitches import Transcribed
    from majl_jax.separate.stems import Result


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = terminal.Parser(
        prog=terminal.program("separate"),
        description=(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "songs",
        nargs="+",
        metavar="SONG",
        help="audio files, folders of them, or quoted patterns as 'music/**/*.flac'; WAV, FLAC, "
        "Ogg, MP3, AIFF; with PyAV MP4, Matroska, AAC as well",
    )
    add("--output", required=True, metavar="DIR", help="folder that gets a folder per song")
    add(
        "--checkpoint",
        metavar="RUN",
        help="the --workdir of a training run, RUN:STAGE, a model file (.safetensors), or a name, "
        "as crepe-full",
    )
    add("--model", metavar="NAME", help="a model by its name, as crepe-full")
    add("--weights", metavar="FILE", help="published weights, as their authors have them or .npz")
    add("--architecture", metavar="NAME", help="of --weights, as harmof0")
    add("--stage", help="stage of the run whose parameters are used (default: the last)")
    add("--recipe", help="insist on a run of this recipe, for instance ss_mpe")
    add("--which", choices=("best", "last"), default="best", help="checkpoint of the stage")
    add("--stems", default="", metavar="NAME,...", help="these only, and the rest of the song")
    add("--pitch_only", action="store_true", help="no stems; without --checkpoint: published CREPE")
    add(
        "--threshold", type=float, help="confidence that makes a pitch, 0..1 (default: the model's)"
    )
    add("--overlap", type=float, default=0.5, help="overlap of segments, 0 <= overlap < 1")
    add("--batch_size", type=int, default=8, help="segments per call of the model")
    add(
        "--format",
        choices=("float", "int16", "int24", "flac"),
        default="float",
        help="of the stems: WAV with such samples, or FLAC with 24 bits (default: float)",
    )
    add(
        "--no_high_band",
        action="store_true",
        help="leave what a song has above the model's band in the rest (default: the stems share "
        "it)",
    )
    add("--device", choices=("cpu", "gpu", "tpu"), help="where to run (default: the best there is)")
    add("--overwrite", action="store_true", help="replace results of an earlier call")
    add("--skip_existing", action="store_true", help="leave songs alone whose files are all there")
    add("--allow_truncated", action="store_true", help="use what is there of files without an end")
    add("--no_picture", action="store_true", help="leave picture.png out")
    add("--debug", action="store_true", help=terminal.DEBUG_HELP)
    add("--pitch_bends", action="store_true", help="pitches.mid follows the pitch of every frame")
    options = parser.parse_args(arguments)
    sources = [options.checkpoint, options.model, options.weights]
    if len([*filter(None, sources)]) > 1:
        parser.error("--checkpoint, --model and --weights name a model each: give one of them")
    if bool(options.weights) != bool(options.architecture):
        parser.error("--weights=FILE and --architecture=NAME belong together: give both")
    if (options.stage or options.recipe or options.which != "best") and not options.checkpoint:
        parser.error(
            "--stage, --recipe and --which choose from a run: give --checkpoint=RUN as well"
        )
    if options.stems and options.pitch_only:
        parser.error("--stems chooses stems and --pitch_only writes none: give one of them")
    if not 0 <= options.overlap < 1:
        parser.error(f"--overlap is {options.overlap}; expected 0 <= overlap < 1")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        parser.error(f"--threshold is {options.threshold}; expected a value from 0 to 1")
    if options.batch_size < 1:
        parser.error(f"--batch_size is {options.batch_size}; expected at least 1")
    return options


@terminal.command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 if every file was done, 1 if one was not, 2 for a wrong call."""
    flags = _parse(arguments)
    output = pathlib.Path(flags.output)
    songs, faults = inputs.songs(flags.songs, output)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    for told in inputs.left_out(flags.songs, output):
        print(told, file=sys.stderr)
    unread = [song.path for song in songs if libav.lacking(song.path)]
    if unread:
        told = f"{len(unread)} of {len(songs)} files are read with {libav.HOW_TO_INSTALL}"
        print(f"error: {told}: {', '.join(unread)}", file=sys.stderr)
    if len(unread) == len(songs):
        return 1
    import jax

    from majl_jax import parallel

    if not_kept := parallel.cache_compilations():
        print(not_kept, file=sys.stderr)
    devices = jax.local_devices(backend=flags.device) if flags.device else None
    model, variables = _load(flags)
    options = _options(flags, model, devices, [song.path for song in songs])
    _remove_leftovers([*(output.iterdir() if output.is_dir() else ()), *(s.folder for s in songs)])
    counts = [f"[{number}/{len(songs)}]" for number in range(1, len(songs) + 1)]
    with _terminable():
        failed = [
            song.path
            for song, count in zip(songs, counts, strict=True)
            if song.path in unread
            or not _separate_and_say(song, model, variables, options, count, flags.debug)
        ]
    if failed:
        print(f"{len(failed)} of {len(songs)} files failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or faults else 0


def _load(flags: argparse.Namespace) -> tuple[Any, Any]:
    """The model and its variables; the first line says what it knows."""
    from majl_jax import console
    from majl_jax.inference.segments import SegmentModel

    source = flags.checkpoint or flags.weights or flags.model
    if source is None:
        source = published.default_pitch() if flags.pitch_only else loading.default()
    by_name = not flags.checkpoint and not flags.weights
    if by_name and source not in loading.names():
        known = ", ".join(loading.names())
        raise ValueError(f"--model is {source}; expected a name: {known}")
    model, variables, info = loading.find(
        source,
        stage=flags.stage,
        which=flags.which,
        recipe=flags.recipe,
        architecture=flags.architecture,
        by_name=by_name,
    )
    print(f"model: {info}; {loading.gives(model)}", flush=True)
    if flags.pitch_only and isinstance(model, SegmentModel) and model.bin_cents is None:
        raise ValueError(
            "--pitch_only: this model gives no pitch; leave the flag out, or give the --checkpoint "
            "of one run of majl or ss_mpe"
        )
    return loading.announced(model, console.say), variables


def _options(
    flags: argparse.Namespace, model: Any, devices: Any, paths: Sequence[str]
) -> "Options":
    from majl_jax.separate.outputs import Options, chosen_stems

    options = Options(
        overlap=flags.overlap,
        batch_size=flags.batch_size,
        pitch_only=flags.pitch_only,
        threshold=model.threshold if flags.threshold is None else flags.threshold,
        format=flags.format,
        stems=tuple(name.strip() for name in flags.stems.split(",") if name.strip()),
        high_band=not flags.no_high_band,
        overwrite=flags.overwrite,
        skip_existing=flags.skip_existing,
        inputs=paths,
        allow_truncated=flags.allow_truncated,
        picture=not flags.no_picture,
        pitch_bends=flags.pitch_bends,
        devices=devices,
    )
    # Names of stems that there are not come out here, before the first song.
    chosen_stems(model, options)
    return options


def _remove_leftovers(folders: Iterable[pathlib.Path]) -> None:
    """Removes what a call of this host that was killed left half written."""
    for folder in folders:
        # One that cannot be looked into is of no concern here; only an empty one is removed.
        with contextlib.suppress(OSError):
            if folder.is_dir() and atomic.remove_leftovers(folder):
                folder.rmdir()


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does: what is half written is removed."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _separate_and_say(
    song: inputs.Song,
    model: Any,
    variables: Any,
    options: "Options",
    count: str,
    debug: bool = False,
) -> bool:
    """One file with progress bar, warnings and summary; False, the reason said, if it failed."""
    from tqdm import tqdm

    from majl_jax.inference.multi_pitch import MultiPitchModel
    from majl_jax.separate import outputs, pitches, stems

    path, folder = song
    process: Any = stems.separate_file
    if isinstance(model, MultiPitchModel):
        process = pitches.transcribe_file

    def say_warning(message: Any, category: Any, *where: Any, **more: Any) -> None:
        tqdm.write(f"warning: {message}", file=sys.stderr)

    try:
        outputs.refuse_existing(outputs.output_paths(folder, model, options), path, options)
        seconds = files.inspect(path, allow_truncated=True).seconds
        with (
            warnings.catch_warnings(),
            tqdm(
                total=round(seconds, 1),
                desc=f"{count} {pathlib.Path(path).name}",
                bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s  {elapsed}, {remaining} left",
                disable=None,
                leave=False,
            ) as bar,
        ):
            warnings.simplefilter("always", files.AudioFileWarning)
            # Of a picture's title in letters that matplotlib's font lacks.
            warnings.filterwarnings("ignore", "Glyph .* missing")
            warnings.showwarning = say_warning
            result = process(path, folder, model, variables, options, progress=bar.update)
    except outputs.AllThereError as there:
        print(f"{count} {path}: {there}")
        return True
    except Exception as error:
        if debug:
            raise
        said = terminal.in_one_line(error)
        print(f"error: {'' if path in said else f'{path}: '}{said}", file=sys.stderr)
        return False
    print(f"{count} {path} -> {folder}: {_summary(result)}")
    return True


def _summary(result: "Result | Transcribed") -> str:
    from majl_jax.separate.stems import Result

    if not isinstance(result, Result):
        share = result.pitched_frames / max(result.frames, 1)
        said = {
            "pitches.csv": f"pitches.csv ({share:.0%} of frames with a pitch)",
            "pitches.mid": f"pitches.mid ({result.notes} note{'s' * (result.notes != 1)})",
        }
        return ", ".join(said.get(path.name, path.name) for path in result.paths)
    parts = []
    for path in result.paths:
        if path.name in result.peaks_db:
            parts.append(f"{path.name} (peak {result.peaks_db[path.name]:.1f} dB)")
        elif path.name == "pitch.csv":
            share = result.voiced_frames / max(result.frames, 1)
            parts.append(f"pitch.csv ({share:.0%} voiced)")
        else:
            parts.append(path.name)
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
