"""Recordings of mixtures with several voices: the audio, lists of notes on label frames, MIDI with
pedal.
"""

import heapq
import pathlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32, Float64

from majl_jax.audio import files
from majl_jax.datasets import source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.track import BadTrack, Recording, stack

MIXTURE = ("mixture",)
PAST_THE_END_S = 1.0  # by at most so much a note may begin after the end of its audio
SUSTAIN_CONTROL = 64
PEDAL_DOWN = 64  # values from here on hold the dampers up (MIDI 1.0)
SEMITONES_MIDI = (20.0, 110.0)  # of a label that is not 0
NoteRows = Float64[np.ndarray, "note 3"]  # columns: onset_s, offset_s, f0_hz


def read_mixture(path: pathlib.Path, *, grid: Grid) -> Float32[np.ndarray, "time 1 channel"]:
    """The audio of a file as the only stem; raises BadTrack with the file's name."""
    try:
        audio = source_files.read_audio(path, grid=grid)
    except files.AudioFileError as error:
        raise BadTrack(str(error)) from error
    return stack([audio], grid=grid)


def load_with_notes(
    path: pathlib.Path, notes: NoteRows, *, name: str, voices: int, grid: Grid
) -> Recording:
    """A mixture in which the notes are all that sounds.

    Raises BadTrack for audio that cannot be read, bad notes, a note that begins after the end, or
    more than `voices` notes at once.

    Args:
        path: the audio.
        notes: in s, s and Hz, in any order.
        name: whose notes they are, for errors.
        voices: number of voices of the labels.
        grid: of audio and labels.
    """
    notes = check_notes(notes, name)
    audio = read_mixture(path, grid=grid)
    seconds = grid.seconds(len(audio))
    if notes[-1, 0] > seconds + PAST_THE_END_S:
        raise BadTrack(
            f"{path}: {seconds:.1f} s long, but {name} has a note at {notes[-1, 0]:.1f} s: is it "
            "cut off, or another recording?"
        )
    f0_hz = frames_of_voices(
        notes,
        name=name,
        voices=voices,
        frames=grid.frame_count(len(audio)),
        grid=grid,
    )
    return Recording(
        audio=audio,
        stems=MIXTURE,
        has_stems=np.zeros(1, bool),
        f0_hz=f0_hz,
        has_pitch=np.ones(f0_hz.shape, bool),
        grid=grid,
        voices=voices,
    )


def load_labelled(
    path: pathlib.Path,
    labels: pathlib.Path,
    *,
    read: Callable[[pathlib.Path], NoteRows],
    voices: int,
    grid: Grid,
) -> Recording:
    """`load_with_notes` with the notes of a file.

    Args:
        path: the audio.
        labels: the file of notes.
        read: from that file to its notes; raises BadTrack.
        voices: number of voices of the labels.
        grid: of audio and labels.
    """
    return load_with_notes(
        path,
        read(labels),
        name=str(labels),
        voices=voices,
        grid=grid,
    )


def check_notes(notes: Float[np.ndarray, "note 3"], name: str) -> NoteRows:
    """The notes in order of onset; raises BadTrack where there are none, or one cannot be."""
    rows = np.asarray(notes, np.float64)
    if not len(rows):
        raise BadTrack(f"{name}: holds no notes; expected one or more")
    onset_s, offset_s, f0_hz = rows.T
    good = np.isfinite(rows).all(1) & (onset_s >= 0) & (offset_s >= onset_s) & (f0_hz > 0)
    if not good.all():
        first = int(np.argmin(good))
        raise BadTrack(
            f"{name}, note {first + 1}: {rows[first].tolist()}; expected 0 <= onset_s <= offset_s "
            "and a frequency above 0 Hz"
        )
    return rows[np.argsort(onset_s, kind="stable")]


def frames_of_voices(
    notes: NoteRows, *, name: str, voices: int, frames: int, grid: Grid
) -> Float32[np.ndarray, "frame voice"]:
    """F0 in Hz per frame and voice (0 = none) of notes in order of onset.

    A note sounds at frame k if onset <= k hop / rate < offset. It keeps its voice throughout, the
    lowest one free at its onset; two instruments in unison are two voices. Raises BadTrack where
    more than `voices` notes sound at once.

    Args:
        notes: in s, s and Hz.
        name: whose notes they are, for errors.
        voices: number of voices.
        frames: number of frames.
        grid: of the frames.
    """
    times_s = grid.frame_times_s(frames)
    first = np.searchsorted(times_s, notes[:, 0], side="left")
    last = np.searchsorted(times_s, notes[:, 1], side="left")  # exclusive
    most, where = _most_at_once(first, last, frames)
    if most > voices:
        raise BadTrack(
            f"{name}: {most} notes at once at {times_s[where]:.2f} s; expected at most {voices}"
        )
    f0_hz = np.zeros((frames, voices), np.float32)
    free = list(range(voices))
    sounding: list[tuple[int, int]] = []  # (frame at which it ends, voice)
    for start, stop, note_hz in zip(first, last, notes[:, 2], strict=True):
        if start >= stop:  # falls between two frames
            continue
        while sounding and sounding[0][0] <= start:
            heapq.heappush(free, heapq.heappop(sounding)[1])
        voice = heapq.heappop(free)
        heapq.heappush(sounding, (int(stop), voice))
        f0_hz[start:stop, voice] = note_hz
    return f0_hz


