"""Jukebox's auto-encoder: sizes, reach, order of dilations, initial values, recomputation; its
convolutions against jax.lax.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.models import vqvae
from majl_jax.models.vqvae import LEVELS, Decoder, Encoder, VqVaeSizes, hop
from majl_jax.weights.filling import flat

SMALL = VqVaeSizes(width=3, depth=3, multiplier=1, downs=(2,), strides=(2,), latent=5)
DEEP = VqVaeSizes(width=2, depth=1, multiplier=2, downs=(1, 1), strides=(4, 2), latent=3)
LEAST = VqVaeSizes(width=3, depth=2, multiplier=1, downs=(1,), strides=(2,), latent=5)


def _normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def _shapes(sizes, samples=None):
    """Shapes of both halves' parameters; the latents of the encoder are what the decoder gets."""
    audio = jax.ShapeDtypeStruct((1, samples or hop(sizes), sizes.channels), np.float32)
    encoder, decoder = Encoder(sizes), Decoder(sizes)
    key = jax.eval_shape(lambda: jax.random.key(0))
    latents, params = jax.eval_shape(encoder.init_with_output, key, audio)
    decoded, more = jax.eval_shape(decoder.init_with_output, key, latents)
    return (params, more), (latents, decoded)


def _variables(sizes, draw):
    """Parameters from `draw(shape)` for encoder and decoder, without compiling their own initial
    values.
    """
    return jax.tree.map(lambda leaf: jnp.asarray(draw(leaf.shape), jnp.float32), _shapes(sizes)[0])


def _random(sizes, seed=7):
    rng = np.random.default_rng(seed)
    return _variables(
        sizes, lambda shape: rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))
    )


@functools.cache
def _auto_encoder(sizes, **fields):
    """(variables, audio) -> audio, without a codebook."""
    encoder, decoder = Encoder(sizes, **fields), Decoder(sizes, **fields)

    def apply(variables, audio):
        return decoder.apply(variables[1], encoder.apply(variables[0], audio))

    return apply


# ---- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "samples", "count"), [(0, 8, 900_033), (1, 32, 241_025), (2, 128, 344_705)]
)
def test_published_levels(level, samples, count):
    sizes = LEVELS[level]
    params, (latents, decoded) = _shapes(sizes, 393_216)
    assert hop(sizes) == samples
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    assert latents.shape == (1, 393_216 // samples, 64)
    assert decoded.shape == (1, 393_216, 1)


@pytest.mark.slow
def test_halves_of_the_finest_level():
    params, _ = _shapes(VqVaeSizes())
    counts = [sum(leaf.size for leaf in jax.tree.leaves(half)) for half in params]
    assert counts == [441_856, 458_177]
    assert [len(jax.tree.leaves(half)) for half in params] == [104, 106]
    assert VqVaeSizes().dilations == (1, 3, 9, 27, 81, 243, 729, 2187)


def test_a_tiny_network_has_as_many_parameters_as_transformers_counts():
    sizes = VqVaeSizes(width=4, depth=2, multiplier=2, latent=8)
    assert sum(leaf.size for leaf in jax.tree.leaves(_shapes(sizes)[0])) == 8_313


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"strides": (2, 2)}, r"downs=\(3,\) and strides=\(2, 2\)"),
        ({"downs": (), "strides": ()}, "one number per section"),
        ({"downs": (0,)}, r"downs=\(0,\)"),
        ({"strides": (3,)}, r"strides=\(3,\)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        VqVaeSizes(**sizes)


def test_other_inputs_are_refused():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"30 samples and 1 channels.*multiple of 4 samples"):
        jax.eval_shape(Encoder(SMALL).init, key, jnp.zeros((1, 30, 1)))
    with pytest.raises(ValueError, match=r"2 channels.*channels=1"):
        jax.eval_shape(Encoder(SMALL).init, key, jnp.zeros((1, 32, 2)))
    with pytest.raises(ValueError, match="4 channels, not 5"):
        jax.eval_shape(Decoder(SMALL).init, key, jnp.zeros((1, 8, 4)))
    with pytest.raises(ValueError, match="remat='dots' is not one of none, full"):
        jax.eval_shape(Encoder(SMALL, remat="dots").init, key, jnp.zeros((1, 32, 1)))


# ---- what a value depends on --------------------------------------------------------------------


def test_reach_of_the_finest_level():
    assert vqvae.encoder_field(LEVELS[0]) == (-45_935, 45_942)
    assert vqvae.encoder_field(LEVELS[0], 10, 12) == (80 - 45_935, 96 + 45_942)
    fields = [vqvae.decoder_field(LEVELS[0], sample, sample) for sample in range(8)]
    assert min(first for first, _ in fields) == -5_742
    assert max(last for _, last in fields) == 5_742
    assert vqvae.decoder_field(LEVELS[0], 8, 15) == (1 - 5_742, 1 + 5_742)
    assert vqvae.context_samples(LEVELS[0]) == 91_878


