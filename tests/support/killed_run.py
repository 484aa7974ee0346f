"""A run of two stages that kills itself where it is told: WORKDIR WHERE, one of the names below."""

import os
import pathlib
import signal
import sys
import threading
import time

import jax
import tiny

from majl_jax.training import loop

OPTIONS = {"log_every_steps": 8, "evaluate_every_steps": 20, "checkpoint_every_steps": 10}


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(folder, pattern):
    while not list(folder.glob(pattern)):
        time.sleep(0.0005)


def kill_inside_a_save(folder):
    """Wait for the unfinished folder of the checkpoint of step 30, then kill."""
    wait_for(folder, "30.orbax-checkpoint-tmp*/*")
    kill()


def stages(where=None, workdir=None):
    def hook(taken, x):
        if where == "before the first save" and taken == 7:
            kill()
        if where == "SIGTERM" and taken == 45:
            os.kill(os.getpid(), signal.SIGTERM)

    def evaluate(variables):
        if where == "in an evaluation":
            wait_for(pathlib.Path(workdir, "first", "checkpoints"), "20")
            kill()
        return tiny.net_evaluate(variables)

    def test(variables, folder):
        if where == "in the test":
            kill()
        return {"final": tiny.net_evaluate(variables)["score"]}

    def batches(previous):
        return tiny.Batches(hook=hook if previous is None else None)

    def init(key, previous):
        return tiny.net_init(key) if previous is None else previous

    common = {"batches": batches, "init": init}
    return (
        tiny.net_stage("first", 60, evaluate=evaluate, best="score", **common),
        tiny.net_stage("second", 15, test=test, **common),
    )


def run(workdir, where=None):
    options, devices = loop.Options(**OPTIONS), jax.devices()[:1]
    return loop.run(stages(where, workdir), workdir, jax.random.key(0), options, devices=devices)


if __name__ == "__main__":
    workdir, where = sys.argv[1:]
    if where == "inside a save":
        folder = pathlib.Path(workdir, "first", "checkpoints")
        threading.Thread(target=kill_inside_a_save, args=(folder,), daemon=True).start()
    print(run(workdir, where))
    assert "tensorflow" not in sys.modules
