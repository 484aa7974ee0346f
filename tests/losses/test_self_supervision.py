"""SS-MPE's loss: its terms against a plain computation, whom they count, and where their gradients
go.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.audio import augmentation, harmonic_cqt, mixing, pitch
from majl_jax.losses import salience_terms
from majl_jax.losses.self_supervision import TERMS, Settings, self_supervised_loss

HOP, FRAMES, BATCH, BINS = 256, 24, 4, 48
FRONT_END = harmonic_cqt.HarmonicCqt(
    sample_rate_hz=8000,
    hop_samples=HOP,
    fmin_hz=220.0,
    bins=BINS,
    bins_per_octave=24,
    harmonics=(1.0, 2.0),
    aliased=False,
)
KEY = jax.random.key(3)
PARAMS = {"weight": jnp.array([4.0, 1.5]), "bias": jnp.array(-2.0)}


def _network(params, features):
    """A bin's logit from its own channels: changes of sound are heard, shifts move it along."""
    return features @ params["weight"] + params["bias"]


@pytest.fixture(scope="module")
def batch():
    """Two labelled tones, then an unlabelled one, then unlabelled silence."""
    time = np.arange(FRAMES * HOP) / 8000
    f0_hz = np.array([330.0, 440.0, 550.0, 0.0])
    tones = 0.3 * np.sin(2 * np.pi * f0_hz[:, None] * time) * (f0_hz > 0)[:, None]
    drums = np.random.default_rng(0).standard_normal((BATCH, FRAMES * HOP, 1)) * 0.1
    labels = np.broadcast_to(f0_hz[:, None, None], (BATCH, FRAMES, 1))
    has_pitch = np.zeros((BATCH, FRAMES, 1), bool)
    has_pitch[:2, 4:] = True
    return {
        "stems": np.round(tones[:, :, None, None] * 32768).astype(np.int16),
        "has_stems": np.zeros((BATCH, 1), bool),
        "f0_hz": labels.astype(np.float32),
        "has_pitch": has_pitch,
        "index": np.arange(10, 10 + BATCH, dtype=np.uint32),
        "percussion": np.round(drums * 32768).astype(np.int16),
    }


def _loss(batch, params=PARAMS, mutables=None, network=_network, weights=None, **settings):
    return self_supervised_loss(
        params,
        {} if mutables is None else mutables,
        jax.tree.map(jnp.asarray, batch),
        KEY,
        front_end=FRONT_END,
        network=network,
        settings=Settings(**settings),
        weights=weights or {name: 1.0 for name in TERMS},
    )


def _terms(batch, *names, **settings):
    return _loss(batch, weights={name: 1.0 for name in names}, **settings)[1][1]


@pytest.fixture(scope="module")
def heard(batch):
    """Audio, features, logits and targets of the untouched sound."""
    audio = batch["stems"][:, :, 0, 0] / 32768.0
    audio = jnp.asarray(audio, jnp.float32)
    features = harmonic_cqt.unit_decibels(FRONT_END.magnitudes(audio)[:, :-1])
    targets = pitch.multi_pitch_targets(
        jnp.where(jnp.asarray(batch["has_pitch"]), batch["f0_hz"], 0.0),
        fmin_hz=220.0,
        bins=BINS,
        bins_per_octave=24,
    )
    return audio, features, _network(PARAMS, features), targets


def _bce(logits, targets):
    logits, targets = np.asarray(logits, np.float64), np.asarray(targets, np.float64)
    on = 1 / (1 + np.exp(-logits))
    return -(targets * np.log(on) + (1 - targets) * np.log(1 - on)).sum(-1)


