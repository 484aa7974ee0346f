"""Step time and memory of SS-MPE's multi-pitch network, 1,303,753 parameters, against PyTorch.

    pip install torch==2.13.0
    python -m benchmarks multi_pitch_step
    python -m benchmarks multi_pitch_step --batch=8 --turns=1 --calls=1

Forward and backward pass of the binary cross-entropy, without the features and the optimiser, on
one excerpt of 4 s: 345 frames. The second command shows the memory of a batch of 8.
"""

import argparse
import pathlib

import numpy as np

from benchmarks.harness import comparison, measuring
from benchmarks.harness.comparison import Case, Subject

BINS, HARMONICS, FRAMES = 440, 6, 345


def add_options(parser: argparse.ArgumentParser) -> None:
    """The sizes, and what all comparisons have."""
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--frames", type=int, default=FRAMES)
    comparison.add_options(parser, COMPARISON)


def run(options: argparse.Namespace) -> int:
    """Compares; the exit status."""
    return comparison.run(COMPARISON, options)


def data(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Noise as features [batch, frame, bin, harmonic], and a target: one bin of fifty is on."""
    rng = np.random.default_rng(0)
    shape = (options.batch, options.frames, BINS)
    features = rng.random((*shape, HARMONICS), np.float32)
    return features, (rng.random(shape, np.float32) < 0.02).astype(np.float32)


def run_jax(options: argparse.Namespace, case: Case, folder: pathlib.Path) -> Subject:
    """Our network with the weights that `run_torch` wrote."""
    import jax
    import jax.numpy as jnp
    import optax

    from majl_jax import weights
    from majl_jax.models.timbre_trap import TimbreTrap

    with np.load(folder / "weights.npz") as file:
        variables = weights.convert("timbre_trap", {key: file[key] for key in file.files})
    variables = jax.tree.map(jnp.asarray, variables)
    features, target = map(jnp.asarray, data(options))
    model = TimbreTrap(remat=case.remat, dtype=jnp.dtype(case.dtype))

    def loss(variables, features, target):
        logits = model.apply(variables, features)
        return optax.sigmoid_binary_cross_entropy(logits, target).sum(-1).mean()

    step, compile_s = measuring.compiled(jax.value_and_grad(loss), variables, features, target)
    gradient = step(variables, features, target)[1]["params"]["encoder"]["convin"]["kernel"]
    return Subject(
        {"output": jax.jit(model.apply)(variables, features), "gradient": gradient},
        {"step": lambda: jax.block_until_ready(step(variables, features, target))},
        compile_s=compile_s,
        planned_mib=measuring.planned_mib(step),
        device_mib=measuring.device_peak_mib,
    )


def run_torch(options: argparse.Namespace, case: Case, folder: pathlib.Path) -> Subject:
    """The same in PyTorch, in its default layout or with the channels last."""
    import torch
    from torch.nn import functional

    from benchmarks.in_torch import placing, timbre_trap
    from majl_jax.models.timbre_trap import embedding_bins, level_channels

    torch.manual_seed(0)
    model = timbre_trap.TimbreTrap(embedding_bins(BINS), level_channels(3), HARMONICS)
    np.savez(folder / "weights.npz", **placing.arrays(model.state_dict()))
    model.remat = case.remat
    model = placing.model_on_device(model, options)
    features, target = placing.placed(*data(options))
    features, target = features.permute(0, 3, 2, 1).contiguous(), target.permute(0, 2, 1)
    if case.library.endswith("channels-last"):
        model.to(memory_format=torch.channels_last)
        features = features.to(memory_format=torch.channels_last)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        error = functional.binary_cross_entropy_with_logits(
            model(features), target, reduction="none"
        )
        error.sum(1).mean().backward()

    with torch.inference_mode():
        output = placing.array(model(features).permute(0, 2, 1))
    step()
    gradient = placing.array(model.encoder["convin"][0].weight.grad.permute(3, 2, 1, 0))
    return Subject(
        {"output": output, "gradient": gradient},
        {"step": placing.waiting(step)},
        device_mib=placing.peak_mib,
    )


COMPARISON = comparison.Comparison(
    cases={
        "torch": Case("torch"),
        "torch channels-last": Case("torch channels-last"),
        "torch checkpointed": Case("torch", remat=True),
        "jax": Case("jax"),
        "jax rematerialised": Case("jax", remat=True),
        "jax bfloat16": Case("jax", "bfloat16"),
        "jax bfloat16, rematerialised": Case("jax", "bfloat16", remat=True),
    },
    workers={"torch": run_torch, "torch channels-last": run_torch, "jax": run_jax},
    tolerance={"output": 1e-5, "gradient": 1e-4},
    turns=3,
)
