"""One page about several runs: settings that differ, scores with their spread over seeds, and
curves.
"""

import collections
import datetime
import json
import os
import pathlib
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from majl_jax import atomic
from majl_jax.datasets import sounds
from majl_jax.evaluation.rows import aggregate, mean
from majl_jax.report import audio_examples, page, score_tables, svg, words
from majl_jax.report.curves import NOT_DRAWN, TOGETHER
from majl_jax.report.run_page import Run, read_run

SEED = "seed"
PLACES = ("data.directory",)  # fields that change nothing where what lies there is known
CONTENT = "content of "
REPEAT = "run of the same seed"
KINDS = ("skipped", "infinite")  # of tracks
FIRST_CURVES = 9
NOTE = (
    "Mean ± standard deviation over runs of the same settings and data with other seeds, of means "
    "over tracks; a single run has no deviation. The best system of a column is bold."
)


class Group(NamedTuple):
    """Runs that differ in their seed alone."""

    name: str
    runs: list[Run]
    fields: dict[str, str]
    """Their config and the checksums of their data, flat, as text."""


def write_comparison(workdirs: Sequence[str | os.PathLike], output: pathlib.Path) -> pathlib.Path:
    """Writes a page about these runs and returns its path."""
    runs = [read_run(workdir) for workdir in workdirs]
    groups = _grouped(runs)
    body = [
        f"<h1>{page.text(', '.join(group.name for group in groups))}</h1>",
        *_heading(groups, output.parent),
        "<h2>Settings that differ</h2>",
        *_differences(groups),
        "<h2>Results on held-out tracks</h2>",
        *_scores(groups),
        "<h2>Training</h2>",
        *_curves(groups),
    ]
    title = f"{len(runs)} runs: comparison"
    atomic.write_text(output, page.page(title, body))
    return output


# ---- which runs belong together ------------------------------------------------------------------


def _grouped(runs: Iterable[Run]) -> list[Group]:
    found: dict[str, list[Run]] = {}
    times: collections.Counter[str] = collections.Counter()
    for run in runs:
        fields = _learned_by(run)
        times[same := json.dumps([fields, _seed(run)], sort_keys=True)] += 1
        if times[same] > 1:  # no other seed, so no part of a mean over seeds
            fields[REPEAT] = str(times[same])
        found.setdefault(json.dumps(fields, sort_keys=True), []).append(run)
    names = [_name([run.workdir for run in some]) for some in found.values()]
    groups = []
    for number, (text, some) in enumerate(found.items(), 1):
        name = names[number - 1]
        alone = bool(name) and names.count(name) == 1
        groups.append(Group(name if alone else f"{name} {number}".strip(), some, json.loads(text)))
    return groups


def _seed(run: Run) -> Any:
    return run.manifest.get(SEED, run.config.get(SEED, ""))


def _learned_by(run: Run) -> dict[str, str]:
    """The fields, flat, that decide what a run learns, but for its seed; of its data the checksums,
    and the place where one is not known.
    """
    config = run.config
    stages, ran = config.get("stages"), config.get("run")
    if isinstance(stages, Mapping) and isinstance(ran, list):
        config = {**config, "stages": {k: v for k, v in stages.items() if k in ran}}
    data = run.manifest.get("data") or {}
    known = data and all(None not in splits.values() for splits in data.values())
    left_out = (SEED, *PLACES) if known else (SEED,)
    content = {
        CONTENT + name: ", ".join(
            f"{split} {checksum}" for split, checksum in sorted(splits.items())
        )
        for name, splits in data.items()
    }
    return {k: v for k, v in _flat(config).items() if k not in left_out} | content


