"""MixIT and the thresholded SNR against the authors' values and gradients, NumPy loops, known
answers, and at silence.
"""

import functools

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax.losses import mixit

CASES = ("random_mono", "quiet", "paper_size")
T = np.arange(8)
R1, R2 = np.sin(T), 0.5 * np.cos(2 * T)


@pytest.fixture(scope="module")
def golden():
    _, inputs, output, _ = golden_files.read("mixit_loss")
    return inputs, output


def _time_second(x):
    """[batch, source, channel, time] as [batch, time, source, channel]."""
    return jnp.transpose(jnp.asarray(x), (0, 3, 1, 2))


@functools.cache
def _mixit(assignment):
    """A jitted (estimates, mixtures) -> ((mean, (values, assignment)), gradient of the mean)."""

    def loss(estimates, mixtures):
        values, chosen = mixit.mixit(estimates, mixtures, assignment=assignment)
        return values.mean(), (values, chosen)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


_all_losses = jax.jit(mixit.all_losses)
_coefficients = jax.jit(mixit.least_squares_coefficients, static_argnames="ridge")
_neg_snr_jax = jax.jit(mixit.thresholded_neg_snr, static_argnames=("max_snr_db", "axis"))


def _leaky(seed, batch=3, outputs=5, time=60, channels=2, leak=0.5):
    """Outputs that are sources with something of each other, and two mixtures of the sources;
    which went where.
    """
    rng = np.random.default_rng(seed)
    sources = rng.standard_normal((batch, time, outputs, channels))
    sides = rng.integers(0, 2, (batch, outputs))
    sides[:, :2] = 0, 1
    mixtures = np.stack([_sums(sources, sides == m) for m in (0, 1)], axis=2)
    noise = leak * rng.standard_normal((batch, outputs, outputs))
    estimates = sources + np.einsum("btnc,bnl->btlc", sources, noise)
    return jnp.asarray(estimates, jnp.float32), jnp.asarray(mixtures, jnp.float32), sides


def _sums(sources, chosen):
    return np.einsum("btnc,bn->btc", sources, chosen.astype(float))


def _neg_snr(estimate, reference, max_snr_db=30.0):
    """The formula in float64, over axis 1."""
    tau = 10 ** (-max_snr_db / 10)
    noise = np.sum((reference - estimate) ** 2, axis=1)
    power = np.sum(reference**2, axis=1)
    return 10 * np.log10(noise + tau * power + 1e-8) - 10 * np.log10(power + 1e-8)


def _loop(estimates, mixtures):
    """The loss of every choice, from the sums themselves."""
    estimates, mixtures = np.asarray(estimates, np.float64), np.asarray(mixtures, np.float64)
    batch, _, outputs, _ = estimates.shape
    losses = np.zeros((batch, 2**outputs))
    for k in range(2**outputs):
        for m in (0, 1):
            chosen = np.array([(k >> n) & 1 == m for n in range(outputs)])
            total = estimates[:, :, chosen].sum(axis=2)
            losses[:, k] += _neg_snr(total, mixtures[:, :, m]).mean(axis=1) / 2
    return losses


# ---- the originals ------------------------------------------------------------------------------


