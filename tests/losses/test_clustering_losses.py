"""The losses of a Chimera network against nussl's values and gradients, NumPy loops, and at
silence.
"""

import functools
import itertools

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.audio import stft
from majl_jax.losses import clustering

B, T, F, S, D = 2, 7, 5, 3, 4
LOSSES = {
    "deep_clustering": jax.jit(clustering.deep_clustering),
    "whitened_kmeans": jax.jit(clustering.whitened_k_means),
}
GRADIENT_TOLERANCE = {"deep_clustering": 1e-4, "whitened_kmeans": 5e-4}


@pytest.fixture(scope="module")
def golden():
    """Inputs and outputs without the channel axis, which has the size 1."""
    with np.load(golden_files.find("chimera")) as file:
        arrays = {key.partition("/")[2]: file[key] for key in file.files if "grad/" not in key}
    return {
        key: jnp.asarray(np.squeeze(x, 3) if x.ndim > 3 else x)
        for key, x in arrays.items()
        if x.dtype == np.float32
    }


def _wave(shape, speed, phase, height):
    """height sin(speed k + phase), k the index."""
    k = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    return (height * np.sin(speed * k + phase)).astype(np.float32)


def _closed_form():
    """(embedding, source magnitudes, mixture's magnitude, masks)."""
    sources = np.abs(_wave((B, T, F, S), 1.7, 0.3, 1)) + np.float32(0.01)
    mix = np.abs(_wave((B, T, F), 0.9, 0.1, 1)) + np.float32(0.05)
    masks = jax.nn.sigmoid(_wave((B, T, F, S), 0.5, 0.7, 2))
    return tuple(jnp.asarray(x) for x in (_wave((B, T, F, D), 0.37, 0.2, 1), sources, mix, masks))


_assignment = jax.jit(clustering.ideal_binary_assignment)
_weights = jax.jit(clustering.magnitude_weights)
_sums = jax.jit(clustering.grams)


@jax.jit
def _grams(embedding, sources, mix):
    y, w = clustering.ideal_binary_assignment(sources), clustering.magnitude_weights(mix)
    return clustering.grams(embedding, y, w)


def _random(batch=3, frames=11, frequencies=6, sources=2, dimensions=5):
    rng = np.random.default_rng(1)
    shape = (batch, frames, frequencies)
    magnitudes = rng.random((*shape, sources)).astype(np.float32)
    embedding = rng.standard_normal((*shape, dimensions)).astype(np.float32)
    return jnp.asarray(embedding), jnp.asarray(magnitudes)


def _pairs(embedding, assignment, weights):
    """The loss of one example over all pairs of points, in float64."""
    v, y = (np.asarray(x, np.float64).reshape(-1, x.shape[-1]) for x in (embedding, assignment))
    v = v / np.linalg.norm(v, axis=1, keepdims=True)
    w2 = np.asarray(weights, np.float64).ravel() ** 2
    total = 0.0
    for i, j in itertools.product(range(len(v)), repeat=2):
        total += w2[i] * w2[j] * (v[i] @ v[j] - y[i] @ y[j]) ** 2
    return total / w2.sum() ** 2


