"""The training curves of a run, chosen and drawn."""

import dataclasses
import datetime
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from majl_jax.evaluation.rows import Row
from majl_jax.report import page, score_tables, svg, words
from majl_jax.training import run_log

ASIDE = ("grad_norm", "steps_per_s", "skipped", "learning_rate", "clip_norm")  # shown last
NOT_DRAWN = ("_std", "_median", "_weighted", "_skipped", "_infinite")
_INFINITE = (math.inf, -math.inf)
TOGETHER = ("weight_", "share_")  # of the dynamic weights: one chart


@dataclasses.dataclass(frozen=True)
class StageFiles:
    """What a stage has left in its folder and in metrics.jsonl."""

    name: str
    folder: pathlib.Path
    lines: list[dict[str, Any]]
    result: dict[str, Any] | None
    rows: list[Row]

    def curve(self, kind: str, key: str) -> tuple[list[svg.Number], list[svg.Number | None]]:
        """Steps and values of one term, in the unit that `words.term` says; values that were not
        finite are None.
        """
        lines = sorted(self.lines, key=lambda r: r["step"])  # a checkpoint may be scored later on
        points = [(r["step"], r[key]) for r in lines if r["kind"] == kind and key in r]
        factor = words.factor(key.rpartition("/")[2])
        finite = [None if y is None or y in _INFINITE else factor * y for _, y in points]
        return [x for x, _ in points], finite

    def keys(self, kind: str) -> list[str]:
        """Names of all terms of a kind, in order of appearance."""
        names = [k for r in self.lines if r["kind"] == kind for k in r]
        return [k for k in dict.fromkeys(names) if k not in run_log.ROW_KEYS]


# ---- training -----------------------------------------------------------------------------------


def training_curves(stages: Sequence[StageFiles], manifest: Mapping[str, Any]) -> list[str]:
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
        figures = [page.figure(words.term(key), chart) for key, chart in drawn]
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
        svg.Series(kind, *stage.curve(kind, key), kind, dots=kind == "valid")
        for kind in ("train", "valid")
        if key in stage.keys(kind)
    ]
    references = []
    for system in score_tables.REFERENCES:
        _, values = stage.curve("valid", f"{system.replace(' ', '_')}/{key}")
        if values and values[-1] is not None:
            references.append((system, values[-1]))
    step = (stage.result or {}).get("step", -1)
    kept = dict(zip(*stage.curve("valid", key), strict=True)).get(step)
    mark = None if kept is None else (step, kept)
    title = f"{stage.name}: {words.term(key)}"
    last_step = max(line["step"] for line in stage.lines)
    return svg.line_chart(
        series, title=title, references=references, mark=mark, last_step=last_step
    )


def _dynamic_weights(stage: StageFiles) -> list[str]:
    """One chart of all mean weights and shares of examples: a colour per case, a dash per
    quantity.
    """
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
        series.append(svg.Series(key, *stage.curve("train", key), style))
    chart = svg.line_chart(
        series,
        title=f"{stage.name}: dynamic weights",
        last_step=max(line["step"] for line in stage.lines),
        from_zero=True,
        width=1000,
        height=240,
    )
    legend = page.legend((one.style, words.term(one.name)) for one in series)
    return [page.wide_figure("Dynamic weights", chart, legend)]
