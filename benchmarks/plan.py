"""What a training step takes of accelerators, without one: memory, FLOPs, bytes, least time.

    pip install libtpu==0.0.52
    python -m benchmarks plan configs/majl.py:paper --topology=v5e:4x4 --stage=teacher
    python -m benchmarks plan configs/transfer.py:paper --topology=v5p:2x4x4 --examples=8 --fit
    python -m benchmarks plan configs/mixit.py:paper --topology=h200

Every stage of a recipe, or that of --stage, on noise in the place of its data sets. For a TPU the
step is compiled, by the compiler that runs on it, for all chips of the topology (500 MB, on Linux;
v5e-16 is v5e:4x4, v5p-64 is v5p:2x4x4): its memory on each chip and what the chips tell each other
are the compiled program's. For a GPU, or with --lower, it is lowered alone, which needs nothing
else, and its memory is not known.

FLOPs and bytes are counted in the trace (harness/counting.py), of one chip. The least time is the
larger of both bounds, products at their rate and bytes at the memory's; nothing is that fast.
`in` is what the hosts have to read for one chip at this speed, in examples and MB of audio per
second. --fit: the largest power of two of examples on each chip whose step fits, by trying.
"""

import argparse
import json
import math
import os
import pathlib
import re
import subprocess
import tempfile
import time
from typing import Any

from benchmarks.harness import chips, comparison, counting

