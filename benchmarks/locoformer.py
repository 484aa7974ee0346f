"""Step time and memory of the band-split TF-Locoformer against PyTorch.

    pip install torch==2.13.0
    python -m benchmarks locoformer

Forward and backward pass of the mean of the squared estimates, without dropout, STFT and optimiser:
2 layers of the medium size, 1.5 s (129 frames of 62 bands), 4 outputs. What XLA plans at full size:
`locoformer_memory`.
"""

import argparse
import pathlib

import numpy as np

from benchmarks.harness import comparison, measuring
from benchmarks.harness.comparison import Case, Subject

SIZES = {"batch": 1, "frames": 129, "sources": 4, "layers": 2}
GRADIENT = "blocks.0.frame_path.ffn.1.conv1d.weight"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The sizes, and what all comparisons have."""
    parser.add_argument("--preset", default="medium", help="small, medium or large")
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    comparison.add_options(parser, COMPARISON)


def run(options: argparse.Namespace) -> int:
    """Compares; the exit status."""
    return comparison.run(COMPARISON, options)


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


def run_jax(options: argparse.Namespace, case: Case, folder: pathlib.Path) -> Subject:
    """Our network with the weights that `run_torch` wrote."""
    import jax
    import jax.numpy as jnp

    from majl_jax import weights
    from majl_jax.models.band_split import BandSplitLocoformer

    with np.load(folder / "weights.npz") as file:
        variables = weights.convert("bs_locoformer", {key: file[key] for key in file.files})
    variables, spectrum = jax.tree.map(jnp.asarray, variables), jnp.asarray(data(options))
    model = BandSplitLocoformer(
        options.sources,
        **settings(options),
        decoder_tanh="after_first",
        dtype=jnp.dtype(case.dtype),
        remat=case.remat or "none",
    )
    forward, _ = measuring.compiled(model.apply, variables, spectrum)
    step, compile_s = measuring.compiled(gradient(model), variables, spectrum)
    block = step(variables, spectrum)[1]["params"]["layers"]["block"]
    kernel = block["time_path"]["ffn_before"]["in_kernel"][0]
    return Subject(
        {"output": forward(variables, spectrum), "gradient": kernel},
        {
            "forward": lambda: jax.block_until_ready(forward(variables, spectrum)),
            "step": lambda: jax.block_until_ready(step(variables, spectrum)),
        },
        compile_s=compile_s,
        planned_mib=measuring.planned_mib(step),
        device_mib=measuring.device_peak_mib,
    )


def run_torch(options: argparse.Namespace, case: Case, folder: pathlib.Path) -> Subject:
    """The same in PyTorch; writes its weights."""
    import torch

    from benchmarks.in_torch import locoformer, placing
    from majl_jax.models.band_split import BANDS_44_1_KHZ

    torch.manual_seed(0)
    model = locoformer.BandSplitLocoformer(
        options.sources, 2, BANDS_44_1_KHZ, options.layers, settings(options)
    )
    np.savez(folder / "weights.npz", **placing.arrays(model.state_dict()))
    model.remat = bool(case.remat)
    model = placing.model_on_device(model, options)
    (spectrum,) = placing.placed(data(options))

    def step() -> None:
        model.zero_grad(set_to_none=True)
        estimate = model(spectrum)
        (estimate.real.square() + estimate.imag.square()).mean().backward()

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return model(spectrum)

    output = placing.array(forward())
    step()
    kernel = placing.array(dict(model.named_parameters())[GRADIENT].grad.permute(2, 1, 0))
    return Subject(
        {"output": output, "gradient": kernel},
        {"forward": placing.waiting(forward), "step": placing.waiting(step)},
        device_mib=placing.peak_mib,
    )


COMPARISON = comparison.Comparison(
    cases={
        "torch": Case("torch"),
        "jax": Case("jax"),
        "torch checkpointed": Case("torch", remat="full"),
        "jax rematerialised": Case("jax", remat="full"),
        "jax, products kept": Case("jax", remat="dots"),
    },
    workers={"torch": run_torch, "jax": run_jax},
    tolerance={"output": 1e-5, "gradient": 1e-4},
)
