"""What the teacher labelled, as a table and a figure."""

import math
from collections.abc import Mapping
from typing import Any

from majl_jax.report import page, svg
from majl_jax.report.words import NOTHING

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
    columns_head = [f"<th>{page.text(name)}</th>" for name in sets]
    head = ['<th class="text">of</th>', *columns_head, '<th class="text">meaning</th>']
    rows = []
    for number, (label, meaning) in enumerate(LABEL_ROWS.items()):
        cells = "".join(f"<td>{page.text(column[number])}</td>" for column in columns)
        rows.append(f'<tr><td>{label}</td>{cells}<td class="text note">{meaning}</td></tr>')
    parts = ["<h2>Pseudo labels</h2>", page.table(head, [rows], "small")]
    if figures := "".join(_kept_figure(name, said) for name, said in sets.items()):
        parts += [
            "<h3>Kept at each threshold</h3>",
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


def _number(said: Mapping[str, Any], key: str) -> svg.Number | None:
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
    chart = svg.kept_chart(
        *zip(*points, strict=True),
        used=None if used is None or kept is None else (used, kept),
        title=f"{name}: kept share against threshold",
    )
    return page.figure(f"{name}: kept at each threshold", chart)
