"""ResUNetDecouple+ and the light separator: published sizes, the original's outputs, memory and
precision options.
"""

import re

import flax.linen as nn
import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import relative_error

from majl_jax import weights
from majl_jax.models import resunet
from majl_jax.models.light_decouple import LightDecouple
from majl_jax.models.resunet import ResUNetDecouplePlus
from majl_jax.weights import resunet_decouple_plus
from majl_jax.weights.filling import WeightsError

FIXTURE_CHANNELS = (4, 6, 6, 8, 8, 8)
NARROW = {"channels": (2, 2, 4), "blocks": 1, "centre_stages": 1, "window_samples": 256}
SEPARATORS = [
    ResUNetDecouplePlus(**NARROW, hop_samples=64),
    LightDecouple(**NARROW, hop_samples=64),
]


def _count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("model", "channels", "expected"),
    [
        (ResUNetDecouplePlus(), 1, 102_570_824),
        (ResUNetDecouplePlus(audio_channels=2), 2, 102_571_278),
        (LightDecouple(), 1, 20_820_708),
    ],
    ids=["mono", "stereo", "light"],
)
def test_published_parameter_counts(model, channels, expected):
    def init(key, audio):
        return model.init(key, audio, method="separate_channels")

    audio = jax.ShapeDtypeStruct((1, 40_960, channels), np.float32)
    assert _count(jax.eval_shape(init, jax.random.key(0), audio)["params"]) == expected


# ---- the original's outputs ---------------------------------------------------------------------


@pytest.mark.slow
def test_the_whole_network_gives_the_original_s_waveforms():
    state, inputs, output, _ = golden_files.read("resunet_decouple_plus_full")
    variables = weights.convert("resunet_decouple_plus", state, channels=FIXTURE_CHANNELS)
    model = ResUNetDecouplePlus(FIXTURE_CHANNELS, audio_channels=2, sources=2, hop_samples=441)

    @jax.jit
    def separate(variables, audio):
        return model.apply(
            variables, audio, method="separate_channels", capture_intermediates=True, mutable=True
        )

    found, state = separate(variables, inputs["waveform"].swapaxes(1, 2))
    inner = state["intermediates"]["network"]
    (centre,) = inner["centre4_block4"]["__call__"]
    assert relative_error(centre.transpose(0, 3, 1, 2), output["center"]) <= 1e-5
    (maps,) = inner["__call__"]
    maps = maps.transpose(0, 3, 1, 2)[:, :, :2]
    assert relative_error(maps, output["features_first2frames"]) <= 1e-5
    waveform = found.transpose(0, 2, 3, 1).reshape(output["waveform"].shape)
    assert relative_error(waveform, output["waveform"]) <= 1e-4


BLOCKS = {
    "conv_block_shortcut": ("x_a", 5),
    "conv_block_identity": ("x_b", 5),
}


def _block_variables(state, name):
    """A residual block's variables from `<name>.<original key>`."""
    flat = {}
    for key, value in state.items():
        if not key.startswith(f"{name}.") or key.endswith("num_batches_tracked"):
            continue
        module, leaf = key.removeprefix(f"{name}.").split(".")
        collection = "batch_stats" if leaf.startswith("running") else "params"
        ours = {"bn1": "norm1", "abn2": "norm2"}.get(module, module)
        names = {"weight": "scale" if ours.startswith("norm") else "kernel", "bias": "bias"}
        names |= {"running_mean": "mean", "running_var": "var"}
        if names[leaf] == "kernel":
            value = value.transpose(2, 3, 1, 0)
        flat.setdefault(collection, {}).setdefault(ours, {})[names[leaf]] = value
    return flat


@pytest.mark.parametrize("name", BLOCKS)
def test_residual_blocks_give_the_original_s_outputs(name):
    state, inputs, output, _ = golden_files.read("resunet_decouple_plus_blocks")
    source, features = BLOCKS[name]
    block = resunet._Block(
        features,
        in_place_norm=True,
        prelu=False,
        norm_momentum=0.99,
        dtype=jnp.float32,
        train=False,
    )
    found = block.apply(_block_variables(state, name), inputs[source].transpose(0, 2, 3, 1))
    assert relative_error(found.transpose(0, 3, 1, 2), output[name]) <= 2e-6