@pytest.mark.parametrize("sizes", [SMALL, DEEP], ids=["small", "deep"])
def test_reach_is_that_of_the_gradients(sizes):
    # All weights and inputs positive: no ReLU is closed, no two paths cancel.
    encoder_params, decoder_params = _variables(
        sizes, lambda shape: np.full(shape, 0.5 / np.prod(shape[:-1]))
    )
    samples, frames = hop(sizes), 128
    audio, latents = jnp.ones((1, samples * frames, 1)), jnp.ones((1, frames, sizes.latent))
    centre = frames // 2
    decoder, both = Decoder(sizes), _auto_encoder(sizes)

    @jax.jit
    def gradients():
        def encoded(audio):
            return Encoder(sizes).apply(encoder_params, audio)[0, centre].sum()

        def decoded(latents, sample):
            return decoder.apply(decoder_params, latents)[0, sample, 0]

        def through_both(audio, sample):
            return both((encoder_params, decoder_params), audio)[0, sample, 0]

        period = centre * samples + jnp.arange(samples)
        rows = (None, 0)
        return (
            jax.grad(encoded)(audio)[0, :, 0],
            jax.vmap(jax.grad(decoded), rows)(latents, period)[:, 0].sum(-1),
            jax.vmap(jax.grad(through_both), rows)(audio, period)[:, 0, :, 0],
        )

    of_encoder, of_decoder, of_both = gradients()
    assert _ends(of_encoder) == vqvae.encoder_field(sizes, centre, centre)
    furthest = 0
    for phase in range(samples):
        sample = centre * samples + phase
        assert _ends(of_decoder[phase]) == vqvae.decoder_field(sizes, sample, sample)
        first, last = _ends(of_both[phase])
        furthest = max(furthest, sample - first, last - sample)
    assert 0 < furthest == vqvae.context_samples(sizes)


def _ends(gradient):
    reached = np.flatnonzero(gradient)
    assert reached[0] > 0
    assert reached[-1] < len(gradient) - 1
    return reached[0], reached[-1]