def test_values_of_nussl_from_closed_forms():
    embedding, sources, mix, masks = _closed_form()
    found = _grams(embedding, sources, mix)
    np.testing.assert_allclose(found.weight, [35, 35], rtol=1e-6)
    for loss, expected in (
        (LOSSES["deep_clustering"](found), 0.8928347826),
        (LOSSES["whitened_kmeans"](found), 6.6047973633),
        (clustering.mask_inference(masks, mix, sources), 0.3948835731),
    ):
        assert loss.shape == (B,)
        np.testing.assert_allclose(loss.mean(), expected, rtol=1e-6)


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("case", ["eval", "train", "raw"])
def test_clustering_losses_of_nussl(golden, case, name):
    embedding = golden[f"{case}/embedding"]
    y, w = golden["ideal_binary_mask"], golden["weights"]

    def loss(embedding):
        return LOSSES[name](clustering.grams(embedding, y, w)).mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(embedding)
    np.testing.assert_allclose(value, golden[f"{case}/loss_{name}"], rtol=2e-6)
    if case != "eval":
        expected = golden[f"{case}/grad_embedding/{name}"]
        tolerance = GRADIENT_TOLERANCE[name] * np.abs(expected).max()
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", ["eval", "train", "raw"])
def test_mask_inference_of_nussl(golden, case):
    estimates, mix = golden[f"{case}/estimates"], golden["mix_magnitude"]
    sources = golden["source_magnitudes"]

    def loss(estimates):
        ones = jnp.ones_like(mix)
        return clustering.mask_inference(estimates, ones, sources).mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(estimates)
    np.testing.assert_allclose(value, golden[f"{case}/loss_l1"], rtol=1e-6)
    if case != "eval":
        expected = golden[f"{case}/grad_estimates/l1"]
        np.testing.assert_allclose(gradient, expected, atol=1e-4 * np.abs(expected).max())
    if case != "raw":
        of_masks = clustering.mask_inference(golden[f"{case}/mask"], mix, sources).mean()
        np.testing.assert_allclose(of_masks, golden[f"{case}/loss_l1"], rtol=1e-6)


def test_targets_and_weights_of_nussl(golden):
    sources, mix = golden["source_magnitudes"], golden["mix_magnitude"]
    np.testing.assert_array_equal(_assignment(sources), golden["ideal_binary_mask"])
    ties = _assignment(golden["tie_source_magnitudes"][None, None])[0, 0]
    np.testing.assert_array_equal(ties, golden["tie_ideal_binary_mask"])
    np.testing.assert_allclose(_weights(mix), golden["weights"], rtol=1e-6)


@pytest.mark.parametrize("sources", [1, 2, 4])
def test_the_loudest_keeps_its_label_when_magnitudes_are_computed_along(sources):
    """Compiled together with what makes them, XLA may compute magnitudes twice, with other
    roundings.
    """
    audio = np.random.default_rng(0).standard_normal((2, sources, 4096)).astype(np.float32)

    def magnitudes(audio):
        spectra = stft.stft(audio.reshape(-1, 4096), window_samples=512, hop_samples=128)
        return jnp.moveaxis(jnp.abs(spectra.reshape(2, sources, *spectra.shape[1:])), 1, -1)

    together = jax.jit(lambda x: clustering.ideal_binary_assignment(magnitudes(x)))(audio)
    apart = np.asarray(jax.jit(magnitudes)(audio))
    expected = np.eye(sources)[apart.argmax(-1)]
    largest = np.sort(apart, axis=-1)
    clear = sources == 1 or largest[..., -1] - largest[..., -2] > 1e-4 * largest[..., -1]
    np.testing.assert_array_equal(
        together[np.broadcast_to(clear, apart.shape[:-1])],
        expected[np.broadcast_to(clear, apart.shape[:-1])],
    )