def test_supervision_counts_labelled_frames_and_energy_unlabelled_items(batch, heard):
    _, features, logits, targets = heard
    terms = _terms(batch, "supervised", "energy", "sparsity")
    np.testing.assert_allclose(terms["supervised"], _bce(logits, targets)[:2, 4:].mean(), rtol=1e-5)
    weighted = np.asarray(salience_terms.positive_weighted_bce(logits, targets))[:2, 4:].mean()
    found = _terms(batch, "supervised", weight_positives=True)["supervised"]
    np.testing.assert_allclose(found, weighted, rtol=1e-5)
    average = harmonic_cqt.harmonic_average(features, harmonics=(1.0, 2.0))
    np.testing.assert_allclose(terms["energy"], _bce(logits, average)[2:].mean(), rtol=1e-5)
    salience = 1 / (1 + np.exp(-np.asarray(logits)))
    np.testing.assert_allclose(terms["sparsity"], salience[2:].sum(-1).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        _terms(batch, "sparsity", energy_on="all")["sparsity"], salience.sum(-1).mean(), rtol=1e-5
    )
    mass = salience.sum(-1).mean(1)
    np.testing.assert_allclose(terms["activation_labelled"], mass[:2].mean(), rtol=1e-5)
    np.testing.assert_allclose(terms["activation_unlabelled"], mass[2:].mean(), rtol=1e-5)


def test_second_passes_compare_changed_sound_with_what_the_output_became(batch, heard):
    audio, features, logits, _ = heard
    salience = jax.nn.sigmoid(logits)
    keys = dict(zip(TERMS, jax.random.split(KEY, len(TERMS)), strict=True))
    index = jnp.asarray(batch["index"])
    keys = {name: mixing.example_keys(key, index) for name, key in keys.items()}
    terms = _terms(batch, "timbre", "percussion", "geometric")
    equalised = augmentation.parabolic_eq(
        features,
        augmentation.draw_parabolic(keys["timbre"]),
        harmonics=(1.0, 2.0),
        bins_per_octave=24,
    )
    expected = _bce(_network(PARAMS, equalised), salience).mean()
    np.testing.assert_allclose(terms["timbre"], expected, rtol=1e-5)
    volume = augmentation.draw_volume(keys["percussion"])
    mixed = audio + volume[:, None] * batch["percussion"][..., 0] / 32768.0
    louder = harmonic_cqt.unit_decibels(FRONT_END.magnitudes(mixed)[:, :-1])
    expected = _bce(_network(PARAMS, louder), salience).mean()
    np.testing.assert_allclose(terms["percussion"], expected, rtol=1e-4)
    geometry = augmentation.draw_geometry(keys["geometric"], shift_bins=24, shift_frames=6)
    move = functools.partial(augmentation.shift_and_stretch, **geometry)
    expected = _bce(_network(PARAMS, move(features)), move(salience)).mean()
    np.testing.assert_allclose(terms["geometric"], expected, rtol=1e-5)
    # Of ones, moved, a frame that is not padding keeps all in some bin.
    inside = np.asarray(move(jnp.ones_like(features)))[..., 0].max(-1) > 0.999
    assert 0.3 < inside.mean() < 1.0
    expected = _bce(_network(PARAMS, move(features)), move(salience))[inside].mean()
    masked = _terms(batch, "geometric", mask_padding=True)["geometric"]
    np.testing.assert_allclose(masked, expected, rtol=1e-5)
    assert abs(masked - terms["geometric"]) > 0.01


