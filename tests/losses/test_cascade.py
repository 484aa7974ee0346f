"""The cascade's loss against a plain loop, with toy networks in which a sample's value is its
pitch.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.losses.cascade import CascadeTerms, cascade_loss
from majl_jax.losses.hard_samples import HardSamples
from majl_jax.losses.interface import Interface
from majl_jax.models.cascade import Cascade
from majl_jax.models.weight_module import WeightModule

HOP, FRAMES, BATCH = 4, 8, 4
BIN_CENTS = 3000.0 + 100.0 * np.arange(12)
SHARPNESS = 400.0


class Scale(nn.Module):
    """The mixture times a parameter."""

    @nn.compact
    def __call__(self, mixture, *, train=False):
        return mixture * self.param("gain", nn.initializers.ones, ())


class Reader(nn.Module):
    """Hears bin b where the sample at a frame's centre is b / 16."""

    @nn.compact
    def __call__(self, audio, *, index=None, train=False):
        offset = self.param("offset", nn.initializers.zeros, ())
        values = audio[:, ::HOP]
        if index is not None:
            values = jnp.take_along_axis(values, index, 1)
        distance = values[..., None] + offset - jnp.arange(len(BIN_CENTS))[None, None] / 16
        return 2.0 - SHARPNESS * distance**2


def _batch():
    """Four segments: the label is bin 6; the accompaniment and the true voice make cases 1 to 4."""
    voice, accompaniment = np.full((BATCH, FRAMES), 6 / 16), np.zeros((BATCH, FRAMES))
    voice[1], accompaniment[1] = 9 / 16, -3 / 16  # P1 right, P2 wrong
    accompaniment[2] = 2 / 16  # P1 wrong, P2 right
    voice[3] = 9 / 16  # both wrong
    stems = np.repeat(np.stack([voice, accompaniment], -1), HOP, axis=1)[..., None]
    f0_hz = np.full((BATCH, FRAMES, 2), 10.0 * 2 ** (BIN_CENTS[6] / 1200), np.float32)
    has_pitch = np.ones((BATCH, FRAMES, 2), bool)
    has_pitch[:, 6:] = False
    return {
        "stems": np.round(stems * 32768).astype(np.int16),
        "has_stems": np.ones((BATCH, 2), bool),
        "f0_hz": f0_hz,
        "has_pitch": has_pitch,
        "index": np.arange(BATCH, dtype=np.uint32),
    }


def _loss(params, batch, *, dynamic=None, weights=None, module=None, **interface):
    cascade = Cascade(Scale(), Reader(), BIN_CENTS, HOP * FRAMES, weight_module=module)
    weights = weights or {"separation": 1.0, "pitch": 0.5, "pitch_on_target": 0.0, "weighting": 1.0}

    @jax.jit
    def loss(params, batch):
        return cascade_loss(
            params,
            {},
            batch,
            jax.random.key(0),
            cascade=cascade,
            terms=CascadeTerms(weights, pitch_frames=FRAMES),
            interface=Interface(**interface),
            dynamic=dynamic,
        )

    return loss(params, batch)


def _params(gain=1.0, offset=0.0, module=None):
    params = {"separator": {"gain": jnp.array(gain)}, "pitch": {"offset": jnp.array(offset)}}
    if module is not None:
        cascade = Cascade(Scale(), Reader(), BIN_CENTS, HOP * FRAMES, weight_module=module)
        params["weight_module"] = cascade.init(jax.random.key(1))["params"]["weight_module"]
    return params


def _plain(batch, weights_of):
    """The same loss by loops; `weights_of[i]` = (separation, pitch) of segment i."""
    stems = batch["stems"].astype(np.float64) / 32768
    separation = sum(
        weights_of[i][0] * np.abs(stems[i].sum(1) - stems[i, :, 0])[:, 0].mean() / BATCH
        for i in range(BATCH)
    )
    of_frames = np.repeat([[pitch] for _, pitch in weights_of], FRAMES, 1)
    return separation, _plain_pitch(batch, of_frames)


def _plain_pitch(batch, of_frames):
    """The pitch loss with a weight for every frame [segment, frame]."""
    mixtures = (batch["stems"].astype(np.float64) / 32768).sum(2)[..., 0]
    pitch, frames = 0.0, 0
    for i in range(BATCH):
        for k in range(FRAMES):
            if not batch["has_pitch"][i, k, 0]:
                continue
            frames += 1
            for b in range(len(BIN_CENTS)):
                logit = 2.0 - SHARPNESS * (mixtures[i, k * HOP] - b / 16) ** 2
                p = 1 / (1 + np.exp(-logit))
                entropy = -10.0 * np.log(p) if b == 6 else -np.log1p(-p)
                pitch += of_frames[i, k] * entropy / len(BIN_CENTS)
    return pitch / frames


def test_without_weights_it_is_the_plain_sum():
    loss, (_, terms) = _loss(_params(), _batch())
    separation, pitch = _plain(_batch(), [(1, 1)] * BATCH)
    np.testing.assert_allclose(terms["separation"], separation, rtol=1e-5)
    np.testing.assert_allclose(terms["pitch"], pitch, rtol=1e-4)
    np.testing.assert_allclose(loss, separation + 0.5 * pitch, rtol=1e-4)


