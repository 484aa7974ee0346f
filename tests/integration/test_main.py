"""The command line: what is wrong is one line, and folders of another run are left alone."""

import json
import logging as standard_logging
import os
import re
import shutil
import subprocess
import sys

import jax
import made_music
import numpy as np
import pytest
import tiny
import yaml
from absl import logging
from places import ROOT
from small_disks import small_disk

from majl_jax import main, terminal
from majl_jax.training import loop, run_log

SMOKE = "--config=configs/majl.py:smoke"
STAGES = ("teacher", "student")


def _main(*arguments):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, "-m", "majl_jax.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )


def _said(done):
    """The only line of a call that failed."""
    assert done.returncode == 1 and not done.stdout, done.stdout
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [SMOKE, "--config.stages.student.stepz=3"],
            "--config.stages.student.stepz=3: the config has no field 'stepz'. Did you mean "
            '"steps" instead of "stepz"?',
        ),
        ([SMOKE, "--config.quux=3"], "--config.quux=3: the config has no field 'quux'"),
        ([SMOKE, "--config.seed=many"], "flag --config.seed=many: invalid literal for int()"),
        (
            ["--config=configs/majl.py:smok"],
            "configs/majl.py has no preset 'smok'; expected one of quickstart, smoke",
        ),
        (["--config=configs/magl.py"], "--config names configs/magl.py, which is no file"),
        (["--config", "configs/magl.py"], "of those in the package: jukebox, majl, mixit"),
        ([], "flag --config=None"),
        ([SMOKE, "--confg.seed=3"], "Unknown command line flag 'confg.seed'"),
        ([SMOKE, "teacher"], "unknown arguments: teacher"),
        ([SMOKE, "--config.recipe=marl"], "config.recipe is 'marl'; expected one of"),
        (["--config=majl:smoke", "--config.recipe=marl"], "config.recipe is 'marl'; expected"),
        (["--config", "majl:smoke", "--config.seed=many"], "flag --config.seed=many: invalid"),
        (
            [SMOKE, "--config.data.directory=nowhere"],
            "No prepared data set in nowhere/chorales (the folder does not exist). Make it with: "
            "python -m majl_jax.prepare",
        ),
    ],
)
def test_a_wrong_call_is_one_line_and_leaves_no_folder(tmp_path, arguments, message):
    line = _said(_main(*arguments, f"--workdir={tmp_path / 'run'}"))
    assert line.startswith("error: ") and message in line
    assert not (tmp_path / "run").exists()


def test_help_is_no_error():
    done = _main("--help")
    assert done.returncode == 0 and not done.stderr
    assert "--workdir: folder of the run" in done.stdout and done.stdout.startswith("Train every")


def test_the_config_is_printed_with_what_was_set_and_nothing_is_done():
    done = _main("--config=majl:smoke", "--config.stages.student.steps=9", "--print-config")
    assert done.returncode == 0 and not done.stderr
    config = yaml.safe_load(done.stdout)
    assert config["recipe"] == "majl" and config["stages"]["student"]["steps"] == 9
    assert config["data"]["hop_samples"] == 320 and config["run"] == ["pipeline", *STAGES]


@pytest.mark.slow
def test_a_dry_run_tells_what_training_would_take_and_writes_nothing(tmp_path):
    data, workdir = made_music.prepare(tmp_path / "data"), tmp_path / "run"
    call = [SMOKE, f"--config.data.directory={data}", f"--workdir={workdir}", "--dry_run"]
    before = sorted(tmp_path.rglob("*"))
    done = _main(*call)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "config: majl, stages pipeline, teacher, student, seed 0",
        "data: chorales (synthetic): train ",
        "16000 Hz, 1 channel, labels every 20 ms",
        "pipeline: memory of each device, as XLA plans the step: ",
        "disk: checkpoints of about ",
        "dry run: nothing is in the way",
    ):
        assert words in done.stdout, done.stdout
    assert sorted(tmp_path.rglob("*")) == before
    line = _said(_main(*call, "--config.stages.student.stepz=3"))
    assert "has no field 'stepz'" in line


def test_debug_shows_where_an_error_came_from(tmp_path):
    done = _main(SMOKE, "--config.recipe=marl", f"--workdir={tmp_path}", "--debug")
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert "ValueError: config.recipe is 'marl'" in done.stderr