@pytest.mark.parametrize("maximum", [30, 20, None])
def test_thresholded_snr_of_the_original(golden, maximum):
    inputs, output = golden
    found = _neg_snr_jax(inputs["snr/est"], inputs["snr/ref"], max_snr_db=maximum, axis=2)
    expected = output[f"snr/neg_snr_db_max{maximum}_per_source"]
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def test_supervised_loss_of_the_original(golden):
    inputs, output = golden
    estimates, references = (
        jnp.transpose(inputs[f"supervised/{name}"], (0, 3, 2, 1)) for name in ("est", "ref")
    )

    def loss(estimates):
        values = mixit.inactive_sources(estimates, references)
        return values.mean(), values

    (mean, values), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(estimates)
    expected = output["supervised/loss_per_example_channel"]
    np.testing.assert_allclose(values.mean(axis=1), expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(mean, output["supervised/loss"], atol=1e-4, rtol=0)
    gradient = jnp.transpose(gradient, (0, 3, 2, 1))
    assert golden_files.relative_error(gradient, output["supervised/loss_grad"]) < 1e-4


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("assignment", mixit.ASSIGNMENTS)
def test_mixit_of_the_original(golden, case, assignment):
    inputs, output = golden
    estimates, mixtures = (_time_second(inputs[f"{case}/{name}"]) for name in ("est", "mixtures"))
    (mean, (values, chosen)), gradient = _mixit(assignment)(estimates, mixtures)
    expected = {
        name: output[f"{case}/{assignment}_{name}"] for name in ("assignment", "neg_snr_db", "loss")
    }
    np.testing.assert_array_equal(chosen, expected["assignment"])
    np.testing.assert_allclose(np.swapaxes(values, 1, 2), expected["neg_snr_db"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(mean, expected["loss"], atol=1e-4, rtol=0)
    if case != "paper_size":
        gradient_of_original = _time_second(output[f"{case}/{assignment}_loss_grad"])
        assert golden_files.relative_error(gradient, gradient_of_original) < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_losses_and_coefficients_of_the_original(golden, case):
    inputs, output = golden
    estimates, mixtures = (_time_second(inputs[f"{case}/{name}"]) for name in ("est", "mixtures"))
    found = _all_losses(estimates, mixtures)
    np.testing.assert_allclose(found, output[f"{case}/all_losses"], atol=1e-3, rtol=0)
    expected = output[f"{case}/least_squares_coefficients"]
    for ridge, tolerance in ((0.0, 1e-5), (1e-6, 2e-5)):  # the original has none
        found = _coefficients(estimates, mixtures, ridge=ridge)
        np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)


# ---- known answers ------------------------------------------------------------------------------


def test_thresholded_snr_has_known_values():
    estimate, reference = np.stack([0.9 * R1 + 0.1 * R2, 0.8 * R2]), np.stack([R1, R2])
    estimate, reference = jnp.asarray(estimate, jnp.float32), jnp.asarray(reference, jnp.float32)
    found = _neg_snr_jax(estimate, reference)
    np.testing.assert_allclose(found, [-18.56688, -13.87216], atol=2e-4)
    np.testing.assert_allclose(_neg_snr_jax(reference, reference), -30, atol=1e-3)
    np.testing.assert_allclose(
        _neg_snr_jax(jnp.zeros((2, 8)), reference, max_snr_db=None), 0, atol=1e-5
    )


def test_loss_of_inactive_sources_has_known_values():
    def stems(*signals):
        return jnp.asarray(np.stack(signals, axis=1)[None, :, :, None], jnp.float32)

    loss = jax.jit(mixit.inactive_sources)
    references = stems(R1, R2, 0 * R1)
    found = loss(stems(0.9 * R1, 0.8 * R2, 0.01 * R1), references)
    np.testing.assert_allclose(found[0, :, 0], [-19.58607, -13.87216, -2.31276], atol=2e-4)
    # A source just below and just above -60 dB of the sum, which is R1 but for 1e-3.
    for factor, expected_kind in ((0.9e-3, "inactive"), (1.2e-3, "active")):
        references = stems(R1, factor * R1)
        value = loss(stems(R1, 0 * R1), references)[0, 1, 0]
        power, whole = np.sum((factor * R1) ** 2), np.sum(((1 + factor) * R1) ** 2)
        inactive = 0.1 * 10 * np.log10(power + 1e-3 * whole + 1e-8)
        active = _neg_snr(np.zeros((1, 8)), factor * R1[None])[0]
        assert abs(inactive - active) > 0.5
        expected = {"inactive": inactive, "active": active}[expected_kind]
        np.testing.assert_allclose(value, expected, atol=1e-3)


@pytest.mark.parametrize("outputs, channels", [(1, 1), (3, 2), (5, 1)])
def test_all_losses_are_those_of_a_loop(outputs, channels):
    rng = np.random.default_rng(outputs)
    estimates = jnp.asarray(rng.standard_normal((2, 40, outputs, channels)), jnp.float32)
    mixtures = jnp.asarray(rng.standard_normal((2, 40, 2, channels)), jnp.float32)
    expected = _loop(estimates, mixtures)
    np.testing.assert_allclose(_all_losses(estimates, mixtures), expected, atol=1e-3)
    (_, (values, chosen)), _ = _mixit("exhaustive")(estimates, mixtures)
    index = (np.asarray(chosen) << np.arange(outputs)).sum(axis=1)
    np.testing.assert_array_equal(index, expected.argmin(axis=1))
    np.testing.assert_allclose(values.mean(axis=(1, 2)), expected.min(axis=1), atol=1e-4)


@pytest.mark.parametrize("assignment", mixit.ASSIGNMENTS)
def test_true_sources_go_where_they_came_from(assignment):
    estimates, mixtures, sides = _leaky(0, leak=0.0)
    (mean, (_, chosen)), _ = _mixit(assignment)(estimates, mixtures)
    np.testing.assert_array_equal(chosen, sides)
    np.testing.assert_allclose(mean, -30.0, atol=0.01)


# ---- properties ---------------------------------------------------------------------------------


def test_exhaustive_is_never_worse_than_least_squares():
    worse = 0
    for seed in range(4):
        estimates, mixtures, _ = _leaky(seed)
        (_, (best, _)), _ = _mixit("exhaustive")(estimates, mixtures)
        (_, (found, _)), _ = _mixit("least_squares")(estimates, mixtures)
        excess = np.asarray(found.mean(axis=(1, 2)) - best.mean(axis=(1, 2)))
        assert excess.min() >= -1e-4
        worse += int((excess > 0.1).sum())
    assert worse > 0  # or the two would be the same function


@pytest.mark.parametrize("assignment", mixit.ASSIGNMENTS)
def test_the_order_of_outputs_and_mixtures_does_not_matter(assignment):
    estimates, mixtures, _ = _leaky(7)
    (mean, (values, chosen)), gradient = _mixit(assignment)(estimates, mixtures)
    order = np.array([3, 0, 4, 1, 2])
    (_, (same, moved)), of_moved = _mixit(assignment)(estimates[:, :, order], mixtures)
    np.testing.assert_allclose(same, values, atol=1e-4)
    np.testing.assert_array_equal(moved, chosen[:, order])
    np.testing.assert_allclose(of_moved, gradient[:, :, order], atol=1e-5)
    (swapped_mean, (_, swapped)), _ = _mixit(assignment)(estimates, mixtures[:, :, ::-1])
    np.testing.assert_allclose(swapped_mean, mean, atol=1e-4)
    np.testing.assert_array_equal(swapped, 1 - chosen)


@pytest.mark.parametrize("assignment", mixit.ASSIGNMENTS)
def test_silence_gives_finite_values_and_gradients(assignment):
    estimates, mixtures, _ = _leaky(1)
    silence, no_mixtures = jnp.zeros_like(estimates), jnp.zeros_like(mixtures)
    alike = jnp.broadcast_to(estimates[:, :, :1], estimates.shape)
    one_silent = mixtures.at[:, :, 0].set(0)
    for pair in (
        (silence, no_mixtures),
        (silence, mixtures),
        (estimates, no_mixtures),
        (estimates, one_silent),
        (alike, mixtures),
        (estimates.at[..., 0].set(0), mixtures),
    ):
        (_, (values, chosen)), gradient = _mixit(assignment)(*pair)
        assert np.isfinite(values).all() and np.isfinite(gradient).all()
        assert set(np.unique(chosen)) <= {0, 1}
    np.testing.assert_allclose(_neg_snr_jax(no_mixtures, no_mixtures), 0, atol=1e-5)


def test_the_first_channel_decides_by_least_squares():
    estimates, mixtures, sides = _leaky(4, leak=0.0)
    mixtures = mixtures.at[..., 1].set(mixtures[:, :, ::-1, 1])
    (_, (_, chosen)), _ = _mixit("least_squares")(estimates, mixtures)
    np.testing.assert_array_equal(chosen, sides)


def test_the_choice_has_no_gradient_and_the_value_its_own():
    estimates, mixtures, _ = _leaky(5)
    (_, (_, chosen)), gradient = _mixit("exhaustive")(estimates, mixtures)

    def of_fixed(estimates):
        sums = mixit.assigned_sums(estimates, chosen)
        return mixit.thresholded_neg_snr(sums, mixtures).mean()

    np.testing.assert_allclose(gradient, jax.jit(jax.grad(of_fixed))(estimates), atol=1e-6)


def test_batches_of_batches():
    estimates, mixtures, _ = _leaky(6, batch=6)
    split = [x.reshape(2, 3, *x.shape[1:]) for x in (estimates, mixtures)]
    for assignment in mixit.ASSIGNMENTS:
        (_, (values, chosen)), _ = _mixit(assignment)(estimates, mixtures)
        of = functools.partial(mixit.mixit, assignment=assignment)
        mapped, mapped_chosen = jax.jit(jax.vmap(of))(*split)
        np.testing.assert_allclose(mapped.reshape(values.shape), values, atol=1e-4)
        np.testing.assert_array_equal(mapped_chosen.reshape(chosen.shape), chosen)


def test_bfloat16_outputs_are_summed_in_float32():
    estimates, mixtures, _ = _leaky(8)
    rounded = estimates.astype(jnp.bfloat16)
    (_, (values, _)), _ = _mixit("exhaustive")(rounded, mixtures)
    assert values.dtype == jnp.float32
    (_, (of_rounded, _)), _ = _mixit("exhaustive")(rounded.astype(jnp.float32), mixtures)
    np.testing.assert_array_equal(values, of_rounded)


def test_what_cannot_be_is_said():
    estimates, mixtures, _ = _leaky(0)
    with pytest.raises(ValueError, match=r"assignment='best' is not one of exhaustive, least_sq"):
        mixit.mixit(estimates, mixtures, assignment="best")
    with pytest.raises(ValueError, match="17 outputs have 131072 choices"):
        mixit.mixit(jnp.zeros((1, 4, 17, 1)), mixtures[:1, :4, :, :1])


@pytest.mark.slow
def test_no_output_goes_to_a_silent_mixture_by_least_squares():
    rng = np.random.default_rng(3)
    estimates = jnp.asarray(rng.normal(size=(2, 60, 4, 1)), jnp.float32)
    sounding = jnp.asarray(rng.normal(size=(2, 60, 1)), jnp.float32)
    for place in (0, 1):
        mixtures = jnp.stack([sounding, 0 * sounding], axis=2)[:, :, :: 1 - 2 * place]
        value, chosen = mixit.mixit(estimates, mixtures, assignment="least_squares")
        assert (chosen == place).all()
        np.testing.assert_allclose(value[:, 1 - place], 0.0, atol=1e-6)
