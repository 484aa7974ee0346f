"""The converter of the band-split TF-Locoformer's state dictionaries and the network, against
numbers of the original code.

`bs_locoformer.npz` holds what merlresearch/tf-locoformer computes for weights and an input given
by the formulas in its `config`, without and with rotary positions and with the tanh in both
places: 2 of 20 frames of the estimates, nothing else. Of `bs_locoformer_block.npz`, one block with
all its random weights, the steps inside the frequency path are left out.
"""

import functools

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax import weights
from majl_jax.models.band_split import BANDS_44_1_KHZ, BandSplitLocoformer
from majl_jax.models.locoformer import LocoformerSizes, TFLocoformerBlock
from majl_jax.weights.bs_locoformer import decoder_tanh_of, pos_enc_of
from majl_jax.weights.filling import WeightsError

BLOCK = {"features": 16, "attention_features": 16, "heads": 4, "norm_groups": 4, "hidden": 12}
ENCODER, DECODER = (
    f"band_split_module.{name}_module" for name in ("band_split", "bandwise_decoding")
)
SMALL_BANDS = (2, 2, 3)


def _original_shapes(bands=BANDS_44_1_KHZ, *, layers=2, sources=3, channels=2):
    """Shapes by the keys of merlresearch/tf-locoformer, with the tanh after the first layer of the
    decoder.
    """
    width, hidden, taps, shapes = 16, 12, 8, {}
    for band, bins in enumerate(bands):
        values = 2 * channels * bins
        layer = {"0": (values,), "1": (width, values, 1)}
        dense = {"0": (width,), "1": (4 * width, width, 1), "3": (4 * width, 4 * width, 1)}
        dense["4"] = (2 * values * sources, 4 * width, 1)
        for module, found in ((ENCODER, layer), (DECODER, dense)):
            for number, shape in found.items():
                shapes[f"{module}.{band}.{number}.weight"] = shape
                shapes[f"{module}.{band}.{number}.bias"] = shape[:1]
    for path in (
        f"blocks.{i}.{name}" for i in range(layers) for name in ("freq_path", "frame_path")
    ):
        shapes[f"{path}.attn.qkv.weight"] = (3 * width, width)
        shapes[f"{path}.attn.aggregate_heads.0.weight"] = (width, width)
        for norm in ("attn_norm", "ffn_norm.0", "ffn_norm.1"):
            shapes[f"{path}.{norm}.gamma"] = (width,)
        for ffn in (f"{path}.ffn.{j}" for j in (0, 1)):
            shapes[f"{ffn}.conv1d.weight"], shapes[f"{ffn}.conv1d.bias"] = (
                (2 * hidden, width, taps),
                (2 * hidden,),
            )
            shapes[f"{ffn}.deconv1d.weight"], shapes[f"{ffn}.deconv1d.bias"] = (
                (hidden, width, taps),
                (width,),
            )
    return shapes


def _wave(size, j):
    i = np.arange(1, size + 1, dtype=np.int64)
    return np.sin(0.37 * i + 0.11 * j + 0.0007 * ((i**2) % 65521))


def _closed_form(shapes):
    tensors = {}
    for j, key in enumerate(sorted(shapes)):
        shape = shapes[key]
        values = _wave(np.prod(shape), j).reshape(shape)
        if len(shape) > 1:
            values = values * 1.2 / np.sqrt(np.prod(shape[1:]))
        else:
            values = 0.2 * values if key.endswith("bias") else 1 + 0.3 * values
        tensors[key] = values.astype(np.float32)
    return tensors


def _small(**sizes):
    return _closed_form(_original_shapes(SMALL_BANDS, **sizes))


def _with_tanh_after_second(tensors):
    """The same arrays under the keys of b-sigpro/mixit-mss: layer 2 of the decoder instead of 3."""
    return {
        key.replace(".3.", ".2.") if f"{DECODER}." in key else key: x for key, x in tensors.items()
    }


@functools.cache
def _stored():
    return golden_files.read("bs_locoformer")


@pytest.mark.parametrize("pos_enc", ["nope", "rope"])
@pytest.mark.parametrize("tanh", ["after_first", "after_second"])
@pytest.mark.slow
def test_the_whole_network_computes_what_the_original_computes(pos_enc, tanh):
    _, _, outputs, config = _stored()
    variables = weights.convert("bs_locoformer", _closed_form(_original_shapes()))
    parts = [_wave(41_000, j).reshape(1, 2, 20, 1025) for j in (1001, 1002)]
    spectrum = jnp.asarray(parts[0] + 1j * parts[1], jnp.complex64)
    model = BandSplitLocoformer(sources=3, layers=2, **BLOCK, pos_enc=pos_enc, decoder_tanh=tanh)
    with jax.default_matmul_precision("highest"):
        found = jax.jit(model.apply)(variables, spectrum)
    kept = found[..., jnp.asarray(config["frames_kept"]), :]
    assert golden_files.relative_error(kept, outputs[f"{pos_enc}_{tanh}"]) <= 1e-5