# Programs that do not fit are refused by the compiler in these words.
_TOO_LARGE = ("RESOURCE_EXHAUSTED", "Ran out of memory")
_COLLECTIVE = re.compile(
    r" = (\(?[^=]*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\("
)
_SHAPE = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]")
HEADS = {
    "stage": 24,
    "per chip": 9,
    "memory GiB": 11,
    "share": 7,
    "GFLOP": 9,
    "GB": 8,
    "least ms": 9,
    "bound": 10,
    "collectives": 16,
    "in /s": 8,
    "MB/s": 7,
    "compile s": 10,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is planned, and for what."""
    parser.add_argument("configs", nargs="+", metavar="configs/NAME.py:PRESET")
    parser.add_argument("--topology", default="v5e:4x4", help="v5e:4x4, v5p:2x4x4, h200, …")
    parser.add_argument("--stage", action="append", help="default: all; several: give it again")
    parser.add_argument(
        "--examples", type=int, help="on each chip; default: the config's batch over all chips"
    )
    parser.add_argument("--lower", action="store_true", help="compile nothing")
    parser.add_argument("--fit", action="store_true", help="search how many examples fit")
    parser.add_argument("--minutes", type=float, default=8.0, help="CPU time of a compilation")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="of the config"
    )
    comparison.add_child_options(parser, cores=0)


def run(options: argparse.Namespace) -> int:
    """Plans every stage in a process of its own and prints its row; the exit status."""
    if options.child:
        config, _, stage = options.child.partition(" ")
        comparison.write_report(options, plan(options, config, stage))
        return 0
    chips.named(options.topology)
    print("".join(f"{head:{'<' if head == 'stage' else '>'}{n}}" for head, n in HEADS.items()))
    for config in options.configs:
        for stage in options.stage or stage_names(config, options.set):
            found = _child(options, f"{config} {stage}")
            print(row(f"{pathlib.Path(config).stem} {stage}", found), flush=True)
            if options.json:
                line = {"command": options.command, "config": config, "stage": stage, **found}
                with options.json.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    return 0


def stage_names(config: str, changes: list[str]) -> tuple[str, ...]:
    """The stages that the recipe of a config has."""
    import importlib

    from benchmarks.train_step import config_of

    recipe = config_of(config, changes).recipe
    return importlib.import_module(f"majl_jax.recipes.{recipe}").STAGES


def row(name: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    if "error" in found:
        return f"{name:<24}  {found['error']}"
    memory, share, compile_s = "-", "-", "-"
    if "memory_bytes" in found:
        memory = f"{found['memory_bytes'] / chips.GIB:.2f}"
        share = f"{found['memory_bytes'] / found['limit_bytes']:.0%}"
        compile_s = f"{found['compile_s']:.0f}"
    told = ", ".join(f"{n}: {size / 1e6:.0f} MB" for n, size in found["collectives"].values())
    text = f"{name:<24}{found['examples']:>9}{memory:>11}{share:>7}"
    text += f"{found['flops'] / 1e9:>9.0f}{found['bytes'] / 1e9:>8.1f}"
    text += f"{1e3 * found['least_s']:>9.1f}{found['bound']:>10}{told or '-':>16}"
    rate = found["examples"] / found["least_s"]
    text += f"{rate:>8.0f}{rate * found['example_bytes'] / 1e6:>7.0f}{compile_s:>10}"
    return text + (f"  fits: {found['fits']}" if "fits" in found else "")


def _child(options: argparse.Namespace, case: str) -> dict[str, Any]:
    """What a process reports; an error where it takes too long or fails."""
    names = {"TPU_SKIP_MDS_QUERY": "1", "NPROC": "16", "JAX_PLATFORMS": "cpu"}
    names |= {"TPU_ACCELERATOR_TYPE": "none", "TPU_WORKER_HOSTNAMES": "localhost"}
    # Of the trace and everything else besides the compilation two minutes.
    limit_s = round(60 * options.minutes * (1 + 4 * options.fit)) + 120
    command = ["prlimit", f"--cpu={limit_s}", *comparison.command(options, case)]
    with tempfile.TemporaryDirectory() as name:
        told = subprocess.run(
            [*command, f"--folder={name}"],
            check=False,
            cwd=comparison.ROOT,
            env={**os.environ, **names},
            stderr=subprocess.PIPE,
            text=True,
        )
        if not told.returncode:
            return json.loads((pathlib.Path(name) / "report.json").read_text())
    if told.returncode < 0:
        return {"error": f"not compiled in {options.minutes:g} minutes of CPU time"}
    last = (told.stderr.strip().splitlines() or [""])[-1]
    return {"error": f"exit status {told.returncode}: {last[:200]}"}


# ---- in the process of a stage ------------------------------------------------------------------


def plan(options: argparse.Namespace, config: str, stage: str) -> dict[str, Any]:
    """What a step of a stage takes of one chip."""
    import jax
    import numpy as np

    from benchmarks.harness import on_shapes
    from benchmarks.train_step import config_of

    with tempfile.TemporaryDirectory() as folder:
        made = on_shapes.stages(config_of(config, options.set), pathlib.Path(folder))
        one = next(one for one in made if one.stage.name == stage)
    kind, _, sides = options.topology.partition(":")
    count = math.prod(int(side) for side in sides.split("x")) if sides else 1
    if kind in chips.GPUS or options.lower:
        devices: Any = jax.devices()[:1]
    else:
        from jax.experimental import topologies

        devices = topologies.get_topology_desc(
            platform="tpu", topology_name=options.topology
        ).devices
    mesh = jax.sharding.Mesh(np.array(devices), ("data",))
    examples = options.examples or max(one.least, one.examples // count)
    found = _of_batch(one, examples, mesh, options.topology)
    if options.fit and "memory_bytes" in found:
        found["fits"] = _largest(one, mesh, options.topology, found)
    return found


def _of_batch(one: Any, examples: int, mesh: Any, topology: str) -> dict[str, Any]:
    """What a step takes with so many examples on each chip, whether or not it fits there."""
    from majl_jax.training import dry_run

    chip, name = chips.named(topology), topology.partition(":")[0]
    platform = "cuda" if name in chips.GPUS else "tpu"
    batch = one.batch(examples * mesh.devices.size)
    step, state, batch = dry_run.abstract_step(one.stage, batch, mesh)
    traced = step.trace(state, batch)
    work = counting.work(traced.jaxpr.jaxpr, platform)
    kept = counting.size(state)
    bounds = chip.bounds_s(work, state_bytes=kept)
    found = {
        "examples": examples,
        "example_bytes": counting.size(one.batch(1)),
        "state_bytes": kept,
        "flops": work.flops,
        "products": work.products,
        "bytes": work.bytes + 2 * kept,
        "bound": max(bounds, key=lambda bound: bounds[bound]),
        "least_s": max(bounds.values()),
        "limit_bytes": chip.memory_bytes,
        "collectives": {},
    }
    if mesh.devices.flat[0].platform == "cpu":
        traced.lower(lowering_platforms=(platform,))
        return found
    began = time.process_time()
    try:
        compiled = traced.lower().compile()
    except Exception as error:
        if not any(words in str(error) for words in _TOO_LARGE):
            raise
        return found | {"memory_bytes": _asked(str(error)), "compile_s": _since(began)}
    memory = compiled.memory_analysis()
    ends = memory.argument_size_in_bytes + memory.output_size_in_bytes
    peak = ends - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    found["memory_bytes"] = peak + memory.generated_code_size_in_bytes
    found["collectives"] = collectives(compiled.as_text())
    # Of a sum each chip sends all of it twice, in parts.
    told = sum(size for _, size in found["collectives"].values())
    found["links_s"] = 2 * told / chip.link_bytes_per_s
    return found | {"compile_s": _since(began)}


def _largest(one: Any, mesh: Any, topology: str, found: dict[str, Any]) -> int:
    """The largest power of two times the examples that fits; 0: not even one example does."""
    tried = {found["examples"]: found["memory_bytes"] <= found["limit_bytes"]}
    examples = found["examples"]
    while tried[examples]:
        examples *= 2
        more = _of_batch(one, examples, mesh, topology)
        tried[examples] = more["memory_bytes"] <= more["limit_bytes"]
    while examples > 1 and not tried[examples]:
        examples //= 2
        if examples not in tried:
            less = _of_batch(one, examples, mesh, topology)
            tried[examples] = less["memory_bytes"] <= less["limit_bytes"]
    return max((n for n, fits in tried.items() if fits), default=0)


def collectives(text: str) -> dict[str, tuple[int, int]]:
    """How many there are of each kind in a compiled program, and the bytes of their results."""
    found: dict[str, tuple[int, int]] = {}
    for shapes, kind in _COLLECTIVE.findall(text):
        size = 0
        for dtype, sides in _SHAPE.findall(shapes):
            bits = int(re.sub(r"\D", "", dtype) or 8)
            count = 1
            for side in filter(None, sides.split(",")):
                count *= int(side)
            size += count * bits // 8
        number, before = found.get(kind, (0, 0))
        found[kind] = (number + 1, before + size)
    return found


def _asked(text: str) -> float:
    """How much memory a compiler says that a program would need."""
    said = re.search(r"Used ([\d.]+)([KMG]) of [\d.]+[KMG] hbm", text)
    if said is None:
        return float("inf")
    return float(said[1]) * {"K": 2**10, "M": 2**20, "G": 2**30}[said[2]]


def _since(began: float) -> float:
    return time.process_time() - began
