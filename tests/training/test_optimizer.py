import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from majl_jax.training import optimizer as training_optimizer
from majl_jax.training import parameters, schedules


def test_schedules_give_the_numbers_of_their_formulas():
    decay = schedules.step_decay(0.1, factor=0.95, every_steps=10)
    np.testing.assert_allclose(
        [decay(0), decay(9), decay(10), decay(35)], 0.1 * 0.95 ** np.array([0, 0, 1, 3])
    )
    assert schedules.constant(3e-4)(jnp.int32(77)) == 3e-4
    warmup = schedules.linear_warmup(3e-4, warmup_steps=100)
    np.testing.assert_allclose([warmup(s) for s in (0, 50, 100, 999)], [0, 1.5e-4, 3e-4, 3e-4])
    cosine = schedules.warmup_cosine(1.0, warmup_steps=10, total_steps=110, end=0.1)
    expected = [0.0, 0.5, 1.0, 0.1 + 0.9 / 2, 0.1, 0.1]
    np.testing.assert_allclose([cosine(s) for s in (0, 5, 10, 60, 110, 999)], expected, atol=1e-7)


def test_the_warmup_of_ss_mpe_reaches_its_peak_and_stays():
    rate = schedules.cosine_warmup(5e-4, warmup_steps=400)
    found = [float(rate(step)) for step in (0, 10, 200, 400, 9000)]
    np.testing.assert_allclose(found, [7.672e-9, 9.278e-7, 2.5098e-4, 5e-4, 5e-4], rtol=2e-4)
    with pytest.raises(ValueError, match="warmup_steps is -1"):
        schedules.cosine_warmup(1.0, warmup_steps=-1)


def test_the_schedules_of_mixit_give_the_rates_of_the_authors_code():
    """Multipliers at update n, the first being 1, as the released schedule computes them."""
    times = {"decay_from": 4001, "decay_every": 2038, "decay_to": 152_850}
    rate = schedules.warmup_decay(1e-3, warmup_steps=4000, factor=0.965, **times)
    known = {1: 0, 2000: 4.999e-4, 4001: 1e-3, 6039: 9.65e-4, 50_000: 4.567e-4}
    known |= {100_000: 1.874e-4, 152_850: 7.42e-5, 999_999: 7.42e-5}
    np.testing.assert_allclose([rate(n - 1) for n in known], list(known.values()), rtol=5e-4)
    times = {"decay_from": 60_500, "decay_every": 220, "decay_to": 99_000}
    rate = schedules.warmup_decay(1.0, warmup_steps=5000, factor=0.98, **times)
    np.testing.assert_allclose(
        [rate(n - 1) for n in (5000, 60_000, 80_000, 99_000)], [1, 1, 0.169, 0.0291], rtol=2e-3
    )
    with pytest.raises(ValueError, match="expected 2 <= warmup_steps <= decay_from"):
        schedules.warmup_decay(1.0, warmup_steps=5, factor=0.9, **{**times, "decay_from": 4})


def test_parts_of_a_network_have_learning_rates_of_their_own():
    params = {"encoder": jnp.ones(3), "decoder": jnp.ones(3)}
    grads = {"encoder": jnp.array([1.0, -2.0, 3.0]), "decoder": jnp.array([1.0, -2.0, 3.0])}
    rules = (("decoder.*", 0.5), (".*", 1.0))
    ours = training_optimizer.optimizer(1e-2, weight_decay=0.01, rate_factors=rules)
    theirs = {
        name: optax.adamw(rate, weight_decay=0.01)
        for name, rate in (("encoder", 1e-2), ("decoder", 5e-3))
    }
    state, states = ours.init(params), {k: t.init(params[k]) for k, t in theirs.items()}
    for _ in range(3):
        updates, state = ours.update(grads, state, params)
        for name, transformation in theirs.items():
            expected, states[name] = transformation.update(grads[name], states[name], params[name])
            np.testing.assert_allclose(updates[name], expected, rtol=1e-6)
    with pytest.raises(
        ValueError, match="no pattern of rate_factors matches the parameter 'encoder'"
    ):
        training_optimizer.scale_by_rules((("decoder", 0.5),)).update(
            grads, optax.EmptyState(), params
        )


def test_schedules_refuse_nonsense():
    with pytest.raises(ValueError, match="every_steps is 0"):
        schedules.step_decay(0.1, every_steps=0)
    with pytest.raises(ValueError, match="warmup_steps is 10; expected 0 to total_steps"):
        schedules.warmup_cosine(1.0, warmup_steps=10, total_steps=10)


