"""ResUNetDecouple+ from the state dictionary of bytedance/music_source_separation."""

import re
from collections.abc import Callable

import jax
import numpy as np

from majl_jax.models.layers.decouple import MAPS
from majl_jax.models.resunet import PUBLISHED_BLOCKS, PUBLISHED_CHANNELS, ResUNetDecouplePlus
from majl_jax.weights.filling import Tensors, Variables, WeightsError, fill, flat, same

_FIRST, _LAST = "encoder_block1.conv_block1.conv1.weight", "after_conv2.weight"
_MODULES = {
    "input_norm": "bn0",
    "maps": "after_conv2",
    "norm1": "bn1",
    "norm2": "abn2",
    **{name: name for name in ("conv1", "conv2", "shortcut")},
}
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def convert_resunet_decouple_plus(
    tensors: Tensors,
    *,
    channels: tuple[int, ...] = PUBLISHED_CHANNELS,
    blocks: int = PUBLISHED_BLOCKS,
    audio_channels: int | None = None,
    sources: int | None = None,
) -> Variables:
    """Variables of `ResUNetDecouplePlus`; the numbers of audio channels and sources are read off
    the arrays where not given.

    The constant matrices of its STFT and its counters of training steps are not needed.

    Args:
        tensors: by the keys of `ResUNet143_DecouplePlusInplaceABN_ISMIR2021`, all of them below
            `model.` in the released files.
        channels: of the model's levels.
        blocks: residual blocks per stage.
        audio_channels: of the mixture.
        sources: how many the model gives.
    """
    tensors = {
        key.removeprefix("model."): value
        for key, value in tensors.items()
        if not re.search(r"(^|\.)(stft|istft)\.|\.num_batches_tracked$", key)
    }
    audio_channels = audio_channels or _size(tensors, _FIRST, axis=1)
    sources = sources or _size(tensors, _LAST, axis=0) // (MAPS * audio_channels)
    shapes = _shapes(channels, blocks, audio_channels, sources)
    return fill(shapes, {path: _entry(path) for path in shapes}, tensors)


def _size(tensors: Tensors, key: str, *, axis: int) -> int:
    if key not in tensors or np.ndim(tensors[key]) != 4:
        found = f"has shape {np.shape(tensors[key])}" if key in tensors else "is missing"
        raise WeightsError(
            f"the weights do not belong to this architecture: {key} {found}, expected the four axes"
            " of a convolution."
        )
    return max(1, np.shape(tensors[key])[axis])


def _shapes(
    channels: tuple[int, ...], blocks: int, audio_channels: int, sources: int
) -> dict[str, tuple[int, ...]]:
    model = ResUNetDecouplePlus(channels, blocks, audio_channels=audio_channels, sources=sources)
    key = jax.eval_shape(lambda: jax.random.key(0))
    audio = jax.ShapeDtypeStruct((1, model.window_samples, audio_channels), np.float32)
    variables = jax.eval_shape(
        lambda key, audio: model.init(key, audio, method="separate_channels"), key, audio
    )
    return {path: leaf.shape for path, leaf in flat(variables).items()}


def _entry(path: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """params/network/encoder1_block1/conv1/kernel -> encoder_block1.conv_block1.conv1.weight and
    its change of axes.
    """
    _, _, *modules, leaf = path.split("/")
    key = ".".join([*map(_original_module, modules), _LEAVES[leaf]])
    if leaf != "kernel":
        return key, same
    # (out, in, height, width), and (in, out, height, width) of a transposed convolution.
    axes = (2, 3, 0, 1) if modules[0].endswith("_up") else (2, 3, 1, 0)
    return key, lambda array: array.transpose(axes)


def _original_module(name: str) -> str:
    if name in _MODULES:
        return _MODULES[name]
    stage, _, part = name.partition("_")
    kind, number = stage.rstrip("0123456789"), int(stage.lstrip("abcdefghijklmnopqrstuvwxyz") or 1)
    original = {
        "encoder": f"encoder_block{number}",
        "centre": f"conv_block7{chr(ord('a') + number - 1)}",
        "decoder": f"decoder_block{number}",
        "last": "after_conv_block1",
    }[kind]
    if part in ("up", "norm"):
        return f"{original}.{'conv1' if part == 'up' else 'bn1'}"
    # The decoder counts its transposed convolution as the first.
    block = int(part.removeprefix("block")) + (kind == "decoder")
    return f"{original}.conv_block{block}"