def test_targets_and_weights_of_silence_and_of_three_equal_sources(golden):
    silence = _weights(golden["silent_mix_magnitude"][None, ..., 0])[0]
    np.testing.assert_array_equal(silence, golden["silent_weights"][..., 0])
    rows = jnp.asarray([[0.0, 0, 0], [1, 1, 1], [2, 2, 1], [1, 2, 1], [3, 2, 3]])
    expected = [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
    found = _assignment(rows[None, None])[0, 0]
    np.testing.assert_array_equal(found, expected)


def test_deep_clustering_is_the_sum_over_pairs_of_points():
    embedding, magnitudes = _random()
    y = np.array(_assignment(magnitudes))
    y[0, 1, 2] = 0.0
    y = jnp.asarray(y)
    w = _weights(magnitudes.sum(-1))
    found = LOSSES["deep_clustering"](_sums(embedding, y, w))
    expected = [_pairs(embedding[i], y[i], w[i]) for i in range(3)]
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_whitened_k_means_is_a_loop_in_float64():
    embedding, magnitudes = _random()
    found = _grams(embedding, magnitudes, magnitudes.sum(-1))
    y = _assignment(magnitudes)
    w = np.asarray(_weights(magnitudes.sum(-1)), np.float64)
    for i, value in enumerate(LOSSES["whitened_kmeans"](found)):
        v = np.asarray(embedding[i], np.float64)
        v = v / np.linalg.norm(v, axis=-1, keepdims=True)
        v = (v * w[i, ..., None]).reshape(-1, 5)
        rows = (np.asarray(y[i], np.float64) * w[i, ..., None]).reshape(-1, 2)
        left = np.linalg.inv(v.T @ v + np.eye(5)) @ v.T @ rows
        right = np.linalg.inv(rows.T @ rows + np.eye(2)) @ rows.T @ v
        np.testing.assert_allclose(value, 7 - 2 * np.trace(left @ right), rtol=1e-6)


@pytest.mark.parametrize("name", list(LOSSES))
def test_order_of_sources_and_rotation_of_the_embedding_do_not_matter(name):
    embedding, magnitudes = _random(sources=3)
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((5, 5)))[0].astype(np.float32)
    w = magnitudes.sum(-1)
    value = LOSSES[name](_grams(embedding, magnitudes, w))
    reordered = LOSSES[name](_grams(embedding, magnitudes[..., jnp.array([2, 0, 1])], w))
    rotated = LOSSES[name](_grams(embedding @ rotation, magnitudes, w))
    mirrored = LOSSES[name](_grams(-3.0 * embedding, magnitudes, w))
    for other in (reordered, rotated, mirrored):
        np.testing.assert_allclose(other, value, rtol=3e-6)


def test_deep_clustering_of_the_best_and_the_worst_embedding():
    _, magnitudes = _random(frames=100, frequencies=60)
    y = _assignment(magnitudes)
    w = _weights(magnitudes.sum(-1))
    perfect = LOSSES["deep_clustering"](_sums(2.0 * y, y, w))
    np.testing.assert_allclose(perfect, 0.0, atol=1e-6)
    # Two points of two sources in one direction: half of the pairs, those of a point with itself,
    # are right.
    pair = clustering.grams(jnp.ones((1, 1, 2, 3)), jnp.eye(2)[None, None], jnp.ones((1, 1, 2)))
    np.testing.assert_allclose(LOSSES["deep_clustering"](pair), 0.5, rtol=1e-6)
    for seed in range(3):
        v = np.random.default_rng(seed).random((*y.shape[:3], 4), np.float32)
        value = LOSSES["deep_clustering"](_grams(jnp.asarray(v), magnitudes, magnitudes.sum(-1)))
        assert (value > 0).all() and (value < 1).all()


def _silent_cases():
    """Name to (embedding, assignment, weights), in each something without a direction or a
    weight.
    """
    embedding, magnitudes = _random()
    zeros = jnp.zeros_like(embedding)
    ties = jnp.ones_like(magnitudes)
    return {
        "silence": (embedding, 0 * magnitudes, 0 * magnitudes.sum(-1)),
        "ties": (embedding, ties, ties.sum(-1)),
        "no embedding": (zeros, magnitudes, magnitudes.sum(-1)),
        "nothing": (zeros, 0 * magnitudes, 0 * magnitudes.sum(-1)),
        "equal embeddings": (jnp.ones_like(embedding), magnitudes, magnitudes.sum(-1)),
    }


@functools.partial(jax.jit, static_argnums=0)
def _value_and_gradient(name, embedding, sources, mix):
    return jax.value_and_grad(lambda v: LOSSES[name](_grams(v, sources, mix)).sum())(embedding)


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("case", ["silence", "ties", "no embedding", "nothing", "equal embeddings"])
def test_values_and_gradients_are_finite_where_there_is_nothing(case, name):
    embedding, sources, mix = _silent_cases()[case]
    value, gradient = jax.value_and_grad(lambda v: LOSSES[name](_grams(v, sources, mix)).sum())(
        embedding
    )
    assert np.isfinite(value) and np.isfinite(gradient).all()
    if case in ("silence", "no embedding", "nothing"):
        assert not np.any(gradient)
    if case in ("silence", "nothing"):
        assert value == (0.0 if name == "deep_clustering" else 3 * 7.0)


