"""Step time and memory of the band-split TF-Locoformer against PyTorch, and the memory that XLA plans at full size.

    pip install torch==2.13.0
    python benchmarks/locoformer.py                            # 2 layers of the medium size, 1.5 s: 129 frames of 62 bands, 4 outputs
    python benchmarks/locoformer.py --table --sources=12       # sizes x dtypes x rematerialisation: memory of 6 s (516 frames) as planned, times of 2 layers, 1.5 s

Forward and backward pass of the mean of the squared estimates, without dropout, STFT and optimiser. Every case runs in a process of its own,
the cases in turns, with the same weights, so that outputs and gradients can be compared. CPU seconds tell more than wall seconds where other
programs run. Memory is what a step adds to the process, and beside it what XLA plans for the step.
"""

import argparse
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from multi_pitch_step import print_table, timed

CASES = {
    "torch": ("torch", "float32", "none"),
    "jax": ("jax", "float32", "none"),
    "torch checkpointed": ("torch", "float32", "full"),
    "jax rematerialised": ("jax", "float32", "full"),
    "jax, products kept": ("jax", "float32", "dots"),
}
SIZES = {"batch": 1, "frames": 129, "sources": 4, "layers": 2}
FULL_FRAMES = 516
GRADIENT = "blocks.0.frame_path.ffn.1.conv1d.weight"