@pytest.mark.parametrize("case", ["ft_nope", "ft_rope", "tf_nope"])
def test_a_block_computes_what_the_original_computes(case):
    state, inputs, outputs, _ = golden_files.read("bs_locoformer_block")
    tensors = _small(layers=1) | {f"blocks.0.{key}": array for key, array in state.items()}
    params = weights.convert("bs_locoformer", tensors)["params"]["layers"]["block"]
    order, pos_enc = case.split("_")
    block = TFLocoformerBlock(LocoformerSizes(**BLOCK, order=order, pos_enc=pos_enc))
    with jax.default_matmul_precision("highest"):
        found = jax.jit(block.apply)(
            {"params": jax.tree.map(lambda x: x[0], params)}, inputs["x"].transpose(0, 2, 3, 1)
        )
    assert golden_files.relative_error(found.transpose(0, 3, 1, 2), outputs[case]) <= 5e-6


def test_both_repositories_keys_give_the_same_arrays():
    tensors = _small()
    other = _with_tanh_after_second(tensors)
    assert (decoder_tanh_of(tensors), decoder_tanh_of(other)) == ("after_first", "after_second")
    # As Lightning and the average of checkpoints name them.
    other = {f"model.module.model.{key}": array for key, array in other.items()}
    assert decoder_tanh_of(other) == "after_second"
    other["model.n_averaged"] = np.asarray(5)
    first, second = (weights.convert("bs_locoformer", x) for x in (tensors, other))
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("channels", [1, 2])
def test_sizes_follow_from_the_file(channels):
    shapes = _original_shapes(SMALL_BANDS, layers=3, sources=5, channels=channels)
    variables = weights.convert("bs_locoformer", _closed_form(shapes), audio_channels=channels)
    model = BandSplitLocoformer(5, channels, SMALL_BANDS, 3, **BLOCK)
    spectrum = jax.ShapeDtypeStruct((1, channels, 1, 7), jnp.complex64)
    expected = jax.eval_shape(model.init, jax.random.key(0), spectrum)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, expected)


def test_frequencies_of_rotary_positions_are_constants():
    tensors = _small()
    assert pos_enc_of(tensors) == "nope"
    key = "blocks.1.freq_path.attn.rope.freqs"
    tensors[key] = np.asarray([1, 0.01], np.float32)
    assert pos_enc_of(tensors) == "rope"
    weights.convert("bs_locoformer", tensors)
    tensors[key] = np.asarray([1, 0.02], np.float32)
    with pytest.raises(WeightsError, match=rf"{key} are not 10000\^\(-i / 2\)"):
        weights.convert("bs_locoformer", tensors)


MASK = f"{DECODER}.0.4"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("blocks.1.frame_path.ffn.1.deconv1d.bias"),
            "1 keys are missing.*frame_path.ffn.1",
        ),
        (
            lambda s: s.pop(f"{DECODER}.1.1.weight"),
            "1 keys are missing.*decoding_module.1.1.weight",
        ),
        (
            lambda s: s.pop("blocks.0.freq_path.attn.qkv.weight"),
            "qkv.weight with 2 axes.*no such key",
        ),
        (
            lambda s: s.pop(f"{ENCODER}.0.0.weight"),
            r"one key that ends with .*0\.0\.weight, got \[\]",
        ),
        (lambda s: s.update(other=np.ones(3)), "1 are unknown.*other"),
        (
            lambda s: s.update({f"{DECODER}.0.1.weight": np.zeros((16, 64, 1))}),
            "decoding_module.0.1.weight has shape",
        ),
        (lambda s: s.update({f"{MASK}.weight": np.zeros((40, 64, 1))}), "0.4.weight has shape"),
        (
            lambda s: s.update({f"{MASK}.bias": np.zeros(40)}),
            "0.4.bias has 40 values.*multiple of 16",
        ),
        (
            lambda s: s.update({f"{ENCODER}.1.0.weight": np.zeros(6)}),
            "1.0.weight has 6 values.*multiple of 4",
        ),
        (
            lambda s: s.update({f"{DECODER}.0.2.weight": np.zeros(3)}),
            r"layers \[0, 1, 2, 3, 4\].*0, 1, 2, 4",
        ),
        (
            lambda s: s["blocks.0.freq_path.ffn_norm.0.gamma"].fill(np.nan),
            "ffn_norm.0.gamma.*not finite",
        ),
    ],
)
def test_a_wrong_state_dictionary_is_refused_by_key(change, message):
    tensors = _small()
    change(tensors)
    with pytest.raises(WeightsError, match=message):
        weights.convert("bs_locoformer", tensors)
