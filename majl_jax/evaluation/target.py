"""One target stem and its pitch, scored on whole tracks: separation, melody, example files."""

import dataclasses
import functools
import math
import pathlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from majl_jax import atomic, console
from majl_jax.batch import Variables
from majl_jax.evaluation.examples import NO_FILES, ForReport, write_signals
from majl_jax.evaluation.rows import Row, aggregate, flatten
from majl_jax.evaluation.take import Take, take_from_record
from majl_jax.inference.decoding import Pitch, decode_pitch
from majl_jax.inference.segments import SEGMENTING, Segmenting, SegmentModel, apply_track
from majl_jax.metrics import separation
from majl_jax.metrics.pitch import best_voicing_threshold, melody_scores

Answer = tuple[np.ndarray | None, Pitch | None]
"""A stem [time, channel] and its pitch, each None where a system does not give it."""


@dataclasses.dataclass(frozen=True)
class Target:
    """Which stem is judged, and how."""

    stem: int = 0
    """Its number in the records; the model's estimate of it is its first output."""
    pitch_model: SegmentModel | None = None
    """A pitch estimator that takes the same variables; it adds the pitch of the untouched mixture
    and of the true stem as reference rows."""
    pitch_threshold: float = 0.5
    """Confidence that makes a frame voiced."""
    bss_eval: bool = False
    """Whether BSS Eval v4 is computed too, which is slow."""
    tuned_threshold: float | None = None
    """One more confidence, whose melody scores are given as rpa_tuned, oa_tuned, …."""
    choose_threshold: bool = False
    """Whether the result has threshold_best, the confidence with the highest mean OA of the tracks,
    and oa_best."""
    mixture_gain: float = 1.0
    """What the network hears is this times the sum of the stems: so is the mixture that an estimate
    is compared with."""


FIRST_STEM = Target()


def score_tracks(
    model: SegmentModel,
    variables: Variables,
    tracks: Iterable[Mapping[str, Any]],
    *,
    system: str = "model",
    target: Target = FIRST_STEM,
    segmenting: Segmenting = SEGMENTING,
    report: ForReport = NO_FILES,
    progress: str | None = None,
) -> dict[str, float]:
    """Plays whole tracks through the model and scores its first stem against the target.

    Args:
        model: what is judged; the untouched mixture is always judged as a separation beside it.
        variables: of the model.
        tracks: whole-track records (batch.py's keys without the batch axis, and `track`, the name).
        system: name of the model in the rows.
        target: which stem of the records, and what is computed.
        segmenting: how the model is applied.
        report: where rows and examples go.
        progress: label of a progress bar, None for no bar.

    Returns aggregates, named as `rows.flatten` says. Uses the devices of this process only and no
    collectives: in a run of several processes the first one calls it, alone.
    """
    listen = functools.partial(_listen, variables=variables, segmenting=segmenting)
    rows: list[Row] = []
    curves: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for number, record in enumerate(console.with_progress(tracks, progress)):
        take = take_from_record(
            record,
            target=target.stem,
            channels=model.channels,
            sample_rate_hz=model.sample_rate_hz,
            hop_samples=model.hop_samples,
        )
        stem, pitch = listen(model, take.mixture)
        answers = {system: (stem, pitch), **_references(take, target, listen)}
        for name, (estimate, f0) in answers.items():
            rows.append(score_track(take, name, estimate=estimate, pitch=f0, target=target))
        if target.choose_threshold and pitch is not None:
            curves += _labelled(take, pitch)
        if (folder := report.example_folder(take.name, number)) is not None:
            write_example(
                folder,
                take,
                estimate=stem,
                pitch=pitch,
                pitch_threshold=target.pitch_threshold,
                seconds=report.example_seconds,
            )
    report.keep_rows(rows)
    found = flatten(aggregate(rows), system)
    if target.choose_threshold:
        found["threshold_best"], found["oa_best"] = best_voicing_threshold(curves)
    return found


def _references(take: Take, target: Target, listen: Callable[..., Answer]) -> dict[str, Answer]:
    """What the model is compared with: the untouched mixture, and the pitch of it and of the true
    stem.
    """
    mixture, pitch_model = target.mixture_gain * take.mixture, target.pitch_model
    if pitch_model is None:
        return {"mixture": (mixture, None)}
    found: dict[str, Answer] = {"mixture": (mixture, listen(pitch_model, mixture)[1])}
    if take.has_truth:
        found["true stem"] = None, listen(pitch_model, take.truth)[1]
    return found


