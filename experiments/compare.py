"""Models of all papers on one test set: what they cost, and what they score where tasks meet.

    python -m experiments compare runs/majl runs/jukebox voice \\
        --data=data/prepared/mir1k --target=voice,vocals --output=comparison

A model is a run, RUN:STAGE, a model file or a name, as `majl_jax.load` takes it. SDR and SI-SDR are
those of its stem that the target names, RPA that of its pitch, multi-pitch F1 that of all pitches
it hears, where the set labels all voices. What a model does not give is no number, and a run that
is not there yet is said. Writes OUTPUT/comparison.md and .jsonl.
"""

import argparse
import itertools
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments import results
from experiments.experiment import Column
from experiments.summary import markdown_table
from majl_jax import atomic, formats, terminal

COLUMNS = {
    "parameters": Column("parameters", digits=0),
    "steps": Column("steps", digits=0),
    "minutes": Column("minutes", digits=1),
    "memory_mb": Column("memory MB", digits=0),
    "real_time": Column("times real time", digits=1),
    "sdr_db": Column("SDR dB"),
    "si_sdr_db": Column("SI-SDR dB"),
    "rpa": Column("RPA %", 100, 1),
    "f1": Column("multi-pitch F1 %", 100, 1),
}
NOTES = (
    "Parameters: what a model reads when it is applied. Steps and minutes: of all stages that it"
    " went through, those of runs that it started from included; minutes are those of the steps, as"
    " they were logged. Memory: of a call on one segment, as XLA plans it. Times real time: seconds"
    " of sound per second, compiled before. Means over tracks; – where a model gives no such thing,"
    " or the set does not label it."
)
Row = dict[str, Any]
Take = Any  # evaluation.take.Take


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of the command line."""
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="RUN, RUN:STAGE, a model file or a name")
    add("--data", type=pathlib.Path, required=True, help="a prepared data set")
    add("--target", required=True, help="the stem, or names of it with commas")
    add("--split", default="test")
    add("--tracks", type=int, help="at most so many")
    add("--output", type=pathlib.Path, default=pathlib.Path("comparison"), help="a folder")


def main(options: argparse.Namespace) -> int:
    """Scores every model, prints the page and writes it; 1 where none could be scored."""
    names = tuple(name.strip() for name in options.target.split(","))
    tracks = list(_tracks(options, names))
    if not tracks:
        said = "" if options.tracks is None else f" by --tracks={options.tracks}"
        raise ValueError(f"no track of the split {options.split} of {options.data}{said}")
    rows = [_row(source, tracks, names) for source in options.models]
    mixture = [_separation(take, take.mixture) for take, _ in tracks]
    rows.append({"model": "mixture, untouched", **_means(mixture)})
    page = "\n".join(_page(options, rows, len(tracks)))
    options.output.mkdir(parents=True, exist_ok=True)
    lines = [{k: _plain(v) for k, v in row.items()} for row in rows]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    atomic.write_text(options.output / "comparison.jsonl", text)
    atomic.write_text(options.output / "comparison.md", page)
    print(page)
    return int(all("missing" in row for row in rows[:-1]))


def _plain(value: Any) -> Any:
    return formats.score_to_json(value) if isinstance(value, float) else value


# ---- the test set --------------------------------------------------------------------------------


def _tracks(
    options: argparse.Namespace, names: Sequence[str]
) -> Iterator[tuple[Take, Mapping[str, Any]]]:
    """Whole tracks as they are judged, and their records."""
    from majl_jax.datasets import records
    from majl_jax.evaluation.take import take_from_record
    from majl_jax.pseudo_labels.labelling import stem_number

    prepared = records.open_prepared(options.data)
    layout, stem = prepared.layout, stem_number(prepared, names, field="--target")
    grid = {"sample_rate_hz": layout.sample_rate_hz, "hop_samples": layout.hop_samples}
    for record in itertools.islice(
        records.read_tracks(options.data, options.split), options.tracks
    ):
        yield take_from_record(record, target=stem, channels=1, **grid), record


# ---- a model -------------------------------------------------------------------------------------


def _row(
    source: str, tracks: Sequence[tuple[Take, Mapping[str, Any]]], names: Sequence[str]
) -> Row:
    """What a model costs and scores; "missing", and why, where it cannot be loaded."""
    import majl_jax
    from majl_jax.training.restore import CheckpointError

    try:
        model = majl_jax.load(source)
    except (FileNotFoundError, CheckpointError) as error:
        return {"model": source, "missing": terminal.in_one_line(error)}
    found, spent_s, heard_s = [], 0.0, 0.0
    for number, (take, record) in enumerate([tracks[0], *tracks]):
        began = time.perf_counter()
        out = model(take.mixture[:, 0], take.sample_rate_hz)
        if number:  # the first time compiles
            spent_s += time.perf_counter() - began
            heard_s += len(take.mixture) / take.sample_rate_hz
            found.append(_scores(take, record, out, names))
    costs = {"memory_mb": _memory_mb(model), "real_time": heard_s / spent_s}
    return {"model": source, "about": str(model.info), **_size(model), **costs, **_means(found)}


def _means(found: Sequence[Mapping[str, float]]) -> Row:
    """Means over the tracks that have a score."""
    from majl_jax.evaluation.rows import mean

    names = dict.fromkeys(name for scores in found for name in scores)
    kept = {n: [s[n] for s in found if not math.isnan(s.get(n, math.nan))] for n in names}
    return {name: mean(values) for name, values in kept.items() if values}


def _scores(
    take: Take, record: Mapping[str, Any], out: Any, names: Sequence[str]
) -> dict[str, float]:
    """Of one track, as far as the model gives what is scored."""
    stem = next((out.stems[name] for name in names if name in out.stems), None)
    found = {} if stem is None else _separation(take, stem[:, None])
    if out.pitch is not None:
        found |= _melody(take, out.pitch)
    if out.pitch is not None or out.pitches is not None:
        found |= _multi_pitch(take, record, out)
    return found


def _separation(take: Take, estimate: np.ndarray) -> dict[str, float]:
    from majl_jax.evaluation.target import score_track

    row = score_track(take, "model", estimate=estimate, pitch=None)
    return {name: row[name] for name in ("sdr_db", "si_sdr_db") if row[name] is not None}


def _melody(take: Take, pitch: Any) -> dict[str, float]:
    """RPA of the frames that are nearest to the labels, unvoiced ones as the model decides."""
    from majl_jax.evaluation.target import score_track

    times_s = np.arange(len(take.f0_hz)) * take.hop_samples / take.sample_rate_hz
    middles = (pitch.times_s[1:] + pitch.times_s[:-1]) / 2
    f0_hz = np.asarray(pitch.f0_hz)[np.searchsorted(middles, times_s)].astype(np.float32)
    sure = (f0_hz > 0).astype(np.float32)
    row = score_track(take, "model", estimate=None, pitch=(f0_hz, sure))
    return {} if row["rpa"] is None else {"rpa": row["rpa"]}


def _multi_pitch(take: Take, record: Mapping[str, Any], out: Any) -> dict[str, float]:
    """F1 over the frames in which all voices are labelled; a melody is one pitch or none."""
    from majl_jax.metrics.pitch import multi_pitch_scores

    labelled = np.flatnonzero(np.all(record["has_pitch"], axis=1))
    if not len(labelled):
        return {}
    truth = [row[row > 0] for row in np.asarray(record["f0_hz"], np.float64)[labelled]]
    if out.pitches is not None:
        times_s, pitches = out.pitches
    else:
        times_s, pitches = out.pitch.times_s, [row[row > 0] for row in out.pitch.f0_hz[:, None]]
    pitches = [np.asarray(row, np.float64) for row in pitches]
    seconds = labelled * take.hop_samples / take.sample_rate_hz
    return {"f1": multi_pitch_scores(np.asarray(times_s), pitches, seconds, truth)["f1"]}


# ---- what a model costs --------------------------------------------------------------------------


def _size(model: Any) -> Row:
    """Parameters, and steps and minutes where its run is there."""
    import jax

    from majl_jax.separate import model_file

    read = model_file.needed(model.system, model.variables)
    if isinstance(read, Mapping):  # several runs together are a list of theirs
        read = {name: tree for name, tree in read.items() if name != "batch_stats"}
    found: Row = {"parameters": sum(int(np.size(leaf)) for leaf in jax.tree.leaves(read))}
    run = pathlib.Path(model.info.about.rpartition(" of ")[2])
    if (run / "config.json").is_file():
        steps, minutes = _training(run, model.info.stage)
        if steps:
            return found | {"steps": steps, "minutes": minutes}
    return found | ({"steps": model.info.step} if model.info.step else {})


def _training(run: pathlib.Path, last: str) -> tuple[int, float]:
    """Steps and minutes of a stage, of those it went through, and of the runs that they started
    from; the minutes are NaN where those of a stage were not logged. A borrowed stage is its
    lender's, with what that one went through.
    """
    from majl_jax.recipes import warm_start
    from majl_jax.training import restore, run_log

    config = formats.read(run / "config.json", formats.RUN, needs=("config",))["config"]
    steps, minutes, names = 0, 0.0, _went_through(config, last)
    for place, lent in reversed([*enumerate((run / name).resolve() for name in names)]):
        if lent.parent != run.resolve() and (lent.parent / "config.json").is_file():
            steps, minutes = _training(lent.parent, lent.name)
            names = names[place + 1 :]
            break
    for name in names:
        done = timed = 0
        for row in run_log.read_metrics(run):
            if row["stage"] == name and row["kind"] == "train" and row["step"] > done:
                done = row["step"]
                if row.get("steps_per_s"):
                    minutes += (done - timed) / row["steps_per_s"] / 60
                    timed = done
        steps += done
        minutes = math.nan if done and not timed else minutes
        for _, source in warm_start.listed(config["stages"][name].get("start", "")):
            before, _, stage = source.rpartition(":")
            folder = pathlib.Path(source if pathlib.Path(source).is_dir() else before)
            if (folder / "config.json").is_file():
                stage = stage if before else restore.load_variables(folder)[1]["stage"]
                more = _training(folder, stage)
                steps, minutes = steps + more[0], minutes + more[1]
    return steps, minutes


def _went_through(config: Mapping[str, Any], last: str) -> list[str]:
    """The stages of a run that hand over to one of them, one to the next, and itself; those of
    majl stand alone but for its student, and where they start from the previous one.
    """
    from majl_jax.recipes import warm_start

    names, found = [*config["run"]], [last]
    before = names[: names.index(last)] if last in names else []
    if config.get("recipe") != "majl":
        return [*before, last]
    while before:
        start = config["stages"][found[0]].get("start", "")
        sources = [source for _, source in warm_start.listed(start)]
        if found[0] != "student" and warm_start.PREVIOUS not in sources:
            break
        found.insert(0, before.pop())
    return found


def _memory_mb(model: Any) -> float:
    """Of a call on one segment, or on one window: arguments, results and what is in between."""
    import jax
    import jax.numpy as jnp

    from majl_jax.inference.multi_pitch import MultiPitchModel

    system = model.system

    def sized(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    calls: list[tuple[Any, ...]] = []
    if isinstance(system, MultiPitchModel):
        window = sized(1, system.window_samples)
        heard = jax.eval_shape(system.apply_magnitudes, window)
        frames = sized(*heard.shape[:2], dtype=jnp.bool_)
        calls.append((system.apply_magnitudes, window))
        calls.append((system.apply_features, model.variables, heard, frames))
    elif system.for_song is None:
        segment = sized(1, system.segment_samples, system.channels)
        calls.append((system.apply, model.variables, segment))
    plans = [jax.jit(call).lower(*given).compile().memory_analysis() for call, *given in calls]
    parts = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    sizes = [sum(getattr(plan, part) for part in parts) for plan in plans if plan is not None]
    return max(sizes, default=math.nan) / 1e6


# ---- the page ------------------------------------------------------------------------------------


def _page(options: argparse.Namespace, rows: Sequence[Row], tracks: int) -> Iterator[str]:
    import jax

    from majl_jax.training.manifest import commit

    device = jax.devices()[0]
    cells = {row["model"]: [_cell(row.get(k), c) for k, c in COLUMNS.items()] for row in rows}
    yield f"# Comparison on {options.data}, {options.split}"
    yield ""
    yield (
        f"Target {options.target}; {tracks} tracks; {device.device_kind}, {os.cpu_count()} CPUs;"
        f" commit {results.short(commit())}."
    )
    yield ""
    yield from markdown_table([column.heading for column in COLUMNS.values()], cells, "model")
    yield ""
    yield NOTES
    yield ""
    yield from (f"- {row['model']}: {row['about']}" for row in rows if "about" in row)
    yield from (
        f"- {row['model']}: **missing**: {row['missing']}" for row in rows if "missing" in row
    )
    yield ""


def _cell(value: float | None, column: Column) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{column.factor * value:,.{column.digits}f}"
