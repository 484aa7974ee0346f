"""One song from file to its pitches: a table of frames, notes as MIDI, and a picture."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from majl_jax import atomic
from majl_jax.audio import files
from majl_jax.datasets import track
from majl_jax.plotting.salience import Picture
from majl_jax.separate.notes import notes, write_midi
from majl_jax.separate.outputs import drafts, output_paths, refuse_existing

if TYPE_CHECKING:  # JAX is loaded only when there is something to do
    from majl_jax.inference.multi_pitch import MultiPitchModel
    from majl_jax.separate.outputs import Options


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

    pitches.csv: a line per pitch, its time in seconds, frequency in Hz and confidence (what
    pandas.read_csv reads); pitches.txt: a line per frame, its time and all of its pitches,
    separated by tabs (what mir_eval.io.load_ragged_time_series reads); pitches.mid: notes;
    picture.png: salience and pitches. Silence has no pitch.

    Args:
        path: an audio file.
        folder: gets the files.
        model: what is applied.
        variables: of the model.
        options: how; None: the defaults, and the threshold of the model.
        progress: called with the seconds that were transcribed.
    """
    from majl_jax.inference import decoding, multi_pitch, placement
    from majl_jax.separate.outputs import Options

    options = options or Options(threshold=model.threshold)
    paths = output_paths(folder, model, options)
    refuse_existing(paths, path, options)
    blocks = files.stream(
        path,
        sample_rate_hz=model.sample_rate_hz,
        channels=1,
        allow_truncated=options.allow_truncated,
    )
    audio = np.concatenate([block[:, 0] for block in blocks])
    frame_s = model.hop_samples / model.sample_rate_hz
    picture = Picture(frame_s=frame_s)
    pitches, strengths = [], []
    stretches = heard(model, variables, audio, options)
    for salience, picked in placement.stepwise(stretches, options.devices):
        pitches += decoding.pitches_hz(picked, model.bin_hz)
        strengths += [row[row > 0] for row in picked]
        picture.push(salience, picked)
        progress(len(salience) * frame_s)
    found = notes(pitches, strengths, frame_s=frame_s)
    with drafts(paths) as parts:
        times_s = multi_pitch.frame_times_s(model, len(pitches))
        texts = (table(times_s, pitches, strengths), ragged(times_s, pitches))
        for number, text in enumerate(texts):
            with atomic.explained(paths[number], only=parts[number]):
                parts[number].write_text(text, encoding="utf-8")
        with atomic.explained(paths[2], only=parts[2]):
            write_midi(parts[2], found, frame_s=frame_s, pitch_bends=options.pitch_bends)
        if options.picture:
            with atomic.explained(paths[3], only=parts[3]):
                picture.draw(parts[3], model.bin_hz, title=track.printable(pathlib.Path(path).name))
    return Transcribed(paths, len(pitches), sum(bool(len(p)) for p in pitches), len(found))


def heard(
    model: "MultiPitchModel",
    variables: Any,
    audio: Float[np.ndarray, "time"],
    options: "Options",
) -> Iterator[tuple[Float[np.ndarray, "_ bin"], Float[np.ndarray, "_ bin"]]]:
    """Yields the salience of a whole song at the model's rate, stretch by stretch, and of each its
    peaks that reach the threshold.
    """
    from majl_jax.inference import decoding, multi_pitch

    audio = multi_pitch.peak_normalized(audio)
    for salience in _stretches(model, variables, audio, options):
        if not np.isfinite(salience).all():
            raise ValueError(
                "the model returned a salience that is not finite: check the checkpoint"
            )
        yield salience, decoding.pick_pitches(salience, threshold=options.threshold)


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


def table(
    times_s: Float[np.ndarray, "frame"],
    pitches: Sequence[np.ndarray],
    strengths: Sequence[np.ndarray],
) -> str:
    """Lines of time (s), frequency (Hz) and confidence, one per pitch, below the three words."""
    rows = ["time,frequency,confidence"]
    for time_s, frame_hz, sure in zip(times_s, pitches, strengths, strict=True):
        pairs = zip(frame_hz, sure, strict=True)
        rows += [f"{time_s:.6f},{hz:.3f},{confidence:.4f}" for hz, confidence in pairs]
    return "".join(f"{row}\n" for row in rows)


def ragged(times_s: Float[np.ndarray, "frame"], pitches: Sequence[np.ndarray]) -> str:
    """Lines of time (s) and pitches (Hz), one per frame, separated by tabs."""
    lines = (
        "\t".join([f"{time_s:.6f}", *(f"{hz:.3f}" for hz in frame_hz)])
        for time_s, frame_hz in zip(times_s, pitches, strict=True)
    )
    return "".join(f"{line}\n" for line in lines)
