"""Time, compile time and peak memory of MAJL's training step, and the crops per second it eats.

    python benchmarks/train_step.py --presets=quickstart,paper --prepared=data/prepared

The step is the one that training runs: loss, gradients, clipping, Adam, on all devices. Each preset has a
process of its own, so that its peak memory is its own.
"""

import argparse
import importlib.util
import pathlib
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main() -> int:
    """Runs every preset in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--presets", default="quickstart,paper")
    parser.add_argument("--stage", default="teacher")
    parser.add_argument("--prepared", default="data/prepared", help="where the data sets are")
    parser.add_argument("--steps", type=int, default=5, help="timed, after the first")
    parser.add_argument("--batch", type=int, help="instead of the preset's batch size")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        measure(options)
        return 0
    print(f"{'preset':<12}{'batch':>6}{'first s':>9}{'step ms':>9}{'crops/s':>9}{'peak MiB':>10}")
    codes = []
    for preset in options.presets.split(","):
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", f"--presets={preset}"]
        codes.append(subprocess.run(command, check=False, cwd=ROOT).returncode)
    return max(codes)


def measure(options: argparse.Namespace) -> None:
    """Times one preset and prints its row."""
    import jax
    import numpy as np

    from majl_jax import optimize, parallel
    from majl_jax.recipes import majl
    from majl_jax.step import TrainState, make_step

    spec = importlib.util.spec_from_file_location("configs", ROOT / "configs/majl.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(options.presets)
    config.data.directory, config.run = options.prepared, (options.stage,)
    if options.batch:
        config.stages[options.stage].batch_size = options.batch
    (stage,) = majl.stages(config, pathlib.Path("unused"))
    variables = stage.init(jax.random.key(0), None)
    params = variables.pop("params")
    mask = optimize.trainable_mask(params, stage.trainable)
    mesh = parallel.mesh()
    step = parallel.sharded(make_step(stage.loss, stage.optimizer, mask), mesh)
    state = TrainState(
        np.int32(0), params, variables, stage.optimizer.init(params), jax.random.key(0)
    )
    state = parallel.replicate(state, mesh)
    batches, times_s = stage.batches(None), []
    for _ in range(1 + options.steps):
        batch = parallel.split(next(batches), mesh)
        began = time.perf_counter()
        state, reading = step(state, batch)
        jax.block_until_ready((state, reading))
        times_s.append(time.perf_counter() - began)
    step_s = statistics.median(times_s[1:])
    batch_size = config.stages[options.stage].batch_size
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{options.presets:<12}{batch_size:>6}{times_s[0]:>9.1f}{1000 * step_s:>9.0f}"
        f"{batch_size / step_s:>9.1f}{peak_mib:>10.0f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
