"""Band-split TF-Locoformer from the state dictionaries of b-sigpro/mixit-mss and
merlresearch/tf-locoformer.
"""

import re
from collections.abc import Callable

import jax
import numpy as np

from majl_jax.models.band_split import TANH_ORDERS, BandSplitLocoformer, band_groups
from majl_jax.weights.filling import Tensors, Variables, WeightsError, fill, flat, nest, same

_ENCODER = "band_split_module.band_split_module."
_DECODER = "band_split_module.bandwise_decoding_module."
_PATHS = {"frequency_path": "freq_path", "time_path": "frame_path"}
# Of a path; the feed-forward network before the attention is the second of the original's list.
_MODULES = {
    "ffn_before_norm/scale": "ffn_norm.1.gamma",
    "ffn_before/in_kernel": "ffn.1.conv1d.weight",
    "ffn_before/in_bias": "ffn.1.conv1d.bias",
    "ffn_before/out_kernel": "ffn.1.deconv1d.weight",
    "ffn_before/out_bias": "ffn.1.deconv1d.bias",
    "attention_norm/scale": "attn_norm.gamma",
    "attention/in_kernel": "attn.qkv.weight",
    "attention/out_kernel": "attn.aggregate_heads.0.weight",
    "ffn_after_norm/scale": "ffn_norm.0.gamma",
    "ffn_after/in_kernel": "ffn.0.conv1d.weight",
    "ffn_after/in_bias": "ffn.0.conv1d.bias",
    "ffn_after/out_kernel": "ffn.0.deconv1d.weight",
    "ffn_after/out_bias": "ffn.0.deconv1d.bias",
}
# Number of the dense layers of a band's decoder in the original's list, where the tanh takes a
# number too.
_DENSE = {"after_second": (1, 2, 4), "after_first": (1, 3, 4)}
_FREQUENCIES = ".rope.freqs"


def convert_bs_locoformer(tensors: Tensors, *, audio_channels: int = 2) -> Variables:
    """Variables of `BandSplitLocoformer`; but for the channels, all sizes that parameters have
    follow from the file.

    Not in the file are `heads`, `norm_groups` and what has no parameters; `decoder_tanh_of` and
    `pos_enc_of` tell two of those from the keys. Keys may begin with the names of modules around
    the network, as in Lightning's checkpoints.
    """
    tensors = _own(tensors)
    tanh = decoder_tanh_of(tensors)
    model = _model(tensors, audio_channels, tanh)
    spectrum = jax.ShapeDtypeStruct((1, audio_channels, 1, sum(model.bands)), np.complex64)
    key = jax.eval_shape(lambda: jax.random.key(0))
    wanted = {k: v.shape for k, v in flat(jax.eval_shape(model.init, key, spectrum)).items()}
    _check_frequencies(tensors)
    tensors = {k: v for k, v in tensors.items() if not k.endswith(_FREQUENCIES)}
    # Each of our arrays is a stack of originals: over layers, or over the bands of a group.
    shapes, table, first_band = {}, {}, {}
    band = 0
    for i, group in enumerate(band_groups(model.bands)):
        first_band[f"group{i}"], band = band, band + group.bands
    for path, shape in wanted.items():
        for i in range(shape[0]):
            shapes[f"{path}/{i}"] = shape[1:]
            table[f"{path}/{i}"] = _entry(path, i, first_band, tanh, shape[1:])
    pieces = flat(fill(shapes, table, tensors))
    return nest(
        {path: np.stack([pieces[f"{path}/{i}"] for i in range(s[0])]) for path, s in wanted.items()}
    )


def decoder_tanh_of(tensors: Tensors) -> str:
    """The field `decoder_tanh` of the network with these keys: each repository has the tanh in
    another place.
    """
    pattern = re.compile(rf"(?:.*\.)?{re.escape(_DECODER)}\d+\.(\d)\.weight")
    found = {int(match[1]) for match in map(pattern.fullmatch, tensors) if match}
    for name in TANH_ORDERS:
        if found == {0, *_DENSE[name]}:
            return name
    raise WeightsError(
        f"layers {sorted(found)} of {_DECODER}* have weights, expected 0, 1, 2, 4"
        " (b-sigpro/mixit-mss) or 0, 1, 3, 4 (merlresearch/tf-locoformer)."
    )


def pos_enc_of(tensors: Tensors) -> str:
    """The field `pos_enc` of the network with these keys."""
    return "rope" if any(key.endswith(_FREQUENCIES) for key in tensors) else "nope"


