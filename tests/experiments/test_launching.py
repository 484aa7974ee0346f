"""Tables as jobs: submitit in this process, jobs that are stopped, and what fails."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from experiments import __main__ as command
from experiments import launching
from experiments.experiment import Data, Run
from experiments.grid import Grid

# As it is imported it ends all handlers of logging, and absl's then closes its stream, unless that
# is sys.stderr at this moment: not so in a test that captures.
pytest.importorskip("submitit")

LENDER = Run("lender", ("teacher", "student"), {})
BORROWER = Run("borrower", ("teacher", "student"), {}, borrows=(LENDER, "teacher"))
TRAINED = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
for stage in ("teacher", "student"):
    (folder / stage).mkdir(exist_ok=True)
    (folder / stage / "result.json").touch()
print("trained")
"""


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """A grid whose trainings take no time."""

    def trained(self, run, seed):
        return [sys.executable, "-S", "-c", TRAINED, str(self.workdir(run, seed))]

    monkeypatch.setattr(Grid, "command", trained)
    data = Data("chorales", (), {})
    return Grid("configs/majl.py:smoke", data, tmp_path / "runs", tmp_path / "compiled", (0, 1))


def test_every_run_and_seed_is_a_job_and_complete_ones_are_left_alone(grid, capsys):
    submit = {"launcher": "debug", "parameters": {"timeout_min": 5}}
    launching.train_all(grid, [LENDER, BORROWER], **submit)
    lines = capsys.readouterr().out.splitlines()
    names = [line.partition(":")[0] for line in lines]
    assert names == [f"{run}, seed {n}" for run in ("lender", "borrower") for n in (0, 1)]
    for seed in (0, 1):
        borrowed = grid.workdir(BORROWER, seed) / "teacher"
        assert borrowed.is_symlink() and (borrowed / "result.json").exists()
        assert (grid.workdir(LENDER, seed) / "console.log").read_text() == "trained\n"
    launching.train_all(grid, [LENDER, BORROWER], **submit)
    assert not capsys.readouterr().out


@pytest.mark.slow
def test_a_job_of_its_own_process_that_fails_is_named(tmp_path):
    data = Data("chorales", (), {"data.directory": str(tmp_path / "none")})
    grid = Grid("configs/majl.py:smoke", data, tmp_path / "runs", tmp_path / "compiled", (0,))
    with pytest.raises(RuntimeError) as raised:
        launching.train_all(grid, [LENDER], launcher="local", parameters={"timeout_min": 5})
    said = str(raised.value)
    assert said.startswith("1 of 1 jobs failed: lender, seed 0 (job ")
    assert said.endswith("exit status 1; see " + str(grid.workdir(LENDER, 0) / "console.log"))
    told = (grid.workdir(LENDER, 0) / "console.log").read_text()
    assert "No prepared data set in" in told


WAITS = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def save(number, frame):
    (folder / "saved").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
(folder / "begun").write_text(str(__import__("os").getpid()))
time.sleep(60)
"""


def test_a_job_whose_time_is_up_saves_and_is_queued_again(grid, monkeypatch):
    def waits(self, run, seed):
        return [sys.executable, "-S", "-c", WAITS, str(self.workdir(run, seed))]

    monkeypatch.setattr(Grid, "command", waits)
    monkeypatch.setattr(launching, "SAVING_S", 20)
    training, again = launching.Training(grid, LENDER, 0), []
    begun, job = grid.workdir(LENDER, 0) / "begun", threading.get_ident()

    def time_is_up():
        while not (begun.exists() and begun.read_text()):
            time.sleep(0.02)
        # What Slurm sends to all processes of a job is not for the training.
        os.kill(int(begun.read_text()), signal.SIGUSR2)
        signal.pthread_kill(job, signal.SIGUSR2)

    # As submitit's: in the thread that waits for the training meanwhile.
    handler = lambda number, frame: again.append(training.checkpoint())  # noqa: E731
    before = signal.signal(signal.SIGUSR2, handler)
    try:
        threading.Thread(target=time_is_up).start()
        with pytest.raises(RuntimeError, match="stopped without a result of teacher, student, the"):
            training()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (grid.workdir(LENDER, 0) / "saved").exists() and not launching._children
    (queued,) = again
    assert queued.function == training and grid.missing(LENDER, 0) == ["teacher", "student"]


def test_a_training_that_does_not_save_in_time_is_ended_and_queued_again(grid, monkeypatch):
    monkeypatch.setattr(launching, "SAVING_S", 0.3)
    deaf = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    child = subprocess.Popen(["sh", "-c", 'trap "" TERM; exec "$@"', "sh", *deaf])
    monkeypatch.setattr(launching, "_children", [child])
    time.sleep(0.3)  # until the shell is deaf
    training = launching.Training(grid, LENDER, 0)
    assert training.checkpoint().function == training
    assert child.wait(20) == -signal.SIGKILL


def test_what_is_wrong_with_the_launch_is_said(capsys, monkeypatch, grid):
    for words, message in (
        (["--launch=timeout_min=3"], "give --launcher=slurm as well"),
        (["--launcher=slurm", "--launch=timeout"], "--launch=timeout: expected NAME=VALUE"),
    ):
        with pytest.raises(SystemExit):
            command.parse(["majl", "--table=main", *words])
        assert message in capsys.readouterr().err
    found = command.parse(
        ["majl", "--table=main", "--launcher=slurm", "--launch=timeout_min=240", "--launch=a=b"]
    )
    assert found.launch == {"timeout_min": 240, "a": "b"}
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install submitit .*majl_jax\[cluster\]"):
        launching.train_all(grid, [LENDER], launcher="slurm", parameters={})
    assert not pathlib.Path(grid.folder / "jobs").exists()
