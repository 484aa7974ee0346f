"""Scores of whole tracks: one row per track and system, undefined scores counted, named aggregates.

`evaluate.score_tracks` makes the rows, `report` reads them back.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from majl_jax import atomic, metrics
from majl_jax.audio import files

Pitch = tuple[np.ndarray, np.ndarray]
"""f0_hz [frame], always a guess, and confidence [frame], which decides about voicing."""
Row = dict[str, Any]
LABELS = ("track", "system", "seconds", "skipped")  # the keys of a row that are not scores
EXTRA_FRAMES = 2  # labels and estimates may differ by a frame or two at the end of a track


@dataclasses.dataclass(frozen=True)
class Take:
    """One track as the judge hears it: float audio and the labels of the judged stem."""

    name: str
    mixture: Float[np.ndarray, "time channel"]
    truth: Float[np.ndarray, "time channel"]
    has_truth: bool
    f0_hz: Float[np.ndarray, "frame"]
    has_pitch: np.ndarray
    sample_rate_hz: int
    hop_samples: int


def take_from_record(
    record: Mapping[str, Any], *, target: int, channels: int, sample_rate_hz: int, hop_samples: int
) -> Take:
    """Reads a whole-track record (batch.py's keys without the batch axis, and `track`, its name).

    channels: how many are wanted; others are averaged and repeated.
    """
    stems = np.asarray(record["stems"], np.float32) / 32768.0
    if stems.shape[2] != channels:
        stems = np.repeat(stems.mean(2, keepdims=True), channels, axis=2)
    name = record["track"]
    return Take(
        name=name.decode("utf-8") if isinstance(name, bytes) else str(name),
        mixture=stems.sum(1),
        truth=stems[:, target],
        has_truth=bool(record["has_stems"][target]),
        f0_hz=np.asarray(record["f0_hz"][:, target], np.float32),
        has_pitch=np.asarray(record["has_pitch"][:, target], bool),
        sample_rate_hz=sample_rate_hz,
        hop_samples=hop_samples,
    )


def score_track(
    take: Take,
    system: str,
    *,
    estimate: Float[np.ndarray, "time channel"] | None,
    pitch: Pitch | None,
    pitch_threshold: float = 0.5,
    bss_eval: bool = False,
) -> Row:
    """Returns the scores of a system on a track; None, with a reason in "skipped": undefined."""
    row: Row = {
        "track": take.name,
        "system": system,
        "seconds": round(len(take.mixture) / take.sample_rate_hz, 3),
    }
    skipped: dict[str, str] = {}
    if estimate is not None:
        row |= _separation(take, estimate, bss_eval, skipped)
    if pitch is not None:
        row |= _melody(take, pitch, pitch_threshold, skipped)
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            row[name] = None
            skipped.setdefault(name, "the score is not finite")
    return row | ({"skipped": skipped} if skipped else {})


def _separation(
    take: Take, estimate: np.ndarray, bss_eval: bool, skipped: dict[str, str]
) -> dict[str, float | None]:
    names = ["sdr_db", "nsdr_db", "si_sdr_db", "usdr_db"]
    names += ["sdr_v4_db", "isr_v4_db", "sir_v4_db", "sar_v4_db"] * bss_eval
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
    sdr_db = metrics.sdr_db(estimate, take.truth)
    values: dict[str, float | None] = {
        "sdr_db": sdr_db,
        "nsdr_db": sdr_db - metrics.sdr_db(take.mixture, take.truth),
        "si_sdr_db": metrics.si_sdr_db(estimate, take.truth),
        "usdr_db": metrics.usdr_db(estimate, take.truth),
    }
    return values | (_bss_eval(take, estimate, skipped) if bss_eval else {})


def _bss_eval(take: Take, estimate: np.ndarray, skipped: dict[str, str]) -> dict[str, float | None]:
    """Stem and rest, median over windows of 1 s; the untouched mixture stands for both of them."""
    rest = take.mixture - estimate
    estimates = np.stack([estimate, rest if np.any(rest) else take.mixture])
    references = np.stack([take.truth, take.mixture - take.truth])
    try:
        windows = metrics.bss_eval_v4(estimates, references, window_samples=take.sample_rate_hz)
    except ValueError as error:
        names = [f"{name}_v4_db" for name in ("sdr", "isr", "sir", "sar")]
        skipped |= dict.fromkeys(names, str(error))
        return dict.fromkeys(names)
    medians = metrics.median_over_windows(windows)
    return {name.replace("_db", "_v4_db"): float(value[0]) for name, value in medians.items()}


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
        guesses = metrics.melody_scores(*curves, rpa_mode="mirex", **options)
        thresholded = metrics.melody_scores(*curves, **options)
    for name, what in {"rpa": "voiced", "rca": "voiced", "vr": "voiced", "vfa": "unvoiced"}.items():
        if math.isnan(guesses[name]):
            skipped |= {n: f"no {what} frame is annotated" for n in names if n.startswith(name)}
    return {
        **thresholded,
        "rpa_mirex": guesses["rpa"],
        "rca_mirex": guesses["rca"],
    }


def aggregate(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns {system: {metric: {mean, std, median, weighted, count, skipped}}} over tracks.

    std is the population's (as NumPy's default); weighted is the mean weighted with the tracks'
    lengths (GNSDR of MIR-1K papers); skipped counts the tracks where the score is undefined.
    """
    table: dict[str, dict[str, list[tuple[float | None, float]]]] = {}
    for row in rows:
        scores = table.setdefault(row["system"], {})
        for name, value in row.items():
            if name not in LABELS:
                scores.setdefault(name, []).append((value, row["seconds"]))
    return {
        system: {name: _statistics(pairs) for name, pairs in scores.items()}
        for system, scores in table.items()
    }


def _statistics(pairs: list[tuple[float | None, float]]) -> dict[str, float]:
    kept = [(value, seconds) for value, seconds in pairs if value is not None]
    counts = {"count": len(kept), "skipped": len(pairs) - len(kept)}
    if not kept:
        return dict.fromkeys(("mean", "std", "median", "weighted"), math.nan) | counts
    values, seconds = np.array(kept, np.float64).T
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values)),
        "median": float(np.median(values)),
        "weighted": float(np.average(values, weights=seconds)),
    } | counts


