"""`quartets`: excerpts of string quartets by Haydn and Mozart (music21), rendered with exact
stems.

The instruments share no sample of the sound font with those of the chorales. They are drawn for
every excerpt, but in the view "ensemble", where each part has its own.
"""

import dataclasses
import functools
import itertools
import pathlib
import statistics
import zlib

import numpy as np

from majl_jax.datasets.grid import Grid
from majl_jax.datasets.splits import SPLITS_FOLDER, read_split
from majl_jax.datasets.synthesis import performance, rendering
from majl_jax.datasets.synthesis.performance import ScoreNote, excerpt
from majl_jax.datasets.track import BadTrack, Recording, Track, unknown_pitch, unknown_stems

STEMS = ("violin_1", "violin_2", "viola", "cello")
VOICES = 0  # voice i is the pitch of stem i
ENSEMBLE = {"flute": 75, "trumpet": 56, "guitar": 27, "saxophone": 67}  # stem to program
VIEWS = ("full", "unlabelled", "ensemble")
SPLIT_LIST = SPLITS_FOLDER / "quartets.txt"
EXCERPT_S = 58.0  # with the silence before it and the last release, at most a minute
TEMPO_SPREAD = 0.1  # tempos are drawn within this share of the listed one
# General MIDI programs that have their pitch within 60 ms and hold it, over the range of the part:
# trumpet, clean guitar, tremolo strings, pan flute, ocarina, synthesizer leads, brass, saxophones.
PROGRAMS = (
    (27, 44, 56, 75, 79, 80, 82, 85),
    (27, 44, 56, 75, 79, 80, 82, 85),
    (27, 44, 61, 62, 67, 80, 81),
    (27, 44, 61, 62, 67, 80, 81),
)


def tracks(
    source: str | None = None, *, grid: Grid, seed: int = 0, view: str = "full"
) -> list[Track]:
    """The excerpts of one view: "full", "ensemble", or "unlabelled", the mixtures of the train
    split alone.

    All excerpts of a movement are one group; all movements of a quartet are in one split.
    """
    if source is not None:
        raise ValueError(f"quartets come with music21; leave out --source (got {source!r})")
    if view not in VIEWS:
        raise ValueError(f"view must be one of {', '.join(VIEWS)}, got {view!r}")
    return [
        Track(
            id=f"{movement.replace('/', '_')}_{first}",
            split=split,
            group=movement,
            seconds=60.0,
            load=functools.partial(
                load,
                movement,
                float(first),
                quarters_per_minute=float(tempo),
                grid=grid,
                seed=seed,
                view=view,
            ),
        )
        for movement, first, tempo, split in read_split(SPLIT_LIST)
        if view != "unlabelled" or split == "train"
    ]


def load(
    movement: str,
    first: float,
    *,
    quarters_per_minute: float,
    grid: Grid,
    seed: int,
    view: str = "full",
) -> Recording:
    """Performs and renders an excerpt of a movement, at most a minute.

    The same seed gives the same samples.

    Args:
        movement: its place in music21's corpus.
        first: quarter note that the excerpt begins with.
        quarters_per_minute: tempo about which one is drawn.
        grid: of audio and labels.
        seed: of what is drawn.
        view: "full", "unlabelled" (the mixture alone) or "ensemble" (an instrument per part).
    """
    rng = np.random.default_rng([seed, zlib.crc32(f"{movement} {first}".encode())])
    tempo = quarters_per_minute * rng.uniform(1 - TEMPO_SPREAD, 1 + TEMPO_SPREAD)
    score = excerpt(read_score(movement), first, first + EXCERPT_S * tempo / 60)
    if not any(score):
        raise BadTrack(f"{movement} has no note from quarter {first} on; check {SPLIT_LIST}")
    alone = view == "ensemble"
    programs = tuple((program,) for program in ENSEMBLE.values()) if alone else PROGRAMS
    played = performance.perform(score, rng, quarters_per_minute=(tempo, tempo), programs=programs)
    recording = rendering.render_voices(played, grid=grid)
    recording = dataclasses.replace(recording, stems=tuple(ENSEMBLE) if alone else STEMS)
    return unknown_pitch(unknown_stems(recording)) if view == "unlabelled" else recording


def read_score(movement: str) -> list[list[ScoreNote]]:
    """The four parts of a movement, ties joined; notes of a part that start together are a
    chord.
    """
    from music21 import converter, stream

    # No pickle cache: a killed process may leave half of one behind.
    score = converter.parse(score_path(movement), forceSource=True, storePickle=False)
    assert isinstance(score, stream.Score)
    if len(score.parts) != len(STEMS):
        raise BadTrack(f"{movement} has {len(score.parts)} parts, expected {len(STEMS)}")
    align_measures(list(score.parts))
    return [[*map(_chord, _starting_together(part))] for part in score.parts]


def align_measures(parts: list) -> None:
    """Moves the measures of music21 parts so that each starts at one time in all of them.

    Where an encoding has a measure too long or too short in one part, the others decide.
    """
    measures = [list(part.getElementsByClass("Measure")) for part in parts]
    counts = [len(row) for row in measures]
    if len(set(counts)) > 1:
        raise BadTrack(f"the parts have {counts} measures, expected the same number in all")
    starts = np.asarray([[float(one.offset) for one in row] for row in measures])
    lengths = [statistics.mode(column) for column in np.diff(starts).T.tolist()]
    for start, *simultaneous in zip(np.cumsum([0.0, *lengths]), *measures, strict=True):
        for part, measure in zip(parts, simultaneous, strict=True):
            part.setElementOffset(measure, float(start))


def score_path(movement: str) -> pathlib.Path:
    """The MusicXML file of a movement; music21's own search can pick another encoding."""
    from music21.common.pathTools import getCorpusFilePath

    path = pathlib.Path(getCorpusFilePath()) / f"{movement}.mxl"
    if not path.is_file():
        raise BadTrack(f"{path} is missing; expected music21 10.5 with its corpus")
    return path


def _starting_together(part) -> list[list]:
    notes = [note for note in part.flatten().stripTies().notes if note.quarterLength > 0]
    notes.sort(key=lambda note: float(note.offset))
    return [list(group) for _, group in itertools.groupby(notes, lambda one: float(one.offset))]


def _chord(notes: list) -> ScoreNote:
    start = float(notes[0].offset)
    midi = [int(pitch.midi) for note in notes for pitch in note.pitches]
    return ScoreNote(start, start + max(float(note.quarterLength) for note in notes), midi)
