"""Scores of whole tracks: one row per track and system, undefined scores counted, named aggregates.

target.py, stems.py, multi_pitch.py and excerpt_scores.py make the rows, `report` reads them back.
A score is a number, None (undefined, with a reason in "skipped") or infinite: the SI-SDR of a
silent estimate is -inf, and so is a mean that it is in.
"""

import json
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from majl_jax import atomic, formats

Row = dict[str, Any]
LABELS = ("track", "system", "seconds", "skipped")  # the keys of a row that are not scores
_COUNTS = ("skipped", "infinite")
_COUNTED = tuple(f"_{kind}" for kind in _COUNTS)


def aggregate(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns {system: {metric: {mean, std, median, weighted, count, skipped, infinite}}} over
    tracks.

    std is the population's (as NumPy's default), NaN with infinite scores; weighted is the mean
    weighted with the tracks' lengths (GNSDR of MIR-1K papers); skipped counts the tracks where the
    score is undefined and which are in none of these numbers, infinite those that are in all.
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
    counts = {"count": len(kept), "skipped": len(pairs) - len(kept), "infinite": 0}
    if not kept:
        return dict.fromkeys(("mean", "std", "median", "weighted"), math.nan) | counts
    values, seconds = np.array(kept, np.float64).T
    finite = np.isfinite(values)
    return {
        "mean": mean(values),
        "std": float(np.std(values)) if finite.all() else math.nan,
        "median": _median(values),
        "weighted": mean(values, seconds),
    } | {**counts, "infinite": int(np.sum(~finite))}


def _median(values: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):  # halfway between -inf and +inf there is nothing: NaN
        return float(np.median(values))


def mean(values: Iterable[float], weights: Iterable[float] | None = None) -> float:
    """The (weighted) mean of scores: with -inf among them -inf, else with +inf +inf; NaN without
    any.
    """
    scores = np.array([*values], np.float64)
    if not len(scores):
        return math.nan
    if np.isinf(scores).any():
        return -math.inf if scores.min() == -math.inf else math.inf
    return float(np.average(scores, weights=None if weights is None else [*weights]))


def flatten(
    table: Mapping[str, Mapping[str, Mapping[str, float]]], system: str
) -> dict[str, float]:
    """Names the numbers of `aggregate` for logs and for picking a checkpoint.

    Of the judged system: `sdr_db_mean`, `sdr_db_std`, `sdr_db_median`, `sdr_db_weighted`; of the
    references the mean, as `mixture/sdr_db_mean` and `true_stem/rpa_mean`. Where a score was
    undefined for some tracks also how many, as `sdr_db_skipped`; if for all, its numbers are NaN.
    Where it was infinite, also for how many, as `si_sdr_db_infinite`.
    """
    flat: dict[str, float] = {}
    for name, scores in table.items():
        prefix = "" if name == system else name.replace(" ", "_") + "/"
        for metric, statistics in scores.items():
            if statistics["count"] or name == system:  # all undefined: NaN, so that keys stay
                kinds = ("mean", "std", "median", "weighted") if name == system else ("mean",)
                flat |= {f"{prefix}{metric}_{kind}": statistics[kind] for kind in kinds}
            for kind in _COUNTS:
                if statistics[kind]:
                    flat[f"{prefix}{metric}_{kind}"] = float(statistics[kind])
    return flat


def means(flat: Mapping[str, float]) -> dict[str, float]:
    """Of the numbers of `flatten` the means, by the names of the scores, and of how many tracks a
    score is missing there or infinite.
    """
    kept = {k.removesuffix("_mean"): v for k, v in flat.items() if k.endswith("_mean")}
    return kept | {k: v for k, v in flat.items() if k.endswith(_COUNTED)}


def write_rows(path: pathlib.Path, rows: Iterable[Row]) -> None:
    """Writes tracks.jsonl, one JSON object per line, whole or not at all; infinite scores as
    text.
    """
    as_text = ({k: _to_json(v) for k, v in row.items()} for row in rows)
    atomic.write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in as_text))


def _to_json(value: Any) -> Any:
    return formats.score_to_json(value) if isinstance(value, float) else value


def read_rows(path: pathlib.Path) -> list[Row]:
    """Reads tracks.jsonl; an absent file has no rows, a damaged one is a formats.FormatError."""
    rows = formats.read_lines(path, needs=("track", "system", "seconds"))
    return [
        {k: v if k in LABELS else formats.score_from_json(v) for k, v in row.items()}
        for row in rows
    ]


def add_rows(path: pathlib.Path, rows: Iterable[Row]) -> None:
    """Appends rows to a file of rows; a row of the same track and system is replaced."""
    rows = list(rows)
    new = {(row["track"], row["system"]) for row in rows}
    old = [row for row in read_rows(path) if (row["track"], row["system"]) not in new]
    write_rows(path, [*old, *rows])


def text_table(rows: Iterable[Row]) -> str:
    """The means over tracks as text, a line per system, best first by the first column; "-" where
    undefined.

    Last lines tell of how many tracks a score is infinite, as the SI-SDR of a silent estimate is,
    and of how many it is undefined and not in the mean.
    """
    table = aggregate(rows)
    names = list(dict.fromkeys(name for metrics in table.values() for name in metrics))
    shown = [name for name in names if name in _IN_TEXT] or names
    ordered = sorted(table, key=lambda s: _place(_mean(table[s], shown[0]) if shown else None))
    lines = [["", *(_IN_TEXT.get(name, name) for name in shown)]]
    for system in ordered:
        means = (_mean(table[system], name) for name in shown)
        lines.append([system, *("-" if m is None else f"{m:.2f}" for m in means)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(shown) + 1)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]
    for kind, words in (
        ("infinite", "infinite, and so the means (-inf: a silent estimate)"),
        ("skipped", "undefined, so not in the means"),
    ):
        counted = "; ".join(filter(None, (_counted(s, table[s], shown, kind) for s in ordered)))
        text += [f"{words}: {counted}"] * bool(counted)
    return "\n".join(text)


def _counted(
    system: str, statistics: Mapping[str, Mapping[str, float]], shown: Iterable[str], kind: str
) -> str:
    said = [
        f"{_IN_TEXT.get(name, name)} of {int(found[kind])} of"
        f" {int(found['count'] + found['skipped'])}"
        for name in shown
        if (found := statistics.get(name)) and found[kind]
    ]
    return f"{system}: {', '.join(said)}" if said else ""


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
    "f1_tuned": "F1* %",
    "average_precision": "AP %",
    "precision": "P %",
    "recall": "R %",
    "silent_share": "silent %",
}


def _place(mean_of_system: float | None) -> tuple[bool, float]:
    """What systems are sorted by: best first, those without a score last."""
    return mean_of_system is None, -(mean_of_system or 0.0)


def _mean(statistics: Mapping[str, Mapping[str, float]], name: str) -> float | None:
    """In the unit of `_IN_TEXT`; None where no track has the score."""
    if name not in statistics or not statistics[name]["count"]:
        return None
    return statistics[name]["mean"] * (100.0 if _IN_TEXT.get(name, "").endswith("%") else 1.0)
