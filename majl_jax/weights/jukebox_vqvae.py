"""Jukebox's VQ-VAE from the state dictionaries of openai/jukebox and of the class `JukeboxVQVAE`
of transformers.
"""

import functools
import re
from collections.abc import Callable, Mapping

import jax
import numpy as np

from majl_jax.models.vqvae import Decoder, Encoder, VqVaeSizes, hop
from majl_jax.weights.filling import Table, Tensors, Variables, WeightsError, fill, flat, same

# Layers of a section in openai/jukebox and in transformers; `_original` says what the fields are.
_LAYERS = {
    "encoder/down": ("model.{i}.0", "downsample_block.{even}"),
    "encoder/stack": (
        "model.{i}.1.model.{j}.model.{odd_conv}",
        "downsample_block.{odd}.resnet_block.{j}.conv1d_{conv}",
    ),
    "encoder/out": ("model.{downs}", "proj_out"),
    "decoder/in": ("model.0", "proj_in"),
    "decoder/stack": (
        "model.{next}.0.model.{j}.model.{odd_conv}",
        "upsample_block.{even}.resnet_block.{j}.conv1d_{conv}",
    ),
    "decoder/up": ("model.{next}.1", "upsample_block.{odd}"),
}
_CODEBOOK = ("k", "codebook")
_LEVEL = re.compile(r"(?:encoders|decoders|bottleneck\.level_blocks)\.(\d+)\.")


def convert_jukebox_vqvae(tensors: Tensors, *, level: int = 0) -> Variables:
    """Parameters of `Encoder` and `Decoder` and the vectors of the codebook of one level; other
    levels are ignored.

    `{"params": {"encoder": ..., "decoder": ...}, "codebook": {"vectors": [code, latent]}}`. All
    sizes follow from the file (see `sizes_of`). Keys may begin with the names of modules and
    dictionaries around the network, such as `vqvae.` or `model.module.`; what lies beside it, such
    as the state of an optimizer, is ignored too.
    """
    own, naming = _own(tensors, level)
    sizes = _sizes(own, level, naming)
    shapes = dict(_shapes(sizes))
    table: Table = {path: _entry(path, level, naming, sizes) for path in shapes}
    codebook = f"bottleneck.level_blocks.{level}.{_CODEBOOK[naming]}"
    codes = np.shape(own[codebook])[:1] if codebook in own else ()
    shapes["codebook/vectors"] = (*codes, sizes.latent)
    table["codebook/vectors"] = (codebook, same)
    return fill(shapes, table, own)


@functools.cache
def _shapes(sizes: VqVaeSizes) -> Mapping[str, tuple[int, ...]]:
    key = jax.eval_shape(lambda: jax.random.key(0))
    audio = jax.ShapeDtypeStruct((1, hop(sizes), sizes.channels), np.float32)
    latents = jax.ShapeDtypeStruct((1, 1, sizes.latent), np.float32)
    params = {
        "encoder": jax.eval_shape(Encoder(sizes).init, key, audio)["params"],
        "decoder": jax.eval_shape(Decoder(sizes).init, key, latents)["params"],
    }
    return {path: leaf.shape for path, leaf in flat({"params": params}).items()}


def sizes_of(tensors: Tensors, *, level: int = 0) -> VqVaeSizes:
    """The sizes of a level with a `multiplier` of 1; dilations, which no parameter tells, are
    Jukebox's.
    """
    own, naming = _own(tensors, level)
    return _sizes(own, level, naming)


def _own(tensors: Tensors, level: int) -> tuple[dict[str, np.ndarray], int]:
    """The arrays of the level under the network's own names, and which of the two namings they
    have.
    """
    first = [
        f"{_original('encoder/down', level, naming, section=0, i=1)}.weight" for naming in (0, 1)
    ]
    found = sorted(k for k in tensors for end in first if k == end or k.endswith(f".{end}"))
    if len(found) != 1:
        levels = sorted({int(n) for key in tensors for n in _LEVEL.findall(key)})
        raise WeightsError(
            f"level {level} needs one key that ends with {first[0]} (openai/jukebox) or {first[1]}"
            f" (transformers), got {found}; the levels of the file are {levels}."
        )
    naming = int(found[0].endswith(first[1]))
    prefix = found[0].removesuffix(first[naming])
    own = {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}
    others = {key for key in own if (match := _LEVEL.match(key)) and int(match[1]) != level}
    return {key: own[key] for key in own if key not in others}, naming


