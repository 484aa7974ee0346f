"""Step time and memory of the multi-pitch network of SS-MPE, 1,303,753 parameters, against PyTorch.

    pip install torch==2.13.0
    python benchmarks/multi_pitch_step.py                                    # one excerpt of 4 s: 345 frames
    python benchmarks/multi_pitch_step.py --batch=8 --turns=1 --calls=1      # the memory of a batch of 8

Forward and backward pass of the binary cross-entropy, without the features and the optimiser. Every case runs in a process of its own, the
cases in turns; the same weights, so that outputs and gradients can be compared. CPU seconds tell more than wall seconds where other programs
run. Memory is what a step adds to the process, and beside it what XLA plans for the step.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from against_torch import disagreement
from large_separator import measure

CASES = {
    "torch": ("torch", "float32", False),
    "torch channels-last": ("torch channels-last", "float32", False),
    "torch checkpointed": ("torch", "float32", True),
    "jax": ("jax", "float32", False),
    "jax rematerialised": ("jax", "float32", True),
    "jax bfloat16": ("jax", "bfloat16", False),
    "jax bfloat16, rematerialised": ("jax", "bfloat16", True),
}
REFERENCE = "torch"  # runs first: it writes the weights
BINS, HARMONICS, FRAMES = 440, 6, 345
TOLERANCE = {"output": 1e-5, "gradient": 1e-4}  # in float32, relative norms


def main() -> int:
    """Runs every case and prints the table; returns 1 when results in float32 disagree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--turns", type=int, default=3, help="processes per case")
    parser.add_argument("--calls", type=int, default=3, help="timed steps per process, after one")
    numbers = ",".join(map(str, range(len(CASES))))
    parser.add_argument("--cases", default=numbers, help="numbers beside 0, see CASES")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        library, dtype, remat = CASES[options.worker]
        work = run_jax if library == "jax" else run_torch
        report = work(options, library if library != "jax" else dtype, remat)
        (options.folder / "report.json").write_text(json.dumps(report))
        return 0
    names = [list(CASES)[number] for number in sorted({0, *map(int, options.cases.split(","))})]
    reports: dict[str, list[dict]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        command = [sys.executable, __file__, "--folder", name, f"--batch={options.batch}"]
        command += [f"--calls={options.calls}", f"--frames={options.frames}"]
        for _ in range(options.turns):
            for case in names:
                subprocess.run([*command, "--worker", case], check=True)
                reports[case].append(json.loads((folder / "report.json").read_text()))
                (folder / "result.npz").replace(folder / f"{case}.npz")
        results = {case: dict(np.load(folder / f"{case}.npz")) for case in names}
    print(f"batch {options.batch}, {options.frames} frames, {options.turns} turns", flush=True)
    return 0 if print_table(reports, results) else 1


def print_table(reports: dict[str, list[dict]], results: dict[str, dict]) -> bool:
    """Medians over the turns and their ratios to the reference; whether the float32 results agree."""
    columns = ("step_ms", "step_cpu_ms", "step_mib")
    print(
        f"{'':<30}{'step s':>8}{'ratio':>7}{'CPU s':>8}{'ratio':>7}{'MiB':>8}{'ratio':>7}", end=""
    )
    print(f"{'planned':>9}{'compile s':>11}  output, gradient")
    agreed = True
    for case, found in reports.items():
        row = f"{case:<30}"
        for column in columns:
            mine, theirs = (
                statistics.median(r[column] for r in x) for x in (found, reports[REFERENCE])
            )
            shown = f"{mine:.0f}" if column == "step_mib" else f"{mine / 1e3:.2f}"
            row += f"{shown:>8}{mine / theirs:>7.2f}"
        errors = {k: disagreement(results[case][k], results[REFERENCE][k]) for k in TOLERANCE}
        agreed &= "bfloat16" in case or all(errors[k] < TOLERANCE[k] for k in errors)
        planned = f"{found[-1]['planned_mib']:.0f}" if "planned_mib" in found[-1] else ""
        row += f"{planned:>9}{found[-1]['compile_s']:>11.1f}"
        print(row, *(f" {error:.1e}" for error in errors.values()), flush=True)
    return agreed


def data(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Noise as features [batch, frame, bin, harmonic], and a target in which one bin of fifty is on."""
    rng = np.random.default_rng(0)
    shape = (options.batch, options.frames, BINS)
    features = rng.random((*shape, HARMONICS), np.float32)
    return features, (rng.random(shape, np.float32) < 0.02).astype(np.float32)


def run_jax(options: argparse.Namespace, dtype: str, remat: bool) -> dict:
    """Worker: our network with the weights that `run_torch` wrote."""
    import jax
    import jax.numpy as jnp
    import optax

    from majl_jax import weights
    from majl_jax.models.timbre_trap import TimbreTrap

    with np.load(options.folder / "weights.npz") as file:
        variables = weights.convert("timbre_trap", {key: file[key] for key in file.files})
    variables = jax.tree.map(jnp.asarray, variables)
    features, target = map(jnp.asarray, data(options))
    model = TimbreTrap(remat=remat, dtype=jnp.dtype(dtype))

    def loss(variables, features, target):
        logits = model.apply(variables, features)
        return optax.sigmoid_binary_cross_entropy(logits, target).sum(-1).mean()

    logits = jax.jit(model.apply)(variables, features)
    started = time.perf_counter()
    step = jax.jit(jax.value_and_grad(loss)).lower(variables, features, target).compile()
    compile_s = time.perf_counter() - started
    gradient = step(variables, features, target)[1]["params"]["encoder"]["convin"]["kernel"]
    np.savez(options.folder / "result.npz", output=logits, gradient=gradient)
    report = timed(lambda: jax.block_until_ready(step(variables, features, target)), options.calls)
    planned = step.memory_analysis()
    if planned is not None:
        report["planned_mib"] = planned.temp_size_in_bytes / 2**20
    return {**report, "compile_s": compile_s}


def run_torch(options: argparse.Namespace, library: str, remat: bool) -> dict:
    """Worker: the same in PyTorch, features and weights in its default layout or with the channels last."""
    import torch
    import torch_timbre_trap
    from torch.nn import functional

    from majl_jax.models.timbre_trap import embedding_bins, level_channels

    torch.manual_seed(0)
    sizes = embedding_bins(BINS), level_channels(3), HARMONICS
    model = torch_timbre_trap.TimbreTrap(*sizes)
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    np.savez(options.folder / "weights.npz", **state)
    model.remat = remat
    features, target = (torch.from_numpy(x) for x in data(options))
    features, target = features.permute(0, 3, 2, 1).contiguous(), target.permute(0, 2, 1)
    if library.endswith("channels-last"):
        model.to(memory_format=torch.channels_last)
        features = features.to(memory_format=torch.channels_last)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        error = functional.binary_cross_entropy_with_logits(
            model(features), target, reduction="none"
        )
        error.sum(1).mean().backward()

    with torch.inference_mode():
        output = model(features).permute(0, 2, 1).numpy()
    report = timed(step, options.calls)
    gradient = model.encoder["convin"][0].weight.grad.permute(3, 2, 1, 0).numpy()
    np.savez(options.folder / "result.npz", output=output, gradient=gradient)
    return {**report, "compile_s": 0.0}


def timed(step, calls: int) -> dict[str, float]:
    """What `measure` finds, and the CPU milliseconds of a step in all threads."""
    report = measure(step, calls)
    times = []
    for _ in range(calls):
        start = time.process_time()
        step()
        times.append((time.process_time() - start) * 1e3)
    return {**report, "step_cpu_ms": float(np.median(times))}


if __name__ == "__main__":
    sys.exit(main())
