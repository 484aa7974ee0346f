"""Step time and memory of the 102,570,824-parameter ResUNetDecouple+, against PyTorch.

    pip install torch==2.13.0
    python benchmarks/large_separator.py

Forward and backward pass of the L1 loss on segments of 2.56 s at 16 kHz (128 frames), without the optimiser, with and without
rematerialisation, in float32 and bfloat16. Every case runs in a process of its own; the same weights, so the outputs of the
two libraries can be compared. Where there is an accelerator each library uses it and counts its memory; on CPU, memory is what a step adds to
the process.
"""

import argparse
import ctypes
import gc
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable

import numpy as np
from against_torch import disagreement, status_mib, times_ms

CASES = {
    "jax float32": ("jax", "float32", False),
    "jax float32, rematerialised": ("jax", "float32", True),
    "jax bfloat16": ("jax", "bfloat16", False),
    "jax bfloat16, rematerialised": ("jax", "bfloat16", True),
    "torch float32": ("torch", "float32", False),
    "torch float32, checkpointed": ("torch", "float32", True),
}
REFERENCE = "torch float32"
PUBLISHED_CHANNELS, BLOCKS = (32, 64, 128, 256, 384, 384), 4
SEGMENT_SAMPLES, WINDOW_SAMPLES, HOP_SAMPLES = 40960, 2048, 320
TOLERANCE = 1e-4  # of the outputs in float32, relative norm


def main() -> int:
    """Runs every case and prints the table; returns 1 when float32 outputs disagree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=int, default=1, help="divides all channel numbers")
    parser.add_argument("--calls", type=int, default=2, help="timed steps per case, after two")
    parser.add_argument("--cases", default=",".join(range_of_cases()), help="numbers, see CASES")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        library, dtype, remat = CASES[options.worker]
        work = run_jax if library == "jax" else run_torch
        (options.folder / "report.json").write_text(json.dumps(work(options, dtype, remat)))
        return 0
    names = [list(CASES)[int(number)] for number in options.cases.split(",")]
    reports, outputs = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--folder", folder, "--batch", str(options.batch)]
        command += ["--width", str(options.width), "--calls", str(options.calls)]
        for name in names:
            subprocess.run([*command, "--worker", name], check=True)
            reports[name] = json.loads((pathlib.Path(folder) / "report.json").read_text())
            outputs[name] = np.load(pathlib.Path(folder) / "output.npy")
    reference = reports.get(REFERENCE)
    print(f"{reports[names[0]]['parameters']:,} parameters, batch {options.batch}")
    print(f"{'':<30}{'step s':>8}{'ratio':>7}{'MiB':>8}{'ratio':>7}{'compile s':>11}  output")
    agreed = True
    for name, report in reports.items():
        ratios = ("", "")
        if reference:
            ratios = tuple(f"{report[k] / reference[k]:.2f}" for k in ("step_ms", "step_mib"))
        error = disagreement(outputs[name], outputs[REFERENCE]) if reference else 0.0
        agreed &= error < TOLERANCE or "bfloat16" in name
        times = (
            f"{report['step_ms'] / 1e3:>8.2f}{ratios[0]:>7}{report['step_mib']:>8.0f}{ratios[1]:>7}"
        )
        print(f"{name:<30}{times}{report['compile_s']:>11.1f}  {error:.1e}", flush=True)
    return 0 if agreed else 1


def range_of_cases() -> list[str]:
    """The numbers of all cases."""
    return [str(number) for number in range(len(CASES))]


def channels(options: argparse.Namespace) -> tuple[int, ...]:
    """Channel numbers of the stages."""
    return tuple(max(1, n // options.width) for n in PUBLISHED_CHANNELS)


def data(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and the same backwards as its target."""
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((options.batch, SEGMENT_SAMPLES)).astype(np.float32) / 10
    return audio, audio[:, ::-1].copy()


def run_jax(options: argparse.Namespace, dtype: str, remat: bool) -> dict:
    """Worker: our network; writes its weights and output."""
    import time

    import jax
    import jax.numpy as jnp

    from majl_jax.models.resunet import ResUNetDecouplePlus
    from majl_jax.weights.filling import flat

    audio, target = data(options)
    model = ResUNetDecouplePlus(channels(options), BLOCKS, remat=remat, dtype=jnp.dtype(dtype))
    variables = jax.jit(model.init)(jax.random.key(0), audio)
    params, stats = variables["params"], variables["batch_stats"]

    def loss(params, stats):
        collections = {"params": params, "batch_stats": stats}
        output, updated = model.apply(collections, audio, train=True, mutable=["batch_stats"])
        return jnp.abs(output - target).mean(), updated

    weights = {k: np.asarray(v) for k, v in flat(params["network"]).items()}
    np.savez(options.folder / "weights.npz", **{k.replace("/", "|"): v for k, v in weights.items()})
    np.save(options.folder / "output.npy", jax.jit(model.apply)(variables, audio))
    started = time.perf_counter()
    step = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(params, stats).compile()
    compile_s = time.perf_counter() - started
    report = measure(lambda: jax.block_until_ready(step(params, stats)), options.calls)
    if found := jax.local_devices()[0].memory_stats():  # an accelerator
        report["step_mib"] = found["peak_bytes_in_use"] / 2**20
    parameters = sum(leaf.size for leaf in weights.values())
    return {**report, "parameters": parameters, "compile_s": compile_s}


def measure(step: Callable[[], object], calls: int) -> dict[str, float]:
    """Median milliseconds of `calls` steps after one, and by how many MiB a step raises the resident memory."""
    step()
    times = times_ms(step, calls, warm_up=0)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status_mib("VmRSS")
    step()
    return {"step_ms": float(np.median(times)), "step_mib": status_mib("VmHWM") - before}


def run_torch(options: argparse.Namespace, dtype: str, remat: bool) -> dict:
    """Worker: the same in PyTorch, with the weights that `run_jax` wrote last."""
    del dtype
    import torch
    import torch_resunet

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch_resunet.Separator(channels(options), BLOCKS, WINDOW_SAMPLES, HOP_SAMPLES)
    with np.load(options.folder / "weights.npz") as file:
        model.load({k.replace("|", "/"): file[k] for k in file.files})
    model.remat = remat
    model.to(device)
    audio, target = (torch.from_numpy(x).to(device) for x in data(options))
    model.eval()
    with torch.inference_mode():
        np.save(options.folder / "output.npy", model(audio).cpu().numpy())
    model.train()

    def step() -> None:
        model.zero_grad(set_to_none=True)
        (model(audio) - target).abs().mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    report = measure(step, options.calls)
    if device == "cuda":
        report["step_mib"] = torch.cuda.max_memory_allocated() / 2**20
    parameters = sum(p.numel() for p in model.parameters())
    return {**report, "parameters": parameters, "compile_s": 0.0}


if __name__ == "__main__":
    sys.exit(main())
