"""Time and memory of the U-Net and CREPE against the same networks in PyTorch, on the CPU.

    pip install torch==2.13.0
    python -m benchmarks against_torch

`forward` is inference, `step` the loss and all gradients in training mode with dropout off.
"""

import argparse
import pathlib

import numpy as np

from benchmarks.harness import comparison, measuring
from benchmarks.harness.comparison import Case, Subject

NETWORKS = {
    "unet narrow": {"channels": (8, 16, 32, 64, 64, 64), "batch": 8},
    "unet published": {"channels": (16, 32, 64, 128, 256, 512), "batch": 8},
    "crepe tiny": {"multiplier": 4, "batch": 2},
    "crepe full": {"multiplier": 32, "batch": 1},
}
# 128 frames of 20 ms at 16 kHz.
SEGMENT_SAMPLES = 40960
WINDOW_SAMPLES, HOP_SAMPLES = 1024, 320


def add_options(parser: argparse.ArgumentParser) -> None:
    """The networks, and what all comparisons have."""
    help_ = f"comma-separated, of {', '.join(NETWORKS)}"
    parser.add_argument("--networks", default=",".join(NETWORKS), help=help_)
    comparison.add_options(parser, COMPARISON)


def run(options: argparse.Namespace) -> int:
    """Compares every network; the exit status."""
    names = options.networks.split(",")
    return comparison.run_each(
        COMPARISON, options, "networks", dict(zip(names, names, strict=True))
    )


def run_jax(options: argparse.Namespace, case: Case, folder: pathlib.Path) -> Subject:
    """Our network; writes its weights."""
    import jax
    import jax.numpy as jnp

    from majl_jax.losses.salience_terms import weighted_bce
    from majl_jax.losses.separation import l1_wav
    from majl_jax.models.crepe import Crepe
    from majl_jax.models.unet import UNet

    settings = NETWORKS[options.networks]
    audio, target = (jnp.asarray(x) for x in data(options.networks))
    if "channels" in settings:
        model, error = UNet(channels=settings["channels"], dropout=0.0), l1_wav
    else:
        model, error = Crepe(capacity=settings["multiplier"], dropout=0.0), weighted_bce
    variables = jax.jit(model.init)(jax.random.key(0), audio)
    params, stats = variables["params"], variables["batch_stats"]

    def loss(params, audio, target):
        collections = {"params": params, "batch_stats": stats}
        output, updated = model.apply(collections, audio, train=True, mutable=["batch_stats"])
        return error(output, target).mean(), updated

    flat = {f"{layer}/{name}": x for layer, rest in params.items() for name, x in rest.items()}
    np.savez(folder / "weights.npz", **flat)
    forward, _ = measuring.compiled(lambda v, audio: model.apply(v, audio), variables, audio)
    gradient = jax.value_and_grad(loss, has_aux=True)
    step, compile_s = measuring.compiled(gradient, params, audio, target)
    first = "down1" if "channels" in settings else "conv1"
    return Subject(
        {
            "output": forward(variables, audio),
            "gradient": step(params, audio, target)[1][first]["kernel"],
        },
        {
            "forward": lambda: jax.block_until_ready(forward(variables, audio)),
            "step": lambda: jax.block_until_ready(step(params, audio, target)),
        },
        compile_s=compile_s,
        planned_mib=measuring.planned_mib(step),
        device_mib=measuring.device_peak_mib,
    )


def run_torch(options: argparse.Namespace, case: Case, folder: pathlib.Path) -> Subject:
    """The same with PyTorch and the weights that `run_jax` wrote."""
    import torch
    from torch.nn import functional

    from benchmarks.in_torch import placing, unet_and_crepe

    torch.manual_seed(0)
    settings = NETWORKS[options.networks]
    audio, target = placing.placed(*data(options.networks))
    if "channels" in settings:
        model = unet_and_crepe.UNet(settings["channels"], WINDOW_SAMPLES, HOP_SAMPLES)
        error = functional.l1_loss
        first, to_ours = model.down[0], lambda x: x.permute(2, 3, 1, 0).flip(0, 1)
    else:
        model = unet_and_crepe.Crepe(settings["multiplier"], HOP_SAMPLES)
        weight = torch.tensor(10.0, device=placing.device())

        def error(logits, target):
            return functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)

        first, to_ours = model.convs[0], lambda x: x.permute(2, 1, 0)
    with np.load(folder / "weights.npz") as file:
        model.load(dict(file))
    model = placing.model_on_device(model, options)

    def forward() -> torch.Tensor:
        model.eval()
        with torch.inference_mode():
            return model(audio)

    def step() -> None:
        model.train()
        model.zero_grad(set_to_none=True)
        error(model(audio), target).backward()

    output = placing.array(forward())
    step()
    gradient = placing.array(to_ours(first.weight.grad))
    return Subject(
        {"output": output, "gradient": gradient},
        {"forward": placing.waiting(forward), "step": placing.waiting(step)},
        device_mib=placing.peak_mib,
    )


def data(network: str) -> tuple[np.ndarray, np.ndarray]:
    """Noise of a segment's length and a target: audio for the U-Net, pitch for CREPE."""
    rng = np.random.default_rng(0)
    batch = NETWORKS[network]["batch"]
    audio = rng.standard_normal((batch, SEGMENT_SAMPLES)).astype(np.float32) / 10
    if "channels" in NETWORKS[network]:
        return audio, audio[:, ::-1].copy()
    pitch = np.zeros((batch, SEGMENT_SAMPLES // HOP_SAMPLES, 360), np.float32)
    np.put_along_axis(pitch, rng.integers(0, 360, (*pitch.shape[:2], 1)), 1.0, axis=2)
    return audio, pitch


COMPARISON = comparison.Comparison(
    cases={"jax": Case("jax"), "torch": Case("torch")},
    workers={"jax": run_jax, "torch": run_torch},
    # Rounding decides some maxima of CREPE's pooling, and each sends its gradient another way.
    tolerance={"output": 1e-4, "gradient": 2e-2},
    turns=3,
    calls=7,
)