@pytest.mark.slow
def test_a_term_is_drawn_alike_whatever_other_terms_there_are(batch):
    alone, together = _terms(batch, "geometric"), _terms(batch, *TERMS)
    np.testing.assert_allclose(alone["geometric"], together["geometric"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("consistency", ["bce", "divergence", "categorical"])
def test_stop_gradient_leaves_only_the_gradient_through_the_changed_sound(batch, consistency):
    """With it the gradient is that of a target computed from other, fixed parameters of the same
    value.
    """

    def loss(params, target_params, **settings):
        def network(p, features):
            # The first part of the joint pass is the untouched sound, whose output is the target.
            clean, changed = jnp.split(features, 2)
            return jnp.concatenate([_network(target_params, clean), _network(p, changed)])

        weights = {"timbre": 1.0}
        return _loss(
            batch, params, network=network, weights=weights, consistency=consistency, **settings
        )[0]

    def whole(params, **settings):
        return loss(params, params, **settings)

    free = jax.grad(whole)(PARAMS)
    stopped = jax.grad(functools.partial(whole, stop_gradient=True))(PARAMS)
    fixed = jax.grad(loss)(PARAMS, PARAMS)
    np.testing.assert_allclose(stopped["weight"], fixed["weight"], rtol=1e-5)
    assert np.abs(np.asarray(free["weight"]) - fixed["weight"]).max() > 1e-3


def test_the_teacher_is_the_target_and_a_moving_average(batch):
    teacher = {"weight": jnp.array([1.0, 0.0]), "bias": jnp.array(0.5)}
    _, (mutables, terms) = _loss(
        batch, mutables={"teacher": teacher}, weights={"timbre": 1.0}, teacher_decay=0.9
    )
    moved = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, teacher, PARAMS)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6), mutables["teacher"], moved
    )
    assert abs(float(terms["timbre"]) - float(_terms(batch, "timbre")["timbre"])) > 1e-2

    def loss(params, teacher):
        return _loss(
            batch, params, {"teacher": teacher}, weights={"timbre": 1.0}, teacher_decay=0.9
        )[0]

    reaches = jax.grad(loss, argnums=1)(PARAMS, teacher)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(reaches))


@pytest.mark.slow
def test_anchors_are_the_labelled_pitches_mixed_into_unlabelled_items(batch, heard):
    audio, _, _, targets = heard
    found = _terms(batch, "anchored", anchor_gain_db=-6.0)["anchored"]
    mixed = audio[2:] + 10 ** (-6.0 / 20) * audio[:2]
    features = harmonic_cqt.unit_decibels(FRONT_END.magnitudes(mixed)[:, :-1])
    log_on = np.log1p(np.exp(-np.asarray(_network(PARAMS, features), np.float64)))
    expected = (np.asarray(targets[:2]) * log_on).sum(-1)[:, 4:].mean()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_activity_asks_the_unlabelled_items_for_a_share_of_the_labelled_activity(batch, heard):
    _, _, logits, targets = heard
    least = 30.0 * float(np.asarray(targets)[:2, 4:].sum(-1).mean())
    mass = (1 / (1 + np.exp(-np.asarray(logits[2])))).sum(-1).mean()  # the silent item is left out
    expected = max(0.0, least - float(mass)) ** 2
    found = _terms(batch, "activity", active_share=30.0)["activity"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert expected > 0


@pytest.mark.slow
def test_every_term_is_finite_in_silence_and_so_is_its_gradient(batch):
    silent = {**batch, "stems": 0 * batch["stems"], "percussion": 0 * batch["percussion"]}
    for some in (silent, {**batch, "has_pitch": np.zeros_like(batch["has_pitch"])}):
        for consistency in ("bce", "divergence", "categorical"):
            value, gradient = jax.value_and_grad(
                lambda p, b=some, c=consistency: _loss(b, p, consistency=c)[0]
            )(PARAMS)
            assert np.isfinite(value)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_what_has_no_weight_is_not_computed(batch):
    calls = []

    def network(params, features):
        calls.append(features.shape[0])
        return _network(params, features)

    _loss(batch, network=network, weights={name: float(name == "supervised") for name in TERMS})
    assert calls == [BATCH]
    without_drums = {k: v for k, v in batch.items() if k != "percussion"}
    _loss(without_drums, weights={"percussion": 0.0, "timbre": 1.0})
    with pytest.raises(ValueError, match="no drums in the batch"):
        _loss(without_drums, weights={"percussion": 1.0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"consistency": "l2"}, "self_supervision.consistency is 'l2'; expected one of bce"),
        ({"equalisation": "shelf"}, "equalisation is 'shelf'; expected one of parabolic"),
        ({"teacher_decay": 1.0}, "teacher_decay is 1.0; expected 0 <= decay < 1"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_a_weight_without_a_term_is_refused(batch):
    with pytest.raises(ValueError, match=r"config.weights names .'timber'.; the terms are"):
        _loss(batch, weights={"timber": 1.0})
    with pytest.raises(ValueError, match="there is nothing to learn from"):
        _loss(batch, weights={"timbre": 0.0})
