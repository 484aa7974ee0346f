"""Step time and memory of the 102,570,824-parameter ResUNetDecouple+, against PyTorch.

    pip install torch==2.13.0
    python -m benchmarks large_separator

Forward and backward pass of the L1 loss on segments of 2.56 s at 16 kHz (128 frames), without the
optimiser, with and without rematerialisation, in float32 and bfloat16. Where there is an
accelerator each library uses it and counts its memory.
"""

import argparse
import pathlib

import numpy as np

from benchmarks.harness import comparison, measuring
from benchmarks.harness.comparison import Case, Subject

PUBLISHED_CHANNELS, BLOCKS = (32, 64, 128, 256, 384, 384), 4
SEGMENT_SAMPLES, WINDOW_SAMPLES, HOP_SAMPLES = 40960, 2048, 320


def add_options(parser: argparse.ArgumentParser) -> None:
    """The sizes, and what all comparisons have."""
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=int, default=1, help="divides all channel numbers")
    comparison.add_options(parser, COMPARISON)


def run(options: argparse.Namespace) -> int:
    """Compares; the exit status."""
    return comparison.run(COMPARISON, options)


def channels(options: argparse.Namespace) -> tuple[int, ...]:
    """Channel numbers of the stages."""
    return tuple(max(1, n // options.width) for n in PUBLISHED_CHANNELS)


def data(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and the same backwards as its target."""
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((options.batch, SEGMENT_SAMPLES)).astype(np.float32) / 10
    return audio, audio[:, ::-1].copy()


def run_jax(options: argparse.Namespace, case: Case, folder: pathlib.Path) -> Subject:
    """Our network; writes its weights."""
    import jax
    import jax.numpy as jnp

    from majl_jax.models.resunet import ResUNetDecouplePlus
    from majl_jax.weights.filling import flat

    audio, target = data(options)
    dtype = jnp.dtype(case.dtype)
    model = ResUNetDecouplePlus(channels(options), BLOCKS, remat=case.remat, dtype=dtype)
    variables = jax.jit(model.init)(jax.random.key(0), audio)
    params, stats = variables["params"], variables["batch_stats"]

    def loss(params, stats):
        collections = {"params": params, "batch_stats": stats}
        output, updated = model.apply(collections, audio, train=True, mutable=["batch_stats"])
        return jnp.abs(output - target).mean(), updated

    weights = {k: np.asarray(v) for k, v in flat(params["network"]).items()}
    np.savez(folder / "weights.npz", **{k.replace("/", "|"): v for k, v in weights.items()})
    step, compile_s = measuring.compiled(jax.value_and_grad(loss, has_aux=True), params, stats)
    return Subject(
        {"output": jax.jit(model.apply)(variables, audio)},
        {"step": lambda: jax.block_until_ready(step(params, stats))},
        compile_s=compile_s,
        planned_mib=measuring.planned_mib(step),
        parameters=sum(leaf.size for leaf in weights.values()),
        device_mib=measuring.device_peak_mib,
    )


def run_torch(options: argparse.Namespace, case: Case, folder: pathlib.Path) -> Subject:
    """The same in PyTorch, with the weights that `run_jax` wrote last."""
    import torch

    from benchmarks.in_torch import placing, resunet

    model = resunet.Separator(channels(options), BLOCKS, WINDOW_SAMPLES, HOP_SAMPLES)
    with np.load(folder / "weights.npz") as file:
        model.load({k.replace("|", "/"): file[k] for k in file.files})
    model.remat = case.remat
    model = placing.model_on_device(model, options)
    audio, target = placing.placed(*data(options))
    model.eval()
    with torch.inference_mode():
        output = placing.array(model(audio))
    model.train()

    def step() -> None:
        model.zero_grad(set_to_none=True)
        (model(audio) - target).abs().mean().backward()

    return Subject(
        {"output": output},
        {"step": placing.waiting(step)},
        parameters=sum(p.numel() for p in model.parameters()),
        device_mib=placing.peak_mib,
    )


COMPARISON = comparison.Comparison(
    cases={
        "jax float32": Case("jax"),
        "jax float32, rematerialised": Case("jax", remat=True),
        "jax bfloat16": Case("jax", "bfloat16"),
        "jax bfloat16, rematerialised": Case("jax", "bfloat16", remat=True),
        "torch float32": Case("torch"),
        "torch float32, checkpointed": Case("torch", remat=True),
    },
    workers={"jax": run_jax, "torch": run_torch},
    tolerance={"output": 1e-4},
    reference="torch float32",
    calls=2,
)
