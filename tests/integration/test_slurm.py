"""docs/train.sbatch on a Slurm of one node: a job whose time is up saves, is queued again, and ends
in the parameters of one that nothing stopped.

`make test-cluster`, where `slurm-wlm` and `munge` are installed.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import one_node_slurm
import pytest
from places import ROOT

from majl_jax.training import restore, run_log

CONFIG = "configs/transfer.py:smoke"
STEPS = 60
PATIENCE_S = 1500
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(one_node_slurm.missing()), reason=one_node_slurm.missing()),
]
# Before it is stopped, a job takes a second for each step: Slurm looks at the time every 30.
TRACKER = """
import os, time
def tracker(workdir, config):
    return lambda *_: time.sleep("SLURM_RESTART_COUNT" not in os.environ)
"""


@pytest.fixture(scope="module")
def slurm():
    """The environment of a cluster, each of whose processes has one device."""
    with (
        tempfile.TemporaryDirectory(prefix="slurm") as folder,
        one_node_slurm.cluster(pathlib.Path(folder) / "one") as environment,
    ):
        # Jobs call `python`: this one, also where its environment has not been activated.
        path = os.pathsep.join([os.path.dirname(sys.executable), environment["PATH"]])
        kept = {k: v for k, v in environment.items() if k != "XLA_FLAGS"}
        yield kept | {"PATH": path}


def call(slurm, *command):
    done = subprocess.run(command, env=slurm, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_for(slurm, job, pattern, ready=lambda: True, log=None):
    """What `scontrol show job` says once it has the pattern and something is ready."""
    until = time.monotonic() + PATIENCE_S
    while True:
        said = call(slurm, "scontrol", "show", "job", job)
        if re.search(pattern, said) and ready():
            return said
        state = re.search(r"JobState=(\w+)", said)[1]
        failed = state in ("FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        if failed or time.monotonic() > until:
            raise AssertionError(f"{pattern} did not come\n{said}\n{log and log.read_text()}")
        time.sleep(1)


def submit(slurm, tmp_path, flags):
    """The number of a job by the docs' file: two processes on one node, not sixteen on two."""
    (tmp_path / "slow.py").write_text(TRACKER)
    names = {"CONFIG": CONFIG, "WORKDIR": os.fspath(tmp_path / "job"), "LAST_STAGE": "pretrain"}
    sizes = ["--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=2", "--cpus-per-task=1"]
    command = ["sbatch", "--parsable", *sizes, f"--output={tmp_path / 'job.log'}"]
    tracker = f"--tracker={tmp_path / 'slow.py'}"
    return call(slurm | names, *command, "docs/train.sbatch", *flags, tracker).strip()


@pytest.mark.timeout(4000)
def test_a_job_that_is_out_of_time_is_queued_again_and_ends_as_if_it_had_not_been(
    slurm, smoke, tmp_path
):
    flags = [
        f"--config.data.directory={smoke.data('transfer')}",
        "--config.run=('pretrain',)",
        f"--config.stages.pretrain.steps={STEPS}",
        *(f"--config.train.{k}_every_steps={STEPS}" for k in ("evaluate", "checkpoint")),
    ]
    number, log = submit(slurm, tmp_path, flags), tmp_path / "job.log"

    def is_training():
        there = (tmp_path / "job/metrics.jsonl").exists()
        return there and any(run_log.read_metrics(tmp_path / "job"))

    started = wait_for(slurm, number, "JobState=RUNNING", is_training, log)
    assert "Restarts=0" in started and "TimeLimit=04:00:00" in started

    # So little is left that the signal comes when Slurm next looks at the time.
    elapsed = re.search(r"RunTime=(\d+):(\d+):\d+", started)
    minutes = 60 * int(elapsed[1]) + int(elapsed[2])
    call(slurm, "scontrol", "update", f"JobId={number}", f"TimeLimit={minutes + 2}")
    wait_for(slurm, number, "JobId", lambda: "CANCELLED" in log.read_text(), log)
    # A busy machine may take longer to save than two minutes.
    call(slurm, "scontrol", "update", f"JobId={number}", "TimeLimit=240")
    srun = ["srun", "--ntasks=2", "--cpus-per-task=1"]
    train = ["python", "-m", "majl_jax.main", f"--config={CONFIG}", "--distributed"]
    call(slurm, *srun, *train, f"--workdir={tmp_path / 'whole'}", *flags)

    wait_for(slurm, number, "Restarts=1", log=log)
    # Slurm waits for two minutes before it starts a job again, unless they are over by now.
    hasten = ["scontrol", "update", f"JobId={number}", "StartTime=now"]
    subprocess.run(hasten, env=slurm, check=False, capture_output=True)
    wait_for(slurm, number, "JobState=COMPLETED", log=log)
    check(tmp_path)


def check(tmp_path):
    """The job went on where it stopped, and learnt what the run did that nothing stopped."""
    said = (tmp_path / "job.log").read_text()
    stopped = int(re.search(r"pretrain: going on from step (\d+)", said)[1])
    assert 0 < stopped < STEPS
    assert said.count("2 cpu") == 2, said
    result = json.loads((tmp_path / "job/pretrain/result.json").read_text())
    assert result["trained_steps"] == STEPS
    rows = run_log.read_metrics(tmp_path / "job")
    steps = [row["step"] for row in rows if row["kind"] == "train"]
    assert steps == list(range(1, STEPS + 1))
    whole, resumed = (
        restore.load_variables(tmp_path / name, "pretrain")[0] for name in ("whole", "job")
    )
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_each_process_of_a_job_sees_the_gpu_that_jax_gives_it(slurm, tmp_path):
    """JAX takes the GPU whose number is the process's own on its node: it has to see them all."""
    text = (ROOT / "docs/train.sbatch").read_text()
    (gpus,) = re.findall(r"#SBATCH (--gpus\S+)", text)
    (tasks,) = re.findall(r"#SBATCH --ntasks-per-node=(\d+)", text)
    assert gpus == f"--gpus-per-node={tasks}"
    show = "echo $SLURM_LOCALID $CUDA_VISIBLE_DEVICES"
    seen = call(slurm, "srun", "--ntasks=2", "--gpus-per-node=2", "bash", "-c", show)
    assert sorted(seen.split("\n")[:2]) == ["0 0,1", "1 0,1"]
