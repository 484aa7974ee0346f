"""Time and memory of the U-Net and CREPE against the same networks in PyTorch, on the CPU.

    pip install torch==2.13.0      # the CPU build; into an environment that has majl_jax
    python benchmarks/against_torch.py

Each library runs in its own process with the same weights and input, in turns; the table has the
median of the calls. `forward` is inference, `step` the loss and all gradients in training mode
with dropout off. The program fails when outputs or gradients disagree.
"""

import argparse
import ctypes
import gc
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

CASES = {
    "unet narrow": {"channels": (8, 16, 32, 64, 64, 64), "batch": 8},
    "unet published": {"channels": (16, 32, 64, 128, 256, 512), "batch": 8},
    "crepe tiny": {"multiplier": 4, "batch": 2},
    "crepe full": {"multiplier": 32, "batch": 1},
}
SEGMENT_SAMPLES = 40960  # 128 frames of 20 ms at 16 kHz
WINDOW_SAMPLES, HOP_SAMPLES = 1024, 320
# Rounding decides some maxima of CREPE's pooling, and each sends its gradient another way.
TOLERANCE = {"output": 1e-4, "gradient": 2e-2}


def main() -> int:
    """Runs every case and prints the table; returns 1 when results disagree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", default=",".join(CASES), help="comma-separated names")
    parser.add_argument("--turns", type=int, default=3, help="processes per library")
    parser.add_argument("--calls", type=int, default=7, help="timed calls per process")
    parser.add_argument("--worker", choices=("jax", "torch"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work = run_jax if options.worker == "jax" else run_torch
        work(options.cases, options.folder, options.calls)
        return 0
    print(f"{'case':<16}{'':<10}{'JAX ms':>9}{'torch ms':>10}{'JAX / torch':>13}  disagreement")
    agreed = True
    for case in options.cases.split(","):
        agreed &= compare(case, options.turns, options.calls)
    return 0 if agreed else 1


def compare(case: str, turns: int, calls: int) -> bool:
    """Times one case in both libraries, prints its rows, says whether the results agree."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        reports: dict[str, list[dict]] = {"jax": [], "torch": []}
        for _ in range(turns):
            for library, found in reports.items():
                command = [sys.executable, __file__, "--worker", library, "--cases", case]
                command += ["--folder", name, "--calls", str(calls)]
                if subprocess.run(command, check=False).returncode:
                    raise SystemExit(f"{library} failed; is `pip install torch==2.13.0` done?")
                found.append(json.loads((folder / f"{library}.json").read_text()))
        results = [np.load(folder / f"{library}_result.npz") for library in reports]
        errors = {key: disagreement(results[0][key], results[1][key]) for key in results[0].files}
    for kind, key in (("forward", "output"), ("step", "gradient")):
        ours, theirs = (
            statistics.median(t for report in reports[library] for t in report[kind])
            for library in reports
        )
        row = f"{ours:>9.1f}{theirs:>10.1f}{ours / theirs:>13.2f}  {key} {errors[key]:.1e}"
        print(f"{case:<16}{kind:<10}{row}", flush=True)
    peaks = {k: statistics.median(r["step_mib"] for r in v) for k, v in reports.items()}
    ratio = peaks["jax"] / peaks["torch"]
    print(f"{case:<16}{'step MiB':<10}{peaks['jax']:>9.0f}{peaks['torch']:>10.0f}{ratio:>13.2f}")
    return all(errors[key] < limit for key, limit in TOLERANCE.items())