def main() -> int:
    """Runs every case and prints the table; returns 1 when results in float32 disagree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", help="small, medium or large; several for --table")
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--turns", type=int, default=1, help="processes per case")
    parser.add_argument("--calls", type=int, default=3, help="timed steps per process, after one")
    numbers = ",".join(map(str, range(len(CASES))))
    parser.add_argument("--cases", default=numbers, help="numbers beside 0, see CASES")
    parser.add_argument(
        "--table", action="store_true", help="all sizes, dtypes and remats; --calls=0: only plans"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table:
        return print_sizes(options)
    options.preset = options.preset or "medium"
    if options.worker:
        library, dtype, remat = CASES[options.worker]
        work = run_jax if library == "jax" else run_torch
        (options.folder / "report.json").write_text(json.dumps(work(options, dtype, remat)))
        return 0
    names = [list(CASES)[number] for number in sorted({0, *map(int, options.cases.split(","))})]
    reports: dict[str, list[dict]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        command = [sys.executable, __file__, "--folder", name, f"--calls={options.calls}"]
        command += [f"--{size}={getattr(options, size)}" for size in (*SIZES, "preset")]
        for _ in range(options.turns):
            for case in names:
                subprocess.run([*command, "--worker", case], check=True)
                reports[case].append(json.loads((folder / "report.json").read_text()))
                (folder / "result.npz").replace(folder / f"{case}.npz")
        results = {case: dict(np.load(folder / f"{case}.npz")) for case in names}
    print(options.preset, *(f"{size} {getattr(options, size)}" for size in (*SIZES, "turns")))
    agreed = print_table(reports, results)
    print(f"{'forward pass':<30}{'s':>8}{'ratio':>7}{'CPU s':>8}{'ratio':>7}")
    for case, found in reports.items():
        row = f"{case:<30}"
        for column in ("forward_ms", "forward_cpu_ms"):
            mine, theirs = (
                statistics.median(r[column] for r in x) for x in (found, reports[names[0]])
            )
            row += f"{mine / 1e3:>8.2f}{mine / theirs:>7.2f}"
        print(row)
    return 0 if agreed else 1


def print_sizes(options: argparse.Namespace) -> int:
    """Temporary memory, arguments and results of a step at full size, as XLA plans them, and the time of a step of few layers and frames.

    Ratios are to the same size in float32 without rematerialisation.
    """
    import jax
    import jax.numpy as jnp

    from majl_jax.models.band_split import PRESETS, BandSplitLocoformer

    print(f"batch {options.batch}, {options.sources} outputs, planned for {FULL_FRAMES} frames")
    heads = ["temporary MiB", "ratio", "in and out"]
    if options.calls:
        print(f"times of layers {options.layers}, frames {options.frames}")
        heads += ["step s", "ratio", "CPU s", "ratio"]
    print(" " * 34 + "".join(f"{head:>14}" for head in heads), flush=True)
    for preset in options.preset.split(",") if options.preset else PRESETS:
        base: list[float] = []
        for dtype, remat in itertools.product(("float32", "bfloat16"), ("none", "dots", "full")):
            fields = PRESETS[preset] | {"dtype": jnp.dtype(dtype), "remat": remat}
            planned = compiled_step(BandSplitLocoformer(options.sources, **fields), options.batch)
            memory = planned.memory_analysis()
            ends = (memory.argument_size_in_bytes + memory.output_size_in_bytes) / 2**20
            found = [memory.temp_size_in_bytes / 2**20]
            if options.calls:
                fields["layers"] = options.layers
                model = BandSplitLocoformer(options.sources, **fields)
                step = compiled_step(model, options.batch, options.frames)
                spectrum = jnp.asarray(data(options))
                variables = jax.jit(model.init)(jax.random.key(0), spectrum)
                times = timed(
                    lambda: jax.block_until_ready(step(variables, spectrum)),  # noqa: B023
                    options.calls,
                )
                found += [times["step_ms"] / 1e3, times["step_cpu_ms"] / 1e3]
            base = base or found
            ratios = [
                f"{mine:>14.2f}{mine / ours:>14.2f}" for mine, ours in zip(found, base, strict=True)
            ]
            row = f"{found[0]:>14.0f}" + ratios[0][14:] + f"{ends:>14.0f}" + "".join(ratios[1:])
            print(f"{preset + ', ' + dtype + ', remat ' + remat:<34}{row}", flush=True)
    return 0


def compiled_step(model, batch: int, frames: int = FULL_FRAMES):
    """The compiled `gradient` of a network."""
    import jax
    import jax.numpy as jnp

    spectrum = jax.ShapeDtypeStruct((batch, 2, frames, 1025), jnp.complex64)
    variables = jax.eval_shape(model.init, jax.random.key(0), spectrum)
    return jax.jit(gradient(model)).lower(variables, spectrum).compile()


def gradient(model):
    """The gradient of the mean of the squared estimates for the variables, and that mean."""
    import jax
    import jax.numpy as jnp

    def loss(variables, spectrum):
        estimate = model.apply(variables, spectrum)
        return jnp.mean(jnp.real(estimate) ** 2 + jnp.imag(estimate) ** 2)

    return jax.value_and_grad(loss)


def data(options: argparse.Namespace) -> np.ndarray:
    """Noise as a spectrogram [batch, channel, frame, frequency]."""
    shape = 2, options.batch, 2, options.frames, 1025
    parts = np.random.default_rng(0).standard_normal(shape, np.float32)
    return parts[0] + 1j * parts[1]


def settings(options: argparse.Namespace) -> dict:
    """Fields of a preset with another number of layers."""
    from majl_jax.models.band_split import PRESETS

    return PRESETS[options.preset] | {"layers": options.layers}


def run_jax(options: argparse.Namespace, dtype: str, remat: str) -> dict:
    """Worker: our network with the weights that `run_torch` wrote."""
    import jax
    import jax.numpy as jnp

    from majl_jax import weights
    from majl_jax.models.band_split import BandSplitLocoformer

    with np.load(options.folder / "weights.npz") as file:
        variables = weights.convert("bs_locoformer", {key: file[key] for key in file.files})
    variables, spectrum = jax.tree.map(jnp.asarray, variables), jnp.asarray(data(options))
    model = BandSplitLocoformer(
        options.sources,
        **settings(options),
        decoder_tanh="after_first",
        dtype=jnp.dtype(dtype),
        remat=remat,
    )
    forward = jax.jit(model.apply).lower(variables, spectrum).compile()
    started = time.perf_counter()
    step = jax.jit(gradient(model)).lower(variables, spectrum).compile()
    compile_s = time.perf_counter() - started
    params = step(variables, spectrum)[1]["params"]["layers"]["block"]
    kernel = params["time_path"]["ffn_before"]["in_kernel"][0]
    output = forward(variables, spectrum)
    np.savez(options.folder / "result.npz", output=output, gradient=kernel)
    del output, params
    passes = timed(lambda: jax.block_until_ready(forward(variables, spectrum)), options.calls)
    report = timed(lambda: jax.block_until_ready(step(variables, spectrum)), options.calls)
    planned = step.memory_analysis().temp_size_in_bytes / 2**20
    return {**report, **_forward(passes), "planned_mib": planned, "compile_s": compile_s}


def run_torch(options: argparse.Namespace, dtype: str, remat: str) -> dict:
    """Worker: the same in PyTorch; writes its weights."""
    del dtype
    import torch
    import torch_locoformer

    from majl_jax.models.band_split import BANDS_44_1_KHZ

    torch.manual_seed(0)
    sizes = settings(options)
    model = torch_locoformer.BandSplitLocoformer(
        options.sources, 2, BANDS_44_1_KHZ, options.layers, sizes
    )
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    np.savez(options.folder / "weights.npz", **state)
    model.remat = remat == "full"
    spectrum = torch.from_numpy(data(options))

    def step() -> None:
        model.zero_grad(set_to_none=True)
        estimate = model(spectrum)
        (estimate.real.square() + estimate.imag.square()).mean().backward()

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return model(spectrum)

    output = forward().numpy()
    passes = timed(forward, options.calls)
    report = timed(step, options.calls)
    kernel = dict(model.named_parameters())[GRADIENT].grad.permute(2, 1, 0).numpy()
    np.savez(options.folder / "result.npz", output=output, gradient=kernel)
    return {**report, **_forward(passes), "compile_s": 0.0}


def _forward(report: dict[str, float]) -> dict[str, float]:
    return {"forward_ms": report["step_ms"], "forward_cpu_ms": report["step_cpu_ms"]}


if __name__ == "__main__":
    sys.exit(main())