class _Down(resunet.ResidualUNet):
    @nn.compact
    def __call__(self, hidden):
        full = self._stage(hidden, self.channels[0], "encoder1")
        return resunet._average_pool(full, self.factors[0]), full


class _Up(resunet.ResidualUNet):
    @nn.compact
    def __call__(self, hidden, skip):
        return self._up(hidden, skip, self.channels[0], self.factors[0], "decoder1")


def _part(module, name, features, *inputs):
    """Outputs of an encoder or decoder stage with the weights of the original's module of that
    name.
    """
    rows = int(name[-3])
    part = module(
        channels=(features,),
        factors=((rows, 2),),
        blocks=4,
        centre_stages=0,
        maps=1,
        pool="average",
        in_place_norm=True,
        prelu=False,
        norm_momentum=0.99,
        statistics_axis=None,
        dtype=jnp.float32,
        remat=False,
        train=False,
    )
    state = golden_files.read("resunet_decouple_plus_blocks")[0]
    inputs = [x.transpose(0, 2, 3, 1) for x in inputs]
    shapes = jax.eval_shape(part.init, jax.random.key(0), *inputs)

    def filled(path, leaf):
        collection, *rest = (entry.key for entry in path)
        key, change = resunet_decouple_plus._entry("/".join([collection, "network", *rest]))
        value = change(state[f"{name}.{key.partition('.')[2]}"])
        assert value.shape == leaf.shape
        return value

    found = jax.jit(part.apply)(jax.tree_util.tree_map_with_path(filled, shapes), *inputs)
    return jax.tree.map(lambda x: x.transpose(0, 3, 1, 2), found)


@pytest.mark.parametrize(("name", "source"), [("encoder_2x2", "x_a"), ("encoder_1x2", "x_b")])
def test_encoder_stages_give_the_original_s_outputs(name, source):
    _, inputs, output, _ = golden_files.read("resunet_decouple_plus_blocks")
    pooled, full = _part(_Down, name, 5, inputs[source])
    assert relative_error(full, output[name]) <= 2e-6
    assert relative_error(pooled, output[f"{name}_pool"]) <= 2e-6


@pytest.mark.parametrize(("name", "features"), [("decoder_2x2", 4), ("decoder_1x2", 5)])
def test_decoder_stages_give_the_original_s_outputs(name, features):
    _, inputs, output, _ = golden_files.read("resunet_decouple_plus_blocks")
    low, skip = (inputs[name.replace("decoder", which)] for which in ("low", "skip"))
    assert relative_error(_part(_Up, name, features, low, skip), output[name]) <= 2e-6


@pytest.mark.parametrize("absolute_scale", [True, False])
def test_in_place_normalisation_takes_the_size_of_its_scale(absolute_scale):
    state, inputs, output, _ = golden_files.read("resunet_decouple_plus_blocks")
    variables = _block_variables(state, "conv_block_identity")
    variables = {collection: parts["norm2"] for collection, parts in variables.items()}
    norm = resunet._Norm(0.99, False, absolute_scale=absolute_scale)
    found = norm.apply(variables, inputs["abn"].transpose(0, 2, 3, 1))
    found = jnp.where(found >= 0, found, 0.01 * found).transpose(0, 3, 1, 2)
    assert (relative_error(found, output["abn"]) <= 2e-6) == absolute_scale


# ---- use ----------------------------------------------------------------------------------------


def _variables(model, seed=0):
    audio = jnp.zeros((1, 1024))
    return jax.jit(model.init)(jax.random.key(seed), audio)


