"""One song from file to its pitches: a table of frames, notes as MIDI, and a picture."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from majl_jax.audio import files
from majl_jax.plotting.salience import Picture

if TYPE_CHECKING:  # JAX is loaded only when there is something to do
    from majl_jax.inference.multi_pitch import MultiPitchModel
    from majl_jax.song import Options

NAMES = ("pitches.csv", "pitches.mid", "picture.png")
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


@dataclasses.dataclass(frozen=True)
class Transcribed:
    """What came out of one file."""

    paths: tuple[pathlib.Path, ...]
    frames: int
    pitched_frames: int
    notes: int


def transcribe_file(
    path: files.Path,
    folder: pathlib.Path,
    model: "MultiPitchModel",
    variables: Any,
    options: "Options | None" = None,
    *,
    progress: Callable[[float], object] = lambda seconds: None,
) -> Transcribed:
    """Transcribes the mean of a file's channels into `folder`, where outputs appear once complete.

    pitches.csv: a line per frame, its time in seconds and its pitches in Hz, separated by tabs (what
    mir_eval.io.load_ragged_time_series reads); pitches.mid: notes; picture.png: salience and
    pitches. Silence has no pitch. progress: called with the seconds that were transcribed.
    """
    from majl_jax.inference import decoding, multi_pitch
    from majl_jax.song import Options

    options = options or Options(threshold=model.threshold)
    paths = tuple(folder / name for name in NAMES[: 3 if options.picture else 2])
    there = [str(p) for p in paths if p.exists()]
    if there and not options.overwrite:
        raise FileExistsError(
            f"{', '.join(there)} exists already; choose another --output, or pass --overwrite"
        )
    blocks = files.stream(
        path,
        sample_rate_hz=model.sample_rate_hz,
        channels=1,
        allow_truncated=options.allow_truncated,
    )
    audio = multi_pitch.peak_normalized(np.concatenate([block[:, 0] for block in blocks]))
    frame_s = model.hop_samples / model.sample_rate_hz
    picture = Picture(frame_s=frame_s)
    pitches, strengths = [], []
    for salience in _stretches(model, variables, audio, options):
        if not np.isfinite(salience).all():
            raise ValueError(
                "the model returned a salience that is not finite: check the checkpoint"
            )
        picked = decoding.pick_pitches(salience, threshold=options.threshold)
        pitches += decoding.pitches_hz(picked, model.bin_hz)
        strengths += [row[row > 0] for row in picked]
        picture.push(salience, picked)
        progress(len(salience) * frame_s)
    found = notes(pitches, strengths, shortest_frames=max(1, round(SHORTEST_NOTE_S / frame_s)))
    with _drafts(paths) as draft:
        times_s = multi_pitch.frame_times_s(model, len(pitches))
        (draft / "pitches.csv").write_text(table(times_s, pitches), encoding="utf-8")
        write_midi(draft / "pitches.mid", found, frame_s=frame_s)
        if options.picture:
            picture.draw(draft / "picture.png", model.bin_hz, title=pathlib.Path(path).name)
    return Transcribed(paths, len(pitches), sum(bool(len(p)) for p in pitches), len(found))


@contextlib.contextmanager
def _drafts(paths: Sequence[pathlib.Path]) -> Iterator[pathlib.Path]:
    """A folder for drafts of the files, which appear under their names if nothing fails."""
    folder = paths[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".part") as drafts:
            yield pathlib.Path(drafts)
            for path in paths:
                os.replace(pathlib.Path(drafts) / path.name, path)
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # succeeds only where nothing was written


def _stretches(
    model: "MultiPitchModel", variables: Any, audio: np.ndarray, options: "Options"
) -> Iterator[np.ndarray]:
    from majl_jax.inference import multi_pitch

    if audio.any():
        yield from multi_pitch.stream(
            model, variables, audio, batch_size=options.batch_size, devices=options.devices
        )
        return
    frames = model.frame_count(len(audio))
    for first in range(0, frames, model.window_frames):
        rows = min(model.window_frames, frames - first)
        yield np.zeros((rows, len(model.bin_hz)), np.float32)


def table(times_s: Float[np.ndarray, "frame"], pitches: Sequence[np.ndarray]) -> str:
    """Lines of time (s) and pitches (Hz), separated by tabs."""
    lines = (
        "\t".join([f"{time_s:.6f}", *(f"{hz:.3f}" for hz in frame_hz)])
        for time_s, frame_hz in zip(times_s, pitches, strict=True)
    )
    return "".join(f"{line}\n" for line in lines)


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
