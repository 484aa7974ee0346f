"""The results of a run as HTML: systems against scores, stems against scores, single tracks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from majl_jax.evaluation.rows import Row, aggregate
from majl_jax.report import page, words

REFERENCES = {"mixture": "mixture, untouched", "true stem": "true stem"}
MOST_COLUMNS = 8  # a table with more is parted in separation and pitch
Statistics = Mapping[str, Mapping[str, float | int]]
"""{score: {mean, std, median, weighted, count, skipped, infinite}}, as of `rows.aggregate`."""
NOTE = (
    "Mean ± standard deviation over tracks; point at a number for median and length-weighted mean. "
    "The best system of a column is bold. The mixture is judged as if it were the estimate; the "
    "pitch of mixture and true stem is what the pitch estimator of the system above finds there."
)


class System(NamedTuple):
    """A row of a table."""

    label: str
    values: Statistics
    is_reference: bool = False
    """It does not compete."""


def results(rows_of_stages: Mapping[str, Sequence[Row]]) -> list[str]:
    """The tables of systems, what was left out of them, and a folded table of tracks per system."""
    judged = {stage: aggregate(rows) for stage, rows in rows_of_stages.items() if rows}
    if not judged:
        return ['<p class="note">No stage has been tested yet.</p>']
    groups, labelled, tracks = [], [], []
    for stage, table in judged.items():
        systems = sorted(table, key=lambda system: system in REFERENCES)
        groups.append([_system(stage, name, table[name]) for name in systems])
        labelled += [(f"{stage}, {s}" if s != stage else s, table[s]) for s in systems]
        for system in systems:
            if system not in REFERENCES:
                rows = [row for row in rows_of_stages[stage] if row["system"] == system]
                tracks.append(_track_table(label(stage, system), rows, names_of(groups)))
    note = NOTE + counted_tracks(labelled, "track(s)")
    return [*tables(groups, "tracks"), f'<p class="note">{page.text(note)}</p>', *tracks]


def counted_tracks(systems: Sequence[tuple[str, Statistics]], counted: str) -> str:
    """Sentences about the tracks on which scores of systems are infinite or undefined, if any.

    Args:
        systems: label and counts of each.
        counted: what is counted, in words.
    """
    infinite, skips = (
        "; ".join(filter(None, (_counted(*system, kind, counted) for system in systems)))
        for kind in ("infinite", "skipped")
    )
    said = ""
    if infinite:
        silent = f"{words.MINUS_INFINITY}: a silent estimate"
        said += f" Infinite, and so the means ({silent}): {infinite}."
    if skips:
        said += f" Undefined, so left out: {skips}; the reasons are in tracks.jsonl."
    return said


def label(stage: str, system: str) -> str:
    """What a system of a stage is called."""
    return stage if system == stage else f"{stage}, {REFERENCES.get(system, system)}"


def _system(stage: str, name: str, values: Statistics) -> System:
    is_reference = name in REFERENCES
    return System(REFERENCES[name] if is_reference else label(stage, name), values, is_reference)


def names_of(groups: Sequence[Sequence[System]]) -> list[str]:
    """The scores that systems have, those that are known first, in their order."""
    found = {name for group in groups for system in group for name in system.values}
    return [n for n in words.METRICS if n in found] + sorted(found - set(words.METRICS))


# ---- tables --------------------------------------------------------------------------------------


def tables(groups: Sequence[Sequence[System]], counted: str) -> list[str]:
    """Systems against scores, with separation and pitch apart where that is wide, then every stem
    against the scores that there are of stems.

    counted: what a mean is taken over.
    """
    names = names_of(groups)
    stems = words.by_stem(names)
    of_stems = {name for scores in stems.values() for name in scores.values()}
    whole = [name for name in names if name not in of_stems]
    best = _best(groups, names)
    columns = [whole]
    if len(whole) > MOST_COLUMNS:
        separation = [name for name in whole if name in words.SEPARATION]
        columns = [separation, [name for name in whole if name not in separation]]
    parts = [_of_systems(groups, some, best, counted) for some in columns if some]
    return parts + ([_of_stems(groups, stems, best)] if stems else [])


def _of_systems(
    groups: Sequence[Sequence[System]],
    names: Sequence[str],
    best: Mapping[str, float | int],
    counted: str,
) -> str:
    head = ['<th class="text">system</th>', f"<th>{counted}</th>", *map(_head_cell, names)]
    rows = []
    for group in groups:
        shown = [system for system in group if not names or {*names} & {*system.values}]
        rows.append([_system_row(system, names, best) for system in shown])
    return page.table(head, [some for some in rows if some])


def _system_row(system: System, names: Sequence[str], best: Mapping[str, float | int]) -> str:
    count = max((int(v["count"] + v["skipped"]) for v in system.values.values()), default=0)
    cells = [f'<td class="text">{page.text(system.label)}</td><td>{count}</td>']
    cells += [_value_cell(name, system, best) for name in names]
    return f'<tr class="{_style(system)}">{"".join(cells)}</tr>'


def _style(system: System) -> str:
    return "reference" if system.is_reference else "system"


def _of_stems(
    groups: Sequence[Sequence[System]],
    stems: Mapping[str, Mapping[str, str]],
    best: Mapping[str, float | int],
) -> str:
    """A body per stem, with a row per system."""
    known = {score for scores in stems.values() for score in scores}
    scores = [n for n in words.METRICS if n in known] + sorted(known - set(words.METRICS))
    bodies = []
    for stem, names in sorted(stems.items()):
        systems = [s for group in groups for s in group if {*names.values()} & {*s.values}]
        # References are the same for all stages: once is enough.
        lines = dict.fromkeys(
            (
                _style(system),
                f'<td class="text">{page.text(system.label)}</td>'
                + "".join(_value_cell(names.get(one, ""), system, best, one) for one in scores),
            )
            for system in sorted(systems, key=lambda one: one.is_reference)
        )
        shown = [page.text(stem), *[""] * (len(lines) - 1)]
        bodies.append(
            [
                f'<tr class="{style}"><td class="text">{name}</td>{line}</tr>'
                for name, (style, line) in zip(shown, lines, strict=True)
            ]
        )
    head = ['<th class="text">stem</th>', '<th class="text">system</th>', *map(_head_cell, scores)]
    return page.table(head, bodies, "stems")


def _head_cell(name: str) -> str:
    metric = words.metric(name)
    return f'<th title="{page.text(metric.meaning)}">{page.text(metric.label)}</th>'


def _best(groups: Sequence[Sequence[System]], names: Sequence[str]) -> dict[str, float | int]:
    """The best mean per score where there is something to compare and a better; references do not
    compete.
    """
    best = {}
    of_stems = {n: score for found in words.by_stem(names).values() for score, n in found.items()}
    for name in names:
        means = [
            system.values[name]["mean"]
            for group in groups
            for system in group
            if not system.is_reference and name in system.values and system.values[name]["count"]
        ]
        higher = words.metric(of_stems.get(name, name)).higher_is_better
        if len(means) > 1 and higher is not None:
            best[name] = max(means) if higher else min(means)
    return best


def _value_cell(
    name: str, system: System, best: Mapping[str, float | int], score: str | None = None
) -> str:
    """A cell of the score `name`, which is shown as `score` is."""
    value, score = system.values.get(name), score or name
    if value is None:
        return "<td></td>"
    if not value["count"]:
        return f'<td title="undefined on every track">{words.NOTHING}</td>'
    mean, std, median, weighted = (
        words.shown(score, value[kind]) for kind in ("mean", "std", "median", "weighted")
    )
    tip = f"median {median}, length-weighted mean {weighted}, n = {value['count']:g}"
    is_best = not system.is_reference and value["mean"] == best.get(name)
    mean = f"<strong>{mean}</strong>" if is_best else mean
    spread = f'<span class="sd"> ± {std}</span>' * (value["count"] > 1)
    return f'<td title="{tip}">{mean}{spread}</td>'


def _counted(label: str, values: Statistics, kind: str, counted: str) -> str:
    counts: dict[int, list[str]] = {}
    for name, value in values.items():
        if value[kind]:
            said = words.metric(name).label.partition(" dB")[0].removesuffix(" %")
            counts.setdefault(int(value[kind]), []).append(said)
    parts = [f"{', '.join(names)} of {count}" for count, names in sorted(counts.items())]
    return f"{label}: {', '.join(parts)} {counted}" if parts else ""


def _track_table(label: str, rows: Sequence[Row], names: Sequence[str]) -> str:
    """All tracks; of scores of stems the first kind alone, for the rest is in tracks.jsonl."""
    of_stems = [list(scores.values()) for scores in words.by_stem(names).values()]
    left_out = {name for scores in of_stems for name in scores[1:]}
    used = [n for n in names if n not in left_out and any(n in row for row in rows)]

    def worst_first(row: Row) -> float:
        value: Any = row.get(used[0]) if used else None
        return math.inf if value is None else value

    lines = []
    for row in sorted(rows, key=worst_first):
        cells = [f'<td class="text">{page.text(row["track"])}</td><td>{row["seconds"]:.1f}</td>']
        for name in used:
            reason = (row.get("skipped") or {}).get(name, "")
            cells.append(f'<td title="{page.text(reason)}">{words.shown(name, row.get(name))}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = ['<th class="text">track</th>', "<th>seconds</th>", *map(_head_cell, used)]
    table = page.table(head, [lines], "small")
    return page.details(f"{label}: every track, worst first ({len(rows)})", table)