def test_of_a_field_that_is_given_twice_the_last_counts(tmp_path):
    twice = ["--config.run=('pipeline',)", "--config.seed=1", "--config.run", "('teachers',)"]
    done = _main(SMOKE, *twice, "--config.seed=2", f"--workdir={tmp_path}")
    run, seed, error = done.stderr.splitlines()
    assert run == "--config.run is given twice: the last one counts"
    assert seed == "--config.seed is given twice: the last one counts"
    assert "config.run is ('teachers',); expected some of pipeline" in error


@pytest.mark.slow
def test_a_run_from_the_command_line_and_another_config_in_its_folder(tmp_path):
    data, workdir = made_music.prepare(tmp_path / "data"), tmp_path / "run"
    call = [
        SMOKE,
        f"--config.data.directory={data}",
        "--config.run=('teacher',)",
        f"--workdir={workdir}",
    ]
    done = _main(*call)
    assert done.returncode == 0, done.stdout + done.stderr
    for row in ("teacher", "mixture", "true stem"):
        assert row in done.stdout  # the closing table
    said = [line for line in done.stdout.splitlines() if line.startswith("teacher: ")]
    assert said[1] == "teacher: compiling the training step …"
    assert re.fullmatch(r"teacher: first step .* s, with its compilation", said[2])
    manifest = json.loads((workdir / "config.json").read_text())
    assert manifest["config"]["stages"]["teacher"]["steps"] == 2
    assert (workdir / "report.html").stat().st_size > 10_000
    assert list((workdir / "tensorboard").iterdir())

    line = _said(_main(*call, "--config.stages.teacher.learning_rate=0.5", "--dry_run"))
    assert "stages.teacher.learning_rate" in line
    with run_log.RunLog(workdir):
        line = _said(_main(*call, "--config.evaluation.overlap=0.5"))
    assert "another process is training in" in line
    assert json.loads((workdir / "config.json").read_text()) == manifest
    again = _main(*call)
    assert again.returncode == 0 and "complete already" in again.stdout

    # Data and workdir moved, more steps, scored in another way: the run goes on.
    data, workdir = data.rename(tmp_path / "elsewhere"), workdir.rename(tmp_path / "moved")
    call[1], call[3] = f"--config.data.directory={data}", f"--workdir={workdir}"
    done = _main(*call, "--config.stages.teacher.steps=3", "--config.evaluation.overlap=0.5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "teacher: complete with 2 steps, goes on to 3" in done.stdout
    assert "teacher: its learning rate depends on their number" in done.stdout
    assert json.loads((workdir / "teacher/result.json").read_text())["trained_steps"] == 3
    changed = json.loads((workdir / "config.json").read_text())["starts"][-1]["changed"]
    assert changed.keys() == {"data.directory", "evaluation.overlap", "stages.teacher.steps"}


# TensorStore's threads speak after their loop was closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_that_fills_up_is_one_line(tmp_path, monkeypatch, capfd):
    logger = logging.get_absl_logger()
    monkeypatch.setattr(logger, "filters", [*logger.filters])
    monkeypatch.setattr(standard_logging.getLogger("asyncio"), "level", 0)
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    with small_disk(tmp_path / "disk", "4m") as disk:

        def init(key, previous):
            # More than is left for the second checkpoint.
            much = {"much": np.zeros(100_000, np.float32)}
            return {**tiny.line_init(key), **much}

        def loss(params, mutables, batch, key):
            line = {"state": mutables["state"]}
            total, (new, terms) = tiny.line_loss(params, line, batch, key)
            return total, ({**new, "much": mutables["much"]}, terms)

        def fill(variables):
            (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 100_000))
            return {}

        @terminal.command
        def train(arguments):
            main._hush_orbax()
            stage = tiny.line_stage(init=init, loss=loss, evaluate=fill)
            often = loop.Options(evaluate_every_steps=10, checkpoint_every_steps=5)
            loop.run([stage], disk / "run", jax.random.key(0), often, devices=jax.devices()[:1])

        assert train([]) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert re.match(r"error: could not save .*/checkpoints: the disk is full\.", line), line
