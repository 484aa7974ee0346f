"""Frames of several pitches to notes, and notes to a MIDI file."""

import itertools
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

SHORTEST_NOTE_S = 0.06
# From a frame to the next: a vibrato of 60 cents moves by 100 in 46 ms. More is a new note.
FURTHEST_SEMITONES = 1.5
# What a note costs, see `cut`. Semitones in a row are told apart from 150 ms each on; a vibrato of
# 60 cents at 4.5 Hz or faster stays one note.
NOTE_PRICE = 0.044  # semitone^2 s
BEND_SEMITONES, BEND_STEPS = 2.0, 8192  # the range of a pitch bend that MIDI players start with
CHANNELS = 15  # of MIDI's 16 all but that of the drums


class Note(NamedTuple):
    """A pitch that lasts from its first frame up to, not including, its end frame."""

    first: int
    end: int
    midi: float
    """Mean over its frames."""
    strength: float
    """Mean salience."""
    curve: tuple[float, ...] = ()
    """The pitch of each frame."""

    def seconds(self, frame_s: float) -> tuple[float, float]:
        """Where it begins and ends: frame k reaches from k - 1/2 to k + 1/2 frames."""
        return max(self.first - 0.5, 0.0) * frame_s, (self.end - 0.5) * frame_s


def notes(
    pitches: Sequence[np.ndarray],
    strengths: Sequence[np.ndarray],
    *,
    frame_s: float,
    shortest_s: float = SHORTEST_NOTE_S,
) -> list[Note]:
    """Joins pitches (Hz per frame) of successive frames to notes, sorted by time and pitch.

    Pitches that follow each other within 1.5 semitones are a line, nearest pairs first; `cut` makes
    notes of it. Notes of less than `shortest_s` are dropped.
    """
    shortest_frames = math.ceil(shortest_s / frame_s - 1e-6)
    found = []
    for line in _lines(pitches, strengths):
        curve = np.array(line.midi)
        bounds = cut(curve, price=NOTE_PRICE / frame_s)
        for first, end in itertools.pairwise(bounds):
            if end - first >= shortest_frames:
                part = slice(first, end)
                found.append(
                    Note(
                        line.first + first,
                        line.first + end,
                        float(np.mean(curve[part])),
                        float(np.mean(line.strengths[part])),
                        tuple(line.midi[part]),
                    )
                )
    return sorted(found)


# ---- notes --------------------------------------------------------------------------------------


