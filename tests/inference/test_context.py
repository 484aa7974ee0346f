"""Segments with context against the whole song: equal samples, every length, any blocks."""

import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.inference import segments
from majl_jax.inference.context import pieces

HOP, SEGMENT, CONTEXT = 4, 48, 12
KERNEL = np.random.default_rng(0).normal(size=2 * CONTEXT + 1).astype(np.float32)


def convolve(variables, audio):
    """A convolution over CONTEXT samples at either side, zeros around the song, and a bias inside
    it.
    """
    padded = jnp.pad(audio[..., 0], ((0, 0), (CONTEXT, CONTEXT)))
    length = audio.shape[1]
    out = sum(variables["kernel"][i] * padded[:, i : i + length] for i in range(len(KERNEL)))
    return {"stems": out[:, :, None, None]}


def model(context=CONTEXT):
    grid = {"sample_rate_hz": 100, "segment_samples": SEGMENT, "hop_samples": HOP}
    return segments.SegmentModel(convolve, **grid, stems=("one",), context_samples=context)


@pytest.mark.slow
def test_the_pieces_of_a_song_of_any_length_give_what_the_song_gives_whole():
    rng = np.random.default_rng(1)
    for samples in (1, 3, 4, 11, 47, 48, 49, 52, 71, 72, 73, 95, 96, 97, 200, 333):
        audio = rng.normal(size=(samples, 1)).astype(np.float32)
        padded = np.pad(audio, ((0, -samples % HOP), (0, 0)))
        variables = {"kernel": KERNEL}
        whole = np.asarray(convolve(variables, jnp.asarray(padded)[None])["stems"][0, :samples])
        found = segments.apply_track(model(), variables, audio, batch_size=3)["stems"]
        np.testing.assert_allclose(found, whole, atol=1e-5)
        # With too little context the same does not hold: the test can see a difference.
        if samples > SEGMENT:
            wrong = segments.apply_track(model(CONTEXT - HOP), variables, audio)["stems"]
            assert np.abs(wrong - whole).max() > 1e-2


@pytest.mark.parametrize("block", [1, 5, 48, 1000])
def test_pieces_do_not_depend_on_the_blocks_and_follow_each_other(block):
    audio = np.arange(333, dtype=np.float32)[:, None]
    sizes = {"segment_samples": SEGMENT, "context_samples": CONTEXT, "hop_samples": HOP}
    blocks = (audio[i : i + block] for i in range(0, len(audio), block))
    found = list(pieces(blocks, **sizes))
    kept = np.concatenate([piece.audio[piece.kept, 0] for piece in found])
    np.testing.assert_array_equal(kept, audio[:, 0])
    assert {len(piece.audio) for piece in found} == {SEGMENT}
    assert all(piece.audio[0, 0] % HOP == 0 for piece in found)


def test_what_cannot_be_is_refused():
    sizes = {"segment_samples": 48, "hop_samples": 4}
    with pytest.raises(ValueError, match="one or more of them between the contexts"):
        list(pieces([np.zeros((9, 1), np.float32)], context_samples=24, **sizes))
    with pytest.raises(ValueError, match="no samples"):
        list(pieces([np.zeros((0, 1), np.float32)], context_samples=4, **sizes))
    with pytest.raises(ValueError, match="the model expects"):
        segments.apply_track(model(), {"kernel": KERNEL}, np.zeros((9, 2), np.float32))