def _listen(
    model: SegmentModel, audio: np.ndarray, *, variables: Variables, segmenting: Segmenting
) -> Answer:
    """The first stem [time, channel] and its pitch, each None where the model does not give it."""
    result = apply_track(model, variables, audio, **dataclasses.asdict(segmenting))
    stem = result["stems"][:, 0] if "stems" in result else None
    if "salience" not in result or model.bin_cents is None:
        return stem, None
    return stem, decode_pitch(result["salience"], model.bin_cents)


EXTRA_FRAMES = 2  # labels and estimates may differ by a frame or two at the end of a track


def score_track(
    take: Take,
    system: str,
    *,
    estimate: Float[np.ndarray, "time channel"] | None,
    pitch: Pitch | None,
    target: Target = FIRST_STEM,
) -> Row:
    """Returns the scores of a system on a track; None, with a reason in "skipped": undefined.

    A silent estimate is scored as metrics/separation.py says: its SI-SDR is -inf.

    Args:
        take: the track.
        system: name of what is judged.
        estimate: its stem, full scale 1; None: it gives none.
        pitch: f0_hz and confidence of each frame; None: it gives none.
        target: what is computed, and from which confidences frames are voiced.
    """
    row: Row = {
        "track": take.name,
        "system": system,
        "seconds": round(len(take.mixture) / take.sample_rate_hz, 3),
    }
    skipped: dict[str, str] = {}
    if estimate is not None:
        row |= _separation(take, estimate, target, skipped)
    if pitch is not None:
        row |= _melody(take, pitch, target.pitch_threshold, skipped)
        if target.tuned_threshold is not None:
            tuned = _melody(take, pitch, target.tuned_threshold, {})
            row |= {f"{k}_tuned": v for k, v in tuned.items() if not k.endswith("mirex")}
    for name, value in row.items():
        if isinstance(value, float) and math.isnan(value):
            row[name] = None
            skipped.setdefault(name, "the score is undefined")
    return row | ({"skipped": skipped} if skipped else {})


def _separation(
    take: Take, estimate: np.ndarray, target: Target, skipped: dict[str, str]
) -> dict[str, float | None]:
    names = ["sdr_db", "nsdr_db", "si_sdr_db", "usdr_db"]
    names += ["sdr_v4_db", "isr_v4_db", "sir_v4_db", "sar_v4_db"] * target.bss_eval
    reason = None
    if not take.has_truth:
        reason = "the stem is not annotated"
    elif not np.any(take.truth):
        reason = "the true stem is silent"
    elif not np.all(np.isfinite(estimate)):
        reason = "the estimate is not finite"
    if reason:
        skipped |= dict.fromkeys(names, reason)
        return dict.fromkeys(names)
    sdr_db = separation.sdr_db(estimate, take.truth)
    mixture = target.mixture_gain * take.mixture
    values: dict[str, float | None] = {
        "sdr_db": sdr_db,
        "nsdr_db": sdr_db - separation.sdr_db(mixture, take.truth),
        "si_sdr_db": separation.si_sdr_db(estimate, take.truth),
        "usdr_db": separation.usdr_db(estimate, take.truth),
    }
    return values | (_bss_eval(take, estimate, skipped) if target.bss_eval else {})


def _bss_eval(take: Take, estimate: np.ndarray, skipped: dict[str, str]) -> dict[str, float | None]:
    """Stem and rest, median over windows of 1 s in which both of them sound."""
    estimates = np.stack([estimate, take.mixture - estimate])
    references = np.stack([take.truth, take.mixture - take.truth])
    windows = separation.bss_eval_v4(estimates, references, window_samples=take.sample_rate_hz)
    medians = separation.median_over_windows(windows)
    found = {name.replace("_db", "_v4_db"): float(value[0]) for name, value in medians.items()}
    reason = "in no second do the true stem, the rest of the mixture and the estimates all sound"
    skipped |= {name: reason for name, value in found.items() if math.isnan(value)}
    return {**found}


