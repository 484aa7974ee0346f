"""The losses of SS-MPE against the authors' values and gradients, closed forms, and at silence."""

import functools

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.losses import salience_terms
from majl_jax.losses.salience_terms import gated_mean


@pytest.fixture(scope="module")
def golden():
    return golden_files.read("ss_mpe_ops")


def _first(x):
    """Bins last."""
    return jnp.swapaxes(jnp.asarray(x), 1, 2)


def _closed_form():
    """Logits, salience and labels of 2 items, 7 frames and 12 bins, from an index that runs over
    (item, bin, frame).
    """
    i = np.arange(2 * 12 * 7).reshape(2, 12, 7)
    arrays = 3 * np.sin(0.9 * i + 0.2), 0.5 + 0.5 * np.sin(0.31 * i + 1), np.sin(0.77 * i) > 0.6
    return tuple(_first(x.astype(np.float32)) for x in arrays)


def _losses(salience, truth, gate):
    """Name to (function of logits giving frames, gate)."""
    part = functools.partial
    everywhere = jnp.ones_like(gate)
    return {
        "energy": (part(salience_terms.energy, salience=salience), everywhere),
        "support": (part(salience_terms.support, level=salience), everywhere),
        "harmonic": (part(salience_terms.harmonic, salience=salience), everywhere),
        "sparsity": (salience_terms.sparsity, everywhere),
        "entropy": (salience_terms.entropy, everywhere),
        "supervised": (part(salience_terms.bce, targets=truth), everywhere),
        "supervised_positive_weighted": (
            part(salience_terms.positive_weighted_bce, targets=truth),
            everywhere,
        ),
        "supervised_rms_gated": (part(salience_terms.bce, targets=truth), gate),
        "content_k1": (salience_terms.content, everywhere),
        "content_k3_rms_gated": (part(salience_terms.content, peaks=3), gate),
        "contrastive": (salience_terms.contrastive, everywhere),
        "contrastive_rms_gated": (salience_terms.contrastive, gate),
    }


NAMES = tuple(_losses(jnp.zeros((1, 1, 1)), jnp.zeros((1, 1, 1)), jnp.ones((1, 1), bool)))


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_of_the_original(golden, name):
    _, inputs, output, config = golden
    gate = inputs["loss/rms"] >= config["loss_defaults"]["rms_thr"]
    assert gate.any() and not gate.all()
    salience, truth = (_first(inputs[f"loss/{x}"]) for x in ("salience", "ground_truth"))
    loss, mask = _losses(salience, truth, gate)[name]
    value, gradient = jax.value_and_grad(lambda z: gated_mean(loss(z), mask))(
        _first(inputs["loss/logits"])
    )
    tolerance = 1e-4 if name.startswith("contrastive") else 1e-5
    np.testing.assert_allclose(value, output[f"loss/{name}"], rtol=tolerance)
    expected = _first(output[f"loss_grad_logits/{name}"])
    np.testing.assert_allclose(gradient, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("energy", 13.717165),
        ("support", 6.655474),
        ("harmonic", 7.061692),
        ("sparsity", 6.002916),
        ("entropy", 2.339087),
        ("supervised", 13.343576),
        ("supervised_positive_weighted", 18.820103),
        ("content_k1", 1.871065),
        ("contrastive", 0.692242),
    ],
)
def test_known_answers(name, expected):
    logits, salience, truth = _closed_form()
    assert truth.sum() == 52
    loss, mask = _losses(salience, truth, jnp.ones((2, 7), bool))[name]
    np.testing.assert_allclose(gated_mean(loss(logits), mask), expected, rtol=2e-6)


def test_bce_by_a_loop():
    logits, salience, _ = _closed_form()
    expected = np.zeros((2, 7))
    for i, k, b in np.ndindex(2, 7, 12):
        p, y = 1 / (1 + np.exp(-float(logits[i, k, b]))), float(salience[i, k, b])
        expected[i, k] -= y * np.log(p) + (1 - y) * np.log(1 - p)
    found = salience_terms.bce(logits, salience)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_support_and_harmonic_add_up_to_energy():
    logits, salience, _ = _closed_form()
    sides = salience_terms.support(logits, salience) + salience_terms.harmonic(logits, salience)
    np.testing.assert_allclose(sides, salience_terms.energy(logits, salience), rtol=1e-5)