@pytest.mark.parametrize("model", SEPARATORS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("samples", [512, 1024, 64 * 19])
def test_output_is_as_long_as_the_input(model, samples):
    shape = jax.eval_shape(model.apply, _variables(model), jnp.zeros((2, samples)))
    assert shape.shape == (2, samples)


@pytest.mark.parametrize("model", SEPARATORS, ids=lambda m: type(m).__name__)
def test_sizes_that_do_not_fit_are_refused(model):
    variables = _variables(model)
    with pytest.raises(ValueError, match="multiple of the hop of 64 samples, got 1000"):
        jax.eval_shape(model.apply, variables, jnp.zeros((1, 1000)))
    wrong = model.clone(window_samples=200)
    with pytest.raises(ValueError, match="window_samples must be a multiple of 16, got 200"):
        jax.eval_shape(wrong.init, jax.random.key(0), jnp.zeros((1, 1024)))
    stereo = model.clone(audio_channels=2)
    with pytest.raises(ValueError, match='call it with method="separate_channels"'):
        jax.eval_shape(stereo.init, jax.random.key(0), jnp.zeros((1, 1024)))


@pytest.mark.slow
@pytest.mark.parametrize("model", SEPARATORS, ids=lambda m: type(m).__name__)
def test_gradients_are_finite_in_silence_and_statistics_move(model):
    variables = _variables(model)

    @jax.jit
    def gradient(variables, audio):
        def loss(params):
            everything = {**variables, "params": params}
            out, state = model.apply(everything, audio, train=True, mutable=["batch_stats"])
            return jnp.abs(out - 0.1).mean(), state["batch_stats"]

        return jax.grad(loss, has_aux=True)(variables["params"])

    silent, _ = gradient(variables, jnp.zeros((2, 1024)))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(silent))
    noise = jax.random.normal(jax.random.key(1), (2, 1024))
    loud, moved = gradient(variables, noise)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(loud["network"]["maps"]))
    moves = jax.tree.map(lambda a, b: bool(np.any(a != b)), moved, variables["batch_stats"])
    # What is normalised already keeps the variance of 1 that it starts with.
    assert moves["network"]["encoder1_block1"]["norm1"].pop("var") is False
    assert all(jax.tree.leaves(moves))


@pytest.mark.slow
def test_rematerialisation_changes_nothing_but_memory():
    plain, saving = (SEPARATORS[0].clone(remat=remat) for remat in (False, True))
    variables, audio = _variables(plain), jax.random.normal(jax.random.key(2), (2, 1024))
    assert jax.tree.structure(_variables(saving)) == jax.tree.structure(variables)

    def loss(params, model):
        everything = {**variables, "params": params}
        out, _ = model.apply(everything, audio, train=True, mutable=["batch_stats"])
        return (out**2).mean()

    grads = [
        jax.jit(jax.grad(loss), static_argnums=1)(variables["params"], m) for m in (plain, saving)
    ]
    for a, b in zip(*map(jax.tree.leaves, grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def test_bfloat16_stays_close_to_float32():
    model = SEPARATORS[0]
    variables, audio = _variables(model), jax.random.normal(jax.random.key(3), (2, 1024))
    exact = jax.jit(model.apply)(variables, audio)
    rough = jax.jit(model.clone(dtype=jnp.bfloat16).apply)(variables, audio)
    assert rough.dtype == jnp.float32
    assert 0 < relative_error(rough, exact) < 0.05


# ---- weight files -------------------------------------------------------------------------------


def test_every_array_of_the_full_size_has_a_place():
    shapes = resunet_decouple_plus._shapes(
        resunet.PUBLISHED_CHANNELS, resunet.PUBLISHED_BLOCKS, audio_channels=2, sources=1
    )
    state, *_ = golden_files.read("resunet_decouple_plus_full")
    keys = {k for k in state if not re.search(r"num_batches_tracked", k)}
    ours = {resunet_decouple_plus._entry(path)[0] for path in shapes}
    # The fixture's third and fifth stages are as wide as those before them: no shortcut there.
    wider = {
        f"encoder_block{i}.conv_block1.shortcut.{n}" for i in (3, 5) for n in ("weight", "bias")
    }
    assert ours - wider == keys and wider <= ours
    parameters = {k: v for k, v in shapes.items() if k.startswith("params/")}
    assert sum(int(np.prod(shape)) for shape in parameters.values()) == 102_571_278


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("decoder_block3.conv1.weight"), "decoder_block3.conv1.weight"),
        (lambda s: s.pop("after_conv2.weight"), "after_conv2.weight is missing"),
        (lambda s: s.update(extra=np.zeros(3)), "extra"),
        (lambda s: s.update({"bn0.weight": np.zeros(513)}), "bn0.weight has shape .513"),
    ],
)
def test_a_wrong_state_dictionary_is_refused_by_key(change, message):
    state, *_ = golden_files.read("resunet_decouple_plus_full")
    change(state)
    with pytest.raises(WeightsError, match=message):
        weights.convert("resunet_decouple_plus", state, channels=FIXTURE_CHANNELS)
