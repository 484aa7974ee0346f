"""The page of one run: heading, scores, curves, examples."""

import datetime
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from majl_jax import atomic, formats
from majl_jax.evaluation.rows import read_rows
from majl_jax.report import audio_examples, page, pseudo_labels, score_tables
from majl_jax.report.curves import StageFiles, training_curves
from majl_jax.training import run_log

OF_A_RUN = ("config.json", "metrics.jsonl", "*/result.json", "*/tracks.jsonl")


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes report.html into a run's folder and returns its path."""
    workdir = pathlib.Path(workdir)
    if not workdir.is_dir():
        raise FileNotFoundError(f"{workdir} is no folder; give the --workdir of a training run")
    if not any(any(workdir.glob(name)) for name in OF_A_RUN):
        raise FileNotFoundError(
            f"{workdir} holds no run (none of {', '.join(OF_A_RUN)}); give the --workdir of one"
        )
    manifest = _read_json(workdir / "config.json") or {}
    stages = _stages(workdir)
    body = [
        *_heading(workdir, manifest, stages),
        "<h2>Results on held-out tracks</h2>",
        *score_tables.results({stage.name: stage.rows for stage in stages}),
        *pseudo_labels.pseudo_labels(_pseudo_labels(workdir)),
        "<h2>Training</h2>",
        *training_curves(stages, manifest),
        "<h2>Examples</h2>",
        *audio_examples.examples([stage.name for stage in stages], workdir),
    ]
    path = workdir / "report.html"
    atomic.write_text(path, page.page(f"{workdir.resolve().name}: report", body))
    return path


def _read_json(path: pathlib.Path) -> dict[str, Any] | None:
    return formats.read(path, formats.RUN) if path.exists() else None


def _stages(workdir: pathlib.Path) -> list[StageFiles]:
    """The stages in the order in which they ran."""
    lines = list(run_log.read_metrics(workdir))
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