def test_a_plateau_lowers_the_rate_where_torch_does():
    """After the validations at which torch.optim.lr_scheduler.ReduceLROnPlateau (torch 2.13)
    did.
    """
    values = [(n + 1) ** -0.5 + 0.2 * np.sin(7 * n * n) for n in range(60)]
    for patience, lowered in ((5, [47]), (2, [10, 14, 18, 23, 27, 44, 47, 50, 54])):
        plateau = schedules.Plateau("loss", factor=0.5, patience=patience)
        factors = [plateau.rate_factor(values[: n + 1]) for n in range(60)]
        assert [n for n in range(1, 60) if factors[n] != factors[n - 1]] == lowered
        assert factors[-1] == 0.5 ** len(lowered)
    plateau = schedules.Plateau("loss", patience=1)
    values = [1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.8]
    known = [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.125]
    assert [plateau.rate_factor(values[: n + 1]) for n in range(10)] == known
    assert plateau.rate_factor([]) == 1.0


def test_a_plateau_scales_the_updates():
    params, grads = {"w": jnp.ones(3)}, {"w": jnp.array([1.0, -2.0, 3.0])}
    optimizer = training_optimizer.optimizer(1e-2, plateau=True)
    state = optimizer.init(params)
    whole, _ = optimizer.update(grads, state, params)
    lowered = training_optimizer.at_plateau(state, np.float32(0.25))
    part, state = optimizer.update(grads, lowered, params)
    np.testing.assert_allclose(part["w"], 0.25 * whole["w"], rtol=1e-6)
    assert training_optimizer.step_metrics(state)["plateau_factor"] == 0.25
    with pytest.raises(ValueError, match="make it with plateau=True"):
        training_optimizer.at_plateau(training_optimizer.optimizer(1e-2).init(params), 0.5)


@pytest.mark.parametrize("history_steps", [64, 7])
@pytest.mark.parametrize("percentile", [10.0, 50.0])
def test_auto_clip_is_a_percentile_of_the_norms_so_far(history_steps, percentile):
    clip = training_optimizer.clip_by_percentile(
        training_optimizer.AutoClip(percentile, history_steps)
    )
    rng = np.random.default_rng(0)
    state, update, norms = clip.init(None), jax.jit(clip.update), []
    for _ in range(40):
        grads = {
            "a": rng.standard_normal(5),
            "b": rng.standard_normal((2, 3)) * rng.uniform(0.1, 9),
        }
        grads = jax.tree.map(lambda g: g.astype(np.float32), grads)
        norms.append(np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in grads.values())))
        clipped, state = update(grads, state)
        bound = np.percentile(norms[-history_steps:], percentile)
        np.testing.assert_allclose(state.clip_norm, bound, rtol=1e-5)
        scale = min(1.0, bound / (norms[-1] + 1e-6))
        jax.tree.map(
            lambda c, g, k=scale: np.testing.assert_allclose(c, g * k, rtol=1e-5), clipped, grads
        )


@pytest.mark.parametrize("percentile", [10, 25])
def test_auto_clip_is_that_of_its_authors(percentile):
    _, inputs, output, _ = golden_files.read("chimera")
    settings = training_optimizer.AutoClip(float(percentile), history_steps=64)
    clip = training_optimizer.clip_by_percentile(settings)
    state, update, thresholds, clipped = clip.init(None), jax.jit(clip.update), [], []
    for norm in np.asarray(inputs["autoclip/grad_norms"], np.float32):
        updates, state = update({"w": np.array([0.6, -0.8], np.float32) * norm}, state)
        thresholds.append(state.clip_norm)
        clipped.append(np.linalg.norm(updates["w"]))
    for found, name in ((thresholds, "threshold"), (clipped, "clipped_norm")):
        np.testing.assert_allclose(found, output[f"autoclip/{name}_p{percentile}"], rtol=1e-5)


def test_steps_without_a_gradient_do_not_lower_what_auto_clip_clips_to():
    clip = training_optimizer.clip_by_percentile(training_optimizer.AutoClip(10.0, 8))
    state, update, above_0 = clip.init(None), jax.jit(clip.update), []
    for norm in (0.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0, *(5.0, 0.0) * 8):
        updates, state = update({"w": jnp.array([0.6, -0.8]) * norm}, state)
        above_0 += [norm] * (norm > 0)
        bound = np.percentile(above_0[-8:], 10.0) if above_0 else 0.0
        np.testing.assert_allclose(state.clip_norm, bound, rtol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(updates["w"]), min(norm, bound), rtol=1e-5)
    assert state.steps == len(above_0) == 11


