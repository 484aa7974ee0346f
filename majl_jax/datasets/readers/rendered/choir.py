"""`choir`: excerpts of masses by Palestrina in four parts (music21), rendered as female and male
voices.

The voices share no sample of the sound font with those of the chorales.
"""

import dataclasses
import functools
import pathlib
import zlib

import numpy as np

from majl_jax.datasets.grid import Grid
from majl_jax.datasets.splits import SPLITS_FOLDER, read_split
from majl_jax.datasets.synthesis import performance, rendering
from majl_jax.datasets.synthesis.performance import ScoreNote
from majl_jax.datasets.track import BadTrack, Recording, Track

STEMS = ("female", "male")  # soprano and alto, tenor and bass
PARTS = 4
VOICES = PARTS  # the pitches of all parts
SPLIT_LIST = SPLITS_FOLDER / "choir.txt"
EXCERPT_S = 28.0  # with the silence before it and the last release, at most 30 s
TEMPO_RANGE = (112.0, 148.0)  # quarter notes per minute; the beat is a half note
GAIN_RANGE_DB = (-3.0, 3.0)  # of each part; in a choir none is the loudest
# General MIDI programs with a solo voice that have their pitch at once: solo vox (called lead 6),
# space voice (pad 4), brightness (effect 5).
PROGRAMS = (85, 91, 100)


def tracks(source: str | None = None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The excerpts, one of each mass."""
    if source is not None:
        raise ValueError(f"choir comes with music21; leave out --source (got {source!r})")
    return [
        Track(
            id=movement,
            split=split,
            group=movement,
            seconds=EXCERPT_S + 1.5,
            load=functools.partial(
                load,
                movement,
                float(first),
                grid=grid,
                seed=seed,
            ),
        )
        for movement, first, split in read_split(SPLIT_LIST)
    ]


def load(movement: str, first: float, *, grid: Grid, seed: int) -> Recording:
    """Performs and renders a movement from quarter note `first` on; the same seed gives the same
    samples.
    """
    rng = np.random.default_rng([seed, zlib.crc32(f"{movement} {first}".encode())])
    tempo = rng.uniform(*TEMPO_RANGE)
    score = performance.excerpt(read_score(movement), first, first + EXCERPT_S * tempo / 60)
    if not all(score):
        raise BadTrack(f"{movement}: a part has no note from quarter {first} on; see {SPLIT_LIST}")
    played = performance.perform(
        score, rng, quarters_per_minute=(tempo, tempo), programs=PARTS * (PROGRAMS,)
    )
    sung = tuple(
        dataclasses.replace(part, gain_db=rng.uniform(*GAIN_RANGE_DB)) for part in played.parts
    )
    recording = rendering.render_voices(
        dataclasses.replace(played, parts=sung),
        grid=grid,
    )
    return female_and_male(recording)


def female_and_male(recording: Recording) -> Recording:
    """Four parts, highest first, as two stems; the pitches of all parts are those of the mixture.

    A frame is labelled where every part has a label.
    """
    audio = recording.audio
    audio = np.stack([audio[:, :2].sum(axis=1), audio[:, 2:].sum(axis=1)], axis=1)
    labelled = recording.has_pitch.all(axis=1, keepdims=True)
    return dataclasses.replace(
        recording,
        audio=audio / max(1.0, float(np.abs(audio).max())),
        stems=STEMS,
        has_stems=np.ones(len(STEMS), bool),
        f0_hz=np.where(labelled, recording.f0_hz, np.float32(0)),
        has_pitch=np.broadcast_to(labelled, recording.has_pitch.shape).copy(),
        voices=VOICES,
    )


def read_score(movement: str) -> list[list[ScoreNote]]:
    """The four parts of a movement from music21's corpus, soprano first, ties joined."""
    from music21 import converter, stream
    from music21.common.pathTools import getCorpusFilePath

    path = pathlib.Path(getCorpusFilePath()) / "palestrina" / f"{movement}.krn"
    if not path.is_file():
        raise BadTrack(f"{path} is missing; expected music21 10.5 with its corpus")
    # No pickle cache: a killed process may leave half of one behind.
    score = converter.parse(path, forceSource=True, storePickle=False)
    assert isinstance(score, stream.Score)
    if len(score.parts) != PARTS:
        raise BadTrack(f"{movement} has {len(score.parts)} parts, expected {PARTS}")
    parts = []
    for part in score.parts:
        notes = []
        for note in part.flatten().stripTies().notes:
            start, length = float(note.offset), float(note.quarterLength)
            if length > 0:
                midi = [int(pitch.midi) for pitch in note.pitches]
                notes.append(ScoreNote(start, start + length, midi))
        parts.append(notes)
    return parts
