"""What Jukebox's two encoders learn from: audio that comes back from a codebook, and the latents
of a stem in a mixture.

Zai El Amri, Tautz, Ritter & Melnik 2021 (arXiv 2111.14200; repository wzaielamri/unmix), after
Dhariwal et al. 2020 (2005.00341).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from majl_jax import parallel
from majl_jax.losses import reconstruction, weighting
from majl_jax.losses.reconstruction import Bandwidth, Resolution
from majl_jax.models.layers import vector_quantizer
from majl_jax.models.layers.vector_quantizer import Codebook
from majl_jax.models.vqvae import Decoder, Encoder

LATENT_LOSSES = ("mse", "lmix")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Weights of the terms, and how the codebook follows the latents."""

    bandwidth: Bandwidth
    l2: float = 1.0
    linf: float = 0.02
    top: int = 2048
    spectral: float = 1.0
    commit: float = 0.02
    resolutions: tuple[Resolution, ...] = reconstruction.MULTI_RESOLUTION
    decay: float = 0.99
    restart_below: float = 1.0
    frozen: bool = False
    average_decay: float = 0.0
    axis: str | None = None
    """Of the devices that share a batch: the codebook is that of all of them."""


def autoencoder_loss(
    params: Any,
    mutables: Any,
    audio: Float[Array, "batch time 1"],
    known: Float[Array, "batch"],
    key: Any,
    *,
    encoder: Encoder,
    decoder: Decoder,
    settings: Settings,
) -> tuple[Array, tuple[Any, dict[str, Array]]]:
    """L2 / v + 0.02 Linf / v + the multi-resolution spectral distance / s + 0.02 ||sg(q) - h||^2,
    and the codebook's next state.

    y = D(h + sg(q - h)), h = E(x), q the nearest row of the codebook.

    Args:
        params: {"encoder", "decoder"}.
        mutables: {"codebook"}, and "averaged" where `settings.average_decay` is above 0.
        audio: x [batch, time, 1], full scale 1, whole hops of the encoder.
        known: weight of each item [batch] in the mean over those of all devices.
        key: of the latents that empty and rare codes become.
        encoder: E.
        decoder: D.
        settings: weights of the terms; how the codebook follows.
    """
    latents: Any = encoder.apply({"params": params["encoder"]}, audio)
    before, candidates = _started(Codebook(**mutables["codebook"]), latents, key, settings)
    quantized = vector_quantizer.quantize(before, latents)
    estimate: Any = decoder.apply({"params": params["decoder"]}, quantized.straight_through)
    after = before
    if not settings.frozen:
        after = vector_quantizer.update(
            before,
            latents,
            quantized.codes,
            candidates,
            decay=settings.decay,
            threshold=settings.restart_below,
            axis=settings.axis,
        )
    each = {**_distances(estimate, audio, settings), "commit": quantized.commitment}
    terms = {name: weighting.masked_mean(value, known) for name, value in each.items()}
    total = jnp.stack([getattr(settings, name) * value for name, value in terms.items()]).sum()
    health = vector_quantizer.readings(
        before, after, latents, quantized, threshold=settings.restart_below, axis=settings.axis
    )
    new = {**mutables, "codebook": jax.lax.stop_gradient(after._asdict())}
    return total, (averaged(new, params, settings.average_decay), {**terms, **health})


def _started(
    codebook: Codebook, latents: Array, key: Any, settings: Settings
) -> tuple[Codebook, Array]:
    """(the codebook, filled if it was empty; the rows that its rare codes become)."""
    if settings.frozen:
        return codebook, codebook.vectors
    size = len(codebook.vectors)
    candidates = vector_quantizer.random_rows(latents, key, size=size, axis=settings.axis)
    return vector_quantizer.initialize(codebook, candidates), candidates


def _distances(estimate: Array, audio: Array, settings: Settings) -> dict[str, Array]:
    """How far each item is from what it should be, before the weights: [batch] by term."""
    bandwidth = settings.bandwidth
    l2 = reconstruction.l2(estimate, audio, bandwidth=bandwidth.l2)
    linf = reconstruction.linf(estimate, audio, largest=settings.top, bandwidth=bandwidth.l2)
    spectral = reconstruction.spectral_distance(
        estimate, audio, resolutions=settings.resolutions, bandwidth=bandwidth.spectral
    )
    return {"l2": l2, "linf": linf, "spectral": spectral}


def latent_loss(
    params: Any,
    mutables: Any,
    mixture: Float[Array, "batch time 1"],
    stem: Float[Array, "batch time 1"],
    known: Float[Array, "batch"],
    *,
    encoder: Encoder,
    loss: str,
    settings: Settings,
) -> tuple[Array, tuple[Any, dict[str, Array]]]:
    """||E2(mixture) - sg(E1(stem))||^2 on latents before quantisation ("mse").

    With "lmix" 0.02 times the mean of its largest squares is added. The paper says the first, its
    code computes the second.

    Args:
        params: {"encoder"}, that of E2.
        mutables: {"stem": {"encoder"}}, that of E1, and "averaged" where
            `settings.average_decay` is above 0.
        mixture: waveforms [batch, time, 1], full scale 1, whole hops of the encoder.
        stem: what E1 hears of the same time [batch, time, 1].
        known: weight of each item [batch] in the mean.
        encoder: the network of E1 and E2.
        loss: one of `LATENT_LOSSES`.
        settings: of them `linf`, `top` and `average_decay`.
    """
    target: Any = encoder.apply({"params": mutables["stem"]["encoder"]}, stem)
    estimate: Any = encoder.apply({"params": params["encoder"]}, mixture)
    target = jax.lax.stop_gradient(target)
    l2 = weighting.masked_mean(reconstruction.l2(estimate, target), known)
    largest = reconstruction.linf(estimate, target, largest=settings.top)
    linf = weighting.masked_mean(largest, known)
    # How much of the target's energy is missed: 1 for latents of 0, whatever the scale of the
    # latents.
    energy = parallel.across(weighting.masked_mean(jnp.mean(target**2, axis=(1, 2)), known))
    missed = l2 / jnp.maximum(energy, 1e-12)
    total = l2 + (settings.linf * linf if loss == "lmix" else 0.0)
    terms = {"l2": l2, "linf": linf, "missed": missed}
    return total, (averaged(mutables, params, settings.average_decay), terms)


def averaged(mutables: Any, params: Any, decay: float) -> Any:
    """`mutables` with the moving average d a + (1 - d) params of what this step began with, if d
    is above 0.
    """
    if not decay:
        return mutables
    following = jax.tree.map(
        lambda average, now: decay * average + (1.0 - decay) * jax.lax.stop_gradient(now),
        mutables["averaged"],
        params,
    )
    return {**mutables, "averaged": following}
