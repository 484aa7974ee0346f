"""How well a salience ranks pitches, whatever the threshold, and what a fall of F1 at a fixed
threshold means.

F1 at one threshold mixes two things: whether pitches stand out from the rest (skill), and whether
what stands out lies above the threshold (calibration). Average precision knows the first alone; a
threshold chosen on validation data undoes the second.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

THRESHOLDS = 1.0 / (1.0 + np.exp(-np.linspace(-6.0, 6.0, 97)))
"""0.0025 to 0.9975, an eighth apart in logits; 0.5 among them."""
VERDICTS = ("sound", "shifted", "degenerate")
_SURE = 1e-6  # a salience nearer to 0 or 1 is as good as that


class Curve(NamedTuple):
    """The candidates of a track, the most salient first, which of them are right, and how many
    pitches there are.
    """

    salience: Float[np.ndarray, "candidate"]
    hit: Bool[np.ndarray, "candidate"]
    pitches: int


def ranked_candidates(
    peaks: Float[np.ndarray, "frame bin"],
    bin_hz: Float[np.ndarray, "bin"],
    reference_hz: Sequence[np.ndarray],
    *,
    window_semitones: float = 0.5,
) -> Curve:
    """The local maxima of a salience (0 elsewhere) in frames whose true pitches are
    `reference_hz`.

    In a frame the most salient first takes the nearest pitch within the window that is still free,
    as detections are judged in the PASCAL VOC challenge (Everingham et al. 2010); the others are
    wrong.
    """
    if len(peaks) != len(reference_hz):
        raise ValueError(
            f"ranked_candidates got {len(peaks)} frames of peaks and {len(reference_hz)} of"
            " pitches; expected as many"
        )
    semitone = 12.0 * np.log2(np.asarray(bin_hz, np.float64))
    values: list[float] = []
    hits: list[bool] = []
    for row, truth_hz in zip(peaks, reference_hz, strict=True):
        free = 12.0 * np.log2(np.asarray(truth_hz, np.float64))
        for place in sorted(np.flatnonzero(row), key=lambda k, row=row: -row[k]):
            distance = np.abs(free - semitone[place])
            found = bool(len(free)) and bool(distance.min() <= window_semitones)
            if found:
                free = np.delete(free, distance.argmin())
            values.append(float(row[place]))
            hits.append(found)
    order = np.argsort(-np.array(values), kind="stable")
    salience = np.array(values, np.float64)[order]
    return Curve(salience, np.array(hits, bool)[order], sum(map(len, reference_hz)))


def average_precision(curve: Curve) -> float:
    """sum_n (R_n - R_(n-1)) P_n over the thresholds n that tell candidates apart; NaN where there
    is no pitch.

    Any increasing change of the salience leaves it as it is. A pitch without a candidate adds
    nothing: without any candidate it is 0, and 1 where the candidates are the pitches.
    """
    if not curve.pitches:
        return float("nan")
    if not len(curve.salience):
        return 0.0
    last = np.append(np.flatnonzero(np.diff(curve.salience)), len(curve.salience) - 1)
    right = np.cumsum(curve.hit)[last]
    return float(np.sum(np.diff(right, prepend=0) / curve.pitches * right / (last + 1)))


def f1_at(
    curve: Curve, thresholds: Float[np.ndarray, "threshold"]
) -> Float[np.ndarray, "threshold"]:
    """2 TP / (candidates from the threshold on + pitches): 0 without a candidate, 1 where they are
    the pitches, NaN where there is no pitch.
    """
    if not curve.pitches:
        return np.full(len(thresholds), np.nan)
    picked = np.searchsorted(-curve.salience, -np.asarray(thresholds), side="right")
    right = np.concatenate([[0], np.cumsum(curve.hit)])[picked]
    return 2.0 * right / (picked + curve.pitches)


def best_threshold(curves: Sequence[Curve]) -> tuple[float, float]:
    """(the one of `THRESHOLDS` with the highest mean F1 over tracks that have pitches, that F1);
    NaN without any.
    """
    found = [f1_at(curve, THRESHOLDS) for curve in curves if curve.pitches]
    if not found:
        return float("nan"), float("nan")
    mean = np.mean(found, axis=0)
    # In the middle of equals: the edge of a plateau would be the worst guess for other tracks.
    equal = np.flatnonzero(mean >= mean.max() - 1e-9)
    chosen = int(equal[len(equal) // 2])
    return float(THRESHOLDS[chosen]), float(mean[chosen])


def contrast(
    salience: Float[np.ndarray, "frame bin"], sounding: Bool[np.ndarray, "frame"]
) -> float:
    """The mean over sounding frames of max_k z_k - median_k z_k, z = log(s / (1 - s)): needs no
    labels.

    0 for a blank output, NaN where no frame sounds; a constant added to all logits, which is what a
    shift of calibration is, changes nothing.
    """
    if not sounding.any():
        return float("nan")
    clipped = np.clip(salience[sounding].astype(np.float64), _SURE, 1.0 - _SURE)
    logits = np.log(clipped) - np.log1p(-clipped)
    return float(np.mean(logits.max(axis=1) - np.median(logits, axis=1)))


def verdict(
    before: Mapping[str, float], after: Mapping[str, float], *, tolerance: float = 0.1
) -> str:
    """What became of a system, by its scores `f1` (fixed threshold) and `average_precision`: one
    of `VERDICTS`.

    "degenerate" if average precision fell by more than the share `tolerance`: no threshold brings
    it back; "shifted" if F1 alone did: another threshold will do.
    """
    fell = {
        name: after[name] < (1.0 - tolerance) * before[name] for name in ("average_precision", "f1")
    }
    if fell["average_precision"]:
        return "degenerate"
    return "shifted" if fell["f1"] else "sound"
