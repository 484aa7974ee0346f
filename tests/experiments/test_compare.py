"""One table of models of several papers on one test set."""

import json
import math

import jax
import made_music
import numpy as np
import pytest
import smoke_runs
from made_runs import make_run, save_stage

from experiments import __main__ as command
from experiments import compare
from majl_jax.recipes import ss_mpe
from majl_jax.training.manifest import write_manifest


@pytest.fixture
def several_pitches(tmp_path):
    """The folder of a run of SS-MPE, with random parameters."""
    config = smoke_runs.load_config("ss_mpe")
    config.run = ("reference",)
    _, network = ss_mpe.build(config)
    features = np.zeros((1, 4, network.bins, network.harmonics))
    shapes = jax.eval_shape(network.init, jax.random.key(0), features)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(x.dtype), shapes["params"])
    write_manifest(tmp_path / "several", config, seed=0)
    save_stage(tmp_path / "several", "reference", {"params": params})
    return tmp_path / "several"


def logged(run, stage, *rows):
    kinds = {"stage": stage, "kind": "train", "pitch": 0.5}
    lines = [{**kinds, "step": n, "steps_per_s": r} for n, r in rows]
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


@pytest.mark.slow
def test_models_of_several_papers_are_compared_and_those_not_there_are_said(
    tmp_path, several_pitches, capsys
):
    data = made_music.prepare(tmp_path / "data") / "chorales"
    first = make_run(tmp_path / "first")
    # Begun from the other run's first stage: what that took counts as well.
    start = f"pitch={first}:teacher"
    run = make_run(tmp_path / "majl", stages__student__start=start)
    logged(first, "teacher", (60, 2.0))
    logged(run, "teacher", (30, 1.0), (90, 0.5))
    logged(run, "student", (60, 1.0))
    models = [str(run), f"{run}:teacher", str(several_pitches), str(tmp_path / "gone")]
    output = tmp_path / "out"
    options = [f"--data={data}", "--target=soprano,voice", f"--output={output}"]
    assert command.main(["compare", *models, *options]) == 0
    page = (output / "comparison.md").read_text()
    assert page in capsys.readouterr().out
    rows = [json.loads(line) for line in (output / "comparison.jsonl").read_text().splitlines()]
    student, teacher, several, gone, mixture = rows
    assert [row["model"] for row in rows] == [*models, "mixture, untouched"]
    assert student["steps"] == 90 + 60 + 60
    assert student["minutes"] == pytest.approx((30 + 120 + 60 + 30) / 60)
    assert (teacher["steps"], teacher["minutes"]) == (90, pytest.approx(150 / 60))
    for row in (student, teacher):
        assert {"sdr_db", "si_sdr_db", "rpa", "f1", "memory_mb", "real_time"} <= set(row)
        assert row["memory_mb"] > 0.1 and row["real_time"] > 0
        assert row["parameters"] == student["parameters"] > 1000
    assert {"f1", "memory_mb", "parameters"} <= set(several)
    assert not {"sdr_db", "rpa", "minutes"} & set(several) and several["steps"] == 7
    assert "does not exist" in gone["missing"] and f"**missing**: {gone['missing']}" in page
    # The bass is about as loud as the soprano.
    assert abs(mixture["sdr_db"]) < 3 and mixture["sdr_db"] != student["sdr_db"]


def test_steps_and_minutes_are_of_what_a_stage_went_through(tmp_path):
    def made(name, **fields):
        config = smoke_runs.load_config("majl")
        config.run = ("pipeline", "naive_joint", "teacher", "student")
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
        write_manifest(tmp_path / name, config, seed=0)
        for number, stage in enumerate(config.run):
            logged(tmp_path / name, stage, (10**number, 1.0))
        return tmp_path / name

    alone = made("alone")
    for stage, steps in (("pipeline", 1), ("naive_joint", 10), ("teacher", 100), ("student", 1100)):
        assert compare._training(alone, stage) == (steps, pytest.approx(steps / 60))
    steps, _ = compare._training(made("on", stages__teacher__start="pitch=previous"), "student")
    assert steps == 1110


def test_steps_and_minutes_of_a_borrowed_stage_are_its_lender_s(tmp_path):
    def made(name, recipe, stages, **fields):
        config = smoke_runs.load_config(recipe)
        config.run = stages
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
        write_manifest(tmp_path / name, config, seed=0)
        return tmp_path / name

    lender = made("lender", "majl", ("teacher",))
    (lender / "teacher").mkdir()
    logged(lender, "teacher", (100, 1.0))
    run = made("run", "majl", ("teacher", "student"))
    (run / "teacher").symlink_to(lender / "teacher")
    logged(run, "student", (20, 1.0))
    assert compare._training(run, "student") == (120, pytest.approx(2))
    # Through two lenders, the first of which has a stage before it.
    first = made("first", "jukebox", ("music",))
    (first / "music").mkdir()
    logged(first, "music", (10, 1.0))
    second = made("second", "jukebox", ("music", "vqvae"))
    (second / "vqvae").mkdir()
    (second / "music").symlink_to(first / "music")
    logged(second, "vqvae", (30, 1.0))
    third = made("third", "jukebox", ("music", "vqvae", "encoder"))
    (third / "music").symlink_to(second / "music")
    (third / "vqvae").symlink_to(second / "vqvae")
    logged(third, "encoder", (20, 1.0))
    assert compare._training(third, "encoder") == (60, pytest.approx(1))


def test_no_track_to_compare_on_is_said_in_one_line(tmp_path, capsys):
    data = made_music.prepare(tmp_path / "data") / "chorales"
    call = ["compare", str(tmp_path / "gone"), f"--data={data}", "--target=soprano", "--tracks=0"]
    assert command.main([*call, f"--output={tmp_path / 'out'}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: no track of the split test of {data} by --tracks=0"


def test_minutes_are_unknown_where_no_row_has_a_rate(tmp_path):
    config = smoke_runs.load_config("majl")
    config.run = ("teacher", "student")
    write_manifest(tmp_path, config, seed=0)
    logged(tmp_path, "teacher", (10, None), (60, 1.0))
    assert compare._training(tmp_path, "teacher") == (60, 1.0)
    logged(tmp_path, "student", (30, None))
    steps, minutes = compare._training(tmp_path, "student")
    assert steps == 90 and math.isnan(minutes)


def test_only_models_that_are_not_there_are_an_error(tmp_path, capsys):
    data = made_music.prepare(tmp_path / "data") / "chorales"
    call = ["compare", str(tmp_path / "gone"), f"--data={data}", "--target=soprano"]
    assert command.main([*call, f"--output={tmp_path / 'out'}"]) == 1
    assert "**missing**" in capsys.readouterr().out
