"""The network of SS-MPE from the state dictionary of cwitkowitz/ss-mpe."""

from collections.abc import Callable

import jax
import numpy as np

from majl_jax.models.timbre_trap import TimbreTrap
from majl_jax.weights.filling import Tensors, Variables, fill, flat, same

_FRONT_END = "hcqt."  # constant filters
# Of an original layer, 0 is the convolution and 1 the normalisation.
_MODULES = {
    "encoder/down": "sconv.0",
    "encoder/norm": "sconv.1",
    "decoder/up": "tconv.0",
    "decoder/norm": "tconv.1",
}


def convert_timbre_trap(
    tensors: Tensors,
    *,
    bins: int = 440,
    harmonics: int = 6,
    complexity: int = 3,
    latent: int = 128,
    skip_connections: bool = False,
) -> Variables:
    """Variables of `TimbreTrap` with these sizes; the keys are those of `TT_Base` in v0.2.0, whose
    CQT is not needed.

    Args:
        tensors: the state dictionary.
        bins: of the CQT.
        harmonics: how many.
        complexity: that of `level_channels`.
        latent: size of a frame's latent vector.
        skip_connections: whether the weights of these are among the tensors.
    """
    tensors = {key: value for key, value in tensors.items() if not key.startswith(_FRONT_END)}
    model = TimbreTrap(bins, harmonics, complexity, latent, skip_connections)
    key = jax.eval_shape(lambda: jax.random.key(0))
    features = jax.ShapeDtypeStruct((1, 1, bins, harmonics), np.float32)
    shapes = {k: v.shape for k, v in flat(jax.eval_shape(model.init, key, features)).items()}
    return fill(shapes, {path: _entry(path) for path in shapes}, tensors)


def _entry(path: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """params/encoder/block1/unit2/conv1/kernel -> encoder.blocks.0.block2.conv1.0.weight and its
    change of axes.
    """
    if path.endswith("/skip_weights"):
        return "skip_weights", same
    _, half, *above, module, leaf = path.split("/")
    # Our blocks are numbered from 1, theirs from 0; their residual units are blocks too.
    blocks = [
        f"blocks.{int(name[5:]) - 1}" if name.startswith("block") else f"block{name[4:]}"
        for name in above
    ]
    normalises = module.endswith("norm")
    original = _MODULES.get(f"{half}/{module}", f"{module.removesuffix('_norm')}.{normalises:d}")
    key = ".".join([half, *blocks, original, "bias" if leaf == "bias" else "weight"])
    if leaf == "kernel":
        return key, _LAYOUTS.get(f"{half}/{module}", _LAYOUTS.get(module, _image))
    return key, np.transpose if normalises else same


def _image(weight: np.ndarray) -> np.ndarray:
    """(out, in, bin, frame) -> (frame, bin, in, out)."""
    return weight.transpose(3, 2, 1, 0)


def _row(weight: np.ndarray) -> np.ndarray:
    """(out, in, bin, 1) -> (bin, in, out)."""
    return weight[..., 0].transpose(2, 1, 0)


_LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "conv2": lambda weight: weight[:, :, 0, 0].T,
    "down": _row,
    "convlat": _row,
    "up": lambda weight: weight[..., 0].transpose(2, 0, 1),  # (in, out, bin, 1) if transposed
    "decoder/convin": lambda weight: weight[..., 0].transpose(0, 2, 1),
}