def test_the_four_cases_are_seen_and_weighed():
    dynamic = HardSamples("fixed", largest_increase=0.5, middle_weight=1.2)
    loss, (_, terms) = _loss(_params(), _batch(), dynamic=dynamic)
    assert [float(terms[f"share_case{case}"]) for case in (1, 2, 3, 4)] == [0.25] * 4
    separation, pitch = _plain(_batch(), [(1, 1), (1, 1.5), (1.5, 1), (1, 1.5)])
    np.testing.assert_allclose(loss, separation + 0.5 * pitch, rtol=1e-4)


def test_a_segment_whose_true_source_is_unknown_counts_once():
    batch = _batch()
    batch["has_stems"][2:, 0] = False
    _, (_, terms) = _loss(_params(), batch, dynamic=HardSamples("fixed"))
    assert [float(terms[f"share_case{case}"]) for case in (1, 2, 3, 4)] == [0.5, 0.5, 0, 0]
    _, pitch = _plain(_batch(), [(1, 1), (1, 2), (1, 1), (1, 1)])
    np.testing.assert_allclose(terms["pitch"], pitch, rtol=1e-4)


def test_frames_have_cases_and_weights_of_their_own():
    """Half of each segment's labelled frames are as in the third segment: pitch weights by frame,
    separation's by share.
    """
    batch = _batch()
    batch["stems"][:, : 3 * HOP] = batch["stems"][2:3, : 3 * HOP]
    dynamic = HardSamples("fixed", largest_increase=0.5, middle_weight=1.2, grain="frame")
    _, (_, terms) = _loss(_params(), batch, dynamic=dynamic)
    shares = [float(terms[f"share_case{case}"]) for case in (1, 2, 3, 4)]
    np.testing.assert_allclose(shares, [3 / 24, 3 / 24, 15 / 24, 3 / 24], rtol=1e-6)
    separation, _ = _plain(batch, [(1.25, 1), (1.25, 1), (1.5, 1), (1.25, 1)])
    np.testing.assert_allclose(terms["separation"], separation, rtol=1e-5)
    of_frames = np.ones((BATCH, FRAMES))
    of_frames[[1, 3], 3:] = 1.5
    np.testing.assert_allclose(terms["pitch"], _plain_pitch(batch, of_frames), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["robust", "self_paced"])
@pytest.mark.parametrize("grain", ["segment", "frame"])
def test_the_weight_module_learns_and_its_inputs_carry_no_gradient(objective, grain):
    module, dynamic = WeightModule((8,)), HardSamples(objective, grain=grain)
    params = _params(module=module)

    def loss(params, only):
        weights = {"separation": 0.0, "pitch": 0.0, "pitch_on_target": 0.0, "weighting": 0.0}
        weights = weights | dict.fromkeys(only, 1.0)
        return _loss(params, _batch(), dynamic=dynamic, module=module, weights=weights)[0]

    def size(tree):
        return sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(tree))

    own = jax.grad(loss)(params, ["weighting"])
    assert size(own["separator"]) == size(own["pitch"]) == 0.0
    assert size(own["weight_module"]) > 0
    tasks = jax.grad(loss)(params, ["separation", "pitch"])
    assert (size(tasks["weight_module"]) > 0) == (objective == "self_paced")
    assert size(tasks["separator"]) > 0 and size(tasks["pitch"]) > 0


def test_trained_apart_the_estimator_hears_the_truth():
    with_noise, without = _batch(), _batch()
    without["stems"][:, :, 1] = 0
    for joint, equal in ((False, True), (True, False)):
        heard = [
            float(_loss(_params(), b, joint=joint)[1][1]["pitch"]) for b in (with_noise, without)
        ]
        assert (heard[0] == heard[1]) == equal


def test_trained_apart_the_pitch_of_an_unknown_source_does_not_count():
    batch, without = _batch(), _batch()
    batch["has_stems"][2:, 0] = False
    without["has_pitch"][2:] = False
    for joint, equal in ((False, True), (True, False)):
        heard = [_loss(_params(), b, joint=joint)[1][1]["pitch"] for b in (batch, without)]
        assert np.isclose(*heard, rtol=1e-6) == equal


def test_the_pitch_of_the_true_source_is_a_term_only_if_it_counts():
    weights = {"separation": 1.0, "pitch": 1.0, "pitch_on_target": 0.5, "weighting": 1.0}
    loss, (_, terms) = _loss(_params(), _batch(), weights=weights)
    _, (_, apart) = _loss(_params(), _batch(), joint=False)
    np.testing.assert_allclose(terms["pitch_on_target"], apart["pitch"], rtol=1e-6)
    expected = terms["separation"] + terms["pitch"] + 0.5 * terms["pitch_on_target"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert "pitch_on_target" not in _loss(_params(), _batch())[1][1]


def test_silence_gives_finite_gradients():
    batch = _batch()
    batch["stems"][:] = 0
    module = WeightModule((8,))
    gradient = jax.grad(lambda p: _loss(p, batch, dynamic=HardSamples("robust"), module=module)[0])(
        _params(module=module)
    )
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradient))
