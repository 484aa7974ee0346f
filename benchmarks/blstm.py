"""Forward and backward pass of the bidirectional LSTM against Flax's cells and PyTorch's nn.LSTM.

    pip install torch==2.13.0
    python benchmarks/blstm.py                  # four layers of 500 units, batch 4 of 10 s: 1250 frames of 257 bins
    python benchmarks/blstm.py --turns=5 --cases=1

Every case runs in a process of its own, the cases in turns, with the same weights, so that outputs and gradients can be compared. CPU seconds
tell more than wall seconds where other programs run. Memory is what a step adds to the process, and beside it what XLA plans for the step.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from multi_pitch_step import print_table, timed

CASES = ("torch", "jax", "flax", "jax bfloat16")  # the first writes the weights
SIZES = {"batch": 4, "frames": 1250, "features": 257, "units": 500, "layers": 4}


def main() -> int:
    """Runs every case and prints the table; returns 1 when results in float32 disagree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--turns", type=int, default=3, help="processes per case")
    parser.add_argument("--calls", type=int, default=3, help="timed steps per process, after one")
    numbers = ",".join(map(str, range(len(CASES))))
    parser.add_argument("--cases", default=numbers, help="numbers beside 0, see CASES")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work = run_torch if options.worker == "torch" else run_jax
        (options.folder / "report.json").write_text(json.dumps(work(options)))
        return 0
    names = [CASES[number] for number in sorted({0, *map(int, options.cases.split(","))})]
    reports: dict[str, list[dict]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        command = [sys.executable, __file__, "--folder", name, f"--calls={options.calls}"]
        command += [f"--{size}={getattr(options, size)}" for size in SIZES]
        for _ in range(options.turns):
            for case in names:
                subprocess.run([*command, "--worker", case], check=True)
                reports[case].append(json.loads((folder / "report.json").read_text()))
                (folder / "result.npz").replace(folder / f"{case}.npz")
        results = {case: dict(np.load(folder / f"{case}.npz")) for case in names}
    print(", ".join(f"{size} {getattr(options, size)}" for size in (*SIZES, "turns")), flush=True)
    return 0 if print_table(reports, results) else 1


def data(options: argparse.Namespace) -> np.ndarray:
    """Noise [batch, frame, feature]."""
    shape = options.batch, options.frames, options.features
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def run_torch(options: argparse.Namespace) -> dict:
    """Worker: PyTorch's layer; writes its weights."""
    import torch

    torch.manual_seed(0)
    sizes = options.features, options.units, options.layers
    model = torch.nn.LSTM(*sizes, batch_first=True, bidirectional=True)
    np.savez(
        options.folder / "weights.npz", **{k: v.numpy() for k, v in model.state_dict().items()}
    )
    inputs = torch.from_numpy(data(options))

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model(inputs)[0].square().sum().backward()

    with torch.inference_mode():
        output = model(inputs)[0].numpy()
    report = timed(step, options.calls)
    gradient = model.weight_hh_l0_reverse.grad.numpy().T
    np.savez(options.folder / "result.npz", output=output, gradient=gradient)
    return {**report, "compile_s": 0.0}


def run_jax(options: argparse.Namespace) -> dict:
    """Worker: our module, or Flax's cells, with the weights that `run_torch` wrote."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from majl_jax.models.layers.blstm import BLSTM
    from majl_jax.weights import convert

    class FlaxLayers(nn.Module):
        @nn.compact
        def __call__(self, hidden):
            for i in range(options.layers):
                cells = [nn.OptimizedLSTMCell(options.units, name=f"{d}_{i}") for d in (0, 1)]
                hidden = nn.Bidirectional(*map(nn.RNN, cells))(hidden)
            return hidden

    with np.load(options.folder / "weights.npz") as file:
        state = {f"recurrent_stack.rnn.{key}": file[key] for key in file.files}
    params = convert("chimera", state)["params"]["blstm"]
    if options.worker == "flax":
        model, params = FlaxLayers(), as_flax(params)
    else:
        dtype = jnp.bfloat16 if options.worker.endswith("bfloat16") else jnp.float32
        model = BLSTM(options.units, options.layers, dtype=dtype)
    params, inputs = jax.tree.map(jnp.asarray, (params, data(options)))

    def loss(params, inputs):
        outputs = model.apply({"params": params}, inputs)
        return jnp.square(outputs.astype(jnp.float32)).sum()

    output = jax.jit(model.apply)({"params": params}, inputs).astype(jnp.float32)
    started = time.perf_counter()
    step = jax.jit(jax.grad(loss)).lower(params, inputs).compile()
    compile_s = time.perf_counter() - started
    gradient = step(params, inputs)
    if options.worker == "flax":
        gradient = np.concatenate([gradient["1_0"][f"h{gate}"]["kernel"] for gate in "ifgo"], -1)
    else:
        gradient = gradient["layer_0"]["recurrent_kernel"][1]
    np.savez(options.folder / "result.npz", output=output, gradient=gradient)
    report = timed(lambda: jax.block_until_ready(step(params, inputs)), options.calls)
    planned = step.memory_analysis().temp_size_in_bytes / 2**20
    return {**report, "compile_s": compile_s, "planned_mib": planned}


def as_flax(params: dict) -> dict:
    """Our parameters as those of `FlaxLayers`: a kernel per gate, and the bias beside the recurrent one."""
    cells: dict = {}
    for i in range(len(params)):
        layer = params[f"layer_{i}"]
        for d in (0, 1):
            parts = {name: np.split(array[d], 4, -1) for name, array in layer.items()}
            cell = cells[f"{d}_{i}"] = {}
            for k, gate in enumerate("ifgo"):
                cell[f"i{gate}"] = {"kernel": parts["input_kernel"][k]}
                recurrent = {"kernel": parts["recurrent_kernel"][k], "bias": parts["bias"][k]}
                cell[f"h{gate}"] = recurrent
    return cells


if __name__ == "__main__":
    sys.exit(main())
