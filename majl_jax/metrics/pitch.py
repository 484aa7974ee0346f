"""Melody and multi-pitch scores, by mir_eval."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Bool, Float

MULTI_PITCH_RANGE_HZ = (20.0, 5000.0)  # where mir_eval.multipitch is defined


def melody_scores(
    estimate_f0_hz: Float[np.ndarray, "_frame"],
    confidence: Float[np.ndarray, "_frame"],
    reference_f0_hz: Float[np.ndarray, "_frame"],
    *,
    labelled: Bool[np.ndarray, "_frame"] | None = None,
    pitch_threshold: float = 0.5,
    rpa_mode: Literal["thresholded", "mirex"] = "thresholded",
    tolerance_cents: float = 50.0,
) -> dict[str, float]:
    """Melody scores rpa, rca, oa, vr, vfa in 0..1 on a common frame grid (mir_eval.melody).

    A score is NaN where it has no frames: rpa, rca and vr without a voiced, vfa without an
    unvoiced one. An estimate without a voiced frame gets rpa, rca (but "mirex"), vr and vfa of 0,
    and oa the share of unvoiced frames; equal curves get 1, and vfa 0.

    Args:
        estimate_f0_hz: pitch of each frame, 0 = none.
        confidence: in that pitch.
        reference_f0_hz: the true pitch, 0 = unvoiced.
        labelled: which frames count; None: all.
        pitch_threshold: a frame with a confidence below it is estimated as unvoiced.
        rpa_mode: "thresholded" drops the pitch of such a frame as well, so it counts as an error
            of RPA and RCA (MAJL's authors); "mirex" keeps it as a guess, as the MIREX protocol
            does.
        tolerance_cents: errors below it are right.
    """
    from mir_eval import melody

    if rpa_mode not in ("thresholded", "mirex"):
        raise ValueError(f'rpa_mode must be "thresholded" or "mirex", got {rpa_mode!r}.')
    curves = _checked_curves(estimate_f0_hz, confidence, reference_f0_hz)
    if labelled is not None:
        curves = [curve[np.asarray(labelled, bool)] for curve in curves]
    guess_hz, confidence, truth_hz = curves
    if not len(truth_hz):
        raise ValueError("melody_scores got no labelled frame. Leave such tracks out.")
    guess_voiced = (confidence >= pitch_threshold) & (guess_hz > 0)
    if rpa_mode == "thresholded":
        guess_hz = np.where(guess_voiced, guess_hz, 0.0)
    truth_voiced = truth_hz > 0
    truth, guess = melody.hz2cents(truth_hz), melody.hz2cents(guess_hz)
    frames = (truth_voiced.astype(float), truth, guess_voiced.astype(float), guess)
    has_voiced, has_unvoiced = truth_voiced.any(), not truth_voiced.all()
    nan, tolerance = float("nan"), cast(dict[str, Any], {"cent_tolerance": tolerance_cents})
    scores = {
        "rpa": melody.raw_pitch_accuracy(*frames, **tolerance) if has_voiced else nan,
        "rca": melody.raw_chroma_accuracy(*frames, **tolerance) if has_voiced else nan,
        "oa": melody.overall_accuracy(*frames, **tolerance),
        "vr": np.mean(guess_voiced[truth_voiced]) if has_voiced else nan,
        "vfa": np.mean(guess_voiced[~truth_voiced]) if has_unvoiced else nan,
    }
    return {name: float(value) for name, value in scores.items()}


VOICING_THRESHOLDS = np.arange(1, 100) / 100.0


def best_voicing_threshold(
    tracks: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], *, tolerance_cents: float = 50.0
) -> tuple[float, float]:
    """(threshold, mean overall accuracy): of 0.01, 0.02, …, 0.99 the confidence from which a frame
    is voiced so that the mean OA of the tracks is highest; the middle one of several.

    OA = the share of frames that are voiced, in truth and estimate, and right in pitch, or unvoiced
    in both. NaN without tracks.

    Args:
        tracks: (pitch, confidence, true pitch) of each one's labelled frames, in Hz, 0 = unvoiced.
        tolerance_cents: errors below it are right.
    """
    accuracies = []
    for guess_hz, confidence, truth_hz in tracks:
        guess, truth = (np.maximum(x, 1e-6).astype(np.float64) for x in (guess_hz, truth_hz))
        near = np.abs(1200.0 * np.log2(guess / truth)) < tolerance_cents
        right = (truth_hz > 0) & (guess_hz > 0) & near
        sure = (confidence[None] >= VOICING_THRESHOLDS[:, None]) & (guess_hz > 0)[None]
        accuracies.append(np.where(sure, right[None], (truth_hz <= 0)[None]).mean(1))
    if not accuracies:
        return float("nan"), float("nan")
    mean = np.mean(accuracies, axis=0)
    best = np.flatnonzero(mean >= mean.max() - 1e-12)
    return float(VOICING_THRESHOLDS[best[len(best) // 2]]), float(mean.max())


def multi_pitch_scores(
    estimate_times_s: Float[np.ndarray, "_frame"],
    estimate_hz: Sequence[np.ndarray],
    reference_times_s: Float[np.ndarray, "_frame"],
    reference_hz: Sequence[np.ndarray],
    *,
    window_semitones: float = 0.5,
) -> dict[str, float]:
    """Frame-wise precision P, recall R, f1 and accuracy in 0..1 (mir_eval.multipitch).

    F1 = 2 P R / (P + R + eps); accuracy = TP / (TP + FP + FN). All are 0 where nothing is
    estimated, 1 where both are equal, and NaN where the reference has no pitch. Pitches beyond 20
    to 5000 Hz are left out.

    Args:
        estimate_times_s: of the estimate's frames, increasing.
        estimate_hz: the pitches of each; the frame nearest in time counts for each reference
            frame, none outside the estimated times.
        reference_times_s: of the reference's frames, increasing.
        reference_hz: the true pitches of each.
        window_semitones: largest error of a right pitch.
    """
    from mir_eval import multipitch

    estimate = _checked_pitches("estimate", estimate_times_s, estimate_hz)
    reference = _checked_pitches("reference", reference_times_s, reference_hz)
    if not sum(map(len, reference)):
        return dict.fromkeys(("precision", "recall", "f1", "accuracy"), float("nan"))
    nearest = multipitch.resample_multipitch(estimate_times_s, estimate, reference_times_s)
    truth, guess = map(multipitch.frequencies_to_midi, (reference, nearest))
    hits = multipitch.compute_num_true_positives(truth, guess, window=window_semitones)
    counts = (multipitch.compute_num_freqs(pitches) for pitches in (truth, guess))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty estimate: said by the scores
        precision, recall, accuracy = multipitch.compute_accuracy(hits, *counts)
    f1 = 2 * precision * recall / (precision + recall + np.finfo(float).eps)
    scores = {"precision": precision, "recall": recall, "f1": f1, "accuracy": accuracy}
    return {name: float(value) for name, value in scores.items()}


def _checked_curves(estimate_f0_hz, confidence, reference_f0_hz) -> list[np.ndarray]:
    curves = [np.asarray(c, np.float64) for c in (estimate_f0_hz, confidence, reference_f0_hz)]
    names = ("estimate_f0_hz", "confidence", "reference_f0_hz")
    if curves[0].ndim != 1 or any(c.shape != curves[0].shape for c in curves):
        shapes = ", ".join(f"{n} {c.shape}" for n, c in zip(names, curves, strict=True))
        raise ValueError(f"melody_scores needs three curves on one frame grid, got {shapes}.")
    for name, curve in zip(names, curves, strict=True):
        if not np.all(np.isfinite(curve)):
            raise ValueError(
                f"{name} has {np.sum(~np.isfinite(curve))} values that are not finite."
            )
    return curves


def _checked_pitches(name: str, times_s: np.ndarray, pitches_hz: Sequence) -> list[np.ndarray]:
    if len(times_s) != len(pitches_hz):
        raise ValueError(
            f"the {name} has {len(times_s)} times, but {len(pitches_hz)} lists of pitches."
        )
    if not np.all(np.isfinite(times_s)) or np.any(np.diff(times_s) <= 0):
        raise ValueError(f"the times of the {name} do not increase from frame to frame.")
    lowest, highest = MULTI_PITCH_RANGE_HZ
    arrays = [np.asarray(pitches, np.float64) for pitches in pitches_hz]
    bad = sum(int(np.sum(~np.isfinite(array))) for array in arrays)
    if bad:
        raise ValueError(f"the {name} has {bad} pitches that are NaN or infinite.")
    return [array[(array >= lowest) & (array <= highest)] for array in arrays]
