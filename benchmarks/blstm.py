"""Forward and backward pass of the bidirectional LSTM against Flax's cells and PyTorch's nn.LSTM.

    pip install torch==2.13.0
    python -m benchmarks blstm
    python -m benchmarks blstm --turns=5 --cases=1

Four layers of 500 units, batch 4 of 10 s: 1250 frames of 257 bins.
"""

import argparse
import pathlib

import numpy as np

from benchmarks.harness import comparison, measuring
from benchmarks.harness.comparison import Case, Subject

SIZES = {"batch": 4, "frames": 1250, "features": 257, "units": 500, "layers": 4}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The sizes, and what all comparisons have."""
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    comparison.add_options(parser, COMPARISON)


def run(options: argparse.Namespace) -> int:
    """Compares; the exit status."""
    return comparison.run(COMPARISON, options)


def data(options: argparse.Namespace) -> np.ndarray:
    """Noise [batch, frame, feature]."""
    shape = options.batch, options.frames, options.features
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def run_torch(options: argparse.Namespace, case: Case, folder: pathlib.Path) -> Subject:
    """PyTorch's layer; writes its weights."""
    import torch

    from benchmarks.in_torch import placing

    torch.manual_seed(0)
    sizes = options.features, options.units, options.layers
    model = torch.nn.LSTM(*sizes, batch_first=True, bidirectional=True)
    np.savez(folder / "weights.npz", **placing.arrays(model.state_dict()))
    model = placing.model_on_device(model, options)
    (inputs,) = placing.placed(data(options))

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model(inputs)[0].square().sum().backward()

    with torch.inference_mode():
        output = placing.array(model(inputs)[0])
    step()
    gradient = placing.array(model.weight_hh_l0_reverse.grad).T
    return Subject(
        {"output": output, "gradient": gradient},
        {"step": placing.waiting(step)},
        device_mib=placing.peak_mib,
    )


def run_jax(options: argparse.Namespace, case: Case, folder: pathlib.Path) -> Subject:
    """Our module, or Flax's cells, with the weights that `run_torch` wrote."""
    import jax
    import jax.numpy as jnp

    from majl_jax.models.layers.blstm import BLSTM
    from majl_jax.weights import convert

    with np.load(folder / "weights.npz") as file:
        state = {f"recurrent_stack.rnn.{key}": file[key] for key in file.files}
    params = convert("chimera", state)["params"]["blstm"]
    if case.library == "flax":
        model, params = flax_layers(options), as_flax(params)
    else:
        model = BLSTM(options.units, options.layers, dtype=jnp.dtype(case.dtype))
    params, inputs = jax.tree.map(jnp.asarray, (params, data(options)))

    def loss(params, inputs):
        outputs = model.apply({"params": params}, inputs)
        return jnp.square(outputs.astype(jnp.float32)).sum()

    output = jax.jit(model.apply)({"params": params}, inputs).astype(jnp.float32)
    step, compile_s = measuring.compiled(jax.grad(loss), params, inputs)
    gradient = step(params, inputs)
    if case.library == "flax":
        gradient = np.concatenate([gradient["1_0"][f"h{gate}"]["kernel"] for gate in "ifgo"], -1)
    else:
        gradient = gradient["layer_0"]["recurrent_kernel"][1]
    return Subject(
        {"output": output, "gradient": gradient},
        {"step": lambda: jax.block_until_ready(step(params, inputs))},
        compile_s=compile_s,
        planned_mib=measuring.planned_mib(step),
        device_mib=measuring.device_peak_mib,
    )


def flax_layers(options: argparse.Namespace):
    """Flax's cells as a network."""
    import flax.linen as nn

    class FlaxLayers(nn.Module):
        @nn.compact
        def __call__(self, hidden):
            for i in range(options.layers):
                cells = [nn.OptimizedLSTMCell(options.units, name=f"{d}_{i}") for d in (0, 1)]
                hidden = nn.Bidirectional(*map(nn.RNN, cells))(hidden)
            return hidden

    return FlaxLayers()


def as_flax(params: dict) -> dict:
    """Our parameters as those of Flax's cells: a kernel per gate, bias beside the recurrent one."""
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


COMPARISON = comparison.Comparison(
    cases={
        "torch": Case("torch"),
        "jax": Case("jax"),
        "flax": Case("flax"),
        "jax bfloat16": Case("jax", "bfloat16"),
    },
    workers={"torch": run_torch, "jax": run_jax, "flax": run_jax},
    tolerance={"output": 1e-5, "gradient": 1e-4},
    turns=3,
)
