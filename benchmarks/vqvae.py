"""Step time and memory of Jukebox's finest VQ-VAE, 900,033 parameters, against PyTorch.

    pip install torch==2.13.0
    python -m benchmarks vqvae                          # 393,216 samples: 8.9 s at 44.1 kHz
    python -m benchmarks vqvae --batch=4 --cases=1,3    # 12 GiB; all cases 25 GiB
    python -m benchmarks vqvae --samples=32768          # less than a minute

Forward and backward pass of the loss of `majl_jax.losses.vqvae` (audio, spectra at three
resolutions, commitment) with the moving averages of 2,048 codes, without the optimiser. Compared
are the latents, what is decoded from the same codes, the loss and a gradient. CPU seconds tell more
than the clock where other programs run, on one core above all: elsewhere they count PyTorch's
threads that wait for each other.
"""

import argparse
import functools
import pathlib

import numpy as np

from benchmarks.harness import comparison, measuring
from benchmarks.harness.comparison import Case, Subject

SAMPLES, CODES = 393_216, 2048
VARIANCE, TOP = 0.01, 2048


def add_options(parser: argparse.ArgumentParser) -> None:
    """The sizes, and what all comparisons have."""
    parser.add_argument("--batch", default="1", help="comma-separated sizes")
    parser.add_argument("--samples", type=_samples, default=SAMPLES, help=f"from {8 * CODES} on")
    comparison.add_options(parser, COMPARISON)


def _samples(text: str) -> int:
    if int(text) % 8 or int(text) < 8 * CODES:
        raise argparse.ArgumentTypeError(f"{text}: expected a multiple of 8 from {8 * CODES} on")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Compares with every batch size; the exit status."""
    sizes = {batch: f"batch {batch}" for batch in options.batch.split(",")}
    return comparison.run_each(COMPARISON, options, "batch", sizes)


def data(options: argparse.Namespace) -> np.ndarray:
    """Noise as mono audio [batch, time]."""
    shape = int(options.batch), options.samples
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)
    return VARIANCE**0.5 * noise


def spectral_norm(samples: int) -> float:
    """About the norm of the spectrum of `data`.

    Frames have a third of the samples as energy of their window.
    """
    return (VARIANCE * samples / 256 * 1536 * 0.375 * 1025) ** 0.5


def run_jax(options: argparse.Namespace, case: Case, folder: pathlib.Path) -> Subject:
    """Our network with the weights and the codebook that `run_torch` wrote."""
    import jax
    import jax.numpy as jnp

    from majl_jax import weights
    from majl_jax.losses import vqvae as losses
    from majl_jax.losses.reconstruction import Bandwidth
    from majl_jax.models.layers import vector_quantizer
    from majl_jax.models.vqvae import Decoder, Encoder

    with np.load(folder / "weights.npz") as file:
        variables = weights.convert("jukebox_vqvae", {key: file[key] for key in file.files})
    variables, audio = jax.tree.map(jnp.asarray, (variables, data(options)[..., None]))
    params, vectors = variables["params"], variables["codebook"]["vectors"]
    codebook = vector_quantizer.restore(
        vectors, tokens_per_item=options.samples // 8, items=len(audio)
    )
    encoder, decoder = Encoder(), Decoder()
    if case.remat:
        encoder, decoder = encoder.clone(remat="full"), decoder.clone(remat="full")
    bandwidth = Bandwidth(l2=VARIANCE, spectral=spectral_norm(options.samples))
    settings = losses.Settings(bandwidth, top=TOP)
    loss = functools.partial(
        losses.autoencoder_loss, encoder=encoder, decoder=decoder, settings=settings
    )
    arguments = params, {"codebook": codebook._asdict()}, audio, jnp.ones(len(audio))
    arguments += (jax.random.key(0),)
    step, compile_s = measuring.compiled(jax.value_and_grad(loss, has_aux=True), *arguments)
    (total, _), gradients = step(*arguments)
    latents = jax.jit(encoder.apply)({"params": params["encoder"]}, audio)
    rows = vectors[jnp.asarray(np.load(folder / "codes.npy"))]
    return Subject(
        {
            "latents": latents,
            "decoded": jax.jit(decoder.apply)({"params": params["decoder"]}, rows),
            "loss": total,
            "gradient": gradients["encoder"]["section0"]["down1"]["kernel"],
            "codes": jax.jit(vector_quantizer.nearest_codes)(latents, vectors)[0],
        },
        {"step": lambda: jax.block_until_ready(step(*arguments))},
        compile_s=compile_s,
        planned_mib=measuring.planned_mib(step),
        device_mib=measuring.device_peak_mib,
    )


def run_torch(options: argparse.Namespace, case: Case, folder: pathlib.Path) -> Subject:
    """The same in PyTorch; writes its weights and its codebook, a random choice of latents."""
    import torch

    from benchmarks.in_torch import placing, vqvae
    from majl_jax.losses.reconstruction import MULTI_RESOLUTION
    from majl_jax.models.vqvae import VqVaeSizes

    torch.manual_seed(0)
    sizes = VqVaeSizes()
    model = vqvae.AutoEncoder(sizes.hidden, sizes.dilations, sizes.downs[0], sizes.latent, CODES)
    model.remat = case.remat
    model = placing.model_on_device(model, options)
    codebook = model.bottleneck.level_blocks[0]
    audio = placing.placed(data(options))[0].unsqueeze(1)
    with torch.no_grad():
        latents = model.encode(audio).transpose(1, 2)
        tokens = latents.flatten(0, 1)
        codebook.fill(tokens)
        codes = codebook.codes(tokens).view(latents.shape[:2])
        decoded = model.decode(codebook.k[codes].transpose(1, 2)).transpose(1, 2)
    np.savez(folder / "weights.npz", **placing.arrays(model.state_dict()))
    np.save(folder / "codes.npy", placing.array(codes))

    def step() -> torch.Tensor:
        model.zero_grad(set_to_none=True)
        total = vqvae.loss(
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
    results = {"latents": latents, "decoded": decoded, "loss": total, "codes": codes}
    results["gradient"] = first.grad.permute(2, 1, 0)
    return Subject(
        {name: placing.array(tensor) for name, tensor in results.items()},
        {"step": placing.waiting(step)},
        device_mib=placing.peak_mib,
    )


COMPARISON = comparison.Comparison(
    cases={
        "torch": Case("torch"),
        "torch checkpointed": Case("torch", remat=True),
        "jax": Case("jax"),
        "jax rematerialised": Case("jax", remat=True),
    },
    workers={"torch": run_torch, "jax": run_jax},
    # A code that rounding decides another way moves loss and gradient; no more than one in a
    # thousand may.
    tolerance={"latents": 1e-5, "decoded": 1e-5, "loss": 1e-4, "gradient": 2e-2, "codes": 1e-3},
    calls=2,
)