def _flat(config: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """{"stages.teacher.steps": "300"} of a config."""
    found: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{above}{name}.")
        else:
            found[above + name] = value if isinstance(value, str) else json.dumps(value)
    return found


def _name(folders: Sequence[pathlib.Path]) -> str:
    """What folders are called, without the numbers of their seeds; where nothing is left of that,
    what the folder above them is called.
    """
    names = [folder.resolve().name for folder in folders]
    if len(names) > 1 or re.fullmatch(r"seed[._-]?\d+", names[0]):
        names = [re.sub(r"[._-]*(seed|s)?[._-]*\d+$", "", name) for name in names]
    return ", ".join(dict.fromkeys(filter(None, names))) or folders[0].resolve().parent.name


# ---- heading and settings ------------------------------------------------------------------------


def _heading(groups: Sequence[Group], folder: pathlib.Path) -> list[str]:
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    count = sum(len(group.runs) for group in groups)
    recipes = dict.fromkeys(str(run.config.get("recipe", "?")) for g in groups for run in g.runs)
    trained = {g.name: sounds.in_words(g.runs[0].trained_on()) for g in groups}
    said = list(dict.fromkeys(trained.values()))
    pairs = [("trained on", said[0])] if len(said) == 1 else []
    if len(said) > 1:
        pairs = [(f"{name}: trained on", text) for name, text in trained.items()]
    rows = []
    for group in groups:
        rows.append([_run_row(group, run, folder) for run in group.runs])
    names = ("system", "run", "seed", "state", "commit")
    head = [f'<th class="text">{name}</th>' for name in names]
    return [
        f'<p class="lead">{page.text(", ".join(recipes))} · {count} runs · page written {now}</p>',
        page.facts((name, page.text(text)) for name, text in pairs),
        page.table(head, rows, "small"),
        *_other_commits(groups),
    ]


def _other_commits(groups: Iterable[Group]) -> list[str]:
    """A note on groups whose runs are not of one commit."""
    said = []
    for group in groups:
        commits = dict.fromkeys(commit for run in group.runs for commit in _commits(run))
        if len(commits) > 1:
            said.append(f"{group.name}: {', '.join(map(_short, commits))}")
    note = f"Not all runs of a system are of the same commit: {'; '.join(said)}."
    return [f'<p class="note">{page.text(note)}</p>'] if said else []


def _commits(run: Run) -> list[str | None]:
    """Those of its starts, in their order."""
    return list(dict.fromkeys(start.get("commit") for start in run.manifest.get("starts") or [{}]))


def _short(commit: str | None) -> str:
    name, dirty, _ = (commit or words.NOTHING).partition("-dirty")
    return name[:7] + dirty


def _run_row(group: Group, run: Run, folder: pathlib.Path) -> str:
    report, name = run.workdir / "report.html", page.text(str(run.workdir))
    if report.is_file():
        name = f'<a href="{page.text(audio_examples.beside(folder)(report))}">{name}</a>'
    state = ("done", "finished") if run.finished else ("open", "not finished")
    cells = [
        page.text(group.name),
        name,
        page.text(_seed(run)),
        f'<span class="state {state[0]}">{state[1]}</span>',
        page.text(", ".join(map(_short, _commits(run)))),
    ]
    found = "".join(f'<td class="text">{cell}</td>' for cell in cells)
    return f"<tr>{found}</tr>"


def _differences(groups: Sequence[Group]) -> list[str]:
    differing = []
    for name in dict.fromkeys(name for group in groups for name in group.fields):
        values = {group.fields.get(name) for group in groups}
        # What a stage is that only some run does not differ: that they run it does.
        if len(values - {None} if name.startswith("stages.") else values) > 1:
            differing.append(name)
    if not differing:
        return ['<p class="note">None but the seed.</p>']
    head = ['<th class="text">field of the config</th>']
    head += [f'<th class="text">{page.text(group.name)}</th>' for group in groups]
    rows = []
    for name in differing:
        values = (group.fields.get(name, words.NOTHING) for group in groups)
        cells = "".join(f'<td class="text">{page.text(value)}</td>' for value in values)
        rows.append(f'<tr><td class="text"><code>{page.text(name)}</code></td>{cells}</tr>')
    return [page.table(head, [rows], "small settings")]


# ---- scores --------------------------------------------------------------------------------------


def _scores(groups: Sequence[Group]) -> list[str]:
    rows, mixtures, counted = [], {}, []
    for group in groups:
        of_stages: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
        for run in group.runs:
            for stage in run.stages:
                for system, values in aggregate(stage.rows).items():
                    of_stages.setdefault(stage.name, {}).setdefault(system, []).append(values)
        systems = []
        for stage, table in of_stages.items():
            for system, found in table.items():
                if system == "mixture":  # the same for all of the same data, but for its pitch
                    names, tables = mixtures.setdefault(_data(group), ({}, []))
                    names[group.name] = None
                    tables += [{k: one[k] for k in one if k in words.SEPARATION} for one in found]
                elif system not in score_tables.REFERENCES:
                    name = f"{group.name}: {score_tables.label(stage, system)}"
                    systems.append(score_tables.System(name, _over_runs(found)))
                    counted.append((name, _tracks(found)))
        rows.append(systems)
    rows = [systems for systems in rows if systems]
    if not rows:
        return ['<p class="note">No stage has been tested yet.</p>']
    for names, found in mixtures.values():
        name = score_tables.REFERENCES["mixture"]
        name += f" ({', '.join(names)})" * (len(mixtures) > 1)
        rows.append([score_tables.System(name, _over_runs(found), is_reference=True)])
        counted.append((name, _tracks(found)))
    note = NOTE + score_tables.counted_tracks(counted, "track(s) of all runs")
    return [*score_tables.tables(rows, "runs"), f'<p class="note">{page.text(note)}</p>']


def _data(group: Group) -> str:
    """What tells its data from other data."""
    told = {k: v for k, v in group.fields.items() if k.startswith(CONTENT) or k in PLACES}
    return json.dumps(told, sort_keys=True)


def _over_runs(found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | int]]:
    """The statistics of runs' means."""
    over = {}
    for name in dict.fromkeys(name for values in found for name in values):
        having = [values[name] for values in found if values.get(name, {}).get("count")]
        means = [one["mean"] for one in having]
        finite = len(means) > 1 and all(abs(one) != float("inf") for one in means)
        nothing = float("nan")
        over[name] = {
            "mean": mean(means),
            "std": statistics.stdev(means) if finite else nothing,
            "median": statistics.median(means) if means else nothing,
            "weighted": mean(one["weighted"] for one in having),
            "count": len(means),
            "skipped": len(found) - len(means),
            "infinite": 0,
        }
    return over


