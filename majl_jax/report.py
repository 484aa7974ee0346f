"""One page about a run, report.html in its folder: python -m majl_jax.report WORKDIR

Reads what is there (config.json, metrics.jsonl, <stage>/result.json, tracks.jsonl, examples/) and
leaves out what is not, so a run can be looked at while it goes on, or after it was killed. The page
holds its pictures and loads nothing; its players play the examples' WAV files beside it.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from majl_jax import atomic, charts, examples, logs, page, results
from majl_jax.evaluation.rows import Row, read_rows

ASIDE = ("grad_norm", "steps_per_s", "skipped", "learning_rate", "clip_norm")  # shown last
NOT_DRAWN = ("_std", "_median", "_weighted", "_skipped")
TOGETHER = ("weight_", "share_")  # of the dynamic weights: one chart


@dataclasses.dataclass(frozen=True)
class StageFiles:
    """What a stage has left in its folder and in metrics.jsonl."""

    name: str
    folder: pathlib.Path
    lines: list[dict[str, Any]]
    result: dict[str, Any] | None
    rows: list[Row]

    def curve(self, kind: str, key: str) -> tuple[list[charts.Number], list[charts.Number | None]]:
        """Steps and values of one term; values that were not finite are None."""
        points = [(r["step"], r[key]) for r in self.lines if r["kind"] == kind and key in r]
        return [x for x, _ in points], [y for _, y in points]

    def keys(self, kind: str) -> list[str]:
        """Names of all terms of a kind, in order of appearance."""
        names = [k for r in self.lines if r["kind"] == kind for k in r]
        return [k for k in dict.fromkeys(names) if k not in ("stage", "step", "kind", "time_s")]


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes report.html into a run's folder and returns its path."""
    workdir = pathlib.Path(workdir)
    if not workdir.is_dir():
        raise FileNotFoundError(f"{workdir} is no folder; give the --workdir of a training run")
    manifest = _read_json(workdir / "config.json") or {}
    stages = _stages(workdir)
    body = [
        *_heading(workdir, manifest, stages),
        "<h2>Results on held-out tracks</h2>",
        *results.results({stage.name: stage.rows for stage in stages}),
        *results.pseudo_labels(_pseudo_labels(workdir)),
        "<h2>Training</h2>",
        *_training(stages, manifest),
        "<h2>Examples</h2>",
        *examples.examples([stage.name for stage in stages], workdir),
    ]
    path = workdir / "report.html"
    atomic.write_text(path, page.page(f"{workdir.resolve().name}: report", body))
    return path


