"""One process of a run over several: WORKDIR COORDINATOR COUNT INDEX [--terminate-at=STEP]."""

import os
import signal
import sys
import time

import jax
import tiny

from majl_jax import parallel
from majl_jax.training import loop


def main(workdir, coordinator, count, index, *options):
    count, index = int(count), int(index)
    parallel.initialize(coordinator, count, index)
    terminate_at = next((int(o.split("=")[1]) for o in options), None)

    def hook(taken, x):
        if terminate_at is not None and taken >= terminate_at:
            time.sleep(0.03)  # the notifier needs a moment to tell every process
            if taken == terminate_at and index == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    stage = tiny.net_stage(
        steps=160,
        batches=lambda previous: tiny.Batches(process_index=index, process_count=count, hook=hook),
    )
    loop.run(
        [stage],
        workdir,
        jax.random.key(0),
        loop.Options(log_every_steps=20, evaluate_every_steps=80, checkpoint_every_steps=40),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