def test_a_segment_with_enough_context_is_decoded_as_within_the_track():
    samples = hop(LEAST)
    context = -(-vqvae.context_samples(LEAST) // samples) * samples
    start, length = 60 * samples, 16 * samples
    audio, variables = _normal(2, 136 * samples, 1), _random(LEAST)
    apply = jax.jit(_auto_encoder(LEAST))
    whole = apply(variables, audio)[:, start : start + length]

    def alone(context):
        cut = audio[:, start - context : start + length + context]
        return apply(variables, cut)[:, context : context + length]

    np.testing.assert_allclose(alone(context), whole, atol=1e-5)
    assert float(jnp.abs(alone(context // 2 // samples * samples) - whole).max()) > 1e-3


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_dilations_grow_in_the_encoder_and_shrink_in_the_decoder(half):
    # All kernels zero but for the middle taps of the strided layers and one residual block: its
    # dilation shows in what one value reaches.
    encoder, decoder = Encoder(SMALL), Decoder(SMALL)
    params = _variables(SMALL, lambda shape: np.zeros(shape))[half == "decoder"]
    params = jax.tree.map(lambda x: x, params)
    section = params["params"]["section0"]
    for name, layer in section.items():
        if not name.startswith("stack"):
            kernel = layer["kernel"]
            layer["kernel"] = kernel.at[(kernel.shape[0] - 1) // 2].set(1.0)
    if half == "decoder":
        params["params"]["out"]["kernel"] = params["params"]["out"]["kernel"].at[1].set(1.0)
    model, step = (encoder, 2) if half == "encoder" else (decoder, 1)
    inputs = jnp.ones((1, 80, 1) if half == "encoder" else (1, 80, SMALL.latent))
    middle = 10 if half == "encoder" else 160

    @jax.jit
    def reach(params):
        gradient = jax.grad(lambda x: model.apply(params, x)[0, middle].sum())(inputs)
        return jnp.abs(gradient[0]).sum(-1)

    plain = reach(params)
    found = []
    for block in ("block1", "block2", "block3"):
        changed = jax.tree.map(lambda x: x, params)
        for conv in ("conv1", "conv2"):
            layer = changed["params"]["section0"]["stack1"][block][conv]
            layer["kernel"] = jnp.ones_like(layer["kernel"])
        moved = np.flatnonzero(reach(changed)) - np.flatnonzero(plain)[0]
        found.append(int(moved.max()) // step)
    assert found == ([1, 3, 9] if half == "encoder" else [9, 3, 1])


# ---- layers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [2, 4])
def test_convolutions_that_change_the_length_are_those_of_lax(stride):
    kernel, inputs = _normal(2 * stride, 3, 5), _normal(2, 5 * stride, 3, seed=1)
    dimensions, side = ("NWC", "WIO", "NWC"), stride // 2
    expected = jax.lax.conv_general_dilated(
        inputs, kernel, (stride,), [(side, side)], dimension_numbers=dimensions
    )
    np.testing.assert_allclose(vqvae.strided_conv(inputs, kernel), expected, atol=1e-5)
    side = 2 * stride - 1 - side
    expected = jax.lax.conv_general_dilated(
        inputs,
        kernel[::-1],
        (1,),
        [(side, side)],
        lhs_dilation=(stride,),
        dimension_numbers=dimensions,
    )
    np.testing.assert_allclose(vqvae.transposed_conv(inputs, kernel), expected, atol=1e-5)


def test_initial_values_are_uniform_within_pytorch_s_bounds():
    sizes = VqVaeSizes(width=12, depth=1, multiplier=1, downs=(1,), strides=(2,), latent=20)

    # Of a transposed convolution PyTorch counts the outputs as fan-in.
    fan_in = {
        "encoder/section0/down1": 4,
        "encoder/section0/stack1/block1/conv1": 12 * 3,
        "encoder/section0/stack1/block1/conv2": 12,
        "encoder/section0/out": 12 * 3,
        "decoder/section0/in": 20 * 3,
        "decoder/section0/up1": 20 * 4,
        "decoder/out": 20 * 3,
    }
    names = [f"{name}/{leaf}" for name in fan_in for leaf in ("kernel", "bias")]

    @jax.jit
    def initial(key):
        encoder = Encoder(sizes).init(key, jnp.zeros((1, 8, 1)))["params"]
        decoder = Decoder(sizes).init(key, jnp.zeros((1, 4, 20)))["params"]
        params = flat({"encoder": encoder, "decoder": decoder})
        return {name: params[name] for name in names}

    params = initial(jax.random.key(1, impl="unsafe_rbg"))  # quicker to compile
    for name, inputs in fan_in.items():
        kernel, bias = (np.asarray(params[f"{name}/{leaf}"]) for leaf in ("kernel", "bias"))
        bound = inputs**-0.5
        assert 0.85 * bound < np.abs(kernel).max() <= bound, name
        assert float(kernel.mean()) == pytest.approx(0, abs=3 * bound / kernel.size**0.5), name
        assert 0 < np.abs(bias).max() <= bound, name


# ---- memory and precision -----------------------------------------------------------------------


@functools.cache
def _gradients(**fields):
    audio, variables = _normal(2, 64, 1, seed=3), _random(LEAST)

    def loss(variables, audio):
        decoded = _auto_encoder(LEAST, **fields)(variables, audio)
        return (decoded**2).sum(), decoded

    gradient = jax.grad(loss, (0, 1), has_aux=True)
    rematerialised = str(jax.make_jaxpr(gradient)(variables, audio)).count("remat")
    gradients, decoded = jax.jit(gradient)(variables, audio)
    return rematerialised, decoded, gradients


@pytest.mark.slow
def test_recomputed_stacks_give_equal_values_and_gradients():
    kept, anew = _gradients(), _gradients(remat="full")
    assert kept[0] == 0
    assert anew[0] >= 2  # a stack in each half
    for one, other in zip(jax.tree.leaves(kept[1:]), jax.tree.leaves(anew[1:]), strict=True):
        scale = max(1.0, float(jnp.abs(one).max()))
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6 * scale)
        assert float(jnp.abs(one).max()) > 0


def test_recomputed_blocks_need_less_memory(fully_optimised):
    # XLA merges what is computed twice, unless something keeps both apart.
    sizes = VqVaeSizes(width=8, depth=6, multiplier=1, downs=(1,), strides=(2,), latent=8)
    audio, params = _normal(1, 8192, 1), _random(sizes)[0]

    def planned(**fields):
        gradient = jax.grad(
            lambda params: (Encoder(sizes, **fields).apply(params, audio) ** 2).sum()
        )
        return jax.jit(gradient).lower(params).compile().memory_analysis().temp_size_in_bytes

    assert planned(remat="full") < 0.6 * planned()


def test_half_precision_stays_near():
    exact, near = _gradients()[1:], _gradients(dtype=jnp.bfloat16)[1:]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(near))
    errors = [
        np.linalg.norm(one - other) / np.linalg.norm(one)
        for one, other in zip(jax.tree.leaves(exact), jax.tree.leaves(near), strict=True)
    ]
    assert 0 < errors[0] < 0.05
    assert float(np.median(errors)) < 0.05