def test_no_gradient_of_the_magnitudes_at_silence():
    embedding, magnitudes = _random()

    def loss(magnitudes):
        found = _grams(embedding, magnitudes, magnitudes.sum(-1))
        return clustering.deep_clustering(found).sum()

    assert not np.any(jax.jit(jax.grad(loss))(0 * magnitudes))


def _head(params, hidden, dimensions):
    values = jax.nn.sigmoid(hidden @ params["kernel"] + params["bias"][None, None])
    return values.reshape(*hidden.shape[:2], -1, dimensions)


@functools.cache
def _whole_and_chunked():
    """(value and gradients of the losses together, the same as a function of chunk_frames)."""
    _, magnitudes = _random()
    rng = np.random.default_rng(3)
    hidden, kernel, bias = (
        jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((3, 11, 8), (8, 30), 30)
    )
    y, w = _assignment(magnitudes), _weights(magnitudes.sum(-1))

    def losses(found):
        return (clustering.deep_clustering(found) + 0.1 * clustering.whitened_k_means(found)).mean()

    def whole(params, hidden):
        return losses(clustering.grams(_head(params, hidden, 5), y, w))

    def in_chunks(params, hidden, *, chunk_frames):
        def embed(part):
            assert part.shape[0] == 1 and part.shape[1] <= chunk_frames
            return _head(params, part, 5)

        return losses(clustering.chunked_grams(embed, hidden, y, w, chunk_frames=chunk_frames))

    def gradients(loss):
        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(
            {"kernel": kernel, "bias": bias}, hidden
        )

    return gradients(whole), lambda chunk_frames: gradients(
        functools.partial(in_chunks, chunk_frames=chunk_frames)
    )


@pytest.mark.parametrize("chunk_frames", [1, 4, 11, 100])
def test_chunks_have_the_value_and_the_gradients_of_the_whole(chunk_frames):
    (value, gradients), in_chunks = _whole_and_chunked()
    found, found_gradients = in_chunks(chunk_frames)
    np.testing.assert_allclose(found, value, rtol=2e-6)
    pairs = zip(jax.tree.leaves(found_gradients), jax.tree.leaves(gradients), strict=True)
    for mine, expected in pairs:
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(mine, expected, atol=1e-5 * np.abs(expected).max())


def test_chunks_plan_less_memory():
    batch, frames, frequencies, dimensions = 4, 64, 33, 20
    y = jax.ShapeDtypeStruct((batch, frames, frequencies, 2), jnp.float32)
    w = jax.ShapeDtypeStruct((batch, frames, frequencies), jnp.float32)
    hidden = jax.ShapeDtypeStruct((batch, frames, 8), jnp.float32)
    kernel = jax.ShapeDtypeStruct((8, frequencies * dimensions), jnp.float32)

    def planned(chunk_frames):
        def loss(kernel, hidden, y, w):
            def embed(part):
                bias = jnp.zeros(frequencies * dimensions)
                return _head({"kernel": kernel, "bias": bias}, part, dimensions)

            if chunk_frames is None:
                found = clustering.grams(embed(hidden), y, w)
            else:
                found = clustering.chunked_grams(embed, hidden, y, w, chunk_frames=chunk_frames)
            return clustering.deep_clustering(found).mean()

        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        return step.lower(kernel, hidden, y, w).compile().memory_analysis().temp_size_in_bytes

    assert planned(16) < planned(None) / 4


def test_a_batch_of_another_precision_is_summed_in_float32():
    embedding, magnitudes = _random()
    halves = jnp.asarray(embedding, jnp.bfloat16)
    found = _grams(halves, magnitudes, magnitudes.sum(-1))
    expected = _grams(halves.astype(jnp.float32), magnitudes, magnitudes.sum(-1))
    for mine, other in zip(found, expected, strict=True):
        assert mine.dtype == jnp.float32
        np.testing.assert_array_equal(mine, other)