def flatten(
    table: Mapping[str, Mapping[str, Mapping[str, float]]], system: str
) -> dict[str, float]:
    """Names the numbers of `aggregate` for logs and for picking a checkpoint.

    Of the judged system: `sdr_db_mean`, `sdr_db_std`, `sdr_db_median`, `sdr_db_weighted`; of the
    references the mean, as `mixture/sdr_db_mean` and `true_stem/rpa_mean`. Where a score was
    undefined for some tracks also how many, as `sdr_db_skipped`; if for all, its numbers are NaN.
    """
    flat: dict[str, float] = {}
    for name, scores in table.items():
        prefix = "" if name == system else name.replace(" ", "_") + "/"
        for metric, statistics in scores.items():
            if statistics["count"] or name == system:  # all undefined: NaN, so that keys stay
                kinds = ("mean", "std", "median", "weighted") if name == system else ("mean",)
                flat |= {f"{prefix}{metric}_{kind}": statistics[kind] for kind in kinds}
            if statistics["skipped"]:
                flat[f"{prefix}{metric}_skipped"] = float(statistics["skipped"])
    return flat


def write_rows(path: pathlib.Path, rows: Iterable[Row]) -> None:
    """Writes tracks.jsonl, one JSON object per line, whole or not at all."""
    atomic.write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def read_rows(path: pathlib.Path) -> list[Row]:
    """Reads tracks.jsonl; an absent file has no rows, lines that are no rows are left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and {"track", "system", "seconds"} <= set(row):
                rows.append(row)
    return rows


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
    """
    length_frames = max(1, round(seconds * take.sample_rate_hz / take.hop_samples))
    first = _loudest_frame(take, length_frames) if take.has_truth else 0
    stretch = slice(first * take.hop_samples, (first + length_frames) * take.hop_samples)
    signals = {"mixture": take.mixture, "estimate": estimate}
    if take.has_truth:
        signals["truth"] = take.truth
    folder.mkdir(parents=True, exist_ok=True)
    for name, audio in signals.items():
        if audio is not None:
            path = folder / f"{name}.wav"
            limited = np.clip(np.nan_to_num(audio[stretch]), -1.0, 1.0)
            files.write_wav(path, limited, sample_rate_hz=take.sample_rate_hz)
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


def text_table(rows: Iterable[Row]) -> str:
    """The means over tracks as text, a line per system, best first by the first column; "-" where undefined."""
    table = aggregate(rows)
    names = list(dict.fromkeys(name for metrics in table.values() for name in metrics))
    shown = [name for name in names if name in _IN_TEXT] or names
    ordered = sorted(table, key=lambda s: -_mean(table[s], shown[0]) if shown else 0.0)
    lines = [["", *(_IN_TEXT.get(name, name) for name in shown)]]
    for system in ordered:
        means = (_mean(table[system], name) for name in shown)
        lines.append([system, *("-" if m == -math.inf else f"{m:.2f}" for m in means)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(shown) + 1)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


_IN_TEXT = {
    "sdr_db": "SDR dB",
    "nsdr_db": "NSDR dB",
    "si_sdr_db": "SI-SDR dB",
    "usdr_db": "uSDR dB",
    "csdr_db": "cSDR dB",
    "rpa": "RPA %",
    "rca": "RCA %",
    "oa": "OA %",
    "f1": "F1 %",
    "precision": "P %",
    "recall": "R %",
    "silent_share": "silent %",
}


def _mean(statistics: Mapping[str, Mapping[str, float]], name: str) -> float:
    """In the unit of `_IN_TEXT`; minus infinity where no track has the score."""
    if name not in statistics or not statistics[name]["count"]:
        return -math.inf
    return statistics[name]["mean"] * (100.0 if _IN_TEXT.get(name, "").endswith("%") else 1.0)
