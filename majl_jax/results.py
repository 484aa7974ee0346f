"""The results of a run as HTML: systems against metrics, single tracks, and what pseudo labels were kept."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from majl_jax import charts, page
from majl_jax.evaluation.rows import Row, aggregate

REFERENCES = {"mixture": "mixture, untouched", "true stem": "true stem"}
NOTHING = "\N{EN DASH}"
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
    groups, skips, tracks = [], [], []
    for stage, table in judged.items():
        systems = sorted(table, key=lambda system: system in REFERENCES)
        groups.append([_system_row(stage, s, table[s], names, best) for s in systems])
        skips += [_skips(f"{stage}, {s}" if s != stage else s, table[s]) for s in systems]
        for system in systems:
            if system not in REFERENCES:
                rows = [row for row in rows_of_stages[stage] if row["system"] == system]
                tracks.append(_track_table(_label(stage, system), rows, names))
    head = ['<th class="text">system</th>', "<th>tracks</th>", *map(_head_cell, names)]
    note = NOTE
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
    if value is None:
        return NOTHING
    return f"{value * metric.factor:.{metric.digits}f}".replace("-", "\N{MINUS SIGN}")


def _skips(label: str, values: Mapping[str, Mapping[str, float]]) -> str:
    counts: dict[int, list[str]] = {}
    for name, value in values.items():
        if value["skipped"]:
            counts.setdefault(int(value["skipped"]), []).append(_metric(name).label.split()[0])
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


# ---- pseudo labels ------------------------------------------------------------------------------

LABEL_ROWS = {
    "labels": "what the teacher labelled",
    "teacher": "identity of its parameters, and its step where it is known",
    "threshold": "labels with less confidence are masked: they count in no loss",
    "kept as one": "what is kept or masked by its own mean confidence",
    "audio": "minutes that were labelled",
    "seen": "labels before the filter",
    "kept": "labels at or above the threshold",
    "masked": "labels below the threshold",
    "kept, voiced": "of the pitch labels",
    "kept, unvoiced": "of the pitch labels",
    "mean confidence": "of all that were seen, as the threshold is compared with it",
    "wrong on purpose": "of the kept voiced frames",
}


def pseudo_labels(sets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the teacher's filter kept of every data set, and what other thresholds would have kept.

    sets: {data set: what the JSON file beside its labels says}; without any there is no section.
    """
    if not sets:
        return []
    columns = [_label_column(said) for said in sets.values()]
    head = ["<th></th>", *(f"<th>{page.text(name)}</th>" for name in sets), "<th></th>"]
    rows = []
    for number, (label, meaning) in enumerate(LABEL_ROWS.items()):
        cells = "".join(f"<td>{page.text(column[number])}</td>" for column in columns)
        rows.append(f'<tr><td>{label}</td>{cells}<td class="text note">{meaning}</td></tr>')
    parts = ["<h2>Pseudo labels</h2>", page.table(head, [rows], "small")]
    if figures := "".join(_kept_figure(name, said) for name, said in sets.items()):
        parts += [
            '<p class="note">The share of labels that each threshold keeps, by the teacher\'s own '
            "confidence: there is no truth to compare these labels with. &nbsp; "
            '<span class="ring"></span>the threshold that was used</p>',
            f'<div class="charts">{figures}</div>',
        ]
    return parts


def _label_column(said: Mapping[str, Any]) -> list[str]:
    """The values of LABEL_ROWS for one data set."""

    def shown(key: str, form: str = ",") -> str:
        value = _number(said, key)
        return NOTHING if value is None else f"{value:{form}}"

    step, kept = shown("teacher_step"), _kept_share(said)
    unit = str(said.get("granularity", NOTHING))
    return [
        " of ".join(str(said[key]) for key in ("labels", "target") if key in said) or NOTHING,
        str(said.get("teacher", NOTHING)) + (f", step {step}" if step != NOTHING else ""),
        shown("threshold", "g"),
        unit if said.get("unit") == "frames" or unit == "song" else "record",
        f"{shown('minutes')} min",
        f"{shown('seen')} {said.get('unit', '')}",
        shown("kept") + (f" ({kept:.1%})" if kept is not None else ""),
        *(shown(key) for key in ("masked", "voiced_kept", "unvoiced_kept")),
        shown("mean_confidence", ".3f"),
        shown("wrong_share", ".1%") if "wrong_share" in said else "none",
    ]


def _number(said: Mapping[str, Any], key: str) -> charts.Number | None:
    value = said.get(key)
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def _kept_share(said: Mapping[str, Any]) -> float | None:
    kept, seen = _number(said, "kept"), _number(said, "seen")
    return None if kept is None or not seen else kept / seen


def _kept_figure(name: str, said: Mapping[str, Any]) -> str:
    """Kept share against threshold; nothing if the labels are older than their statistics."""
    shares, used, kept = said.get("kept_share_at"), _number(said, "threshold"), _kept_share(said)
    try:
        points = sorted((float(t), float(share)) for t, share in dict(shares or {}).items())
    except (TypeError, ValueError):
        return ""
    if not points:
        return ""
    chart = charts.kept_chart(
        *zip(*points, strict=True),
        used=None if used is None or kept is None else (used, kept),
        title=f"{name}: kept share against threshold",
    )
    return page.figure(f"{name}: kept at each threshold", chart)
