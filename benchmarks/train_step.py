"""Time, compile time and memory of a recipe's training step, and the examples per second it eats.

    python -m benchmarks train_step configs/majl.py:quickstart configs/majl.py:paper

    python -m majl_jax.prepare --dataset=chorales,quartets_unlabelled,drums \\
        --sample_rate_hz=22050 --hop_samples=256 --output=data/prepared/step --tracks=1
    python -m benchmarks train_step configs/ss_mpe.py:paper --steps=0 --stage=finetune \\
        --set="run=('reference','finetune')" --set=data.directory=data/prepared/step \\
        --set=data.labelled=chorales --set=data.unlabelled=quartets_unlabelled \\
        --set=data.percussion=drums --set="evaluation.sets=('chorales',)" \\
        --set="evaluation.test_sets=('chorales',)"

The step is the one that training runs, of the first stage that the config runs, or that of --stage:
loss, gradients, clipping, update, on all devices. Each config has a process of its own, so that its
peak memory is its own. Planned is what XLA says that a step takes beside its arguments and results.
--steps=0: nothing runs.
"""

import argparse
import ast
import contextlib
import importlib
import importlib.util
import json
import pathlib
import tempfile
from typing import Any

from benchmarks.harness import comparison

HEADS = {
    "config": 30,
    "batch": 6,
    "compile s": 10,
    "planned MiB": 12,
    "step ms": 9,
    "examples/s": 11,
    "peak MiB": 10,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The configs and what is changed in them."""
    parser.add_argument("configs", nargs="+", metavar="configs/NAME.py:PRESET")
    parser.add_argument("--stage", help="default: the first that the config runs")
    parser.add_argument("--steps", type=int, default=5, help="timed, after the first")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="of the config"
    )
    comparison.add_child_options(parser, cores=0)


def run(options: argparse.Namespace) -> int:
    """Runs every config in a process of its own and prints its row; the exit status."""
    if options.child:
        comparison.write_report(options, measure(options, options.child))
        return 0
    print("".join(f"{head:{'<' if head == 'config' else '>'}{n}}" for head, n in HEADS.items()))
    for config in options.configs:
        with tempfile.TemporaryDirectory() as folder:
            found = comparison.child(options, pathlib.Path(folder), config)
        row = f"{config.removeprefix('configs/'):<30}{found['batch']:>6}"
        row += f"{found['compile_s']:>10.1f}{found['planned_mib']:>12.0f}"
        if "step_ms" in found:
            rate = 1e3 * found["batch"] / found["step_ms"]
            row += f"{found['step_ms']:>9.0f}{rate:>11.1f}{found['peak_mib']:>10.0f}"
        print(row, flush=True)
        if options.json:
            line = {"command": options.command, "config": config, **found}
            with options.json.open("a") as file:
                file.write(json.dumps(line) + "\n")
    return 0


def config_of(name: str, changes: list[str]) -> Any:
    """The config of `configs/NAME.py:PRESET`, with FIELD=VALUE changed."""
    path, _, preset = name.partition(":")
    spec = importlib.util.spec_from_file_location("configs", comparison.ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(*([preset] if preset else []))
    for text in changes:
        field, _, value = text.partition("=")
        # What is no literal is a text.
        with contextlib.suppress(SyntaxError, ValueError):
            value = ast.literal_eval(value)
        config.update_from_flattened_dict({field: value})
    return config


def measure(options: argparse.Namespace, name: str) -> dict[str, float]:
    """Batch, compile_s, planned_mib of one config; if steps are wanted, step_ms and peak_mib."""
    from benchmarks.harness import steps

    config = config_of(name, options.set)
    recipe = importlib.import_module(f"majl_jax.recipes.{config.recipe}")
    stages = {one.name: one for one in recipe.stages(config, pathlib.Path("unused"))}
    return steps.timed(stages[options.stage or next(iter(stages))], options.steps)