def _melody(
    take: Take, pitch: Pitch, pitch_threshold: float, skipped: dict[str, str]
) -> dict[str, float | None]:
    names = ("rpa", "rca", "oa", "vr", "vfa", "rpa_mirex", "rca_mirex")
    f0_hz, confidence = pitch
    if abs(len(f0_hz) - len(take.f0_hz)) > EXTRA_FRAMES:
        raise ValueError(
            f"track {take.name} has {len(take.f0_hz)} frames of pitch labels, the estimate "
            f"{len(f0_hz)}; expected the same hop ({take.hop_samples} samples) for both"
        )
    frames = min(len(f0_hz), len(take.f0_hz))
    if not take.has_pitch[:frames].any():
        skipped |= dict.fromkeys(names, "the pitch is not annotated")
        return dict.fromkeys(names)
    if not (np.isfinite(f0_hz).all() and np.isfinite(confidence).all()):
        skipped |= dict.fromkeys(names, "the estimate is not finite")
        return dict.fromkeys(names)
    curves = f0_hz[:frames], confidence[:frames], take.f0_hz[:frames]
    options: dict[str, Any] = {
        "labelled": take.has_pitch[:frames],
        "pitch_threshold": pitch_threshold,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no voiced frame: said in the row instead
        guesses = melody_scores(*curves, rpa_mode="mirex", **options)
        thresholded = melody_scores(*curves, **options)
    for name, what in {"rpa": "voiced", "rca": "voiced", "vr": "voiced", "vfa": "unvoiced"}.items():
        if math.isnan(guesses[name]):
            skipped |= {n: f"no {what} frame is annotated" for n in names if n.startswith(name)}
    return {
        **thresholded,
        "rpa_mirex": guesses["rpa"],
        "rca_mirex": guesses["rca"],
    }


def _labelled(take: Take, pitch: Pitch) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The labelled frames of a track, (f0, confidence, true f0), if there are any."""
    frames = min(len(pitch[0]), len(take.f0_hz))
    known = take.has_pitch[:frames]
    curves = pitch[0][:frames], pitch[1][:frames], take.f0_hz[:frames]
    finite = np.isfinite(curves[0]).all() and np.isfinite(curves[1]).all()
    return [(curves[0][known], curves[1][known], curves[2][known])] if known.any() & finite else []


def write_example(
    folder: pathlib.Path,
    take: Take,
    *,
    estimate: Float[np.ndarray, "time channel"] | None,
    pitch: Pitch | None,
    pitch_threshold: float,
    seconds: float,
) -> None:
    """Writes mixture, estimate and truth (.wav) and pitch.csv where the true stem is loudest.

    pitch.csv: time (s), truth_hz (empty: no label), estimate_hz (0 = unvoiced), confidence.

    Args:
        folder: gets the files.
        take: the track.
        estimate: what came out, full scale 1.
        pitch: f0_hz and confidence of each frame.
        pitch_threshold: confidence that makes a frame voiced.
        seconds: length of the example.
    """
    length_frames = max(1, round(seconds * take.sample_rate_hz / take.hop_samples))
    first = _loudest_frame(take, length_frames) if take.has_truth else 0
    stretch = slice(first * take.hop_samples, (first + length_frames) * take.hop_samples)
    signals = {"mixture": take.mixture, "estimate": estimate}
    if take.has_truth:
        signals["truth"] = take.truth
    heard = {name: None if x is None else x[stretch] for name, x in signals.items()}
    write_signals(folder, heard, sample_rate_hz=take.sample_rate_hz)
    if pitch is None:
        return
    lines = ["time,truth_hz,estimate_hz,confidence"]
    last = min(first + length_frames, len(take.f0_hz), len(pitch[0]))
    for frame in range(first, last):
        time_s = (frame - first) * take.hop_samples / take.sample_rate_hz
        truth = f"{take.f0_hz[frame]:.3f}" if take.has_pitch[frame] else ""
        guess_hz = pitch[0][frame] if pitch[1][frame] >= pitch_threshold else 0.0
        lines.append(f"{time_s:.4f},{truth},{guess_hz:.3f},{pitch[1][frame]:.4f}")
    atomic.write_text(folder / "pitch.csv", "\n".join(lines) + "\n")


def _loudest_frame(take: Take, length_frames: int) -> int:
    """First frame of the stretch of that length with the most energy of the true stem."""
    whole = len(take.truth) // take.hop_samples
    if not whole:
        return 0
    energy = np.square(take.truth[: whole * take.hop_samples], dtype=np.float64)
    total = np.concatenate([[0.0], np.cumsum(energy.reshape(whole, -1).sum(1))])
    sums = total[length_frames:] - total[:-length_frames]
    return int(np.argmax(sums)) if len(sums) else 0