def run_jax(case: str, folder: pathlib.Path, calls: int) -> None:
    """Worker: writes the weights, our results, times and memory."""
    import jax
    import jax.numpy as jnp

    from majl_jax.losses.salience_terms import weighted_bce
    from majl_jax.losses.separation import l1_wav
    from majl_jax.models.crepe import Crepe
    from majl_jax.models.unet import UNet

    settings = CASES[case]
    audio, target = (jnp.asarray(x) for x in data(case))
    is_unet = "channels" in settings
    if is_unet:
        model, error = UNet(channels=settings["channels"], dropout=0.0), l1_wav
    else:
        model, error = Crepe(capacity=settings["multiplier"], dropout=0.0), weighted_bce
    variables = jax.jit(model.init)(jax.random.key(0), audio)
    params, stats = variables["params"], variables["batch_stats"]

    def loss(params, audio, target):
        collections = {"params": params, "batch_stats": stats}
        output, updated = model.apply(collections, audio, train=True, mutable=["batch_stats"])
        return error(output, target).mean(), updated

    forward = jax.jit(lambda variables, audio: model.apply(variables, audio))
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    report = measure(
        forward=lambda: jax.block_until_ready(forward(variables, audio)),
        step=lambda: jax.block_until_ready(step(params, audio, target)),
        calls=calls,
    )
    layer = "down1" if is_unet else "conv1"
    gradient = step(params, audio, target)[1][layer]["kernel"]
    np.savez(folder / "jax_result.npz", output=forward(variables, audio), gradient=gradient)
    flat = {f"{layer}/{name}": x for layer, rest in params.items() for name, x in rest.items()}
    np.savez(folder / "weights.npz", **flat)
    (folder / "jax.json").write_text(json.dumps(report))


def run_torch(case: str, folder: pathlib.Path, calls: int) -> None:
    """Worker: the same with PyTorch and the weights that `run_jax` wrote."""
    import torch
    import torch_networks
    from torch.nn import functional

    torch.manual_seed(0)
    settings = CASES[case]
    audio, target = (torch.from_numpy(x) for x in data(case))
    weights = dict(np.load(folder / "weights.npz"))
    if "channels" in settings:
        model = torch_networks.UNet(settings["channels"], WINDOW_SAMPLES, HOP_SAMPLES)
        error = functional.l1_loss
        first, to_ours = model.down[0], lambda x: x.permute(2, 3, 1, 0).flip(0, 1)
    else:
        model = torch_networks.Crepe(settings["multiplier"], HOP_SAMPLES)
        weight = torch.tensor(10.0)

        def error(logits, target):
            return functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)

        first, to_ours = model.convs[0], lambda x: x.permute(2, 1, 0)
    model.load(weights)

    def forward():
        model.eval()
        with torch.inference_mode():
            return model(audio)

    def step():
        model.train()
        model.zero_grad(set_to_none=True)
        error(model(audio), target).backward()

    output = forward().numpy()
    report = measure(forward=forward, step=step, calls=calls)
    gradient = to_ours(first.weight.grad).numpy()
    np.savez(folder / "torch_result.npz", output=output, gradient=gradient)
    (folder / "torch.json").write_text(json.dumps(report))


def data(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns noise of a segment's length and a target: audio for the U-Net, pitch for CREPE."""
    rng = np.random.default_rng(0)
    batch = CASES[case]["batch"]
    audio = rng.standard_normal((batch, SEGMENT_SAMPLES)).astype(np.float32) / 10
    if "channels" in CASES[case]:
        return audio, audio[:, ::-1].copy()
    pitch = np.zeros((batch, SEGMENT_SAMPLES // HOP_SAMPLES, 360), np.float32)
    np.put_along_axis(pitch, rng.integers(0, 360, (*pitch.shape[:2], 1)), 1.0, axis=2)
    return audio, pitch


def measure(*, forward: Callable, step: Callable, calls: int) -> dict:
    """Milliseconds of every call, and by how many MiB a step raises the resident memory."""
    report = {"forward": times_ms(forward, calls), "step": times_ms(step, calls)}
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status_mib("VmRSS")
    step()
    return report | {"step_mib": status_mib("VmHWM") - before}


def times_ms(call: Callable, calls: int, *, warm_up: int = 2) -> list[float]:
    """Times of `calls` calls after some that are not counted."""
    times = []
    for _ in range(calls + warm_up):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return times[warm_up:]


def status_mib(field: str) -> float:
    """A line of Linux' /proc/self/status: VmRSS is the resident memory, VmHWM its peak."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def disagreement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Norm of the difference, relative to the norm of theirs."""
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


if __name__ == "__main__":
    sys.exit(main())
