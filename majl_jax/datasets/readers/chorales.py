"""`chorales`: 365 four-part chorales by Bach (music21), rendered with exact stems and f0."""

import functools
import pathlib
import zlib

import numpy as np

from majl_jax.datasets import performance, rendering
from majl_jax.datasets.splits import SPLITS_FOLDER, read_split
from majl_jax.datasets.track import (
    BadTrack,
    Recording,
    Track,
    frames_from_notes,
    unknown_pitch,
    unknown_stems,
)

STEMS = ("soprano", "alto", "tenor", "bass")
SPLIT_LIST = SPLITS_FOLDER / "chorales.txt"
ATTACK_S = 0.06  # before its pitch is clear a note may be heard for so long
RELEASE_S = 0.42  # release and reverberation fall by 20 to 30 dB in this time
TAIL_S = 1.0
MEAN_S = 49.0  # mean length of a performance
PEAK = 0.7  # of the mixture or of the loudest stem, whichever is larger


def tracks(
    source: str | None = None,
    *,
    sample_rate_hz: int,
    hop_samples: int,
    channels: int = 1,
    seed: int = 0,
    view: str = "full",
) -> list[Track]:
    """The chorales of one view: "full", "stems" (no pitch labels) or "pitch" (mixture only).

    Each training piece belongs to one view; valid and test pieces exist in the full view alone.
    """
    del channels
    if source is not None:
        raise ValueError(f"chorales come with music21; leave out --source (got {source!r})")
    if view not in ("full", "stems", "pitch"):
        raise ValueError(f"view must be 'full', 'stems' or 'pitch', got {view!r}")
    return [
        Track(
            id=piece,
            split=split,
            seconds=MEAN_S,
            load=functools.partial(
                load,
                piece,
                sample_rate_hz=sample_rate_hz,
                hop_samples=hop_samples,
                seed=seed,
                view=view,
            ),
        )
        for piece, split, its_view in read_split(SPLIT_LIST)
        if its_view == view
    ]


def load(
    piece: str, *, sample_rate_hz: int, hop_samples: int, seed: int, view: str = "full"
) -> Recording:
    """Performs and renders one chorale; the same seed gives the same samples."""
    rng = np.random.default_rng([seed, zlib.crc32(piece.encode())])
    played = performance.perform(read_score(piece), rng)
    recording = render_voices(played, sample_rate_hz=sample_rate_hz, hop_samples=hop_samples)
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


def render_voices(
    played: performance.Performance, *, sample_rate_hz: int, hop_samples: int
) -> Recording:
    """Audio, frame labels and notes of a performance, all stems scaled by one gain."""
    seconds = max(part.times_s[-1, 1] for part in played.parts if len(part.times_s)) + TAIL_S
    frames = int(np.ceil(seconds * sample_rate_hz / hop_samples))
    samples = frames * hop_samples
    audio = np.zeros((samples, len(STEMS), 1), np.float32)
    f0_hz = np.zeros((frames, len(STEMS)), np.float32)
    has_pitch = np.ones((frames, len(STEMS)), bool)
    notes = []
    for stem, part in enumerate(played.parts):
        note_hz = 440.0 * 2.0 ** ((part.pitches - 69 + played.tuning_cents / 100) / 12)
        notes.append(np.column_stack([part.times_s, note_hz]).astype(np.float32))
        f0_hz[:, stem], has_pitch[:, stem] = frames_from_notes(
            notes[-1],
            frames=frames,
            hop_samples=hop_samples,
            sample_rate_hz=sample_rate_hz,
            attack_s=ATTACK_S,
            release_s=RELEASE_S,
        )
        midi = rendering.midi_bytes(
            part.times_s,
            part.pitches,
            part.velocities,
            program=part.program,
            tuning_cents=played.tuning_cents,
            duration_s=samples / sample_rate_hz,
        )
        sound = rendering.render(midi, sample_rate_hz=sample_rate_hz, samples=samples)
        audio[:, stem, 0] = level(sound, f0_hz[:, stem] > 0, part.gain_db, hop_samples)
    peak = max(np.abs(audio).max(), np.abs(audio.sum(axis=1)).max())
    return Recording(
        audio=audio * np.float32(PEAK / peak),
        stems=STEMS,
        has_stems=np.ones(len(STEMS), bool),
        f0_hz=f0_hz,
        has_pitch=has_pitch,
        sample_rate_hz=sample_rate_hz,
        hop_samples=hop_samples,
        notes=tuple(notes),
    )


def level(sound: np.ndarray, voiced: np.ndarray, gain_db: float, hop_samples: int) -> np.ndarray:
    """Scales a part to `gain_db` re 1 rms over its voiced frames, as programs differ by 12 dB."""
    frames = sound.reshape(-1, hop_samples)[voiced]
    if not frames.size or not np.any(frames):
        return sound
    rms = np.sqrt(np.mean(np.square(frames, dtype=np.float64)))
    return sound * np.float32(10 ** (gain_db / 20) / rms)
