"""`mir_st500`: MIR-ST500, 500 pop songs with the notes of the singing voice (Wang and Jang 2021).

Mixture and pitch only: the stems are unknown. A label is the nominal pitch of a note: the notes
have no glides, no vibrato, and no consonants.
"""

import functools
import json
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64

from majl_jax.audio import libav
from majl_jax.datasets import source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.track import BadTrack, Recording, Track, stack

STEMS = ("accompaniment", "voice")
LABEL_FILE = "MIR-ST500_corrected.json"
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3")  # in this order, where a song is there more than once
SUFFIXES = (*AUDIO_SUFFIXES, ".opus", *libav.SUFFIXES)  # in this order, where a song is there twice
FIRST_VALID, FIRST_TEST, LAST = 361, 401, 500
PITCH_RANGE_MIDI = (20.0, 110.0)
PAST_THE_END_S = 1.0  # by at most so much a note may end after its song
MEAN_S = 245.0
COPY = source_files.Copy(
    "MIR-ST500",
    f"{LABEL_FILE} and its audio, train/N/Mixture.wav and test/N/Mixture.wav, or audio/N.wav "
    "(.flac, .mp3)",
)
NO_AUDIO = f"no audio: expected {COPY.tree}"


def tracks(source: str | None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The labelled songs below `source`: 1 to 360 train, 361 to 400 valid, 401 to 500 test.

    The data set's own division is 1 to 400 and 401 to 500; what is valid is ours. A song without
    audio is left out.
    """
    del seed
    folder = COPY.root(source)
    labels = read_labels(folder / LABEL_FILE)
    audio = {number: find_audio(folder, number) for number in labels}
    if not any(audio.values()):
        raise COPY.lacking(folder, f"audio of any of its {len(labels)} songs")
    return [
        Track(
            id=f"{number:03d}",
            split=split_of(number),
            group=f"{number:03d}",
            paths=(folder / LABEL_FILE, *([path] if path else [])),
            seconds=MEAN_S,
            load=functools.partial(
                load,
                path,
                notes=labels[number],
                name=f"{folder / LABEL_FILE}, song {number}",
                grid=grid,
            ),
            left_out=_fault(path),
        )
        for number, path in sorted(audio.items())
    ]


def _fault(path: pathlib.Path | None) -> str:
    """Why there is no audio to load, if so."""
    if path is None:
        return NO_AUDIO
    return libav.lacking(path)


def split_of(number: int) -> str:
    """The split of a song."""
    return "test" if number >= FIRST_TEST else "valid" if number >= FIRST_VALID else "train"


def find_audio(folder: pathlib.Path, number: int) -> pathlib.Path | None:
    """The audio file of a song, one that can be read if there is any."""
    places = (
        folder / ("test" if number >= FIRST_TEST else "train") / str(number) / "Mixture",
        folder / "audio" / str(number),
    )
    for suffix in SUFFIXES:
        for place in places:
            for spelling in (suffix, suffix.upper()):
                if (path := place.with_name(place.name + spelling)).is_file():
                    return path
    return None


def read_labels(path: pathlib.Path) -> dict[int, Any]:
    """The notes of every song as they stand in the label file; each song's are checked when it
    loads.
    """
    if not path.is_file():
        raise COPY.nothing(path.parent)
    expected = 'expected {"1": [[onset_s, offset_s, midi], ...], ...}'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); {expected}: download it again") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: holds a {type(content).__name__} of no songs; {expected}")
    out = {}
    for key, notes in content.items():
        if not (key.isascii() and key.isdecimal() and 1 <= int(key) <= LAST):
            raise ValueError(f"{path}: song {key!r} is not a number from 1 to {LAST}; {expected}")
        out[int(key)] = notes
    return out


def load(path: pathlib.Path | None, *, notes: Any, name: str, grid: Grid) -> Recording:
    """The mixture of one song with the frame labels of its voice; `name` says whose notes they
    are.
    """
    if path is None or _fault(path):
        raise BadTrack(f"{path or name}: {_fault(path)}")
    rows = check_notes(notes, name)
    mixture = source_files.read_audio(path, grid=grid)
    seconds = grid.seconds(len(mixture))
    if rows[-1, 1] > seconds + PAST_THE_END_S:
        raise BadTrack(
            f"{path}: {seconds:.1f} s long, but {name} has a note until {rows[-1, 1]:.1f} s: is it "
            "cut off, or another version?"
        )
    audio = stack([mixture, np.zeros_like(mixture)], grid=grid)
    frames = grid.frame_count(len(mixture))
    voice_hz, voice_known = frames_of(rows, frames=frames, grid=grid)
    f0_hz, has_pitch = np.zeros((frames, 2), np.float32), np.zeros((frames, 2), bool)
    f0_hz[:, 1], has_pitch[:, 1] = voice_hz, voice_known
    onset_offset_f0 = np.column_stack([rows[:, :2], _hz(rows[:, 2])]).astype(np.float32)
    return Recording(
        audio=audio,
        stems=STEMS,
        has_stems=np.zeros(len(STEMS), bool),
        f0_hz=f0_hz,
        has_pitch=has_pitch,
        grid=grid,
        notes=(np.zeros((0, 3), np.float32), onset_offset_f0),
    )


def check_notes(notes: Any, name: str) -> Float64[np.ndarray, "note 3"]:
    """Rows (onset_s, offset_s, midi) in order of time; raises BadTrack on any other content."""
    try:
        rows = np.asarray(notes, np.float64)
    except (TypeError, ValueError):
        raise BadTrack(
            f"{name}: its notes are not rows of numbers [onset_s, offset_s, midi]"
        ) from None
    if rows.ndim != 2 or rows.shape[1] != 3 or not len(rows):
        raise BadTrack(
            f"{name}: notes of shape {rows.shape}, expected [note, 3] with a note or more"
        )
    low, high = PITCH_RANGE_MIDI
    onset_s, offset_s, midi = rows.T
    good = np.isfinite(rows).all(1) & (onset_s >= 0) & (offset_s > onset_s)
    good &= (midi >= low) & (midi <= high)
    if not good.all():
        first = int(np.argmin(good))
        raise BadTrack(
            f"{name}, note {first + 1}: {rows[first].tolist()}; expected 0 <= onset_s < offset_s "
            f"and a MIDI number from {low:g} to {high:g}"
        )
    return rows[np.argsort(onset_s, kind="stable")]


def frames_of(
    rows: Float64[np.ndarray, "note 3"], *, frames: int, grid: Grid
) -> tuple[Float32[np.ndarray, " frame"], Bool[np.ndarray, " frame"]]:
    """Frame labels (f0 in Hz with 0 = unvoiced, is it a label) of the notes.

    Frames round(onset / hop) to round(offset / hop), both included, have the pitch of the note, as
    in the data code of RMVPE (Wei et al. 2023); every other frame is labelled unvoiced.
    """
    f0_hz = np.zeros(frames, np.float32)
    bounds = np.round(rows[:, :2] * grid.sample_rate_hz / grid.hop_samples).astype(int)
    for (first, last), note_hz in zip(bounds, _hz(rows[:, 2]), strict=True):
        f0_hz[first : last + 1] = note_hz
    return f0_hz, np.ones(frames, bool)


def _hz(midi: np.ndarray) -> np.ndarray:
    return 440.0 * 2.0 ** ((midi - 69) / 12)