class _Line:
    """A pitch that goes on from its first frame."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.midi: list[float] = []
        self.strengths: list[float] = []


def _lines(pitches: Sequence[np.ndarray], strengths: Sequence[np.ndarray]) -> list[_Line]:
    """Every pitch in the line that it continues, or in one of its own."""
    ringing: list[_Line] = []
    everything: list[_Line] = []
    for frame, (frame_hz, frame_strength) in enumerate(zip(pitches, strengths, strict=True)):
        midi = 69 + 12 * np.log2(np.asarray(frame_hz, np.float64) / 440.0)
        last = np.array([line.midi[-1] for line in ringing])
        distances = np.abs(midi[:, None] - last[None])
        carried: dict[int, _Line] = {}
        for place in np.argsort(distances, axis=None, kind="stable"):
            pitch, number = divmod(int(place), len(ringing))
            if distances[pitch, number] > FURTHEST_SEMITONES:
                break
            if pitch not in carried and ringing[number] not in carried.values():
                carried[pitch] = ringing[number]
        ringing = [carried.get(pitch) or _Line(frame) for pitch in range(len(midi))]
        everything += [line for line in ringing if line.first == frame]
        for line, one_midi, strength in zip(ringing, midi, frame_strength, strict=True):
            line.midi.append(float(one_midi))
            line.strengths.append(float(strength))
    return everything


def cut(curve: Float[np.ndarray, "frame"], *, price: float) -> list[int]:
    """Where the notes of a line begin, and where the last one ends: min over all cuts of
    sum_notes (price + sum_k (p_k - mean p of the note)^2).

    The piecewise constant fit of least squares with a price per piece, exactly, by dynamic
    programming with pruning (PELT; Killick, Fearnhead and Eckley 2012, section 3). A vibrato swings
    around its note faster than leaving it would pay; a step pays after a few frames, at its place.

    Args:
        curve: in semitones.
        price: of a note, in semitones^2 times frames.
    """
    centred = curve - np.mean(curve)
    sums, squares = (np.concatenate([[0.0], np.cumsum(x)]) for x in (centred, centred**2))
    least, starts = np.zeros(len(curve) + 1), np.zeros(1, int)
    begins = np.zeros(len(curve) + 1, int)
    for end in range(1, len(curve) + 1):
        spread = (sums[end] - sums[starts]) ** 2 / (end - starts)
        costs = least[starts] + squares[end] - squares[starts] - spread
        best = int(np.argmin(costs))
        least[end], begins[end] = costs[best] + price, starts[best]
        starts = np.append(starts[costs < least[end]], end)
    bounds = [len(curve)]
    while bounds[-1]:
        bounds.append(int(begins[bounds[-1]]))
    return bounds[::-1]


# ---- MIDI ---------------------------------------------------------------------------------------


def write_midi(
    path: pathlib.Path, found: Sequence[Note], *, frame_s: float, pitch_bends: bool = False
) -> None:
    """Writes notes as MIDI, at the nearest semitone, velocity 127 times the mean salience.

    Notes that would sound on the same key at once become one. With `pitch_bends` they do not: notes
    that sound together are on channels of their own, which are bent to the pitch of every frame.
    """
    import pretty_midi

    song = pretty_midi.PrettyMIDI()
    made = _bent(found, frame_s) if pitch_bends else [_joined(found, frame_s)]
    for number, (played, bends) in enumerate(made, start=1):
        name = "pitches" if number == 1 else f"pitches {number}"
        instrument = pretty_midi.Instrument(program=0, name=name)
        instrument.notes, instrument.pitch_bends = played, bends
        song.instruments.append(instrument)
    song.write(str(path))


def _key(note: Note) -> int:
    return int(np.clip(np.floor(note.midi + 0.5), 0, 127))


def _played(note: Note, frame_s: float) -> Any:
    import pretty_midi

    velocity = int(np.clip(round(127 * note.strength), 1, 127))
    return pretty_midi.Note(velocity, _key(note), *note.seconds(frame_s))


def _joined(found: Sequence[Note], frame_s: float) -> tuple[list[Any], list[Any]]:
    """All notes on one channel, at most one at a time on a key."""
    last: dict[int, Any] = {}
    played = []
    for one in sorted(found):
        note = _played(one, frame_s)
        before = last.get(note.pitch)
        if before is not None and note.start < before.end:
            before.end = max(before.end, note.end)
            before.velocity = max(before.velocity, note.velocity)
            continue
        last[note.pitch] = note
        played.append(note)
    return played, []


def _bent(found: Sequence[Note], frame_s: float) -> list[tuple[list[Any], list[Any]]]:
    """Notes and pitch bends of each channel, on which one note sounds at a time; where more sound
    than there are channels, the last one has them besides its own, whose bends they share.
    """
    channels: list[tuple[list[Any], list[Any]]] = []
    ends: list[int] = []
    for one in sorted(found):
        free = [number for number, end in enumerate(ends) if end <= one.first]
        if not free and len(channels) < CHANNELS:
            channels.append(([], []))
            ends.append(0)
            free = [len(channels) - 1]
        played, bends = channels[free[0] if free else -1]
        played.append(_played(one, frame_s))
        if free:
            ends[free[0]] = one.end
            bends.extend(_bends(one, frame_s))
    return channels or [([], [])]


def _bends(note: Note, frame_s: float) -> Iterator[Any]:
    """A pitch bend where each frame that has another one begins."""
    import pretty_midi

    before = None
    for frame, midi in enumerate(note.curve, start=note.first):
        bend = round((midi - _key(note)) / BEND_SEMITONES * BEND_STEPS)
        bend = max(-BEND_STEPS, min(bend, BEND_STEPS - 1))
        if bend != before:
            before = bend
            yield pretty_midi.PitchBend(bend, max(frame - 0.5, 0.0) * frame_s)
