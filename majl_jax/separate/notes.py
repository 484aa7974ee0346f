"""Frames of several pitches to notes, and notes to a MIDI file."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

SHORTEST_NOTE_S = 0.06
TOLERANCE_SEMITONES = 0.5


class Note(NamedTuple):
    """A pitch that lasts from its first frame up to, not including, its end frame."""

    first: int
    end: int
    midi: float
    """Mean over its frames."""
    strength: float
    """Mean salience."""


def notes(
    pitches: Sequence[np.ndarray],
    strengths: Sequence[np.ndarray],
    *,
    shortest_frames: int = 5,
    tolerance_semitones: float = TOLERANCE_SEMITONES,
) -> list[Note]:
    """Joins pitches (Hz per frame) of successive frames to notes, sorted by time and pitch.

    A pitch continues the note whose mean so far is nearest, if it is within the tolerance; nearest
    pairs first. A note without a pitch in the next frame ends; shorter ones are dropped.
    """
    ringing: list[_Open] = []
    finished: list[_Open] = []
    for frame, (frame_hz, frame_strength) in enumerate(zip(pitches, strengths, strict=True)):
        midi = 69 + 12 * np.log2(np.asarray(frame_hz, np.float64) / 440.0)
        means = np.array([note.midi / note.frames for note in ringing])
        distances = np.abs(midi[:, None] - means[None])
        carried: dict[int, _Open] = {}
        for place in np.argsort(distances, axis=None, kind="stable"):
            pitch, number = divmod(int(place), len(ringing))
            if distances[pitch, number] > tolerance_semitones:
                break
            if pitch not in carried and ringing[number] not in carried.values():
                carried[pitch] = ringing[number]
        finished += [note for note in ringing if note not in carried.values()]
        ringing = [carried.get(pitch) or _Open(frame) for pitch in range(len(midi))]
        for note, one_midi, strength in zip(ringing, midi, frame_strength, strict=True):
            note.add(float(one_midi), float(strength))
    complete = [note.done() for note in finished + ringing]
    return sorted(note for note in complete if note.end - note.first >= shortest_frames)


# ---- notes --------------------------------------------------------------------------------------


class _Open:
    """A note that may go on."""

    def __init__(self, first: int) -> None:
        self.first, self.frames = first, 0
        self.midi = self.strength = 0.0  # sums

    def add(self, midi: float, strength: float) -> None:
        self.frames, self.midi = self.frames + 1, self.midi + midi
        self.strength += strength

    def done(self) -> Note:
        n = self.frames
        return Note(self.first, self.first + n, self.midi / n, self.strength / n)


def write_midi(path: pathlib.Path, found: Sequence[Note], *, frame_s: float) -> None:
    """Writes notes as MIDI, at the nearest semitone, velocity 127 times the mean salience.

    Notes that would sound on the same key at once become one.
    """
    import pretty_midi

    song = pretty_midi.PrettyMIDI()
    instrument = pretty_midi.Instrument(program=0, name="pitches")
    last: dict[int, Any] = {}
    for note in sorted(found):
        key = int(np.clip(np.floor(note.midi + 0.5), 0, 127))
        velocity = int(np.clip(round(127 * note.strength), 1, 127))
        start_s, end_s = note.first * frame_s, note.end * frame_s
        before = last.get(key)
        if before is not None and start_s < before.end:
            before.end = max(before.end, end_s)
            before.velocity = max(before.velocity, velocity)
            continue
        last[key] = pretty_midi.Note(velocity, key, start_s, end_s)
        instrument.notes.append(last[key])
    song.instruments.append(instrument)
    song.write(str(path))
