"""A whole track as a pure function: the numbers of the stream, compiled, differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_multi_pitch as tiny

from majl_jax.inference import multi_pitch, segments, whole

HOP, SEGMENT = 4, 48
RAMP = np.linspace(0.5, 1.5, SEGMENT, dtype=np.float32)


def skewed(variables, audio):
    """What comes out depends on where in its segment a sample stands."""
    heard = variables["gain"] * RAMP[None, :, None] * audio
    frames = heard.reshape(len(audio), -1, HOP)
    salience = jnp.stack([frames.sum(2), jnp.arange(SEGMENT // HOP)[None] + 0 * frames[:, :, 0]], 2)
    return {"stems": jnp.stack([heard, -2 * heard], 2), "salience": salience}


def model(**changes):
    grid = {"sample_rate_hz": 100, "segment_samples": SEGMENT, "hop_samples": HOP}
    grid["frame_reach_samples"] = 2 * HOP
    outputs = {"stems": ("one", "two"), "bin_cents": np.arange(2.0)}
    return segments.SegmentModel(**{"apply": skewed, **grid, **outputs, **changes})


GAIN = {"gain": np.float32(0.7)}


@pytest.mark.parametrize(
    ("samples", "overlap", "batch_size"),
    [(1, 0.5, 8), (48, 0.5, 8), (49, 0.5, 1), (203, 0.5, 2), (203, 0.9, 3), (97, 0.0, 8)],
)
def test_the_same_as_the_stream(samples, overlap, batch_size):
    audio = np.random.default_rng(0).standard_normal((samples, 1)).astype(np.float32)
    how = {"overlap": overlap, "batch_size": batch_size}
    expected = segments.apply_track(model(), GAIN, audio, **how)
    found = jax.jit(lambda v, a: whole.apply(model(), v, a, **how))(GAIN, audio)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)


def test_without_fading_and_with_channels():
    def stems_only(variables, audio):
        return {"stems": jnp.repeat(skewed(variables, audio[..., :1])["stems"], 2, axis=3)}

    plain = model(apply=stems_only, channels=2, crossfade=False, bin_cents=None)
    audio = np.random.default_rng(1).standard_normal((131, 2)).astype(np.float32)
    expected = segments.apply_track(plain, GAIN, audio, overlap=0.75)["stems"]
    found = whole.apply(plain, GAIN, jnp.asarray(audio), overlap=0.75)
    assert list(found) == ["stems"]
    np.testing.assert_allclose(found["stems"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("samples", [7, 333])
def test_segments_with_context(samples):
    def smeared(variables, audio):
        padded = jnp.pad(audio[..., 0], ((0, 0), (8, 8)))
        out = padded[:, : audio.shape[1]] + variables["gain"] * padded[:, 16:]
        return {"stems": out[:, :, None, None]}

    exact = model(apply=smeared, stems=("one",), bin_cents=None, context_samples=8)
    audio = np.random.default_rng(2).standard_normal((samples, 1)).astype(np.float32)
    expected = segments.apply_track(exact, GAIN, audio, batch_size=2)["stems"]
    found = whole.apply(exact, GAIN, jnp.asarray(audio), batch_size=2)["stems"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_gradients_reach_the_variables_and_the_audio():
    """Stems are gain times a fixed window times the audio: both derivatives are known."""
    audio = np.random.default_rng(3).standard_normal((120, 1)).astype(np.float32)

    def total(variables, audio):
        return jnp.sum(whole.apply(model(), variables, audio)["stems"][:, 0])

    by_gain, by_audio = jax.jit(jax.grad(total, argnums=(0, 1)))(GAIN, audio)
    ones = whole.apply(model(), GAIN, jnp.ones_like(audio))["stems"][:, 0]
    np.testing.assert_allclose(by_audio, ones, rtol=1e-5)
    np.testing.assert_allclose(by_gain["gain"], np.sum(by_audio * audio) / 0.7, rtol=1e-4)


def test_several_pitches_in_one_pass():
    several, variables = tiny.make(), tiny.weights()
    audio = np.random.default_rng(4).uniform(-0.2, 0.2, 9000).astype(np.float32)
    expected = multi_pitch.transcribe(several, variables, multi_pitch.peak_normalized(audio))
    program = jax.jit(lambda a: whole.transcribe(several, variables, a))
    found = program(audio)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.isfinite(program(0 * audio)).all()
