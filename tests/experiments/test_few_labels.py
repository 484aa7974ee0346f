"""Few labels: runs that go on from another paper's, rows that are missing, and sizes that fit."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import made_music
import numpy as np
import pytest
import smoke_runs
from made_runs import save_stage

from experiments import __main__ as command
from experiments import drawing, few_labels
from experiments.experiment import Data, Run
from experiments.few_labels.tables import MAIN
from experiments.grid import Grid
from majl_jax.audio import stft
from majl_jax.datasets import builder, records
from majl_jax.recipes import transfer

FIRST = Run("first", ("music",), {"data.stem": "voice"}, config="configs/jukebox.py:smoke")
SECOND = Run(
    "second",
    ("teacher",),
    {"stages.teacher.start": "separator={first}:music", "data.target": "{other}"},
    after=(FIRST,),
)


@pytest.fixture
def grid(tmp_path):
    data = Data("made", (), {"data.directory": "d"}, words={"other": "vocals"})
    return Grid("configs/majl.py:smoke", data, tmp_path, tmp_path / "compiled", (3,), jobs=1)


def complete(grid, run):
    for stage in run.stages:
        folder = grid.workdir(run, 3) / stage
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("{}")


def test_a_run_that_comes_after_another_names_its_folder_and_waits_for_it(grid):
    said = grid.command(SECOND, 3)
    start = f"separator={grid.workdir(FIRST, 3)}:music"
    assert f"--config.stages.teacher.start={start}" in said
    assert "--config.data.target=vocals" in said
    assert "--config=configs/majl.py:smoke" in said
    assert "--config=configs/jukebox.py:smoke" in grid.command(FIRST, 3)
    with pytest.raises(RuntimeError, match="goes on from first, not complete yet: --runs=first,se"):
        grid.train(SECOND, 3, None, call=_no_call)
    complete(grid, FIRST)
    with pytest.raises(AssertionError, match="called"):
        grid.train(SECOND, 3, None, call=_no_call)


def _no_call(*_, **__):
    raise AssertionError("called")


def test_a_run_waits_for_the_stage_that_it_borrows(grid):
    lender = Run("lender", ("teacher",))
    run = Run("borrower", ("teacher", "student"), {}, (lender, "teacher"))
    with pytest.raises(RuntimeError, match="borrower, seed 3 goes on from lender"):
        grid.train(run, 3, None, call=_no_call)
    assert not (grid.workdir(run, 3) / "teacher").exists()


def test_songs_in_stems_are_another_kind_of_data(tmp_path):
    call = ["few_labels", "--table=main", f"--mir1k={tmp_path}"]
    alone, beside = (command.parse([*call, *more]) for more in ([], [f"--stems={tmp_path}"]))
    kinds = [options.trained_on.kind for options in (alone, beside)]
    assert kinds == ["few_labels", "few_labels_stems"] == list(few_labels.EXPERIMENT.kinds)


def test_first_stages_of_the_papers_stand_before_what_goes_on_from_them():
    seen = []
    for run in MAIN.runs():
        assert {one.name for one in run.after} <= set(seen)
        seen.append(run.name)
    assert seen.count("mixit") == 1 and len(seen) == len(set(seen))
    labels = [row.label for row in MAIN.rows]
    assert {row.against for row in MAIN.rows} <= set(labels)


def test_a_table_names_the_rows_that_are_missing_and_the_figure_has_the_minutes(tmp_path):
    rows = [row for row in MAIN.rows if row.x in (3.0, 12.0)][:3]
    line = {"table": "main", "data": "few_labels", "steps": 2, "tracks": 1, "commit": "0123456789"}
    lines = [
        {**line, "row": row.label, "seed": seed, "labelled_minutes": 1.4}
        | {"metrics": {"sdr_db": 5.0 + number + seed / 10, "rpa": 0.5}}
        for number, row in enumerate(rows[:2])
        for seed in range(2 - number)
    ]
    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert command.main(["few_labels", "--redraw", f"--results={results}"]) == 0
    text = (tmp_path / "tables.md").read_text()
    assert f"| {rows[0].label} | 5.05 ± 0.07 |" in text
    assert f"| {rows[1].label} (against {rows[1].against}) | +1.00 (+1.00) |" in text
    (missing,) = [x for x in text.splitlines() if x.startswith("Not run yet: ")]
    assert f"{rows[1].label} (seed 1); {rows[2].label}; " in missing
    assert rows[0].label not in missing
    assert drawing._placed(MAIN, lines)[0].x == 1.4
    assert (tmp_path / "figures/few_labels_main.png").stat().st_size > 5_000


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Sets called as those of MIR-1K, of tones."""
    folder = tmp_path_factory.mktemp("few_labels")
    layout = dataclasses.replace(made_music.LAYOUT, stems=("voice", "accompaniment"))
    unknown = {"has_stems": False, "has_pitch": False}
    for name, labels in (("mir1k_3", {}), ("mir1k_mixtures", unknown), ("mir1k_rest_3", unknown)):
        splits = {"train": "a", "valid": "b", "test": "c"}
        made = {k: made_music.tones(v, layout=layout, **labels) for k, v in splits.items()}
        cut = {split: records.cut(track, layout) for split, track in made.items()}
        builder.write_dataset(folder / name, cut, layout=layout)
    return folder


@pytest.mark.slow
def test_what_starts_from_a_first_stage_has_its_sizes(clips, tmp_path):
    """The first stages are built as the table says, and every row with three percent from what
    they would hand over: their shapes are traced, nothing is trained.
    """
    runs = {run.name: run for run in MAIN.runs()}
    words = {name: str(tmp_path / name) for name in ("mixit", "jukebox", "deep_clustering")}
    for name in ("mixit", "jukebox"):
        stage = _stage(runs[name], clips, tmp_path, words)
        _leave(tmp_path / name, stage.name, stage.init)
    # Of other data, which are not here: its network alone.
    config = _config(runs["deep_clustering"], {"stages.pretrain.data": "any: voice, rest"})
    sizes = {"window_samples": config.window_samples, "hop_samples": config.data.hop_samples}
    sound = jax.ShapeDtypeStruct((1, config.data.segment_samples), jnp.float32)
    jax.eval_shape(functools.partial(stft.scaled_stft, **sizes), sound)  # or it is refused
    network = transfer.build(config, "pretrain")
    spectrum = jnp.zeros((1, 2, network.frequency_bins))
    _leave(
        tmp_path / "deep_clustering",
        "pretrain",
        lambda key, _: network.init(key, spectrum, train=False),
    )
    for row in MAIN.rows:
        if row.x == 3.0:
            _stage(row.run, clips, tmp_path, words)


def _config(run, fields):
    path, _, preset = (run.config or few_labels.EXPERIMENT.config).partition(":")
    config = smoke_runs.load_config(pathlib.Path(path).stem, preset)
    config.update_from_flattened_dict({**run.fields, "run": run.stages, **fields})
    return config


def _stage(run, clips, workdir, words):
    told = {k: v.format_map(words) for k, v in run.fields.items() if "{" in str(v)}
    config = _config(run, {**told, "data.directory": str(clips)})
    return smoke_runs.stages(config, workdir)[0]


def _leave(folder, stage, init):
    """The folder of a run that has that stage, with zeros."""
    shapes = jax.eval_shape(lambda key: init(key, None), jax.random.key(0))
    save_stage(folder, stage, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), dict(shapes)))
