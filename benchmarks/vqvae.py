"""Step time and memory of Jukebox's VQ-VAE at its finest level, 900,033 parameters, against PyTorch.

    pip install torch==2.13.0
    python benchmarks/vqvae.py                          # 393,216 samples: 8.9 s at 44.1 kHz
    python benchmarks/vqvae.py --batch=4 --cases=1,3    # 12 GiB; all cases 25 GiB
    python benchmarks/vqvae.py --samples=32768          # less than a minute

Forward and backward pass of the loss of `majl_jax.losses.vqvae` (audio, spectra at three resolutions, commitment) with the moving averages of
2,048 codes, without the optimiser. Every case runs in a process of its own, the cases in turns; the same weights and codebook: the program
fails when latents, what is decoded from the same codes, the loss or the gradient disagree. CPU seconds (user and system, all threads) tell
more than wall seconds where other programs run, on one core (`taskset --cpu-list=0`) above all: elsewhere they count PyTorch's threads that
wait for each other. Memory is what a step adds to the process, and beside it what XLA plans for the step.
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
from against_torch import disagreement, status_mib

CASES = {
    "torch": ("torch", False),
    "torch checkpointed": ("torch", True),
    "jax": ("jax", False),
    "jax rematerialised": ("jax", True),
}
SAMPLES, CODES = 393_216, 2048
VARIANCE, TOP = 0.01, 2048
# Relative norms. A code that rounding decides another way moves loss and gradient; no more than one in a thousand may.
TOLERANCE = {"latents": 1e-5, "decoded": 1e-5, "loss": 1e-4, "gradient": 2e-2, "codes": 1e-3}
COLUMNS = {"step s": "step_s", "CPU s": "cpu_s", "MiB": "step_mib"}


def main() -> int:
    """Runs every case and prints a table per batch size; returns 1 when results disagree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", default="1", help="comma-separated sizes")
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"from {8 * CODES} on")
    parser.add_argument("--turns", type=int, default=1, help="processes per case")
    parser.add_argument("--calls", type=int, default=2, help="timed steps per process, after one")
    numbers = ",".join(map(str, range(len(CASES))))
    parser.add_argument(
        "--cases", default=numbers, help="numbers, of PyTorch one at least, see CASES"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.samples % 8 or options.samples < 8 * CODES:
        parser.error(f"--samples={options.samples}: expected a multiple of 8 from {8 * CODES} on.")
    if options.worker:
        library, remat = CASES[options.worker]
        work = run_jax if library == "jax" else run_torch
        (options.folder / "report.json").write_text(json.dumps(work(options, remat)))
        return 0
    names = [list(CASES)[number] for number in map(int, options.cases.split(","))]
    # The first is the reference, and writes the weights.
    names.sort(key=lambda name: CASES[name][0] != "torch")
    if CASES[names[0]][0] != "torch":
        parser.error(f"--cases={options.cases}: expected one of PyTorch too.")
    agreed = [compare(options, int(batch), names) for batch in options.batch.split(",")]
    return 0 if all(agreed) else 1


def compare(options: argparse.Namespace, batch: int, names: list[str]) -> bool:
    """Runs the cases with one batch size, prints their table, says whether the results agree."""
    reports: dict[str, list[dict]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        command = [sys.executable, __file__, "--folder", name, f"--batch={batch}"]
        command += [f"--samples={options.samples}", f"--calls={options.calls}"]
        for _ in range(options.turns):
            for case in names:
                subprocess.run([*command, "--worker", case], check=True)
                reports[case].append(json.loads((folder / "report.json").read_text()))
                (folder / "result.npz").replace(folder / f"{case}.npz")
        results = {case: dict(np.load(folder / f"{case}.npz")) for case in names}
    print(f"batch {batch}, {options.samples} samples, {options.turns} turns", flush=True)
    return print_table(reports, results)


def print_table(reports: dict[str, list[dict]], results: dict[str, dict]) -> bool:
    """Medians over the turns and their ratios to the first case; whether the results agree."""
    reference = next(iter(reports))
    print(f"{'':<20}" + "".join(f"{column:>8}{'ratio':>7}" for column in COLUMNS), end="")
    print(f"{'planned':>9}{'compile s':>11}  disagreement: {', '.join(TOLERANCE)}")
    agreed = True
    for case, found in reports.items():
        row = f"{case:<20}"
        for column in COLUMNS.values():
            mine, theirs = (
                statistics.median(r[column] for r in x) for x in (found, reports[reference])
            )
            shown = f"{mine:.0f}" if column == "step_mib" else f"{mine:.2f}"
            row += f"{shown:>8}{mine / theirs:>7.2f}"
        planned = f"{found[-1]['planned_mib']:.0f}" if "planned_mib" in found[-1] else ""
        row += f"{planned:>9}{found[-1]['compile_s']:>11.1f} "
        errors = {
            key: disagreement(results[case][key], results[reference][key]) for key in TOLERANCE
        }
        errors["codes"] = float(np.mean(results[case]["codes"] != results[reference]["codes"]))
        agreed &= all(errors[key] < limit for key, limit in TOLERANCE.items())
        print(row, *(f"{error:.1e}" for error in errors.values()), flush=True)
    return agreed


def data(options: argparse.Namespace) -> np.ndarray:
    """Noise as mono audio [batch, time]."""
    shape = int(options.batch), options.samples
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)
    return VARIANCE**0.5 * noise


def spectral_norm(samples: int) -> float:
    """About the norm of the spectrum of `data`, whose frames have a third of the samples as energy of their window."""
    return (VARIANCE * samples / 256 * 1536 * 0.375 * 1025) ** 0.5


def run_jax(options: argparse.Namespace, remat: bool) -> dict:
    """Worker: our network with the weights and the codebook that `run_torch` wrote."""
    import functools

    import jax
    import jax.numpy as jnp

    from majl_jax import weights
    from majl_jax.losses import vqvae as losses
    from majl_jax.losses.reconstruction import Bandwidth
    from majl_jax.models.layers import vector_quantizer
    from majl_jax.models.vqvae import Decoder, Encoder

    with np.load(options.folder / "weights.npz") as file:
        variables = weights.convert("jukebox_vqvae", {key: file[key] for key in file.files})
    variables, audio = jax.tree.map(jnp.asarray, (variables, data(options)[..., None]))
    params, vectors = variables["params"], variables["codebook"]["vectors"]
    frames = options.samples // 8
    codebook = vector_quantizer.restore(vectors, tokens_per_item=frames, items=len(audio))
    halves = {"encoder": Encoder(), "decoder": Decoder()}
    if remat:
        halves = {name: half.clone(remat="full") for name, half in halves.items()}
    bandwidth = Bandwidth(l2=VARIANCE, spectral=spectral_norm(options.samples))
    loss = functools.partial(
        losses.autoencoder_loss, **halves, settings=losses.Settings(bandwidth, top=TOP)
    )
    arguments = params, {"codebook": codebook._asdict()}, audio, jnp.ones(len(audio))
    arguments += (jax.random.key(0),)
    started = time.perf_counter()
    step = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(*arguments).compile()
    compile_s = time.perf_counter() - started
    (total, _), gradients = step(*arguments)
    kernel = gradients["encoder"]["section0"]["down1"]["kernel"]
    latents = jax.jit(halves["encoder"].apply)({"params": params["encoder"]}, audio)
    codes, _ = jax.jit(vector_quantizer.nearest_codes)(latents, vectors)
    rows = vectors[jnp.asarray(np.load(options.folder / "codes.npy"))]
    decoded = jax.jit(halves["decoder"].apply)({"params": params["decoder"]}, rows)
    np.savez(
        options.folder / "result.npz",
        **{
            "latents": latents,
            "codes": codes,
            "decoded": decoded,
            "loss": total,
            "gradient": kernel,
        },
    )
    del gradients, latents, rows, decoded
    report = measure(lambda: jax.block_until_ready(step(*arguments)), options.calls)
    planned = step.memory_analysis().temp_size_in_bytes / 2**20
    return {**report, "planned_mib": planned, "compile_s": compile_s}


def run_torch(options: argparse.Namespace, remat: bool) -> dict:
    """Worker: the same in PyTorch; writes its weights and its codebook, which is a random choice of latents."""
    import torch
    import torch_vqvae

    from majl_jax.losses.reconstruction import MULTI_RESOLUTION
    from majl_jax.models.vqvae import VqVaeSizes

    torch.manual_seed(0)
    sizes = VqVaeSizes()
    model = torch_vqvae.AutoEncoder(
        sizes.hidden, sizes.dilations, sizes.downs[0], sizes.latent, CODES
    )
    model.remat = remat
    codebook = model.bottleneck.level_blocks[0]
    audio = torch.from_numpy(data(options)).unsqueeze(1)
    with torch.no_grad():
        latents = model.encode(audio).transpose(1, 2)
        tokens = latents.flatten(0, 1)
        codebook.fill(tokens)
        codes = codebook.codes(tokens).view(latents.shape[:2])
        decoded = model.decode(codebook.k[codes].transpose(1, 2)).transpose(1, 2)
    state = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    np.savez(options.folder / "weights.npz", **state)
    np.save(options.folder / "codes.npy", codes)

    def step() -> torch.Tensor:
        model.zero_grad(set_to_none=True)
        total = torch_vqvae.loss(
            model,
            audio,
            variance=VARIANCE,
            spectral_norm=spectral_norm(options.samples),
            largest=TOP,
            resolutions=MULTI_RESOLUTION,
        )
        total.backward()
        return total.detach()

    total = step()
    first = model.encoders[0].level_blocks[0].model[0][0].weight
    results = {"latents": latents, "codes": codes, "decoded": decoded, "loss": total}
    kernel = first.grad.permute(2, 1, 0).contiguous()
    np.savez(options.folder / "result.npz", **results, gradient=kernel)
    del results, latents, tokens, decoded
    return {**measure(step, options.calls), "compile_s": 0.0}


def measure(step: Callable[[], object], calls: int) -> dict[str, float]:
    """Median wall and CPU seconds of a step, and by how many MiB it raises the resident memory; one step has run before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status_mib("VmRSS")
    wall, cpu = [], []
    for _ in range(calls):
        started = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - started[0])
        cpu.append(time.process_time() - started[1])
    added = status_mib("VmHWM") - before
    return {"step_s": statistics.median(wall), "cpu_s": statistics.median(cpu), "step_mib": added}


if __name__ == "__main__":
    sys.exit(main())
