"""A score of four parts to a performance: tempo, breaths, rests, instruments, dynamics."""

import dataclasses
from collections.abc import Sequence

import numpy as np

# General MIDI programs whose pitch in TimGM6mb is right over the range of the part (tests check
# it).
VOICES = (52, 53, 54)  # choir aahs, voice oohs, synth voice
KEYS_AND_STRINGS = (0, 4, 6, 24, 26)  # piano, electric piano, harpsichord, two guitars
PROGRAMS = (
    VOICES,
    (40, 41, 66, 68, 69, 71, 73, 60, 20, *KEYS_AND_STRINGS),
    (41, 42, 57, 60, 66, 69, 70, 71, 20, *KEYS_AND_STRINGS),
    (42, 57, 58, 66, 70, 20, 33, 35, *KEYS_AND_STRINGS),
)
GAP_S = 0.02  # between two notes of a part
SHORTEST_S = 0.04


@dataclasses.dataclass(frozen=True)
class ScoreNote:
    """A note of a score; times in quarter notes, `midi` holds the pitches of a chord."""

    start: float
    end: float
    midi: Sequence[int]
    fermata: bool = False


@dataclasses.dataclass(frozen=True)
class Part:
    """One part as played; `times_s` has the columns onset and offset."""

    times_s: np.ndarray
    pitches: np.ndarray
    velocities: np.ndarray
    program: int
    gain_db: float


@dataclasses.dataclass(frozen=True)
class Performance:
    """All parts as played, tuned `tuning_cents` above A = 440 Hz."""

    parts: tuple[Part, ...]
    tuning_cents: float


@dataclasses.dataclass(frozen=True)
class Clock:
    """Score time to seconds, with a hold and a breath at each phrase end."""

    second_per_quarter: float
    start_s: float
    phrase_ends: np.ndarray  # quarter notes, rising
    holds_s: np.ndarray
    breaths_s: np.ndarray

    def onset_s(self, quarter: float) -> float:
        """When a note that starts at `quarter` begins: after the breaths up to there."""
        past = self.phrase_ends <= quarter
        pauses_s = float(np.sum((self.holds_s + self.breaths_s)[past]))
        return self.start_s + quarter * self.second_per_quarter + pauses_s

    def offset_s(self, quarter: float) -> float:
        """When a note that stops at `quarter` ends: before the breath at that place."""
        past = self.phrase_ends < quarter
        pauses_s = float(np.sum((self.holds_s + self.breaths_s)[past]))
        held_s = float(np.sum(self.holds_s[self.phrase_ends == quarter]))
        return self.start_s + quarter * self.second_per_quarter + pauses_s + held_s


def perform(
    score: Sequence[Sequence[ScoreNote]],
    rng: np.random.Generator,
    *,
    quarters_per_minute: tuple[float, float] = (60, 96),
    programs: Sequence[Sequence[int]] = PROGRAMS,
) -> Performance:
    """Draws a performance of a score in four parts; the first part is the loudest.

    The tempo is drawn from the range `quarters_per_minute`, the instrument of each part from its
    row of `programs`; the defaults are those of the chorales, whose first part is the voice.
    Phrases end at the soprano's fermatas, with a breath there. In some phrases the soprano, or one
    of the lower parts, is silent, so that unvoiced frames occur beside music.
    """
    second_per_quarter = 60 / rng.uniform(*quarters_per_minute)
    phrase_ends = np.unique([note.end for note in score[0] if note.fermata])
    phrases = len(phrase_ends)
    clock = Clock(
        second_per_quarter=second_per_quarter,
        start_s=rng.uniform(0.2, 0.6),
        phrase_ends=phrase_ends,
        holds_s=rng.uniform(0.0, 0.5, phrases) * second_per_quarter,
        breaths_s=rng.uniform(0.3, 0.9, phrases),
    )
    tuning_cents = rng.uniform(-25, 25)
    silent = draw_rests(phrases, len(score), rng)
    parts = tuple(
        play_part(notes, part, clock, silent[:, part], rng, programs[part])
        for part, notes in enumerate(score)
    )
    return Performance(parts=parts, tuning_cents=tuning_cents)


def draw_rests(phrases: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """Which part is silent in which phrase, [phrase + 1, part]: at most one at a time."""
    silent = np.zeros((phrases + 1, parts), bool)
    for phrase in range(phrases):
        who = rng.choice(parts + 1, p=[0.15, *[0.15 / (parts - 1)] * (parts - 1), 0.7])
        if who < parts:
            silent[phrase, who] = True
    sings = rng.integers(phrases) if phrases else 0
    silent[sings] = False  # every part plays somewhere
    return silent


def play_part(
    notes: Sequence[ScoreNote],
    part: int,
    clock: Clock,
    silent: np.ndarray,
    rng: np.random.Generator,
    programs: Sequence[int],
) -> Part:
    """One part as played, strictly one note at a time.

    Args:
        notes: of its score.
        part: its number; 0 is the loudest, and the one whose breaths the others may hold over.
        clock: from score time to seconds.
        silent: [phrase], whether it rests.
        rng: draws instrument, loudness and timing.
        programs: of General MIDI, from which one is drawn.
    """
    program = int(rng.choice(programs))
    gain_db = 0.0 if part == 0 else rng.uniform(-8, -1)
    loudness = rng.uniform(70, 105)
    lag_s = rng.normal(0, 0.006)
    sustains = rng.random(len(clock.phrase_ends)) < (0.0 if part == 0 else 0.5)
    times_s, pitches, velocities = [], [], []
    for note in sorted(notes, key=lambda note: (note.start, note.end)):
        onset_s = (
            clock.onset_s(note.start) + lag_s + float(np.clip(rng.normal(0, 0.008), -0.02, 0.02))
        )
        offset_s = clock.offset_s(note.end) + lag_s
        velocity = int(np.clip(rng.normal(loudness, 5), 40, 127))
        breath = np.searchsorted(clock.phrase_ends, note.end)
        if breath < len(sustains) and clock.phrase_ends[breath] == note.end and sustains[breath]:
            offset_s += clock.breaths_s[breath]  # holds on while the voice breathes
        if not silent[np.searchsorted(clock.phrase_ends, note.start, side="right")]:
            times_s.append((max(onset_s, 0.0), offset_s))
            # Of a chord, the outer note: one pitch per frame.
            pitches.append(min(note.midi) if part == 3 else max(note.midi))
            velocities.append(velocity)
    keep = []
    for i, (onset_s, offset_s) in enumerate(times_s):
        following_s = times_s[i + 1][0] if i + 1 < len(times_s) else np.inf
        times_s[i] = (onset_s, min(offset_s, following_s) - GAP_S)
        keep.append(times_s[i][1] - onset_s >= SHORTEST_S)
    chosen = np.flatnonzero(keep)
    return Part(
        times_s=np.asarray(times_s, np.float32).reshape(-1, 2)[chosen],
        pitches=np.asarray(pitches, np.int64)[chosen],
        velocities=np.asarray(velocities, np.int64)[chosen],
        program=program,
        gain_db=gain_db,
    )


def excerpt(score: list[list[ScoreNote]], first: float, last: float) -> list[list[ScoreNote]]:
    """The notes that start from quarter `first` to before `last`, with times relative to
    `first`.
    """
    return [
        [
            dataclasses.replace(note, start=note.start - first, end=min(note.end, last) - first)
            for note in part
            if first <= note.start < last
        ]
        for part in score
    ]
