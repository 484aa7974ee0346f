"""The page of one run: heading, scores, curves, examples."""

import contextlib
import datetime
import importlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections

from majl_jax import atomic, formats
from majl_jax.datasets import sounds
from majl_jax.evaluation.rows import read_rows
from majl_jax.report import audio_examples, page, pseudo_labels, score_tables
from majl_jax.report.curves import StageFiles, training_curves
from majl_jax.training import run_log

OF_A_RUN = ("config.json", "metrics.jsonl", "*/result.json", "*/tracks.jsonl")


class Run(NamedTuple):
    """What is in the folder of a run."""

    workdir: pathlib.Path
    manifest: dict[str, Any]
    stages: list[StageFiles]

    @property
    def config(self) -> dict[str, Any]:
        """Its fields; none where config.json does not say them."""
        return self.manifest.get("config") or {}

    @property
    def finished(self) -> bool:
        """Whether all stages are complete, those that have not begun as well."""
        complete = {stage.name for stage in self.stages if stage.result is not None}
        planned = self.config.get("run")
        wanted = {*(planned if isinstance(planned, list) else [])}
        return bool(self.stages) and complete >= wanted | {stage.name for stage in self.stages}

    def trained_on(self) -> dict[str, str]:
        """Its data sets, each "real", "synthetic", "own" files or "unknown"; none where its recipe
        cannot tell.
        """
        recipe = str(self.config.get("recipe", ""))
        if not recipe.isidentifier():
            return {}
        # A config of before may lack what would tell it, and so may a recipe of one's own.
        with contextlib.suppress(AttributeError, KeyError, ImportError, TypeError, ValueError):
            module = importlib.import_module(f"majl_jax.recipes.{recipe}")
            return sounds.of(module.data_sets(ml_collections.ConfigDict(self.config)))
        return {}


def read_run(workdir: str | os.PathLike) -> Run:
    """What is in a folder; FileNotFoundError where it is no run."""
    workdir = pathlib.Path(workdir)
    if not workdir.is_dir():
        raise FileNotFoundError(f"{workdir} is no folder; give the --workdir of a training run")
    if not any(any(workdir.glob(name)) for name in OF_A_RUN):
        raise FileNotFoundError(
            f"{workdir} holds no run (none of {', '.join(OF_A_RUN)}); give the --workdir of one"
        )
    return Run(workdir, _read_json(workdir / "config.json") or {}, _stages(workdir))


def write_report(
    workdir: str | os.PathLike,
    *,
    output: pathlib.Path | None = None,
    single_file: bool = False,
) -> pathlib.Path:
    """Writes the page of a run and returns its path.

    Args:
        workdir: folder of the run.
        output: the file; None: report.html in that folder.
        single_file: whether the sound of examples is in the page, else it is played from the run's
          folder.
    """
    run = read_run(workdir)
    workdir, stages = run.workdir, run.stages
    path = output or workdir / "report.html"
    link = audio_examples.embedded if single_file else audio_examples.beside(path.parent)
    body = [
        *_heading(run),
        "<h2>Results on held-out tracks</h2>",
        *score_tables.results({stage.name: stage.rows for stage in stages}),
        *pseudo_labels.pseudo_labels(_pseudo_labels(workdir)),
        "<h2>Training</h2>",
        *training_curves(stages, run.manifest),
        "<h2>Examples</h2>",
        *audio_examples.examples([stage.name for stage in stages], workdir, link),
    ]
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


def _heading(run: Run) -> list[str]:
    manifest, config = run.manifest, run.config
    starts = manifest.get("starts") or [{}]
    last = starts[-1]
    versions, hardware = last.get("versions") or {}, last.get("hardware") or {}
    state = ("done", "finished") if run.finished else ("open", "not finished")
    recipe = page.text(config.get("recipe", "")) + " · " if config.get("recipe") else ""
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    pairs = [
        ("trained on", page.text(sounds.in_words(run.trained_on()))),
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
        f"<h1>{page.text(run.workdir.resolve().name)}</h1>",
        f'<p class="lead">{recipe}<span class="state {state[0]}">{state[1]}</span> · '
        f"page written {now}</p>",
        page.facts(pairs),
    ]
    if last.get("command"):
        parts.append(page.code("command", last["command"]))
    if config:
        parts.append(page.details("config", page.code("config", json.dumps(config, indent=2))))
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
