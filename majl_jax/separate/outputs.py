"""Options of a call and files that appear once they are complete."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from majl_jax import atomic
from majl_jax.audio import files
from majl_jax.separate import earlier

if TYPE_CHECKING:
    from majl_jax.inference.multi_pitch import MultiPitchModel
    from majl_jax.inference.segments import SegmentModel


FORMATS = {
    "float": (".wav", "FLOAT"),
    "int16": (".wav", "PCM_16"),
    "int24": (".wav", "PCM_24"),
    "flac": (".flac", "PCM_24"),
}
"""Of stems: the suffix of their files, and libsndfile's name of their samples."""


@contextlib.contextmanager
def drafts(paths: Sequence[pathlib.Path]) -> Iterator[list[pathlib.Path]]:
    """Drafts of files of one folder, which appear under their names if nothing fails."""
    folder = paths[0].parent
    try:
        with atomic.drafts(paths) as parts:
            yield parts
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # succeeds only where nothing was written


class StemWriter(files.WavWriter):
    """A writer whose file is complete before it takes its name."""

    def finish(self) -> None:
        """Closes the draft and has it on disk; `close` gives it its name."""
        import soundfile

        try:
            self._file.close()
            atomic.sync(self._draft)
        except (OSError, soundfile.LibsndfileError) as error:
            raise self._no_write(error) from error


class AllThereError(FileExistsError):
    """Every file of a song is there already, and is to be left alone."""


def names_of_stems(model: "SegmentModel", options: "Options") -> tuple[str, ...]:
    """The stems that are written, by the names of their files."""
    return tuple(files.safe_name(model.stems[number]) for number in chosen_stems(model, options))


def chosen_stems(model: "SegmentModel | MultiPitchModel", options: "Options") -> list[int]:
    """Which of a model's stems are wanted; ValueError for names that it does not have."""
    known = getattr(model, "stems", ())
    if unknown := [name for name in options.stems if name not in known]:
        gives = f"it gives {', '.join(known)}" if known else "it gives no stems"
        raise ValueError(f"--stems names {', '.join(unknown)}, which this model lacks: {gives}")
    wanted = [] if options.pitch_only else options.stems or known
    return [number for number, name in enumerate(known) if name in wanted]


def output_paths(
    folder: pathlib.Path, model: "SegmentModel | MultiPitchModel", options: "Options"
) -> tuple[pathlib.Path, ...]:
    """The files that a song gets: audio, tables, and last the picture."""
    from majl_jax.inference.segments import SegmentModel

    names = ["pitches.csv", "pitches.txt", "pitches.mid"]
    if isinstance(model, SegmentModel):
        stems = names_of_stems(model, options)
        suffix, _ = FORMATS[options.format]
        names = [f"{name}{suffix}" for name in (*stems, *[_name_of_rest(stems)] * bool(stems))]
        names += ["pitch.csv"] * (model.bin_cents is not None)
    return tuple(folder / name for name in names + ["picture.png"] * options.picture)


def _name_of_rest(stems: Sequence[str]) -> str:
    name = "accompaniment" if len(stems) == 1 else "rest"
    return f"{name}_of_song" if name in stems else name


def refuse_existing(paths: Sequence[pathlib.Path], song: Any, options: "Options") -> None:
    """Raises FileExistsError where files that are to be written are there and have to stay.

    An input is never replaced, whatever the options say. AllThereError: the song is to be skipped.
    One that has only some of its files, as after a power cut, is not: it is done again.
    """
    there = [path for path in paths if path.exists()]
    for path in there:
        if any(os.path.exists(one) and path.samefile(one) for one in (song, *options.inputs)):
            raise FileExistsError(
                f"{path} is an input and would be replaced: choose another --output"
            )
    fits = bool(there) and options.skip_existing and earlier.fit(there, paths, song)
    if fits and len(there) == len(paths):
        raise AllThereError(f"{paths[0].parent} has all of its files already")
    if there and not fits and not options.overwrite:
        raise FileExistsError(
            f"{', '.join(map(str, there))} exists already"
            f"{' and does not fit this song' * options.skip_existing}; choose another --output, or"
            " pass --overwrite"
        )


@dataclasses.dataclass(frozen=True)
class Options:
    """How a file is treated."""

    overlap: float = 0.5
    batch_size: int = 8
    pitch_only: bool = False
    threshold: float = 0.5
    format: str = "float"
    """Of the stems: one of FORMATS."""
    stems: Sequence[str] = ()
    """Which are written, in the order of the model; none: all of them."""
    high_band: bool = True
    """Whether stems get their share of what a song has above the model's band."""
    overwrite: bool = False
    skip_existing: bool = False
    """Whether to leave songs alone whose files are all there; of others they are made anew."""
    inputs: Sequence[Any] = ()
    """Paths of all the songs, none of which may be replaced."""
    allow_truncated: bool = False
    picture: bool = True
    pitch_bends: bool = False
    """Whether the notes of pitches.mid are bent to the pitch of every frame."""
    devices: Sequence[Any] | None = None