def test_optimizer_is_adam_or_adamw_after_clipping():
    params = {"w": jnp.arange(4.0)}
    grads = {"w": jnp.array([3.0, -4.0, 0.0, 12.0])}  # norm 13

    def updates(transformation, count=3):
        state = transformation.init(params)
        for _ in range(count):
            out, state = transformation.update(grads, state, params)
        return out["w"], state

    ours, _ = updates(training_optimizer.optimizer(1e-2))
    np.testing.assert_allclose(ours, updates(optax.adam(1e-2))[0], rtol=1e-6)
    ours, _ = updates(training_optimizer.optimizer(1e-2, weight_decay=0.1))
    np.testing.assert_allclose(ours, updates(optax.adamw(1e-2, weight_decay=0.1))[0], rtol=1e-6)
    # eps as large as the gradient makes Adam's step depend on its size, and so shows the clipping
    ours, _ = updates(
        training_optimizer.optimizer(1e-2, clip_norm=1.3, adam=training_optimizer.Adam(eps=1.0))
    )
    theirs, _ = updates(optax.chain(optax.clip_by_global_norm(1.3), optax.adam(1e-2, eps=1.0)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    unclipped, _ = updates(optax.adam(1e-2, eps=1.0))
    assert np.max(np.abs(ours - unclipped)) > 1e-3
    with pytest.raises(ValueError, match="not by both"):
        training_optimizer.optimizer(1e-2, clip_norm=1.0, auto_clip=training_optimizer.AutoClip())


def test_accumulated_gradients_make_one_update_and_schedules_count_updates():
    rate = schedules.step_decay(0.1, factor=0.5, every_steps=1)
    params = {"w": jnp.array([1.0, -2.0])}
    gradients = [{"w": jnp.array(g)} for g in ([1.0, 0.0], [0.0, 3.0], [2.0, 2.0], [1.0, 0.0])]
    whole, parts = (
        training_optimizer.optimizer(rate, clip_norm=1.0, accumulate_steps=n) for n in (1, 2)
    )
    state, expected = whole.init(params), params
    for first, second in (gradients[:2], gradients[2:]):
        mean = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
        updates, state = whole.update(mean, state, expected)
        expected = optax.apply_updates(expected, updates)
    state, found = parts.init(params), params
    for number, gradient in enumerate(gradients):
        updates, state = parts.update(gradient, state, found)
        assert np.any(updates["w"]) == number % 2
        found = optax.apply_updates(found, updates)
    np.testing.assert_allclose(found["w"], expected["w"], rtol=1e-6)
    np.testing.assert_allclose(training_optimizer.step_metrics(state)["learning_rate"], 0.05)


def test_step_metrics_tell_learning_rate_and_clip_norm_through_frozen_parts():
    schedule = schedules.step_decay(0.1, factor=0.5, every_steps=2)
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}
    mask = {"a": True, "b": False}
    made = parameters.only_trainable(
        training_optimizer.optimizer(schedule, auto_clip=training_optimizer.AutoClip()), mask
    )
    state, rates = made.init(params), []
    for _ in range(4):
        _, state = made.update(params, state, params)
        rates.append(float(training_optimizer.step_metrics(state)["learning_rate"]))
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.05, 0.05])
    # the frozen b has no share in the norm
    np.testing.assert_allclose(
        training_optimizer.step_metrics(state)["clip_norm"], np.sqrt(3), rtol=1e-6
    )
    assert training_optimizer.step_metrics(optax.sgd(0.1).init(params)) == {}


def test_frozen_leaves_do_not_move_not_even_by_weight_decay():
    params = {"enc": jnp.ones(3), "head": jnp.ones(2)}
    grads = jax.tree.map(lambda p: jnp.full_like(p, 0.5), params)
    mask = parameters.trainable_mask(params, (("enc", False), (".*", True)))
    made = parameters.only_trainable(optax.adamw(1e-2, weight_decay=0.1), mask)
    updates, state = made.update(grads, made.init(params), params)
    moved = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(moved["enc"], params["enc"])
    np.testing.assert_allclose(moved["head"], 1 - 0.011, rtol=1e-6)
    assert not any(np.shape(x) == (3,) for x in jax.tree.leaves(state)), "moments of a frozen leaf"
    # the clipping sees the trainable part only: norm of head alone is 0.5 * sqrt(2)
    made = parameters.only_trainable(
        optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(1.0)), mask
    )
    updates, _ = made.update(grads, made.init(params), params)
    np.testing.assert_allclose(updates["head"], -0.5 / np.sqrt(2), rtol=1e-6)


def test_trainable_rules():
    params = {"unet": {"a": np.zeros(1), "b": np.zeros(1)}, "head": np.zeros(1)}
    rules = (("unet/a", True), ("unet/.*", False), (".*", True))
    assert parameters.trainable_mask(params, rules) == {
        "unet": {"a": True, "b": False},
        "head": True,
    }
    with pytest.raises(ValueError, match="no pattern of trainable matches the parameter 'head'"):
        parameters.trainable_mask(params, (("unet/.*", True),))
    with pytest.raises(ValueError, match=r"match no parameter: \['une'\]"):  # whole paths only
        parameters.trainable_mask(params, (("une", False), (".*", True)))
    with pytest.raises(ValueError, match="freezes every parameter"):
        parameters.trainable_mask(params, ((".*", False),))


def test_no_gradient_is_computed_for_frozen_leaves():
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}
    mask = {"a": False, "b": True}

    def loss(p):
        p = parameters.stop_frozen(p, mask)
        return jnp.sum(p["a"]) ** 2 + jnp.sum(p["b"]) ** 2

    grads = jax.grad(loss)(params)
    np.testing.assert_array_equal(grads["a"], 0)
    np.testing.assert_array_equal(grads["b"], 4)
