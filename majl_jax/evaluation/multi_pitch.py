"""Scores of multi-pitch estimation on whole tracks, and what shows an output that goes blank.

`score_tracks` is what a recipe calls for validation and test; its rows are read by the report.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from majl_jax import atomic, console
from majl_jax.audio import int16
from majl_jax.batch import Variables
from majl_jax.evaluation import target
from majl_jax.evaluation.examples import NO_FILES, ForReport, write_signals
from majl_jax.evaluation.rows import Row, aggregate
from majl_jax.inference.decoding import pick_pitches, pitches_hz
from majl_jax.inference.multi_pitch import (
    Estimate,
    MultiPitchModel,
    frame_times_s,
    peak_normalized,
    transcribe,
)
from majl_jax.metrics import multi_pitch_curve, pitch
from majl_jax.plotting.salience import Picture

RMS_SAMPLES = 2048


def sounding_frames(
    audio: Float[np.ndarray, "time"], frames: int, *, hop_samples: int, rms_threshold: float = 0.01
) -> Bool[np.ndarray, "frame"]:
    """Frames whose root mean square over 2048 samples, zeros beyond the ends, is above the
    threshold.
    """
    half = RMS_SAMPLES // 2
    power = np.pad(audio.astype(np.float64) ** 2, (half, half + frames * hop_samples))
    total = np.concatenate([[0.0], np.cumsum(power)])
    first = np.arange(frames) * hop_samples
    mean = np.maximum(total[first + RMS_SAMPLES] - total[first], 0.0) / RMS_SAMPLES
    return np.sqrt(mean) > rms_threshold


def score_track(
    model: MultiPitchModel,
    salience: Float[np.ndarray, "frame bin"],
    audio: Float[np.ndarray, "time"],
    f0_hz: Float[np.ndarray, "label voice"],
    has_pitch: Bool[np.ndarray, "label voice"],
    *,
    threshold: float | None = None,
    tuned_threshold: float | None = None,
    rms_threshold: float = 0.01,
) -> dict[str, float]:
    """Returns precision, recall, f1, accuracy, average_precision, and what tells a blank output
    before F1 does.

    Judged in the label frames whose voices are all labelled; without any, the first five are NaN.
    With a `tuned_threshold` also precision_tuned, recall_tuned and f1_tuned, at that one.
    contrast: see metrics.multi_pitch_curve. activation_mass: sum of the salience per frame;
    polyphony: pitches per frame; silent_share: of the sounding frames, those without a pitch.

    Args:
        model: what made the salience.
        salience: of the whole track, 0 to 1.
        audio: the mixture, peak-normalized.
        f0_hz: labels, 0 = no pitch.
        has_pitch: which of them are known.
        threshold: of a pitch; None takes that of the model.
        tuned_threshold: one more, whose precision_tuned, recall_tuned and f1_tuned are given.
        rms_threshold: root mean square from which a frame sounds, full scale 1.
    """
    peaks = pick_pitches(salience, threshold=0.0)
    picked = np.where(peaks >= (model.threshold if threshold is None else threshold), peaks, 0.0)
    estimate = frame_times_s(model, len(picked)), pitches_hz(picked, model.bin_hz)
    counts = np.count_nonzero(picked, axis=1)
    tuned = {}
    if tuned_threshold is not None:
        chosen = np.where(peaks >= tuned_threshold, peaks, 0.0)
        found = frame_times_s(model, len(chosen)), pitches_hz(chosen, model.bin_hz)
        compared = _compare(model, found, f0_hz, has_pitch)
        tuned = {f"{name}_tuned": compared[name] for name in _TUNED}
    curve = _curve(model, peaks, f0_hz, has_pitch)
    sounding = sounding_frames(
        audio, len(picked), hop_samples=model.hop_samples, rms_threshold=rms_threshold
    )
    return {
        **_compare(model, estimate, f0_hz, has_pitch),
        **tuned,
        "average_precision": multi_pitch_curve.average_precision(curve),
        "contrast": multi_pitch_curve.contrast(salience, sounding),
        "activation_mass": float(salience.sum(1, dtype=np.float64).mean()),
        "polyphony": float(counts.mean()),
        "silent_share": float(np.mean(counts[sounding] == 0)) if sounding.any() else math.nan,
    }


def _curve(
    model: MultiPitchModel, peaks: np.ndarray, f0_hz: np.ndarray, has_pitch: np.ndarray
) -> multi_pitch_curve.Curve:
    """The peaks in the labelled frames, ranked; a frame of labels without an estimate has no
    peak.
    """
    labelled = np.flatnonzero(np.all(has_pitch, axis=1) & (has_pitch.shape[1] > 0))
    missing = max(0, len(f0_hz) - len(peaks))
    padded = np.pad(peaks, ((0, missing), (0, 0)))
    truth = [row[row > 0] for row in np.asarray(f0_hz, np.float64)[labelled]]
    return multi_pitch_curve.ranked_candidates(padded[labelled], model.bin_hz, truth)


def _compare(
    model: MultiPitchModel, estimate: Estimate, f0_hz: np.ndarray, has_pitch: np.ndarray
) -> dict[str, float]:
    labelled = np.all(has_pitch, axis=1) & (has_pitch.shape[1] > 0)
    times_s = frame_times_s(model, len(f0_hz))[labelled]
    truth = [row[row > 0] for row in np.asarray(f0_hz, np.float64)[labelled]]
    return pitch.multi_pitch_scores(*estimate, times_s, truth)


@dataclasses.dataclass(frozen=True)
class Judging:
    """How a model is applied to whole tracks, and the thresholds it is judged at beside its own."""

    batch_size: int = 8
    """Windows per call of the model."""
    tuned_threshold: float | None = None
    """See `score_track`."""
    choose_threshold: bool = False
    """Whether the result has threshold_best, of all the one with the highest mean F1 over the
    tracks, and f1_best, that mean.
    """


JUDGING = Judging()


def _best_threshold(curves: list[multi_pitch_curve.Curve]) -> dict[str, float]:
    threshold, f1 = multi_pitch_curve.best_threshold(curves)
    return {"threshold_best": threshold, "f1_best": f1}


def score_tracks(
    model: MultiPitchModel,
    variables: Variables,
    tracks: Iterable[Mapping[str, Any]],
    *,
    system: str = "model",
    judging: Judging = JUDGING,
    references: Mapping[str, Callable[[np.ndarray], Estimate]] | None = None,
    report: ForReport = NO_FILES,
    progress: str | None = None,
) -> dict[str, float]:
    """Plays the mixtures of whole tracks through the model and scores the pitches of all voices.

    Args:
        model: what is judged, with its threshold. variables: of the model. tracks: whole-track
        records (batch.py's keys without the batch axis, and `track`, the name),
            at the sample rate and hop of the model.
        system: name of the model in the rows. judging: how the model is applied, and thresholds
        beside its own. references: other systems by name, (audio [time], mono, peak-normalized) ->
        (times_s, [Hz ...]). report: where a row per track and system goes, beside those that are
        there unless it is `anew`, and the start of
            the first tracks, to hear and to see.
        progress: label of a progress bar, None for no bar.

    Returns means over tracks under the names of `score_track`, `<name>_skipped` where a score was
    undefined for some tracks, and the means of the references as <reference>/<name>.
    """
    rows: list[Row] = []
    undefined = dict.fromkeys(_SCORES, math.nan)
    if judging.tuned_threshold is not None:
        undefined |= {f"{name}_tuned": math.nan for name in _TUNED}
    curves: list[multi_pitch_curve.Curve] = []
    for number, record in enumerate(console.with_progress(tracks, progress)):
        name, audio, f0_hz, has_pitch = _read(model, record)
        salience = transcribe(model, variables, audio, batch_size=judging.batch_size)
        found: dict[str, Mapping[str, float]] = {system: undefined}
        if np.isfinite(salience).all():
            found[system] = score_track(
                model, salience, audio, f0_hz, has_pitch, tuned_threshold=judging.tuned_threshold
            )
            if judging.choose_threshold:
                peaks = pick_pitches(salience, threshold=0.0)
                curves.append(_curve(model, peaks, f0_hz, has_pitch))
        for other, listen in (references or {}).items():
            found[other] = _compare(model, listen(audio), f0_hz, has_pitch)
        if (folder := report.example_folder(name, number)) is not None:
            frames = round(report.example_seconds * model.sample_rate_hz / model.hop_samples)
            _write_example(folder, model, salience, audio, f0_hz, frames=frames)
        seconds = round(len(audio) / model.sample_rate_hz, 3)
        for who, values in found.items():
            rows.append({"track": name, "system": who, "seconds": seconds, **_row(values)})
    report.keep_rows(rows, beside=True)
    return _means(rows, system) | (_best_threshold(curves) if judging.choose_threshold else {})


_REASONS = {
    "silent_share": "the track is silent",
    "contrast": "the track is silent",
    "activation_mass": "the estimate is not finite",
    "polyphony": "the estimate is not finite",
}
_SCORES = ("precision", "recall", "f1", "accuracy", "average_precision", *_REASONS)
_TUNED = ("precision", "recall", "f1")


def _read(
    model: MultiPitchModel, record: Mapping[str, Any]
) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """Name, mixture [time] with a peak of 1, and labels of a record."""
    name = record["track"]
    name = name.decode("utf-8") if isinstance(name, bytes) else str(name)
    stems = np.asarray(record["stems"])
    audio = stems.astype(np.float32).sum(1).mean(1) / int16.FULL_SCALE
    f0_hz, has_pitch = np.asarray(record["f0_hz"]), np.asarray(record["has_pitch"], bool)
    frames = model.frame_count(len(audio))
    if abs(len(f0_hz) - frames) > target.EXTRA_FRAMES:
        raise ValueError(
            f"track {name} has {len(f0_hz)} frames of pitch labels, its audio {frames}; expected "
            f"labels every {model.hop_samples} samples at {model.sample_rate_hz} Hz"
        )
    return name, peak_normalized(audio), f0_hz, has_pitch


def _write_example(
    folder: pathlib.Path,
    model: MultiPitchModel,
    salience: np.ndarray,
    audio: np.ndarray,
    f0_hz: np.ndarray,
    *,
    frames: int,
) -> None:
    """mixture.wav, and picture.png: the salience, the pitches picked from it, and the labels."""
    stretch = audio[: frames * model.hop_samples, None]
    write_signals(folder, {"mixture": stretch}, sample_rate_hz=model.sample_rate_hz)
    frame_s, shown = model.hop_samples / model.sample_rate_hz, np.nan_to_num(salience[:frames])
    picture = Picture(frame_s=frame_s)
    picture.push(shown, pick_pitches(shown, threshold=model.threshold))
    frame, voice = np.nonzero(f0_hz[:frames])
    truth = np.stack([frame * frame_s, f0_hz[frame, voice]], axis=1)
    with atomic.draft(folder / "picture.png") as part:
        picture.draw(part, model.bin_hz, title=folder.name, truth=truth)


def _row(values: Mapping[str, float]) -> Row:
    """Undefined scores as None, with a reason in "skipped"."""
    row: Row = {name: v if math.isfinite(v) else None for name, v in values.items()}
    blind = row.get("polyphony", 0.0) is None
    skipped = {
        name: _REASONS["polyphony"] if blind else _REASONS.get(name, "no pitch is annotated")
        for name, value in row.items()
        if value is None
    }
    return row | ({"skipped": skipped} if skipped else {})


def _means(rows: Sequence[Row], system: str) -> dict[str, float]:
    means: dict[str, float] = {}
    for name, table in aggregate(rows).items():
        prefix = "" if name == system else f"{name.replace(' ', '_')}/"
        for metric, statistics in table.items():
            means[prefix + metric] = statistics["mean"]
            if statistics["skipped"]:
                means[f"{prefix}{metric}_skipped"] = float(statistics["skipped"])
    return means