def _own(tensors: Tensors) -> dict[str, np.ndarray]:
    """The arrays of the network under its own names, without the names of modules around it."""
    first = f"{_ENCODER}0.0.weight"
    found = sorted(key for key in tensors if key == first or key.endswith(f".{first}"))
    if len(found) != 1:
        raise WeightsError(f"expected one key that ends with {first}, got {found}.")
    prefix = found[0].removesuffix(first)
    # A counter of averaged checkpoints is no parameter.
    return {
        key.removeprefix(prefix): value
        for key, value in tensors.items()
        if not key.endswith("n_averaged")
    }


def _model(tensors: Tensors, audio_channels: int, tanh: str) -> BandSplitLocoformer:
    """The network as large as some of the arrays; `fill` compares all others with it."""
    path = "blocks.0.freq_path."
    qkv, conv = (
        _shape(tensors, f"{path}attn.qkv.weight", 2),
        _shape(tensors, f"{path}ffn.0.conv1d.weight", 3),
    )
    per_bin, bands = 2 * audio_channels, []
    for band in range(_count(tensors, _ENCODER)):
        key = f"{_ENCODER}{band}.0.weight"
        (values,) = _shape(tensors, key, 1)
        if values % per_bin or not values:
            raise WeightsError(
                f"{key} has {values} values, expected a multiple of {per_bin}, a real and an"
                f" imaginary part for each of audio_channels={audio_channels}."
            )
        bands.append(values // per_bin)
    key = f"{_DECODER}0.4.bias"
    (rows,) = _shape(tensors, key, 1)
    if rows % (2 * per_bin * bands[0]) or not rows:
        raise WeightsError(
            f"{key} has {rows} values, expected a multiple of {2 * per_bin * bands[0]} for a band"
            f" of {bands[0]} bins and audio_channels={audio_channels}."
        )
    return BandSplitLocoformer(
        sources=rows // (2 * per_bin * bands[0]),
        audio_channels=audio_channels,
        bands=tuple(bands),
        layers=_count(tensors, "blocks."),
        features=qkv[1],
        attention_features=qkv[0] // 3,
        heads=1,
        norm_groups=1,
        hidden=conv[0] // 2,
        kernel_size=conv[2],
        decoder_tanh=tanh,
    )


def _count(tensors: Tensors, prefix: str) -> int:
    """One more than the largest number after the prefix."""
    pattern = re.compile(rf"{re.escape(prefix)}(\d+)\..*")
    return 1 + max((int(m[1]) for m in map(pattern.fullmatch, tensors) if m), default=-1)


def _shape(tensors: Tensors, key: str, axes: int) -> tuple[int, ...]:
    shape = np.shape(tensors[key]) if key in tensors else None
    if shape is None or len(shape) != axes:
        raise WeightsError(
            f"the weights need {key} with {axes} axes, got {shape or 'no such key'}."
        )
    return shape


def _entry(
    path: str, i: int, first_band: dict[str, int], tanh: str, shape: tuple[int, ...]
) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """Original key of number i of the stack `path`, and its change of axes."""
    _, half, *rest = path.split("/")
    if half == "layers":
        _, way, module, leaf = rest
        name = _MODULES[f"{module}/{leaf}"]
        change = _CHANGES.get(name.split(".", 2)[-1], same)
        return f"blocks.{i}.{_PATHS[way]}.{name}", change
    module, leaf = rest
    group, _, layer = module.partition("_")
    prefix = f"{_ENCODER if half == 'encoder' else _DECODER}{first_band[group] + i}."
    if layer == "norm":
        return f"{prefix}0.{'weight' if leaf == 'scale' else 'bias'}", same
    first, second, last = _DENSE[tanh]
    number = {"": 1, "first": first, "second": second, "mask": last}[layer]
    if leaf == "bias":
        return f"{prefix}{number}.bias", lambda bias: _split(bias, shape)
    return f"{prefix}{number}.weight", lambda weight: _split(weight[:, :, 0].T, shape)


def _split(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The last axis as the axes of the mask; an array that does not fit stays as it is, so that
    its shape can be told.
    """
    fits = array.shape[:-1] == shape[: array.ndim - 1] and array.size == np.prod(shape)
    return array.reshape(shape) if fits else array


_CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "conv1d.weight": lambda weight: weight.transpose(2, 1, 0),
    "deconv1d.weight": lambda weight: weight.transpose(2, 0, 1)[::-1],
    "weight": np.transpose,
    "0.weight": np.transpose,
}


def _check_frequencies(tensors: Tensors) -> None:
    """Frequencies of rotary positions are constants of ours."""
    for key, array in tensors.items():
        if key.endswith(_FREQUENCIES):
            count = np.size(array)
            expected = 10_000.0 ** (-np.arange(count) / max(count, 1))
            if not np.allclose(array, expected, rtol=1e-5):
                raise WeightsError(
                    f"{key} are not 10000^(-i / {count}), which rotary positions have here, but"
                    f" {np.ravel(array)[:4]}."
                )