def _most_at_once(first: np.ndarray, last: np.ndarray, frames: int) -> tuple[int, int]:
    """The largest number of notes in a frame, and the first such frame."""
    changes = np.zeros(frames + 1, np.int64)
    np.add.at(changes, first, 1)
    np.add.at(changes, last, -1)
    counts = np.cumsum(changes)
    return int(counts.max()), int(np.argmax(counts))


def read_midi(path: pathlib.Path) -> NoteRows:
    """The pitched notes of a MIDI file of one instrument, in order of onset, for as long as they
    ring.

    A note whose key goes up while the sustain pedal is down rings until the pedal goes up; it ends
    earlier where the same pitch is struck again. Drums are left out. The tracks of the file are
    taken together, pedals and keys, but a track with a pedal and no note is not read.
    """
    import pretty_midi

    if not path.is_file():
        raise BadTrack(f"{path}: no such MIDI file")
    try:
        midi = pretty_midi.PrettyMIDI(str(path))
    except Exception as error:  # damaged files fail in many ways
        raise BadTrack(
            f"{path}: not MIDI that can be read ({type(error).__name__}: {error}); copy it again"
        ) from error
    pitched = [instrument for instrument in midi.instruments if not instrument.is_drum]
    keys = [(note.start, note.end, note.pitch) for one in pitched for note in one.notes]
    pedal = [
        (change.time, change.value)
        for one in pitched
        for change in one.control_changes
        if change.number == SUSTAIN_CONTROL
    ]
    rows = ringing(keys, pedal, end_s=float(midi.get_end_time()))
    if not rows:
        raise BadTrack(f"{path}: holds no pitched notes")
    notes = np.asarray(sorted(rows), np.float64)
    notes[:, 2] = midi_hz(notes[:, 2])
    return notes


def ringing(
    keys: list[tuple[float, float, int]], pedal: list[tuple[float, int]], *, end_s: float
) -> list[tuple[float, float, int]]:
    """(onset, offset, pitch) of key presses as they ring under a sustain pedal: (time, value).

    A pedal that never goes up ends at `end_s`.
    """
    # A stable order: of two changes at one time the later in the file holds.
    pedal = sorted(pedal, key=lambda change: change[0])
    changes_s = np.array([time_s for time_s, _ in pedal])
    down = np.array([value >= PEDAL_DOWN for _, value in pedal], bool)
    releases_s = changes_s[~down]
    struck_s = {
        pitch: [on_s for on_s, _, p in keys if p == pitch] for pitch in {k[2] for k in keys}
    }
    struck_s = {pitch: np.unique(times) for pitch, times in struck_s.items()}
    longest: dict[tuple[float, int], float] = {}
    for onset_s, offset_s, pitch in keys:
        now = np.searchsorted(changes_s, offset_s, side="right") - 1
        if now >= 0 and down[now]:
            later = np.searchsorted(releases_s, offset_s, side="right")
            offset_s = releases_s[later] if later < len(releases_s) else max(end_s, offset_s)
        again = np.searchsorted(struck_s[pitch], onset_s, side="right")
        if again < len(struck_s[pitch]):
            offset_s = min(offset_s, struck_s[pitch][again])
        key = (float(onset_s), pitch)
        longest[key] = max(longest.get(key, 0.0), float(offset_s))
    return [(onset_s, offset_s, pitch) for (onset_s, pitch), offset_s in longest.items()]


def read_semitones(path: pathlib.Path) -> Float64[np.ndarray, " row"]:
    """A label file of one MIDI semitone per line, 0 = unvoiced; raises BadTrack with the line at
    fault.
    """
    if not path.is_file():
        raise BadTrack(f"{path}: no such label file")
    low, high = SEMITONES_MIDI
    semitones = []
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = float(line)
        except ValueError:
            raise BadTrack(
                f"{path}, line {number}: {line.strip()[:40]!r} is not a number"
            ) from None
        if value != 0 and not low <= value <= high:
            raise BadTrack(
                f"{path}, line {number}: {value} is out of range, expected 0 or {low} to {high}"
                " semitones"
            )
        semitones.append(value)
    return np.asarray(semitones, np.float64)


def semitones_hz(semitones: Float64[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """F0 in Hz, 0 where `read_semitones` gave 0."""
    return np.where(semitones > 0, midi_hz(semitones), 0.0).astype(np.float32)


def midi_hz(midi: float | Float[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """Frequency of MIDI numbers, A4 = 69 = 440 Hz."""
    return np.asarray(440.0 * 2.0 ** ((np.asarray(midi, np.float64) - 69) / 12))
