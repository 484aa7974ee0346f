"""`chorales`: 365 four-part chorales by Bach (music21), rendered with exact stems and f0."""

import functools
import pathlib
import zlib

import numpy as np

from majl_jax.datasets.grid import Grid
from majl_jax.datasets.splits import SPLITS_FOLDER, read_split
from majl_jax.datasets.synthesis import performance
from majl_jax.datasets.synthesis.rendering import STEMS, render_voices
from majl_jax.datasets.track import (
    BadTrack,
    Recording,
    Track,
    unknown_pitch,
    unknown_stems,
)

SPLIT_LIST = SPLITS_FOLDER / "chorales.txt"
MEAN_S = 49.0  # mean length of a performance


def tracks(
    source: str | None = None, *, grid: Grid, seed: int = 0, view: str = "full"
) -> list[Track]:
    """The chorales of one view: "full", "stems" (no pitch labels) or "pitch" (mixture only).

    Each training piece belongs to one view; valid and test pieces exist in the full view alone.
    """
    if source is not None:
        raise ValueError(f"chorales come with music21; leave out --source (got {source!r})")
    if view not in ("full", "stems", "pitch"):
        raise ValueError(f"view must be 'full', 'stems' or 'pitch', got {view!r}")
    return [
        Track(
            id=piece,
            split=split,
            seconds=MEAN_S,
            load=functools.partial(load, piece, grid=grid, seed=seed, view=view),
        )
        for piece, split, its_view in read_split(SPLIT_LIST)
        if its_view == view
    ]


def load(piece: str, *, grid: Grid, seed: int, view: str = "full") -> Recording:
    """Performs and renders one chorale; the same seed gives the same samples."""
    rng = np.random.default_rng([seed, zlib.crc32(piece.encode())])
    played = performance.perform(read_score(piece), rng)
    recording = render_voices(played, grid=grid)
    if view == "stems":
        return unknown_pitch(recording)
    if view == "pitch":
        return unknown_stems(recording)
    return recording


def read_score(piece: str) -> list[list[performance.ScoreNote]]:
    """The four parts of a chorale from music21's corpus, ties joined, grace notes left out."""
    from music21 import converter, expressions, stream

    # No pickle cache: a killed process may leave half of one behind.
    score = converter.parse(score_path(piece), forceSource=True, storePickle=False)
    assert isinstance(score, stream.Score)
    parts = []
    for part in score.parts:
        notes = []
        for note in part.flatten().stripTies().notes:
            if note.quarterLength > 0:
                start = float(note.offset)
                fermata = any(isinstance(mark, expressions.Fermata) for mark in note.expressions)
                midi = [int(pitch.midi) for pitch in note.pitches]
                end = start + float(note.quarterLength)
                notes.append(performance.ScoreNote(start, end, midi, fermata))
        parts.append(notes)
    if len(parts) != len(STEMS) or not all(parts):
        raise BadTrack(f"{piece} has {len(parts)} parts, expected four with notes in each")
    return parts


def score_path(piece: str) -> pathlib.Path:
    """The MusicXML file of a chorale; music21's own search can pick another encoding."""
    from music21.common.pathTools import getCorpusFilePath

    folder = pathlib.Path(getCorpusFilePath()) / "bach"
    for suffix in (".mxl", ".xml"):
        if (path := folder / f"{piece}{suffix}").is_file():
            return path
    raise BadTrack(f"{folder} has no {piece}.mxl; expected music21 10.5 with its corpus")
