"""Every recipe's step at its published size on the accelerator at hand, in parts, as JSON.

    python -m benchmarks card --output=card                     # nine minutes, then it ends
    python -m benchmarks card --output=card                     # again: what is missing
    python -m benchmarks card --output=card --preset=smoke --steps=2 --only=steps

A part is a stage in float32 or in bfloat16, on noise, on one device: seconds of compiling, the
median step, the peak of the memory and its share of the device's, and the share of what the device
could do at most (benchmarks plan) that the step reaches; or a network against its counterpart in
PyTorch (`pip install torch`), compiled by torch.compile and with its fused attention, both in the
number type TF32. Each runs in a process of its own and leaves FOLDER/<part>.json; parts that are
there are not run again, one that fails or takes longer than --part_minutes says so in its file.
What is worth most comes first. Exit status 3: time is up, and parts are missing.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile
import time
from typing import Any

from benchmarks.harness import chips, comparison

# (config, stage, examples of a step): as many as a chip gets of the batch of eight, or all where
# these are few.
STEPS = (
    ("majl", "teacher", 16),
    ("mixit", "pretrain", 8),
    ("ss_mpe", "reference", 8),
    ("transfer", "pretrain", 24),
    ("jukebox", "vqvae", 4),
    ("mixit", "supervised", 4),
    ("transfer", "finetune", 24),
    ("jukebox", "encoder", 4),
    ("majl", "pipeline", 16),
)
DTYPES = ("float32", "bfloat16")
# Comparisons with PyTorch: options that make them large enough for an accelerator.
AGAINST_TORCH = {
    "unet": ("against_torch", "--networks=unet published"),
    "crepe": ("against_torch", "--networks=crepe full"),
    "blstm": ("blstm", "--batch=24", "--cases=0,1"),
    "timbre_trap": ("multi_pitch_step", "--batch=8", "--cases=1,3"),
    "locoformer": ("locoformer", "--frames=517", "--layers=8", "--cases=1"),
    "vqvae": ("vqvae", "--batch=4", "--cases=1,3"),
    "resunet": ("large_separator", "--batch=8", "--cases=4"),
}
TORCH_OPTIONS = ("--torch_compile", "--tolerance=3000", "--calls=5", "--cores=0", "--turns=1")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where results go, and how much is measured."""
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="FOLDER")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which no part begins")
    parser.add_argument("--part_minutes", type=float, default=3.0, help="of a part at most")
    parser.add_argument("--steps", type=int, default=10, help="timed, after the first")
    parser.add_argument("--preset", default="paper", help="of all configs")
    parser.add_argument("--only", choices=("steps", "torch"), help="one kind of parts")
    parser.add_argument("--parts", help="comma-separated names; default: all")
    parser.add_argument("--json", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Runs what is missing and prints all that is there; the exit status."""
    if options.child:
        comparison.write_report(options, measure(options, options.child))
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    until, missing = time.monotonic() + 60 * options.minutes, []
    for name, command in parts(options).items():
        path = options.output / f"{name}.json"
        if not path.exists():
            left_s = until - time.monotonic()
            if left_s <= 0:
                missing.append(name)
                continue
            found = _part(command, min(left_s + 30, 60 * options.part_minutes))
            path.write_text(json.dumps({"part": name, **found}) + "\n")
        print(row(name, json.loads(path.read_text())), flush=True)
    if missing:
        print(f"time is up; the same command goes on with {', '.join(missing)}")
    return 3 if missing else 0


def parts(options: argparse.Namespace) -> dict[str, list[str]]:
    """The command of each part that is wanted, but for the folder of its report."""
    found = {}
    if options.only != "torch":
        for dtype in DTYPES:
            for name, stage, _ in STEPS:
                case = f"{name}-{stage}-{dtype}"
                found[case] = comparison.command(options, case)
    if options.only != "steps":
        for name, (benchmark, *more) in AGAINST_TORCH.items():
            given = argparse.Namespace(command=[benchmark, *more, *TORCH_OPTIONS])
            found[f"torch-{name}"] = comparison.command(given, "")[:-1]
    if options.parts:
        wanted = options.parts.split(",")
        if unknown := set(wanted) - set(found):
            raise ValueError(f"--parts: {', '.join(sorted(unknown))}; there are {', '.join(found)}")
        found = {name: found[name] for name in wanted}
    return found


def _part(command: list[str], limit_s: float) -> dict[str, Any]:
    """What a part reports, or why it did not."""
    with tempfile.TemporaryDirectory() as name:
        report = pathlib.Path(name) / "report.json"
        child = any(one.startswith("--child") for one in command)
        more = [f"--folder={name}"] if child else [f"--json={report}"]
        began = time.monotonic()
        try:
            done = subprocess.run(
                [*command, *more],
                check=False,
                cwd=comparison.ROOT,
                capture_output=True,
                text=True,
                timeout=limit_s,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not done in {limit_s:.0f} s"}
        spent = {"wall_s": time.monotonic() - began}
        if done.returncode or not report.exists():
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            return {"error": f"exit status {done.returncode}: {last[:300]}", **spent}
        return {**json.loads(report.read_text()), **spent}


def row(name: str, found: dict[str, Any]) -> str:
    """A line of what a part found."""
    if "error" in found:
        return f"{name:<32}{found['error']}"
    if "cases" in found:
        cases = found["cases"].items()
        told = "; ".join(f"{k} {v['timings']['step']['ms']:.1f} ms" for k, v in cases)
        return f"{name:<32}{told}"
    share, memory = (
        "-" if value is None else f"{value:.0%}"
        for value in (found["share_of_limit"], found["memory_share"])
    )
    return (
        f"{name:<32}batch {found['batch']:>4}  step {found['step_ms']:>9.1f} ms, {share:>4} of the"
        f" limit  memory {found['peak_mib']:>7.0f} MiB, {memory:>4}  compile"
        f" {found['compile_s']:>5.1f} s"
    )


# ---- in the process of a part -------------------------------------------------------------------


def measure(options: argparse.Namespace, case: str) -> dict[str, Any]:
    """The step of a stage in a number type on the device at hand."""
    import jax

    from benchmarks.harness import counting, on_shapes, steps
    from benchmarks.train_step import config_of
    from majl_jax import parallel
    from majl_jax.training import dry_run

    name, stage, dtype = case.split("-")
    config = config_of(f"configs/{name}.py:{options.preset}", [])
    for group in config.values():
        if hasattr(group, "to_dict") and "dtype" in group:
            group.dtype = dtype
    with tempfile.TemporaryDirectory() as folder:
        made = on_shapes.stages(config, pathlib.Path(folder))
        one = next(one for one in made if one.stage.name == stage)
    most = next(n for *which, n in STEPS if which == [name, stage])
    examples = min(most, one.examples) * jax.device_count()
    found = steps.timed(steps.on_noise(one.stage, one.batch(examples)), options.steps)
    device = jax.devices()[0]
    step, state, batch = dry_run.abstract_step(one.stage, one.batch(examples), parallel.mesh())
    platform = "cuda" if device.platform == "gpu" else device.platform
    work = counting.work(step.trace(state, batch).jaxpr.jaxpr, platform)
    chip = next((c for k, c in chips.CHIPS.items() if k in device.device_kind.lower()), None)
    least_s = chip and chip.least_s(work, state_bytes=counting.size(state))
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return found | {
        "device": device.device_kind,
        "dtype": dtype,
        "flops": work.flops,
        "least_ms": least_s and 1e3 * least_s,
        "share_of_limit": least_s and 1e3 * least_s / found["step_ms"],
        "memory_share": limit and found["peak_mib"] * 2**20 / limit,
    }
