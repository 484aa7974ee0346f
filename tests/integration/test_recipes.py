"""Every config in `smoke`: two steps a stage, resumed exactly, and what a run leaves behind."""

import dataclasses
import functools
import importlib
import json

import jax
import made_music
import numpy as np
import pytest
import smoke_runs
from places import ROOT

from majl_jax import main, parallel
from majl_jax.datasets import builder, records
from majl_jax.models import by_name
from majl_jax.training import run_log
from majl_jax.training.manifest import write_manifest
from majl_jax.training.restore import load_variables

NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
# One worker makes what tests of a recipe share.
RECIPES = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in NAMES]
majl = pytest.mark.xdist_group("majl")


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.usefixtures("traced_once")
def test_smoke_and_exact_resume(name, smoke, tmp_path):
    whole_run, config, results = smoke.run(name)
    assert list(results) == list(config.run)
    assert all(np.isfinite(value) for scores in results.values() for value in scores.values())

    stages = smoke_runs.stages(config, tmp_path / "cut")
    broken = [dataclasses.replace(s, batches=smoke_runs.breaking(s.batches)) for s in stages]
    for number in range(len(stages)):
        # Crash in every stage at its second batch; each start goes on from what is saved.
        with pytest.raises(RuntimeError, match="power cut"):
            smoke_runs.train(config, tmp_path / "cut", [*stages[:number], broken[number]])
    smoke_runs.train(config, tmp_path / "cut", stages)
    for stage in config.run:
        whole, _ = load_variables(whole_run, stage)
        resumed, _ = load_variables(tmp_path / "cut", stage)
        assert jax.tree.structure(whole) == jax.tree.structure(resumed)
        jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    lines = [(r["stage"], r["step"], r["kind"]) for r in run_log.read_metrics(tmp_path / "cut")]
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize("name", RECIPES)
def test_every_preset_builds_its_full_networks(name):
    config = smoke_runs.load_config(name, "paper")
    recipe = importlib.import_module(f"majl_jax.recipes.{config.recipe}")
    if config.recipe == "ss_mpe":
        assert len(recipe.multi_pitch_model(config).bin_hz) == 440
    else:
        part = config.evaluation if config.recipe in ("mixit", "jukebox") else config.data
        assert recipe.segment_model(config).segment_samples == part.segment_samples
    with pytest.raises(ValueError, match=r"no preset 'papper'; expected one of"):
        smoke_runs.load_config(name, "papper")


@pytest.mark.parametrize("name", RECIPES)
def test_the_reader_is_looked_at_before_anything_else(name, tmp_path):
    config = smoke_runs.load_config(name)
    config.data.reader = "grain"
    with pytest.raises(ValueError, match=r"config\.data\.reader is 'grain'; expected tf\.data"):
        smoke_runs.stages(config, tmp_path)


def test_every_config_names_a_recipe_that_main_knows():
    assert set(NAMES) == set(main.RECIPES)


@pytest.mark.slow
@majl
def test_majl_leaves_rows_examples_and_what_the_teacher_said(smoke):
    run = smoke.run("majl").workdir
    rows = [json.loads(line) for line in (run / "student/tracks.jsonl").read_text().splitlines()]
    assert {row["system"] for row in rows} == {"student", "mixture", "true stem"}
    assert {"sdr_db", "si_sdr_db", "usdr_db", "rpa", "rca", "oa", "vr", "vfa"} <= rows[0].keys()
    assert len(list((run / "student/examples").glob("*/*.wav"))) == 3
    folder = run / "student/pseudo_labels"
    for dataset, unit in (("chorales_stems", "frames"), ("chorales_pitch", "records")):
        said = json.loads((folder / f"{dataset}.json").read_text())
        assert (
            said["threshold"] == 0.7 and said["unit"] == unit and 0 <= said["kept"] <= said["seen"]
        )
        assert records.is_prepared(folder / f"{dataset}-{said['teacher']}-0.7-frame-overlap0.25")


def _first_of(function, *arguments):
    return function(*arguments)[0]


@pytest.mark.slow
@majl
def test_majl_gradients_of_the_pitch_loss_reach_the_separator_only_if_they_may(smoke, tmp_path):
    config = smoke.config("majl")
    config.weights.separation, config.balance.method = 0.0, "none"
    for run, stop, reaches in (
        ("teacher", False, True),
        ("teacher", True, False),
        ("pipeline", False, False),
    ):
        config.run, config.stop_gradient_between = (run,), stop
        (stage,) = smoke_runs.stages(config, tmp_path)
        variables = stage.init(jax.random.key(0), None)
        params = variables.pop("params")
        batch = jax.tree.map(jax.numpy.asarray, next(iter(stage.batches(None))))
        loss = functools.partial(_first_of, parallel.alone(stage.loss))
        gradient = jax.jit(jax.grad(loss))(params, variables, batch, jax.random.key(1))
        norm = sum(float(np.abs(g).sum()) for g in jax.tree.leaves(gradient["separator"]))
        assert (norm > 0) == reaches, (run, stop)


