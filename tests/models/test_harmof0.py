"""HarmoF0 against the original's outputs, its front end, framing, and gradients through silence."""

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import relative_error

from majl_jax import weights
from majl_jax.models import harmof0
from majl_jax.models.harmof0 import HARMOF0_BIN_CENTS, HarmoF0, log_spectrogram_db
from majl_jax.weights.filling import WeightsError

AS_PUBLISHED = {"swapped_interpolation": True, "floor_per_batch": True}
SMALL = (8, 12, 16, 16)


def test_published_parameter_count():
    shapes = jax.eval_shape(HarmoF0().init, jax.random.key(0), jnp.zeros((1, 1600)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 372_865


@pytest.mark.slow
def test_a_frame_hears_as_far_as_it_says_and_no_further():
    model = HarmoF0(channels=(2, 2, 2, 2))
    frames, hop = 16, model.hop_samples
    audio = np.random.default_rng(0).standard_normal((1, frames * hop)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.asarray(audio))
    apply, centre = jax.jit(model.apply), frames // 2 * hop
    before = np.asarray(apply(variables, audio))[0, frames // 2]
    # A Hann window hears next to nothing of its ends.
    for distance, heard in ((model.reach_samples, False), (model.reach_samples - 100, True)):
        changed = audio.copy()
        changed[0, centre + distance] += 1.0
        changed[0, centre - distance - 1] += 1.0
        assert (np.asarray(apply(variables, changed))[0, frames // 2] != before).any() == heard


def test_the_harmonics_are_where_the_original_has_them():
    _, _, _, config = golden_files.read("harmof0")
    assert list(harmof0.HARMONIC_BINS) == config["mrdconv_dilations"]


def test_bins_are_quarter_tones_from_27_5_hz():
    hz = 10.0 * 2.0 ** (HARMOF0_BIN_CENTS / 1200)
    np.testing.assert_allclose(hz[[0, 48, 351]], [27.5, 55.0, 27.5 * 2 ** (351 / 48)])


# ---- the front end ------------------------------------------------------------------------------


def test_interpolation_weights_are_the_original_s():
    _, _, output, _ = golden_files.read("harmof0_front_end")
    matrix = harmof0.interpolation_matrix(swapped=True)
    bins = np.arange(352)
    for edge in ("floor", "ceiling"):
        stored = output[f"weight_on_{edge}_bin"]
        np.testing.assert_allclose(matrix[output[f"{edge}_index"], bins], stored, atol=2e-4)
    np.testing.assert_allclose(matrix.sum(0), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("swapped", "name"),
    [
        (True, "log_spectrogram_db"),
        (False, "log_spectrogram_db_correct_interpolation"),
    ],
)
def test_log_spectrogram_is_the_original_s(swapped, name):
    _, inputs, output, _ = golden_files.read("harmof0_front_end")
    found = log_spectrogram_db(inputs["frames"], swapped=swapped, floor_per_batch=True)
    np.testing.assert_allclose(found, output[name], atol=0.02)


def test_the_floor_counts_from_the_batch_only_for_parity():
    _, inputs, output, _ = golden_files.read("harmof0_front_end")
    clips = inputs["two_clips"]  # the second is 40 dB quieter
    together = log_spectrogram_db(clips, swapped=True, floor_per_batch=True)
    np.testing.assert_allclose(together, output["two_clips_log_spectrogram_db"], atol=0.02)
    alone = [log_spectrogram_db(clip[None])[0] for clip in clips]
    np.testing.assert_allclose(log_spectrogram_db(clips), alone, atol=1e-3)
    assert float(jnp.abs(together[1] - alone[1]).max()) > 1.0


@pytest.mark.parametrize("f0_hz", [110.0, 440.0, 1760.0])
def test_a_sine_peaks_at_its_bin(f0_hz):
    frame = np.sin(2 * np.pi * f0_hz * np.arange(1024) / 16_000).astype(np.float32)
    level = np.asarray(log_spectrogram_db(jnp.asarray(frame)[None, None]))[0, 0]
    cents = 1200 * np.log2(f0_hz / 10)
    width_cents = 1200 * np.log2(1 + 16_000 / 1024 / f0_hz)  # one FFT bin
    assert abs(HARMOF0_BIN_CENTS[level.argmax()] - cents) <= max(25.0, width_cents)


# ---- the network --------------------------------------------------------------------------------


def test_salience_is_the_original_s():
    state, inputs, output, _ = golden_files.read("harmof0")
    variables = weights.convert("harmof0", state, channels=SMALL)
    model, spectrogram = HarmoF0(SMALL, **AS_PUBLISHED), jnp.asarray(output["log_spectrogram_db"])
    apply = jax.jit(model.apply, static_argnames="method")
    logits = apply(variables, spectrogram, method="from_spectrogram")
    assert relative_error(logits, output["conv_6_logit"][:, 0]) <= 1e-5
    assert relative_error(jax.nn.sigmoid(logits), output["salience"]) <= 1e-5
    logits = apply(variables, inputs["frames"], method="from_frames")
    np.testing.assert_allclose(jax.nn.sigmoid(logits), output["salience"], atol=1e-4)


def test_salience_of_the_published_size_is_the_original_s():
    state, inputs, output, _ = golden_files.read("harmof0_full")
    variables = weights.convert("harmof0", state)
    model, spectrogram = HarmoF0(**AS_PUBLISHED), jnp.asarray(output["log_spectrogram_db"])
    apply = jax.jit(model.apply, static_argnames="method")
    logits = apply(variables, spectrogram, method="from_spectrogram")
    assert relative_error(jax.nn.sigmoid(logits), output["salience"]) <= 1e-5
    logits = apply(variables, inputs["frames"], method="from_frames")
    np.testing.assert_allclose(jax.nn.sigmoid(logits), output["salience"], atol=1e-4)


def test_without_the_published_interpolation_the_published_salience_is_missed():
    state, inputs, output, _ = golden_files.read("harmof0")
    variables = weights.convert("harmof0", state, channels=SMALL)
    apply = jax.jit(HarmoF0(SMALL).apply, static_argnames="method")
    logits = apply(variables, inputs["frames"], method="from_frames")
    assert float(np.abs(jax.nn.sigmoid(logits) - output["salience"]).max()) > 1e-3


def test_frames_are_centred_on_the_grid_and_neighbours_are_close():
    audio = np.zeros((1, 16_000), np.float32)
    audio[0, 25 * 320 :] = np.sin(2 * np.pi * 440 * np.arange(16_000 - 25 * 320) / 16_000)
    level = np.asarray(log_spectrogram_db(harmof0.frames(jnp.asarray(audio), hop_samples=320)))
    loudness = level[0].max(1)
    assert loudness.shape == (50,)
    # Frame 25 is centred where the tone begins: half of its window is filled, a quarter of the
    # power.
    assert loudness[25] == pytest.approx(loudness[30] - 6.0, abs=0.5)
    assert loudness[23] < loudness[30] - 40


def test_chosen_frames_are_those_of_all_frames():
    model = HarmoF0((2, 2, 2, 2))
    audio = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3200)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), audio)
    index = jnp.array([[0, 4, 9], [3, 3, 7]])
    every = jax.jit(model.apply)(variables, audio)
    chosen = jax.jit(model.apply)(variables, audio, index=index)
    assert every.shape == (2, 10, 352)
    np.testing.assert_allclose(chosen, every[jnp.arange(2)[:, None], index], atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 1e-9, 1e-4, 1.0])
@pytest.mark.slow
def test_gradients_are_finite_at_any_level(level):
    model = HarmoF0((2, 2, 2, 2))
    audio = level * jnp.asarray(np.random.default_rng(1).standard_normal((1, 1600)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), audio)

    @jax.jit
    def loss(variables, audio):
        logits, _ = model.apply(variables, audio, train=True, mutable=["batch_stats"])
        return (logits**2).mean()

    gradient = jax.grad(loss, argnums=(0, 1))(variables, audio)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_training_moves_the_statistics():
    model = HarmoF0((2, 2, 2, 2))
    audio = jnp.asarray(np.random.default_rng(2).standard_normal((1, 1600)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), audio)
    apply = jax.jit(model.apply, static_argnames=("train", "mutable"))
    _, updated = apply(variables, audio, train=True, mutable="batch_stats")
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), updated["batch_stats"], variables["batch_stats"]
    )
    assert all(jax.tree.leaves(moved))


# ---- weight files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("block_1.2.conv_list.3.weight"), "block_1.2.conv_list.3.weight"),
        (lambda s: s.pop("conv_5.bias"), "conv_5.bias"),
        (lambda s: s.update(extra=np.zeros(3)), "extra"),
        (lambda s: s.update({"block_2.2.weight": np.zeros((12, 12, 1, 5))}), "block_2.2.weight"),
    ],
)
def test_a_wrong_state_dictionary_is_refused_by_key(change, message):
    state, *_ = golden_files.read("harmof0")
    change(state)
    with pytest.raises(WeightsError, match=message):
        weights.convert("harmof0", state, channels=SMALL)


def test_another_width_is_refused():
    state, *_ = golden_files.read("harmof0")
    with pytest.raises(WeightsError, match="another capacity or width"):
        weights.convert("harmof0", state)
