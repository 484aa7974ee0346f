"""The loss of a Chimera network: clustering by its embedding and masks for its magnitude (Bugler
et al., arXiv 2010.12650).

Sources -> their STFTs, whose sum is the mixture's -> one pass through the trunk -> 0.01 L_DC +
0.99 L_MI (eq. 3); L_DC alone before there are masks. Terms with the weight 0 are not computed.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

from majl_jax.losses import clustering, weighting
from majl_jax.models.chimera import Chimera

CLUSTERING = {
    "deep_clustering": clustering.deep_clustering,
    "whitened_k_means": clustering.whitened_k_means,
}
TERMS = (*CLUSTERING, "mask_inference")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the network listens to, how much each term counts, and how they are computed."""

    spectrum: Callable[[Float[Array, "*batch time"]], Complex[Array, "*batch frame frequency"]]
    """The STFT."""
    weights: Mapping[str, float]
    """Of some of `TERMS`."""
    chunk_frames: int
    """Frames at a time of the clustering terms."""


def chimera_loss(
    params: Any,
    mutables: Any,
    sources: Float[Array, "batch time source"],
    known: Bool[Array, "batch"],
    key: Any,
    *,
    network: Chimera,
    settings: Settings,
    train: bool = True,
) -> tuple[Array, tuple[Any, dict[str, Array]]]:
    """The weighted sum of the terms, (the new statistics, each term); means over the examples of
    all devices whose sources are `known`.

    Args:
        params: of the network.
        mutables: its statistics, {"batch_stats"}; {} for a network without.
        sources: waveforms [batch, time, source], full scale 1; their sum is the mixture.
        known: [batch], where all sources of an example are known.
        key: of the dropout.
        network: trunk, embedding and masks.
        settings: STFT, weights of the terms, frames at a time.
        train: dropout and the statistics of the batch; False leaves them alone.
    """
    used = used_terms(settings.weights)
    magnitudes, mixture = magnitudes_of(sources, settings.spectrum)
    hidden, updates = network.apply(
        {"params": params, **mutables},
        mixture,
        train=train,
        method=network.trunk,
        mutable=list(mutables),
        rngs={"dropout": key},
    )
    each = terms_of_hidden(
        params,
        hidden,
        magnitudes,
        mixture,
        network=network,
        used=used,
        chunk_frames=settings.chunk_frames,
    )
    terms = {name: weighting.masked_mean(value, known) for name, value in each.items()}
    total = sum((used[name] * value for name, value in terms.items()), jnp.float32(0))
    return total, ({**mutables, **updates}, terms)


def used_terms(weights: Mapping[str, float]) -> dict[str, float]:
    """The terms with a weight; an unknown name, or none with a weight, is an error."""
    if unknown := sorted(weights.keys() - set(TERMS)):
        raise ValueError(f"weights names {unknown}; the terms are {', '.join(TERMS)}")
    used = {name: weight for name, weight in weights.items() if weight}
    if not used:
        raise ValueError("weights: all of them are 0, so there is nothing to learn from")
    return used


def magnitudes_of(
    sources: Float[Array, "batch time source"], spectrum: Callable[[Array], Array]
) -> tuple[Float[Array, "batch frame frequency source"], Float[Array, "batch frame frequency"]]:
    """|S| of each source and |X| of their sum; an STFT is linear, so that the mixture needs
    none of its own.
    """
    spectra = spectrum(jnp.moveaxis(sources, -1, 1))
    return jnp.abs(jnp.moveaxis(spectra, 1, -1)), jnp.abs(spectra.sum(axis=1))


def terms_of_hidden(
    params: Any,
    hidden: Float[Array, "batch frame state"],
    magnitudes: Float[Array, "batch frame frequency source"],
    mixture: Float[Array, "batch frame frequency"],
    *,
    network: Chimera,
    used: Mapping[str, float],
    chunk_frames: int,
) -> dict[str, Float[Array, "batch"]]:
    """The `used` terms of each example from the states of the trunk.

    Args:
        params: of the network.
        hidden: states of the trunk [batch, frame, state].
        magnitudes: |S| of each source [batch, frame, frequency, source].
        mixture: |X| of their sum [batch, frame, frequency].
        network: its embedding and masks are applied.
        used: weights by the names of the terms, which alone count here.
        chunk_frames: frames at a time of the clustering terms.
    """
    terms: dict[str, Array] = {}
    apply: Any = functools.partial(network.apply, {"params": params})
    if clustered := [name for name in used if name in CLUSTERING]:
        grams = clustering.chunked_grams(
            lambda part: apply(part, method=network.embed),
            hidden,
            clustering.ideal_binary_assignment(magnitudes),
            clustering.magnitude_weights(mixture),
            chunk_frames=chunk_frames,
        )
        terms |= {name: CLUSTERING[name](grams) for name in clustered}
    if "mask_inference" in used:
        masks = apply(hidden, method=network.mask)
        terms["mask_inference"] = clustering.mask_inference(masks, mixture, magnitudes)
    return terms