@majl
@pytest.mark.parametrize("separator", by_name.SEPARATORS)
@pytest.mark.parametrize("pitch", by_name.PITCH_ESTIMATORS)
@pytest.mark.slow
def test_majl_joins_any_separator_with_any_pitch_estimator(smoke, tmp_path, separator, pitch):
    """One field each swaps a network; the loss is traced, and its gradient has the parameters'
    shapes.
    """
    config = smoke.config("majl")
    config.run, config.separator, config.pitch = ("teacher",), separator, pitch
    (stage,) = smoke_runs.stages(config, tmp_path)
    variables = dict(jax.eval_shape(lambda key: stage.init(key, None), jax.random.key(0)))
    params = variables.pop("params")
    batch = jax.tree.map(jax.numpy.asarray, next(iter(stage.batches(None))))

    def loss(params, variables, batch):
        return parallel.alone(stage.loss)(params, variables, batch, jax.random.key(1))[0]

    gradient = jax.eval_shape(jax.grad(loss), params, variables, batch)
    assert set(gradient) == {"separator", "pitch", "weight_module"}
    assert jax.tree.map(np.shape, gradient) == jax.tree.map(np.shape, params)
    model = importlib.import_module("majl_jax.recipes.majl").segment_model(config)
    assert len(model.bin_cents) == {"crepe": 360, "harmof0": 352}[pitch]


@pytest.mark.slow
@majl
def test_majl_learns_from_sets_with_other_stems(smoke, tmp_path):
    """A set with three stems, whose target has another name, beside the one with two; and
    mixtures without any label.
    """
    stems = ("drums", "vocals", "other")
    layout = dataclasses.replace(made_music.LAYOUT, stems=stems)
    track = made_music.tones("g", has_pitch=False)
    silent = np.zeros_like(track["stems"][:, :1])
    track["stems"] = np.concatenate([silent, track["stems"]], axis=1)
    for key, axis in (("has_stems", 0), ("f0_hz", 1), ("has_pitch", 1)):
        track[key] = np.repeat(track[key], [2, 1], axis=axis)
    builder.write_dataset(
        smoke.data("majl") / "band", {"train": records.cut(track, layout)}, layout=layout
    )
    config = smoke.config("majl")
    config.data.target = "soprano,vocals"
    config.data.stems_only = "band"
    alone = made_music.tones("h", has_stems=False, has_pitch=False)
    builder.write_dataset(
        smoke.data("majl") / "mixtures",
        {"train": records.cut(alone, made_music.LAYOUT)},
        layout=made_music.LAYOUT,
    )
    config.data.unlabelled = "mixtures"
    config.run = ("teacher", "student")
    write_manifest(tmp_path, config, seed=0)
    results = smoke_runs.train(config, tmp_path)
    assert np.isfinite(results["student"]["sdr_db"])
    manifest = json.loads((tmp_path / "config.json").read_text())
    assert manifest["pseudo_labels"]["band"]["target"] == "vocals"
    assert manifest["pseudo_labels"]["band"]["threshold"] == 0.7
    assert manifest["pseudo_labels"]["mixtures"]["labels"] == "both"


@majl
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("run", ("student",), "student has to follow teacher directly"),
        ("run", ("teachers",), "config.run is .'teachers',.; expected some of"),
        (
            "data.target",
            "voice",
            "config.data.target is 'voice'; the stems of .* are soprano, bass",
        ),
        (
            "data.sample_rate_hz",
            44_100,
            "was prepared with sample_rate_hz = 16000, config.data.sample_rate_hz is 44100",
        ),
        ("data.labelled", "choral", "(?s)No prepared data set in .*majl_jax.prepare"),
        ("separator", "wavenet", "config.separator is 'wavenet'"),
        ("pitch", "pyin", "config.pitch is 'pyin'; expected crepe, harmof0"),
        ("dwhs.objective", "hard", "config.dwhs.objective is 'hard'; expected one of robust"),
        ("dwhs.grain", "note", "config.dwhs.grain is 'note'; expected one of segment, frame"),
        ("balance.method", "pareto", "config.balance.method is 'pareto'; expected one of none"),
        ("losses.separation", "l2", "config.losses.separation is 'l2'"),
        ("weights.pitch_loss", 1.0, "config.weights names"),
        ("losses.pitch_frames", 100, "pitch_frames is 100; expected a divisor of 128"),
    ],
)
def test_majl_refuses_a_wrong_config_before_training(smoke, tmp_path, field, value, message):
    config = smoke.config("majl")
    with config.unlocked():
        config.update_from_flattened_dict({field: value})
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        smoke_runs.stages(config, tmp_path)
