"""The vector quantiser against the original code's values, NumPy loops, and itself on several
devices.
"""

import functools

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from majl_jax import parallel
from majl_jax.models.layers import vector_quantizer

CODES, DIMENSION = 12, 5
_quantize = jax.jit(vector_quantizer.quantize, static_argnames="block_tokens")
_nearest = jax.jit(vector_quantizer.nearest_codes, static_argnames="block_tokens")
_update = jax.jit(vector_quantizer.update, static_argnames=("decay", "threshold"))
_readings = jax.jit(vector_quantizer.readings, static_argnames="threshold")
_rows = jax.jit(vector_quantizer.random_rows, static_argnames="size")


@pytest.fixture(scope="module")
def golden():
    """(codebook before the step, latents [batch, time, dimension], input, output)."""
    _, inputs, output, _ = golden_files.read("jukebox_vqvae_l1")
    codebook = vector_quantizer.Codebook(
        inputs["k_before"], inputs["k_sum_before"], inputs["k_elem_before"], jnp.array(True)
    )
    return codebook, jnp.asarray(output["latents"].transpose(0, 2, 1)), inputs, output


def _random(batch=8, time=9, seed=1):
    """A codebook of which a third of the codes is rare, and latents."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((CODES, DIMENSION)).astype(np.float32)
    counts = np.where(np.arange(CODES) % 3, 4.0, 0.5).astype(np.float32)
    codebook = vector_quantizer.Codebook(
        *(jnp.asarray(x) for x in (vectors, vectors * counts[:, None], counts)), jnp.array(True)
    )
    return codebook, jnp.asarray(rng.standard_normal((batch, time, DIMENSION), np.float32))


def test_quantization_of_jukebox(golden):
    codebook, latents, _, output = golden
    found = _quantize(codebook, latents)
    assert found.codes.dtype == jnp.int32
    sure = output["code_margin"] > 1e-5
    assert sure.all()
    np.testing.assert_array_equal(np.asarray(found.codes)[sure], output["codes"][sure])
    rows = output["quantised"].transpose(0, 2, 1)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(
        vector_quantizer.look_up(codebook.vectors, found.codes), found.rows
    )
    straight = output["quantised_straight_through"].transpose(0, 2, 1)
    np.testing.assert_allclose(found.straight_through, straight, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.commitment.mean(), output["commit_loss"], rtol=1e-6)
    # The mean squared distance is the commitment loss of a whole row.
    np.testing.assert_allclose(
        found.squared_distances.mean(), 8 * found.commitment.mean(), rtol=1e-6
    )


def test_a_training_step_of_jukebox(golden):
    codebook, latents, inputs, output = golden
    quantized = _quantize(codebook, latents)
    after = _update(codebook, latents, quantized.codes, inputs["restart_candidates"])
    np.testing.assert_allclose(after.vectors, output["k_after"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(after.sums, output["k_sum_after"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(after.counts, output["k_elem_after"], rtol=1e-6)
    rare = output["k_elem_after"] < 1.0
    assert rare.sum() == 8
    np.testing.assert_array_equal(after.vectors[rare], inputs["restart_candidates"][rare])
    found = _readings(codebook, after, latents, quantized)
    for name, of_original in (
        ("fit", "fit"),
        ("latent_deviation", "pn"),
        ("entropy", "entropy"),
        ("used_now", "used_curr"),
        ("usage", "usage"),
        ("change", "dk"),
    ):
        np.testing.assert_allclose(
            found[name], output[f"train_metrics/{of_original}"], rtol=1e-5, err_msg=name
        )
    np.testing.assert_allclose(found["restarted"], 8 / 32)
    np.testing.assert_allclose(found["perplexity"], np.exp(found["entropy"]), rtol=1e-6)


def test_restored_moving_averages_of_jukebox(golden):
    codebook, latents, _, output = golden
    vectors, tokens = codebook.vectors, output["restore_k/num_tokens"].item()
    found = vector_quantizer.restore(vectors, tokens_per_item=tokens)
    np.testing.assert_allclose(found.sums, output["restore_k/k_sum"], rtol=1e-6)
    np.testing.assert_allclose(found.counts, output["restore_k/k_elem"], rtol=1e-6)
    np.testing.assert_array_equal(found.vectors, vectors)
    assert found.initialized
    of_items = vector_quantizer.restore(vectors, tokens_per_item=latents.shape[1], items=2)
    np.testing.assert_array_equal(of_items.counts, found.counts)
    published = vector_quantizer.restore(jnp.zeros((2048, 1)), tokens_per_item=49152)
    assert (published.counts == 24).all()


def test_nearest_codes_are_those_of_a_loop():
    codebook, latents = _random()
    vectors = np.array(codebook.vectors)
    vectors[7] = vectors[3]  # of equal distances the first
    latents = latents.at[0, 0].set(vectors[3] + np.float32(0.01))
    codes, distances = _nearest(latents, jnp.asarray(vectors))
    for index in np.ndindex(latents.shape[:2]):
        squares = ((np.asarray(latents[index], np.float64) - vectors) ** 2).sum(axis=1)
        assert codes[index] == squares.argmin()
        np.testing.assert_allclose(distances[index], squares.min(), rtol=1e-5)
    assert codes[0, 0] == 3
    assert not (codes == 7).any()


@pytest.mark.parametrize("block_tokens", [24, 25, 1000])
def test_blocks_do_not_change_the_codes(block_tokens):
    codebook, latents = _random()
    whole = _nearest(latents, codebook.vectors)
    blocked = _nearest(latents, codebook.vectors, block_tokens=block_tokens)
    np.testing.assert_array_equal(blocked[0], whole[0])
    np.testing.assert_array_equal(blocked[1], whole[1])


def test_no_array_of_a_step_has_tokens_times_codes_elements():
    def step(codebook, latents, key):
        rows = vector_quantizer.random_rows(latents, key, size=2048)
        codebook = vector_quantizer.initialize(codebook, rows)
        quantized = vector_quantizer.quantize(codebook, latents)
        after = vector_quantizer.update(codebook, latents, quantized.codes, rows)
        return after, vector_quantizer.readings(codebook, after, latents, quantized)

    codebook = jax.eval_shape(lambda: vector_quantizer.empty(2048, 64))
    latents = jax.ShapeDtypeStruct((4, 49152, 64), jnp.float32)
    text = str(jax.make_jaxpr(step)(codebook, latents, jax.random.key(0)))
    assert "f32[16384,2048]" in text, "the block of distances has another form than thought here"
    assert "Precision.HIGHEST" in text  # a CPU would not show it
    assert "196608,2048]" not in text
    assert "49152,2048]" not in text


def test_an_update_is_that_of_a_loop():
    codebook, latents = _random()
    codes = _quantize(codebook, latents).codes
    candidates = jnp.arange(CODES * DIMENSION, dtype=jnp.float32).reshape(CODES, DIMENSION)
    found = _update(codebook, latents, codes, candidates, decay=0.9, threshold=0.8)
    tokens, of_tokens = np.asarray(latents).reshape(-1, DIMENSION), np.asarray(codes).ravel()
    restarted = []
    for i in range(CODES):
        own = tokens[of_tokens == i]
        count = 0.9 * codebook.counts[i] + 0.1 * len(own)
        total = 0.9 * codebook.sums[i] + 0.1 * own.sum(axis=0)
        row = total / count if count >= 0.8 else candidates[i]
        restarted.append(count < 0.8)
        np.testing.assert_allclose(found.counts[i], count, rtol=1e-6)
        np.testing.assert_allclose(found.sums[i], total, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.vectors[i], row, rtol=1e-5, atol=1e-6)
    assert 0 < sum(restarted) < CODES
    readings = _readings(codebook, found, latents, _quantize(codebook, latents), threshold=0.8)
    np.testing.assert_allclose(readings["restarted"], np.mean(restarted), rtol=1e-6)


def test_a_rare_code_restarts_in_every_step_until_it_is_taken_often_enough():
    codebook, _ = _random()
    codebook = codebook._replace(counts=codebook.counts.at[0].set(0.97))
    latents = jnp.ones((1, 2, DIMENSION))
    codes = jnp.zeros((1, 2), jnp.int32)  # counts of code 0: 0.9803, 0.9905, 1.0006
    for step in range(3):
        rows = jnp.full((CODES, DIMENSION), float(step))
        codebook = _update(codebook, latents, codes, rows)
        restarted = bool((codebook.vectors[0] == step).all())
        assert restarted == (step < 2)
    np.testing.assert_allclose(codebook.vectors[0], codebook.sums[0] / codebook.counts[0])
    assert (codebook.vectors[3] == 2.0).all()  # never taken
    assert codebook.counts[3] < 0.5


@functools.cache
def _step_over(devices):
    """(codebook, readings, candidates) of one step on this many devices, of a trained and of an
    empty codebook.
    """
    axis = parallel.AXIS

    def step(codebook, latents):
        key = jax.random.key(3)
        rows = vector_quantizer.random_rows(latents, key, size=CODES, axis=axis)
        before = vector_quantizer.initialize(codebook, rows)
        quantized = vector_quantizer.quantize(before, latents)
        after = vector_quantizer.update(before, latents, quantized.codes, rows, axis=axis)
        found = vector_quantizer.readings(before, after, latents, quantized, axis=axis)
        return after, found, rows

    # Every device's results one after another, not the first device's alone.
    on, whole = parallel.mesh(jax.devices()[:devices]), PartitionSpec()
    split = PartitionSpec(axis)
    each = jax.shard_map(
        lambda *given: jax.tree.map(lambda x: x[None], step(*given)),
        mesh=on,
        in_specs=(whole, split),
        out_specs=split,
        check_vma=False,
    )
    mapped = jax.jit(each)
    codebook, latents = _random()
    empty = vector_quantizer.empty(CODES, DIMENSION)
    return jax.device_get((mapped(codebook, latents), mapped(empty, latents)))


@pytest.mark.parametrize("devices", [2, 4])
def test_several_devices_make_the_codebook_of_one(devices):
    one, several = _step_over(1), _step_over(devices)
    for found, expected in zip(jax.tree.leaves(several), jax.tree.leaves(one), strict=True):
        assert len(found) == devices
        for of_device in found:
            np.testing.assert_array_equal(of_device, found[0])
        np.testing.assert_allclose(found[0], expected[0], rtol=2e-6, atol=1e-6)
    trained, fresh = several
    np.testing.assert_array_equal(trained[2][0], one[0][2][0])  # candidates to the bit
    assert 0 < trained[1]["restarted"][0] < 1
    assert fresh[0].initialized.all()


def test_one_device_of_a_mesh_does_what_a_step_without_an_axis_does():
    codebook, latents = _random()
    rows = _rows(latents, jax.random.key(3), size=CODES)
    (after, found, candidates), _ = _step_over(1)
    np.testing.assert_array_equal(candidates[0], rows)
    quantized = _quantize(codebook, latents)
    expected = _update(codebook, latents, quantized.codes, rows)
    np.testing.assert_allclose(after.vectors[0], expected.vectors, rtol=1e-6, atol=1e-6)
    readings = _readings(codebook, expected, latents, quantized)
    for name, value in readings.items():
        np.testing.assert_allclose(found[name][0], value, rtol=1e-5, err_msg=name)


def test_the_gradient_is_that_of_the_decoders_input_and_of_the_commitment_loss():
    codebook, latents = _random(batch=2)
    weights = jnp.cos(jnp.arange(latents.size, dtype=jnp.float32)).reshape(latents.shape)

    def decoder(x):
        return jnp.sum(weights * jnp.tanh(x))

    def loss(latents, vectors):
        found = vector_quantizer.quantize(codebook._replace(vectors=vectors), latents)
        return decoder(found.straight_through) + 0.02 * found.commitment.mean()

    of_latents, of_vectors = jax.jit(jax.grad(loss, argnums=(0, 1)))(latents, codebook.vectors)
    rows = _quantize(codebook, latents).rows
    expected = jax.grad(decoder)(rows) + 0.02 * 2.0 * (latents - rows) / latents.size
    np.testing.assert_allclose(of_latents, expected, rtol=1e-5, atol=1e-6)
    assert not of_vectors.any()


def test_a_codebook_that_is_not_updated_stays_and_reads_as_such():
    codebook, latents = _random()
    before = jax.tree.map(np.array, codebook)
    found = _readings(codebook, codebook, latents, _quantize(codebook, latents))
    assert found["change"] == 0.0
    assert found["restarted"] == 0.0
    assert found["usage"] == 8  # counts 4 and 0.5
    for now, then in zip(codebook, before, strict=True):
        np.testing.assert_array_equal(now, then)
    rows = _rows(latents, jax.random.key(0), size=CODES)
    for now, then in zip(vector_quantizer.initialize(codebook, rows), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_an_empty_codebook_becomes_different_tokens_of_the_first_batch():
    _, latents = _random()
    rows = _rows(latents, jax.random.key(0), size=CODES)
    codebook = vector_quantizer.initialize(vector_quantizer.empty(CODES, DIMENSION), rows)
    assert codebook.initialized
    np.testing.assert_array_equal(codebook.vectors, rows)
    np.testing.assert_array_equal(codebook.sums, rows)
    np.testing.assert_array_equal(codebook.counts, np.ones(CODES))
    tokens = np.asarray(latents).reshape(-1, DIMENSION)
    chosen = (tokens[None] == np.asarray(rows)[:, None]).all(axis=-1)
    assert (chosen.sum(axis=1) == 1).all()
    assert chosen.sum(axis=0).max() == 1
    other = _rows(latents, jax.random.key(1), size=CODES)
    assert (np.asarray(other) != np.asarray(rows)).any()


def test_few_tokens_are_repeated_with_a_little_noise():
    tokens = 10.0 * jnp.arange(3.0)[None, :, None] * jnp.ones((1, 1, 64))
    rows = np.asarray(_rows(tokens, jax.random.key(0), size=512))
    origin = np.round(rows.mean(axis=1) / 10.0)
    noise = rows - 10.0 * origin[:, None]
    np.testing.assert_allclose(noise.std(), 0.01 / 8, rtol=0.03)
    assert abs(noise.mean()) < 1e-4
    # Each of three tokens 171 times, less the one that is left over.
    assert sorted(np.bincount(origin.astype(int), minlength=3)) == [170, 171, 171]


def test_perplexity_is_the_number_of_codes_taken_equally_often():
    perplexity = jax.jit(vector_quantizer.perplexity)
    np.testing.assert_allclose(perplexity(jnp.full(64, 7.0)), 64, rtol=1e-5)
    np.testing.assert_allclose(perplexity(jnp.zeros(64).at[3:11].set(5.0)), 8, rtol=1e-5)
    np.testing.assert_allclose(perplexity(jnp.zeros(64).at[3].set(5.0)), 1, rtol=1e-5)
    assert jnp.isfinite(perplexity(jnp.zeros(64)))
    # Of the codes themselves, each of 12 six times.
    codebook, latents = _random()
    quantized = _quantize(codebook, latents)
    uniform = jnp.arange(72, dtype=jnp.int32).reshape(8, 9) % CODES
    found = _readings(codebook, codebook, latents, quantized._replace(codes=uniform))
    np.testing.assert_allclose(found["perplexity"], CODES, rtol=1e-5)
    assert found["used_now"] == CODES


def test_latents_in_bfloat16_meet_a_codebook_in_float32():
    codebook, latents = _random()
    low = latents.astype(jnp.bfloat16)
    found, expected = _quantize(codebook, low), _quantize(codebook, low.astype(jnp.float32))
    np.testing.assert_array_equal(found.codes, expected.codes)
    assert found.straight_through.dtype == jnp.float32
    after = _update(codebook, low, found.codes, codebook.vectors)
    assert after.sums.dtype == after.vectors.dtype == jnp.float32


def test_errors_say_what_was_expected():
    codebook, latents = _random()
    with pytest.raises(ValueError, match=r"block_tokens is 0; expected at least 1"):
        vector_quantizer.nearest_codes(latents, codebook.vectors, block_tokens=0)
    with pytest.raises(ValueError, match=r"\(8, 0, 5\) have no tokens"):
        vector_quantizer.nearest_codes(latents[:, :0], codebook.vectors)
    with pytest.raises(ValueError, match=r"items is 0; expected at least 1"):
        vector_quantizer.restore(codebook.vectors, tokens_per_item=9, items=0)