def test_positive_weights_balance_a_frame():
    # At logit 0 every bin costs log 2; one positive of four counts three times. A frame without or
    # with only positives: once.
    targets = jnp.array([[[1.0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]])
    found = salience_terms.positive_weighted_bce(jnp.zeros((1, 3, 4)), targets)
    np.testing.assert_allclose(found, np.log(2) * np.array([[6, 4, 4]]), rtol=1e-6)


def test_content_asks_for_the_highest_peaks_only():
    logits = jnp.full((1, 1, 40), -4.0).at[0, 0, jnp.array([5, 20, 33])].set(jnp.array([3.0, 1, 2]))
    logits = logits.at[0, 0, 6].set(2.5)  # high, but no peak
    gradient = np.asarray(jax.grad(lambda z: salience_terms.content(z, peaks=2).sum())(logits))[
        0, 0
    ]
    near = np.minimum(abs(np.arange(40) - 5), abs(np.arange(40) - 33)) <= 4
    assert np.all(gradient[near] < 0) and not gradient[~near].any()
    bare = salience_terms.content(logits, peaks=2, width_bins=0.0)
    np.testing.assert_allclose(bare[0, 0], np.log1p(np.exp(-3)) + np.log1p(np.exp(-2)), rtol=1e-5)
    with pytest.raises(ValueError, match="peaks=41"):
        salience_terms.content(logits, peaks=41)


def test_content_has_as_many_targets_as_there_are_peaks():
    flat = jnp.zeros((1, 2, 9)).at[0, 1, 4].set(1.0)
    found = salience_terms.content(flat, peaks=3, width_bins=0.0)
    np.testing.assert_allclose(found, [[0.0, np.log1p(np.exp(-1.0))]], rtol=1e-6)


def test_contrastive_by_a_loop_and_its_limits():
    logits, _, _ = _closed_form()
    logits = jnp.concatenate([logits, logits[::-1, ::-1] * 0.3])
    salience = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    expected = np.zeros((4, 7))
    for i, k in np.ndindex(4, 7):
        cosines = [
            salience[i, k] @ other / np.linalg.norm(salience[i, k]) / np.linalg.norm(other)
            for other in salience[:, k]
        ]
        weights = np.exp(np.array(cosines) / 0.2)
        expected[i, k] = -np.log(weights[i] / weights.sum())
    found = salience_terms.contrastive(logits, temperature=0.2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    alike = salience_terms.contrastive(jnp.tile(logits[:1], (4, 1, 1)))
    np.testing.assert_allclose(alike, np.full((4, 7), np.log(4)), rtol=1e-5)
    assert not salience_terms.contrastive(logits[:1]).any()


def test_the_gate_averages_items_not_frames():
    values = jnp.array([[1.0, 3, 100], [10, 100, 100], [100, 100, 100]])
    mask = jnp.array([[True, True, False], [True, False, False], [False, False, False]])
    assert gated_mean(values, mask) == 6.0
    assert gated_mean(values, jnp.zeros_like(mask)) == 0.0
    gradient = jax.grad(lambda v: gated_mean(v, mask))(jnp.where(mask, values, jnp.nan))
    np.testing.assert_allclose(gradient, [[0.25, 0.25, 0], [0.5, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("name", NAMES)
def test_finite_at_silence_and_for_any_logit(name):
    logits = jnp.array([-1e30, -1e4, -100.0, 0.0, 100.0, 1e4])[:, None, None] * jnp.ones((6, 3, 8))
    salience = jnp.broadcast_to(jnp.array([0.0, 0.5, 1.0])[:, None], logits.shape)
    loss, mask = _losses(salience, salience, jnp.zeros(logits.shape[:2], bool))[name]
    values, gradient = loss(logits), jax.grad(lambda z: gated_mean(loss(z), mask))(logits)
    assert np.all(np.isfinite(values)) and np.all(np.isfinite(gradient))


def test_blank_logits_are_pulled_both_ways():
    # The gradient at 0 is where a formula with |z| would be wrong.
    targets = jnp.array([[[0.0, 0.3, 1.0]]])
    gradient = jax.grad(lambda z: salience_terms.bce(z, targets).sum())(jnp.zeros((1, 1, 3)))
    np.testing.assert_allclose(gradient[0, 0], [0.5, 0.2, -0.5], atol=1e-7)