def _read_json(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _stages(workdir: pathlib.Path) -> list[StageFiles]:
    """The stages in the order in which they ran."""
    lines = [r for r in logs.read_metrics(workdir) if {"stage", "step", "kind"} <= set(r)]
    names = [str(r["stage"]) for r in lines]
    names += sorted(p.parent.name for p in workdir.glob("*/result.json"))
    names += sorted(p.parent.name for p in workdir.glob("*/tracks.jsonl"))
    found = []
    for name in dict.fromkeys(names):
        folder = workdir / name
        found.append(
            StageFiles(
                name=name,
                folder=folder,
                lines=[r for r in lines if r["stage"] == name],
                result=_read_json(folder / "result.json"),
                rows=read_rows(folder / "tracks.jsonl"),
            )
        )
    return found


def _pseudo_labels(workdir: pathlib.Path) -> dict[str, dict[str, Any]]:
    """{data set: what the JSON file beside its labels says}."""
    found = {p.stem: _read_json(p) for p in sorted(workdir.glob("*/pseudo_labels/*.json"))}
    return {name: said for name, said in found.items() if said}


# ---- heading ------------------------------------------------------------------------------------


def _heading(
    workdir: pathlib.Path, manifest: Mapping[str, Any], stages: Sequence[StageFiles]
) -> list[str]:
    config = manifest.get("config") or {}
    starts = manifest.get("starts") or [{}]
    last = starts[-1]
    versions, hardware = last.get("versions") or {}, last.get("hardware") or {}
    complete = {stage.name for stage in stages if stage.result is not None}
    run = config.get("run")
    planned = run if isinstance(run, list) else []
    done = bool(stages) and complete >= {*planned, *(stage.name for stage in stages)}
    state = ("done", "finished") if done else ("open", "not finished")
    recipe = page.text(config.get("recipe", "")) + " · " if config.get("recipe") else ""
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    pairs = [
        ("commit", page.text(last.get("commit") or "")),
        ("seed", page.text(manifest.get("seed", ""))),
        (
            "started",
            page.text(str(starts[0].get("time", "")).replace("T", " ")) + _again(len(starts) - 1),
        ),
        ("hardware", page.text(_hardware(hardware))),
        ("versions", page.text(", ".join(f"{k} {v}" for k, v in versions.items()))),
    ]
    parts = [
        f"<h1>{page.text(workdir.resolve().name)}</h1>",
        f'<p class="lead">{recipe}<span class="state {state[0]}">{state[1]}</span> · '
        f"page written {now}</p>",
        page.facts(pairs),
    ]
    if last.get("command"):
        parts.append(f"<pre>{page.text(last['command'])}</pre>")
    if config:
        parts.append(
            page.details("config", f"<pre>{page.text(json.dumps(config, indent=2))}</pre>")
        )
    else:
        parts.append('<p class="note">config.json is missing or not readable.</p>')
    return parts


def _again(times: int) -> str:
    return f", resumed {times} time{'s' * (times > 1)}" if times else ""


def _hardware(hardware: Mapping[str, Any]) -> str:
    if not hardware:
        return ""
    device = f"{hardware.get('devices', '?')} x {hardware.get('device', '?')}"
    processes = hardware.get("processes", 1)
    return ", ".join(
        [
            f"{device} ({hardware.get('platform', '?')})",
            *([f"{processes} processes"] if processes != 1 else []),
            f"{hardware.get('cpus', '?')} CPU cores",
            str(hardware.get("system", "")),
        ]
    )


# ---- training -----------------------------------------------------------------------------------


def _training(stages: Sequence[StageFiles], manifest: Mapping[str, Any]) -> list[str]:
    stages = [stage for stage in stages if stage.lines]
    if not stages:
        return ['<p class="note">metrics.jsonl has no line yet.</p>']
    parts = [
        '<p class="note"><span class="key train"></span>training &nbsp; '
        '<span class="key valid"></span>validation &nbsp; <span class="ring"></span>the checkpoint '
        "that was kept and tested &nbsp; dashed: reference systems</p>"
    ]
    for stage in stages:
        parts.append(f"<h3>{page.text(stage.name)}</h3>")
        parts.append(f'<p class="note">{page.text(_progress(stage, manifest))}</p>')
        drawn = [(key, _chart(stage, key)) for key in _chart_keys(stage)]
        figures = [page.figure(key, chart) for key, chart in drawn]
        parts.append(f'<div class="charts">{"".join(figures[:9])}</div>')
        if figures[9:]:
            more = f'<div class="charts">{"".join(figures[9:])}</div>'
            parts.append(page.details(f"{len(figures) - 9} more curves of {stage.name}", more))
        parts += _dynamic_weights(stage)
    return parts


def _progress(stage: StageFiles, manifest: Mapping[str, Any]) -> str:
    steps = max(r["step"] for r in stage.lines)
    planned = ((manifest.get("config") or {}).get("stages") or {}).get(stage.name) or {}
    wanted = planned.get("steps") if isinstance(planned, dict) else None
    times = [r["time_s"] for r in stage.lines if isinstance(r.get("time_s"), (int, float))]
    took = datetime.timedelta(seconds=round(max(times) - min(times))) if times else None
    said = f"{steps:,}{f' of {wanted:,}' if isinstance(wanted, int) else ''} steps"
    said += ", complete" if stage.result is not None else ", not complete"
    return said + (f"; {took} from the first to the last line of its log" if took else "")


def _chart_keys(stage: StageFiles) -> list[str]:
    """Losses, then validation metrics, then what is watched on the side."""
    train, valid = stage.keys("train"), stage.keys("valid")
    drawn = [k for k in valid if not k.endswith(NOT_DRAWN) and "/" not in k]
    train = [k for k in train if not k.startswith(TOGETHER)]
    keys = [k for k in train if k not in ASIDE] + drawn + [k for k in train if k in ASIDE]
    return list(dict.fromkeys(keys))


def _chart(stage: StageFiles, key: str) -> str:
    series = [
        charts.Series(kind, *stage.curve(kind, key), kind, dots=kind == "valid")
        for kind in ("train", "valid")
        if key in stage.keys(kind)
    ]
    references = []
    for system in results.REFERENCES:
        _, values = stage.curve("valid", f"{system.replace(' ', '_')}/{key}")
        if values and values[-1] is not None:
            references.append((system, values[-1]))
    step = (stage.result or {}).get("step", -1)
    kept = dict(zip(*stage.curve("valid", key), strict=True)).get(step)
    mark = None if kept is None else (step, kept)
    title = f"{stage.name}: {key}"
    last_step = max(line["step"] for line in stage.lines)
    return charts.line_chart(
        series, title=title, references=references, mark=mark, last_step=last_step
    )


def _dynamic_weights(stage: StageFiles) -> list[str]:
    """One chart of all mean weights and shares of examples: a colour per case, a dash per quantity."""
    parted = [k.rsplit("_", 1) for k in stage.keys("train") if k.startswith(TOGETHER)]
    if not parted:
        return []
    # The weights of the tasks first: they get the plainest lines.
    quantities = sorted({q for q, _ in parted}, key=lambda q: (not q.startswith("weight_"), q))
    cases = sorted({case for _, case in parted})
    series = []
    for quantity, case in sorted(parted, key=lambda p: (quantities.index(p[0]), p[1])):
        key = f"{quantity}_{case}"
        colour, dash = cases.index(case) % page.COLOURS, quantities.index(quantity) % page.DASHES
        style = f"many c{colour} d{dash}"
        series.append(charts.Series(key, *stage.curve("train", key), style))
    chart = charts.line_chart(
        series,
        title=f"{stage.name}: dynamic weights",
        last_step=max(line["step"] for line in stage.lines),
        from_zero=True,
        width=1000,
        height=240,
    )
    legend = " ".join(
        f'<span class="entry"><span class="key {one.style}"></span>{page.text(one.name)}</span>'
        for one in series
    )
    return [page.figure("Dynamic weights", chart, legend)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: writes the page and prints its path."""
    parser = argparse.ArgumentParser(prog="python -m majl_jax.report", description=__doc__)
    parser.add_argument("workdir", help="the --workdir of a training run")
    try:
        print(write_report(parser.parse_args(arguments).workdir))
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
