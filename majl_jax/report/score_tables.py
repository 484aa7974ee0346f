"""The results of a run as HTML: systems against metrics, single tracks, and what pseudo labels
were kept.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from majl_jax.evaluation.rows import Row, aggregate
from majl_jax.report import page

REFERENCES = {"mixture": "mixture, untouched", "true stem": "true stem"}
NOTHING = "\N{EN DASH}"
MINUS_INFINITY = "\N{MINUS SIGN}\N{INFINITY}"
Table = Mapping[str, Mapping[str, Mapping[str, float]]]  # what scores.aggregate returns


class Metric(NamedTuple):
    """How a score is shown."""

    label: str
    meaning: str
    factor: float = 1
    digits: int = 2
    higher_is_better: bool = True


METRICS = {
    "sdr_db": Metric("SDR dB", "global signal-to-distortion ratio"),
    "nsdr_db": Metric("NSDR dB", "SDR gained over the untouched mixture"),
    "si_sdr_db": Metric("SI-SDR dB", "scale-invariant SDR"),
    "usdr_db": Metric("uSDR dB", "utterance-level SDR"),
    "sdr_v4_db": Metric("SDRv4 dB", "BSS Eval v4, median of 1 s windows"),
    "isr_v4_db": Metric("ISRv4 dB", "BSS Eval v4, image to spatial distortion"),
    "sir_v4_db": Metric("SIRv4 dB", "BSS Eval v4, source to interference"),
    "sar_v4_db": Metric("SARv4 dB", "BSS Eval v4, sources to artefacts"),
    "rpa": Metric("RPA %", "raw pitch accuracy; frames estimated as unvoiced are wrong", 100, 1),
    "rca": Metric("RCA %", "raw chroma accuracy; frames estimated as unvoiced are wrong", 100, 1),
    "oa": Metric("OA %", "overall accuracy", 100, 1),
    "vr": Metric("VR %", "voicing recall", 100, 1),
    "vfa": Metric("VFA %", "voicing false alarm; lower is better", 100, 1, False),
    "f1": Metric("F1 %", "frame-wise F1 of all pitches, within half a semitone", 100, 1),
    "f1_tuned": Metric("F1* %", "F1 at the threshold that was best on validation tracks", 100, 1),
    "average_precision": Metric("AP %", "average precision: no threshold, skill alone", 100, 1),
    "contrast": Metric("contrast", "loudest bin above the median one, in logits; 0: blank output"),
    "precision": Metric("P %", "precision of the pitches", 100, 1),
    "recall": Metric("R %", "recall of the pitches", 100, 1),
    "accuracy": Metric("Acc %", "right pitches over right, missed and wrong ones", 100, 1),
    "polyphony": Metric("pitches", "estimated per frame"),
    "activation_mass": Metric("activity", "sum of the salience per frame; 0: blank output"),
    "silent_share": Metric(
        "silent %", "sounding frames without a pitch; lower is better", 100, 1, False
    ),
    "rpa_mirex": Metric("RPA* %", "raw pitch accuracy, guesses in unvoiced frames count", 100, 1),
    "rca_mirex": Metric("RCA* %", "raw chroma accuracy, guesses in unvoiced frames count", 100, 1),
}
NOTE = (
    "Mean ± standard deviation over tracks; point at a number for median and length-weighted mean. "
    "The best system of a column is bold. The mixture is judged as if it were the estimate; the "
    "pitch of mixture and true stem is what the pitch estimator of the system above finds there."
)


def results(rows_of_stages: Mapping[str, Sequence[Row]]) -> list[str]:
    """The table of systems, what was left out of it, and a folded table of tracks per system."""
    judged = {stage: aggregate(rows) for stage, rows in rows_of_stages.items() if rows}
    if not judged:
        return ['<p class="note">No stage has been tested yet.</p>']
    found = {name for table in judged.values() for values in table.values() for name in values}
    names = [n for n in METRICS if n in found] + sorted(found - set(METRICS))
    best = _best(list(judged.values()), names)
    groups, infinite, skips, tracks = [], [], [], []
    for stage, table in judged.items():
        systems = sorted(table, key=lambda system: system in REFERENCES)
        groups.append([_system_row(stage, s, table[s], names, best) for s in systems])
        for found, kind in ((infinite, "infinite"), (skips, "skipped")):
            labels = {s: f"{stage}, {s}" if s != stage else s for s in systems}
            found += [_counted(labels[s], table[s], kind) for s in systems]
        for system in systems:
            if system not in REFERENCES:
                rows = [row for row in rows_of_stages[stage] if row["system"] == system]
                tracks.append(_track_table(_label(stage, system), rows, names))
    head = ['<th class="text">system</th>', "<th>tracks</th>", *map(_head_cell, names)]
    note = NOTE
    if said := "; ".join(filter(None, infinite)):
        note += f" Infinite, and so the means ({MINUS_INFINITY}: a silent estimate): {said}."
    if left_out := "; ".join(filter(None, skips)):
        note += f" Undefined, so left out: {left_out}; the reasons are in tracks.jsonl."
    return [page.table(head, groups), f'<p class="note">{page.text(note)}</p>', *tracks]


def _metric(name: str) -> Metric:
    return METRICS.get(name, Metric(name, name, 1, 3))


def _label(stage: str, system: str) -> str:
    return stage if system == stage else f"{stage}, {REFERENCES.get(system, system)}"


def _head_cell(name: str) -> str:
    metric = _metric(name)
    return f'<th title="{page.text(metric.meaning)}">{page.text(metric.label)}</th>'


def _best(tables: Sequence[Table], names: Sequence[str]) -> dict[str, float]:
    """The best mean per metric where there is something to compare; references do not compete."""
    best = {}
    for name in names:
        means = [
            values[name]["mean"]
            for table in tables
            for system, values in table.items()
            if system not in REFERENCES and name in values and values[name]["count"]
        ]
        if len(means) > 1:
            best[name] = max(means) if _metric(name).higher_is_better else min(means)
    return best


def _system_row(
    stage: str,
    system: str,
    values: Mapping[str, Mapping[str, float]],
    names: Sequence[str],
    best: Mapping[str, float],
) -> str:
    tracks = max((int(v["count"] + v["skipped"]) for v in values.values()), default=0)
    reference = system in REFERENCES
    label = REFERENCES[system] if reference else _label(stage, system)
    cells = [f'<td class="text">{page.text(label)}</td><td>{tracks}</td>']
    for name in names:
        cells.append(_value_cell(name, values.get(name), None if reference else best.get(name)))
    return f'<tr class="{"reference" if reference else "system"}">{"".join(cells)}</tr>'


def _value_cell(name: str, value: Mapping[str, float] | None, best: float | None) -> str:
    if value is None:
        return "<td></td>"
    if not value["count"]:
        return f'<td title="undefined on every track">{NOTHING}</td>'
    mean, std, median, weighted = (
        _shown(name, value[kind]) for kind in ("mean", "std", "median", "weighted")
    )
    tip = f"median {median}, length-weighted mean {weighted}, n = {value['count']:g}"
    mean = f"<strong>{mean}</strong>" if value["mean"] == best else mean
    return f'<td title="{tip}">{mean}<span class="sd"> ± {std}</span></td>'


def _shown(name: str, value: float | None) -> str:
    metric = _metric(name)
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return MINUS_INFINITY if value < 0 else MINUS_INFINITY[1:]
    return f"{value * metric.factor:.{metric.digits}f}".replace("-", "\N{MINUS SIGN}")


def _counted(label: str, values: Mapping[str, Mapping[str, float]], kind: str) -> str:
    counts: dict[int, list[str]] = {}
    for name, value in values.items():
        if value[kind]:
            counts.setdefault(int(value[kind]), []).append(_metric(name).label.split()[0])
    said = [f"{', '.join(names)} of {count}" for count, names in sorted(counts.items())]
    return f"{label}: {', '.join(said)} track(s)" if said else ""


def _track_table(label: str, rows: Sequence[Row], names: Sequence[str]) -> str:
    used = [name for name in names if any(name in row for row in rows)]

    def worst_first(row: Row) -> float:
        value: Any = row.get(used[0]) if used else None
        return math.inf if value is None else value

    lines = []
    for row in sorted(rows, key=worst_first):
        cells = [f'<td class="text">{page.text(row["track"])}</td><td>{row["seconds"]:.1f}</td>']
        for name in used:
            reason = (row.get("skipped") or {}).get(name, "")
            shown = _shown(name, row.get(name))
            cells.append(f'<td title="{page.text(reason)}">{shown}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = ['<th class="text">track</th>', "<th>seconds</th>", *map(_head_cell, used)]
    table = page.table(head, [lines], "small")
    return page.details(f"{label}: every track, worst first ({len(rows)})", table)
