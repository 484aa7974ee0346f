"""What a reader yields: a `Track` (a row, no audio yet), and the `Recording` that it loads."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int

from majl_jax.datasets.grid import Grid

if TYPE_CHECKING:
    from majl_jax.datasets.streamed import Streamed

Notes = Float32[np.ndarray, "note 3"]  # columns: onset_s, offset_s, f0_hz
LENGTHS_DIFFER_S = 1.0  # by at most so much the files of one track may


class BadTrack(ValueError):
    """The files of one track cannot be used; the message says which file, and why."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """The audio of one track with its labels; the sum over the stems is the mixture.

    Without separate stems, stem 0 holds the mixture, the others are zero, and `has_stems` is
    False. Labels are [frame, voice]. With `voices` 0 there is one voice per stem, in the order of
    the stems; a number says how many pitches of the mixture there are, in no particular order. A
    voice that is silent in a labelled frame has f0 0 and is a label, also where it is never used;
    a frame without a label has `has_pitch` False for all voices.
    """

    # Shapes are checked by `check`, with a message for the user, not by their types.
    audio: np.ndarray  # float32 [time, stem, channel]
    stems: tuple[str, ...]
    has_stems: np.ndarray  # bool [stem]
    f0_hz: np.ndarray  # float32 [frame, voice]; 0 = unvoiced; frame k is centred at sample k * hop
    has_pitch: np.ndarray  # bool [frame, voice]
    grid: Grid
    notes: tuple[np.ndarray, ...] = ()  # per voice float32 [note, 3], where the data set has notes
    voices: int = 0  # of the labels; 0: one per stem
    remarks: tuple[str, ...] = ()  # what stands in the report beside the track, if anything


@dataclasses.dataclass(frozen=True)
class Track:
    """One piece of a data set: light, picklable, and loaded only when `load()` is called."""

    id: str
    split: str
    load: Callable[[], Recording]
    group: str = ""  # what a fair split keeps together: a singer, an album, a tune
    paths: tuple[pathlib.Path, ...] = ()
    seconds: float = 0.0  # about how long, to say beforehand how much disk is needed
    left_out: str = ""  # why a track that is there is not to be used, if so
    streamed: "Streamed | None" = None  # the same as `load`, block by block, where that is possible


def printable(text: str) -> str:
    """A text as it can be printed: of a file name that is not UTF-8, the bytes as \\udc.."""
    return text.encode("utf-8", "backslashreplace").decode()


def frames_from_notes(
    notes: Notes,
    *,
    frames: int,
    grid: Grid,
    attack_s: float,
    release_s: float,
) -> tuple[Float32[np.ndarray, " frame"], Bool[np.ndarray, " frame"]]:
    """Frame labels (f0 in Hz with 0 = unvoiced, is it a label) of a monophonic list of notes.

    Args:
        notes: in s, s and Hz.
        frames: number of frames.
        grid: of the frames.
        attack_s: for so long before a note the instrument may sound, so those frames are no label.
        release_s: the same after a note.
    """
    times_s = grid.frame_times_s(frames)
    f0_hz = np.zeros(frames, np.float32)
    has_pitch = np.ones(frames, bool)
    for onset_s, offset_s, _ in notes:
        has_pitch[(times_s >= onset_s - attack_s) & (times_s < offset_s + release_s)] = False
    for onset_s, offset_s, note_hz in notes:
        sounding = (times_s >= onset_s) & (times_s < offset_s)
        f0_hz[sounding] = note_hz
        has_pitch[sounding] = True
    return f0_hz, has_pitch


def nearest_rows(
    times_s: Float64[np.ndarray, " row"],
    *,
    name: str,
    frames: int,
    grid: Grid,
) -> Int[np.ndarray, " frame"]:
    """For each label frame the row of an annotation, at rising times, whose time is nearest; of
    two, the earlier.

    Frames before the first and after the last row get that one; raises BadTrack, with `name`,
    where those after the last are more than a tenth of all.
    """
    frame_s = grid.frame_times_s(frames)
    if times_s[-1] < 0.9 * frame_s[-1] - 1.0:
        raise BadTrack(
            f"{name}: ends at {times_s[-1]:.1f} s, its audio at {frame_s[-1]:.1f} s: is it cut off,"
            " or of another track?"
        )
    return np.searchsorted((times_s[1:] + times_s[:-1]) / 2, frame_s)


def check_audio(samples: int, *, grid: Grid, bad: int, silent: bool) -> None:
    """Raises `BadTrack` where audio of this length, with `bad` samples, cannot be used."""
    if samples < grid.hop_samples:
        raise BadTrack(f"zero length: {samples} samples, less than one label frame")
    if bad:
        raise BadTrack(f"{bad} samples are NaN or infinite")
    if silent:
        raise BadTrack("all samples of all stems are zero (silent file)")


def check(recording: Recording) -> None:
    """Raises `BadTrack` where audio or labels cannot be used."""
    audio, grid = recording.audio, recording.grid
    if audio.ndim != 3 or audio.shape[1:] != (len(recording.stems), grid.channels):
        raise BadTrack(
            f"audio has shape {audio.shape}, expected [time, {len(recording.stems)} stems, "
            f"{grid.channels} channels]"
        )
    check_audio(
        len(audio),
        grid=grid,
        bad=int(np.count_nonzero(~np.isfinite(audio))),
        silent=not np.any(audio),
    )
    expected = (grid.frame_count(len(audio)), recording.voices or len(recording.stems))
    for name in ("f0_hz", "has_pitch"):
        shape = getattr(recording, name).shape
        if shape != expected:
            whose = "the recording's voices" if recording.voices else "one voice per stem"
            raise BadTrack(f"{name} has shape {shape}, expected {expected} (frame, voice): {whose}")
    if recording.has_stems.shape != (len(recording.stems),):
        raise BadTrack(f"has_stems has shape {recording.has_stems.shape}, expected one per stem")
    f0_hz = recording.f0_hz[recording.has_pitch]
    bad = ~np.isfinite(f0_hz) | (f0_hz < 0) | (f0_hz >= grid.sample_rate_hz / 2)
    if bad.any():
        raise BadTrack(f"{np.count_nonzero(bad)} pitch labels are negative, NaN or above Nyquist")


def stack(stems: Sequence[np.ndarray], *, grid: Grid) -> np.ndarray:
    """[time, channel] per stem to [time, stem, channel], all by one gain where one is beyond full
    scale.

    Shorter stems end in zeros; lengths that differ by more than `LENGTHS_DIFFER_S` are a BadTrack.
    """
    lengths = [len(stem) for stem in stems]
    if max(lengths) - min(lengths) > LENGTHS_DIFFER_S * grid.sample_rate_hz:
        raise BadTrack(unequal(lengths, grid=grid))
    audio = np.zeros((max(lengths), len(stems), stems[0].shape[1]), np.float32)
    for number, stem in enumerate(stems):
        audio[: len(stem), number] = stem
    return audio / max(1.0, float(np.abs(audio).max(initial=0.0)))


def unequal(lengths: Sequence[int], *, grid: Grid) -> str:
    """What is said of stems of these lengths."""
    seconds = ", ".join(f"{grid.seconds(length):.2f}" for length in lengths)
    return f"its stems are {seconds} s long; expected equal lengths: is one cut off?"


def no_pitch(
    samples: int, *, stems: int, grid: Grid, voices: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """`f0_hz` and `has_pitch`, [frame, voice], of so many samples without a pitch label; voices 0:
    one per stem.
    """
    shape = (grid.frame_count(samples), voices or stems)
    return np.zeros(shape, np.float32), np.zeros(shape, bool)


def unknown_stems(recording: Recording) -> Recording:
    """The same recording with the mixture only: stem 0 holds it, and no stem is a label."""
    audio = np.zeros_like(recording.audio)
    audio[:, 0] = recording.audio.sum(axis=1)
    audio /= max(1.0, float(np.abs(audio).max(initial=0.0)))  # the sum may be beyond full scale
    return dataclasses.replace(
        recording, audio=audio, has_stems=np.zeros(len(recording.stems), bool)
    )


def unknown_pitch(recording: Recording) -> Recording:
    """The same recording without pitch labels or notes."""
    return dataclasses.replace(
        recording,
        f0_hz=np.zeros_like(recording.f0_hz),
        has_pitch=np.zeros_like(recording.has_pitch),
        notes=(),
    )
