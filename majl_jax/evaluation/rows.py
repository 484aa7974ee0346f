"""Scores of whole tracks: one row per track and system, undefined scores counted, named aggregates.

target.py, stems.py, multi_pitch.py and excerpt_scores.py make the rows, `report` reads them back.
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


def means(flat: Mapping[str, float]) -> dict[str, float]:
    """Of the numbers of `flatten` the means, by the names of the scores, and of how many tracks a
    score is missing there.
    """
    kept = {k.removesuffix("_mean"): v for k, v in flat.items() if k.endswith("_mean")}
    return kept | {k: v for k, v in flat.items() if k.endswith("_skipped")}


def write_rows(path: pathlib.Path, rows: Iterable[Row]) -> None:
    """Writes tracks.jsonl, one JSON object per line, whole or not at all."""
    atomic.write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def read_rows(path: pathlib.Path) -> list[Row]:
    """Reads tracks.jsonl; an absent file has no rows, a damaged one is a formats.FormatError."""
    return list(formats.read_lines(path, needs=("track", "system", "seconds")))


def add_rows(path: pathlib.Path, rows: Iterable[Row]) -> None:
    """Appends rows to a file of rows; a row of the same track and system is replaced."""
    rows = list(rows)
    new = {(row["track"], row["system"]) for row in rows}
    old = [row for row in read_rows(path) if (row["track"], row["system"]) not in new]
    write_rows(path, [*old, *rows])


def text_table(rows: Iterable[Row]) -> str:
    """The means over tracks as text, a line per system, best first by the first column; "-" where
    undefined.

    A last line tells of how many tracks a score is not in its mean, such as the SI-SDR of a silent
    estimate.
    """
    table = aggregate(rows)
    names = list(dict.fromkeys(name for metrics in table.values() for name in metrics))
    shown = [name for name in names if name in _IN_TEXT] or names
    ordered = sorted(table, key=lambda s: -_mean(table[s], shown[0]) if shown else 0.0)
    lines = [["", *(_IN_TEXT.get(name, name) for name in shown)]]
    for system in ordered:
        means = (_mean(table[system], name) for name in shown)
        lines.append([system, *("-" if m == -math.inf else f"{m:.2f}" for m in means)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(shown) + 1)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]
    left_out = "; ".join(filter(None, (_left_out(s, table[s], shown) for s in ordered)))
    return "\n".join([*text, *([f"undefined, so not in the means: {left_out}"] * bool(left_out))])


def _left_out(
    system: str, statistics: Mapping[str, Mapping[str, float]], shown: Iterable[str]
) -> str:
    said = [
        f"{_IN_TEXT.get(name, name)} of {int(found['skipped'])} of"
        f" {int(found['count'] + found['skipped'])}"
        for name in shown
        if (found := statistics.get(name)) and found["skipped"]
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


def _mean(statistics: Mapping[str, Mapping[str, float]], name: str) -> float:
    """In the unit of `_IN_TEXT`; minus infinity where no track has the score."""
    if name not in statistics or not statistics[name]["count"]:
        return -math.inf
    return statistics[name]["mean"] * (100.0 if _IN_TEXT.get(name, "").endswith("%") else 1.0)