def _sizes(own: Tensors, level: int, naming: int) -> VqVaeSizes:
    """The sizes that some of the arrays have; `fill` compares all others with them."""

    def present(**place: int) -> bool:
        layer = "encoder/stack" if "j" in place else "encoder/down"
        convs = (1, 2) if "j" in place else (0,)
        names = [_original(layer, level, naming, conv=conv, **place) for conv in convs]
        return any(f"{name}.{leaf}" in own for name in names for leaf in ("weight", "bias"))

    numbers = range(1, len(own) + 1)
    downs, strides = [], []
    for section in range(level + 1):
        # Of what is missing altogether, `fill` shall name the first.
        downs.append(max((i for i in numbers if present(section=section, i=i)), default=1))
        key = f"{_original('encoder/down', level, naming, section=section, i=1)}.weight"
        *_, taps = _shape(own, key)
        if taps % 4:
            raise WeightsError(f"{key} has {taps} taps, expected twice an even stride.")
        strides.append(taps // 2)
    key = f"{_original('encoder/down', level, naming, section=0, i=1)}.weight"
    hidden, channels, _ = _shape(own, key)
    key = f"{_original('encoder/out', level, naming, section=0, downs=downs[0])}.weight"
    return VqVaeSizes(
        width=hidden,
        depth=max((j for j in numbers if present(section=0, i=1, j=j)), default=1),
        multiplier=1,
        downs=tuple(downs),
        strides=tuple(strides),
        latent=_shape(own, key)[0],
        channels=channels,
    )


def _shape(own: Tensors, key: str) -> tuple[int, ...]:
    shape = np.shape(own[key]) if key in own else None
    if shape is None or len(shape) != 3 or 0 in shape:
        raise WeightsError(
            f"the weights need {key} with 3 axes, [out, in, tap], got {shape or 'no such key'}."
        )
    return shape


def _entry(
    path: str, level: int, naming: int, sizes: VqVaeSizes
) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """params/encoder/section0/stack1/block2/conv1/kernel ->
    encoders.0.level_blocks.0.model.0.1.model.1.model.1.weight in openai/jukebox, and its change of
    axes.
    """
    _, half, *modules, leaf = path.split("/")
    ending, transposed = "bias" if leaf == "bias" else "weight", False
    if modules == ["out"]:
        name = f"{half}s.{level}.out"
    else:
        section, layer, *block = modules
        kind = layer.rstrip("0123456789")
        transposed = kind == "up"
        section, stage = int(section.removeprefix("section")), int(layer[len(kind) :] or 0)
        place = {"section": section, "i": stage, "downs": sizes.downs[section]}
        if block:
            place |= {"j": int(block[0][5:]), "conv": int(block[1][4:])}
        name = _original(f"{half}/{kind}", level, naming, **place)
    change = same if leaf == "bias" else _transposed_kernel if transposed else np.transpose
    return f"{name}.{ending}", change


def _transposed_kernel(weight: np.ndarray) -> np.ndarray:
    """(in, out, tap) -> (tap, in, out)."""
    return weight.transpose(2, 0, 1)


def _original(
    layer: str,
    level: int,
    naming: int,
    *,
    section: int,
    i: int = 0,
    j: int = 0,
    conv: int = 0,
    downs: int = 0,
) -> str:
    """Name of a layer without `.weight`; `i` is the stage, `j` the block, `conv` the convolution
    in it, all from 1.
    """
    name = _LAYERS[layer][naming].format(
        i=i - 1,
        next=i,
        even=2 * i - 2,
        odd=2 * i - 1,
        j=j - 1,
        conv=conv,
        odd_conv=2 * conv - 1,
        downs=downs,
    )
    return f"{layer.partition('/')[0]}s.{level}.level_blocks.{section}.{name}"
