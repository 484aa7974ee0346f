"""How long it takes until the first step of a training has run: init, trace, compilation.

    python -m benchmarks first_step
    python -m benchmarks first_step configs/ss_mpe.py:smoke configs/ss_mpe.py:paper --cached

Of the first stage that each config runs, on noise in the place of its data sets, each in a process
of its own: seconds by the clock, and those of all CPU cores together, which a busy machine leaves
alone. Without configs: the presets smoke, quickstart, experiment and paper of all recipes; those at
their published sizes are traced and not compiled unless --compile. `init` makes the parameters and
the optimiser's state, `trace` gives the program as JAX has it, `lower` as XLA reads it, `compile`
is XLA's. --cached makes the parameters and compiles a second time, from the cache of the first:
`init again` and `cached`.
"""

import argparse
import contextlib
import json
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.harness import comparison

AGAIN = "init again"
PARTS = ("init", "trace", "lower", "compile", AGAIN, "cached")
WIDTH = 14
PRESETS = ("smoke", "quickstart", "experiment", "paper")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The configs and how far each goes."""
    parser.add_argument("configs", nargs="*", metavar="configs/NAME.py:PRESET")
    parser.add_argument("--stage", help="default: the first that the config runs")
    parser.add_argument("--compile", action="store_true", help="those of `paper` as well")
    parser.add_argument("--cached", action="store_true", help="a second time, from the cache")
    comparison.add_child_options(parser, cores=0)


def run(options: argparse.Namespace) -> int:
    """Measures every config and prints its row; the exit status."""
    if options.child:
        comparison.write_report(options, measure(options, options.child))
        return 0
    heads = (f"{part + ' s':>{WIDTH}}{'CPU s':>8}" for part in PARTS)
    print(f"{'config, stage':<30}{''.join(heads)}")
    for config in options.configs or default_configs():
        with tempfile.TemporaryDirectory() as folder:
            found = comparison.child(options, pathlib.Path(folder), config)
        print(row(config, found), flush=True)
        if options.json:
            with options.json.open("a") as file:
                file.write(json.dumps({"config": config, **found}) + "\n")
    return 0


def default_configs() -> list[str]:
    """The presets that all recipes have, the small ones first."""
    names = sorted(path.stem for path in (comparison.ROOT / "configs").glob("*.py"))
    return [f"configs/{name}.py:{preset}" for preset in PRESETS for name in names]


def row(config: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    name = f"{config.removeprefix('configs/')} {found['stage']}"
    cells = [
        f"{found[part]['s']:>{WIDTH}.1f}{found[part]['cpu_s']:>8.1f}"
        if part in found
        else f"{'-':>{WIDTH}}{'-':>8}"
        for part in PARTS
    ]
    return f"{name:<30}{''.join(cells)}  {found['equations']} equations"


def measure(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Seconds of each part of the first step of a stage."""
    import jax

    from benchmarks.harness import counting, on_shapes
    from benchmarks.train_step import config_of
    from majl_jax import parallel
    from majl_jax.training import dry_run

    config = config_of(name, [])
    wanted = options.stage or config.run[0]
    found: dict[str, Any] = {"stage": wanted}
    with tempfile.TemporaryDirectory() as folder:
        made = on_shapes.stages(config, pathlib.Path(folder))
        one = next(one for one in made if one.stage.name == wanted)
    compiles = not name.endswith(":paper") or options.compile
    with tempfile.TemporaryDirectory() as folder:
        if options.cached and compiles:
            parallel.cache_compilations(folder)
        with _timed(found, "init"):
            _init(one.stage)
        mesh = parallel.mesh(jax.devices()[:1])
        step, state, batch = dry_run.abstract_step(one.stage, one.batch(), mesh)
        with _timed(found, "trace"):
            traced = step.trace(state, batch)
        found["equations"] = counting.equations(traced.jaxpr.jaxpr)
        with _timed(found, "lower"):
            lowered = traced.lower()
        if compiles:
            with _timed(found, "compile"):
                lowered.compile()
        if options.cached and compiles:
            jax.clear_caches()
            with _timed(found, AGAIN):
                _init(one.stage)
            lowered = step.trace(state, batch).lower()
            with _timed(found, "cached"):
                lowered.compile()
    return found


def _init(stage: Any) -> None:
    """Makes the parameters of a stage and the optimiser's state."""
    import jax

    from majl_jax.training import parameters

    params = dict(stage.init(jax.random.key(0), None))["params"]
    mask = parameters.trainable_mask(params, stage.trainable)
    optimizer = parameters.only_trainable(stage.optimizer, mask)
    jax.block_until_ready(jax.jit(optimizer.init)(params))


@contextlib.contextmanager
def _timed(found: dict[str, Any], part: str) -> Iterator[None]:
    """Adds seconds by the clock and of all cores to what was found."""
    began, cpu = time.perf_counter(), time.process_time()
    yield
    found[part] = {"s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
