"""Time, compile time and memory of a recipe's training step, and the examples per second it eats.

    python benchmarks/train_step.py configs/majl.py:quickstart configs/majl.py:paper

    python -m majl_jax.prepare --dataset=chorales,quartets_unlabelled,drums --sample_rate_hz=22050 --hop_samples=256 --output=data/prepared/step --tracks=1
    python benchmarks/train_step.py configs/ss_mpe.py:paper --steps=0 --stage=finetune --set="run=('reference','finetune')" \\
        --set=data.directory=data/prepared/step --set=data.labelled=chorales --set=data.unlabelled=quartets_unlabelled --set=data.percussion=drums \\
        --set="evaluation.sets=('chorales',)" --set="evaluation.test_sets=('chorales',)"

The step is the one that training runs, of the first stage that the config runs, or that of --stage: loss, gradients, clipping, update, on
all devices. Each config has a process of its own, so that its peak memory is its own. Planned is what XLA says that a step takes beside
its arguments and results. --steps=0: nothing runs.
"""

import argparse
import ast
import contextlib
import importlib
import importlib.util
import pathlib
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main() -> int:
    """Runs every config in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("configs", nargs="+", metavar="configs/NAME.py:PRESET")
    parser.add_argument("--stage", help="default: the first that the config runs")
    parser.add_argument("--steps", type=int, default=5, help="timed, after the first")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="of the config"
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        measure(options, options.configs[0])
        return 0
    print(
        f"{'config':<30}{'batch':>6}{'compile s':>10}{'planned MiB':>12}{'step ms':>9}{'examples/s':>11}{'peak MiB':>10}"
    )
    codes = []
    shared = [one for one in sys.argv[1:] if one not in options.configs]
    for config in options.configs:
        command = [sys.executable, __file__, config, *shared, "--worker"]
        codes.append(subprocess.run(command, check=False, cwd=ROOT).returncode)
    return max(codes)


def measure(options: argparse.Namespace, name: str) -> None:
    """Times one config and prints its row."""
    import jax
    import numpy as np

    from majl_jax import parallel
    from majl_jax.training import parameters
    from majl_jax.training.step import TrainState, make_step

    path, _, preset = name.partition(":")
    spec = importlib.util.spec_from_file_location("configs", ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(*([preset] if preset else []))
    for text in options.set:
        field, _, value = text.partition("=")
        with contextlib.suppress(SyntaxError, ValueError):  # then it is a text
            value = ast.literal_eval(value)
        config.update_from_flattened_dict({field: value})
    recipe = importlib.import_module(f"majl_jax.recipes.{config.recipe}")
    stages = {one.name: one for one in recipe.stages(config, pathlib.Path("unused"))}
    stage = stages[options.stage or next(iter(stages))]
    variables = dict(stage.init(jax.random.key(0), None))
    params = variables.pop("params")
    mask = parameters.trainable_mask(params, stage.trainable)
    mesh = parallel.mesh()
    step = parallel.sharded(make_step(stage.loss, stage.optimizer, mask), mesh)
    state = TrainState(
        np.int32(0), params, variables, stage.optimizer.init(params), jax.random.key(0)
    )
    state = parallel.replicate(state, mesh)
    del params, variables  # the state holds copies
    batches, times_s = stage.batches(None), []
    first = next(batches)
    batch = parallel.split(first, mesh)
    began = time.perf_counter()
    compiled = step.lower(state, batch).compile()
    compile_s = time.perf_counter() - began
    planned_mib = compiled.memory_analysis().temp_size_in_bytes / 2**20
    for _ in range(1 + options.steps if options.steps else 0):
        began = time.perf_counter()
        state, reading = compiled(state, batch)
        jax.block_until_ready((state, reading))
        times_s.append(time.perf_counter() - began)
        batch = parallel.split(next(batches), mesh)
    size = len(first["index"])
    row = f"{name.removeprefix('configs/'):<30}{size:>6}{compile_s:>10.1f}{planned_mib:>12.0f}"
    if times_s:
        step_s = statistics.median(times_s[1:])
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        row += f"{1000 * step_s:>9.0f}{size / step_s:>11.1f}{peak_mib:>10.0f}"
    print(row, flush=True)


if __name__ == "__main__":
    sys.exit(main())
