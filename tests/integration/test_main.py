"""The command line: misspelt keys, wrong types, unknown presets, and folders of another run."""

import json
import os
import subprocess
import sys

import made_music
import pytest
from places import ROOT


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/majl.py:smoke", "--config.stages.student.stepz=3"], "stepz"),
        (["--config=configs/majl.py:smoke", "--config.seed=many"], "seed"),
        (["--config=configs/majl.py:smok"], "no preset 'smok'; expected one of quickstart, smoke"),
        (["--config=configs/magl.py"], "magl.py"),
        (["--config=configs/majl.py:smoke", "--config.data.directory=nowhere"], "majl_jax.prepare"),
    ],
)
def test_a_wrong_call_is_named_and_leaves_no_folder(tmp_path, arguments, message):
    done = _main(*arguments, f"--workdir={tmp_path / 'run'}")
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_from_the_command_line_and_another_config_in_its_folder(tmp_path):
    data, workdir = made_music.prepare(tmp_path / "data"), tmp_path / "run"
    call = [
        "--config=configs/majl.py:smoke",
        f"--config.data.directory={data}",
        "--config.run=('teacher',)",
        f"--workdir={workdir}",
    ]
    done = _main(*call)
    assert done.returncode == 0, done.stdout + done.stderr
    for row in ("teacher", "mixture", "true stem"):
        assert row in done.stdout  # the closing table
    manifest = json.loads((workdir / "config.json").read_text())
    assert manifest["config"]["stages"]["teacher"]["steps"] == 2
    assert (workdir / "report.html").stat().st_size > 10_000
    assert list((workdir / "tensorboard").iterdir())

    other = _main(*call, "--config.stages.teacher.learning_rate=0.5")
    assert other.returncode != 0
    assert "stages.teacher.learning_rate" in other.stderr
    again = _main(*call)
    assert again.returncode == 0 and "complete already" in again.stdout