def _tracks(found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """On how many tracks of all runs a score is undefined or infinite."""
    return {
        name: {kind: sum(one[name][kind] for one in found if name in one) for kind in KINDS}
        for name in dict.fromkeys(name for values in found for name in values)
    }


# ---- curves --------------------------------------------------------------------------------------


def _curves(groups: Sequence[Group]) -> list[str]:
    """A chart per stage and term that two groups have in common; a line per run."""
    entries = [(f"many c{number % page.COLOURS}", g.name) for number, g in enumerate(groups)]
    parts = [
        f'<p class="note">A line per run, a colour per system: {page.legend(entries)} '
        "Broken lines: validation.</p>"
    ]
    charts: dict[tuple[str, ...], list[str]] = {}
    for kind, key in _common(groups):
        series, last = [], 1
        for number, group in enumerate(groups):
            for run in group.runs:
                for stage in run.stages:
                    if key not in stage.keys(kind):
                        continue
                    style = f"many c{number % page.COLOURS} d{int(kind == 'valid')}"
                    curve = stage.curve(kind, key)
                    name = f"{group.name}, {stage.name}"
                    series.append(svg.Series(name, *curve, style))
                    last = max(last, *(line["step"] for line in stage.lines))
        stages = tuple(dict.fromkeys(one.name.rpartition(", ")[2] for one in series))
        title = words.term(key) + " (validation)" * (kind == "valid")
        chart = svg.line_chart(series, title=title, last_step=last)
        charts.setdefault(stages, []).append(page.figure(title, chart))
    if not charts:
        return ['<p class="note">The runs have no curve in common.</p>']
    for stages, figures in charts.items():
        parts.append(f"<h3>{page.text(' and '.join(stages))}</h3>")
        parts.append(f'<div class="charts">{"".join(figures[:FIRST_CURVES])}</div>')
        if more := figures[FIRST_CURVES:]:
            inside = f'<div class="charts">{"".join(more)}</div>'
            parts.append(page.details(f"{len(more)} more curves", inside))
    return parts


def _common(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """(kind, term) that more than one group has, or the only one; validation first."""
    counts: dict[tuple[str, str], int] = {}
    for group in groups:
        of_group = {
            (kind, key): None
            for run in group.runs
            for stage in run.stages
            for kind in ("valid", "train")
            for key in stage.keys(kind)
        }
        for one in of_group:
            counts[one] = counts.get(one, 0) + 1
    least = min(2, len(groups))
    drawn = [
        (kind, key)
        for (kind, key), count in counts.items()
        if count >= least
        and not key.startswith(TOGETHER)
        and not key.endswith(NOT_DRAWN)
        and "/" not in key
    ]
    return sorted(drawn, key=lambda one: one[0] != "valid")
