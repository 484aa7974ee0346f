"""Dynamic weights: the four cases in cents, their bounds, and whether they follow difficulty."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.majl import get_config as majl_config
from majl_jax import parallel
from majl_jax.audio import pitch
from majl_jax.losses import hard_samples
from majl_jax.losses.hard_samples import HardSamples, Samples
from majl_jax.models.weight_module import WeightModule, over_segments

BINS = pitch.CREPE_BIN_CENTS
COARSE_BINS = 1200 * np.log2(27.5 / 10) + 25.0 * np.arange(352)
ALL_CASES = jnp.arange(5)
OBJECTIVES = ("robust", "exact", "self_paced", "fixed")


def _salience(f0_hz, bins, height=0.9):
    peaks = pitch.gaussian_targets(jnp.asarray(f0_hz, jnp.float32), bins, width_cents=25.0)
    return height * peaks


def _right(salience, f0_hz, has_pitch=None, bins=BINS, right_share=0.5, voicing=0.5):
    f0_hz = jnp.asarray(f0_hz, jnp.float32)
    voiced = (f0_hz > 0) & (True if has_pitch is None else jnp.asarray(has_pitch))
    right = hard_samples.right_frames(salience, f0_hz, bins, tolerance_cents=50.0, voicing=voicing)
    return hard_samples.right_segments(right, voiced, right_share=right_share).tolist()


@pytest.mark.parametrize("bins", [BINS, COARSE_BINS], ids=["20 cents", "25 cents"])
@pytest.mark.parametrize(("cents", "right"), [(0, True), (45, True), (55, False), (1200, False)])
def test_pitch_is_compared_in_cents_whatever_the_bins(bins, cents, right):
    label_hz = np.full((1, 6), 311.0)
    heard = _salience(label_hz * 2 ** (cents / 1200), bins)
    assert _right(heard, label_hz, bins=bins) == [right]


def test_half_of_the_labelled_voiced_frames_have_to_be_right():
    label = np.array([[220.0, 220.0, 220.0, 220.0, 0.0, 0.0]])
    heard = np.array([[220.0, 220.0, 440.0, 440.0, 330.0, 330.0]])  # unvoiced frames do not count
    assert _right(_salience(heard, BINS), label) == [True]
    heard[0, 1] = 440.0
    assert _right(_salience(heard, BINS), label) == [False]
    unlabelled = np.array([[True, False, False, False, True, True]])
    assert _right(_salience(heard, BINS), label, unlabelled) == [True]
    assert _right(_salience(heard, BINS), label, right_share=0.25) == [True]


def test_a_voice_that_is_not_heard_as_voiced_is_not_right():
    label = np.full((1, 4), 220.0)
    assert _right(_salience(label, BINS, height=0.4), label) == [False]
    assert _right(_salience(label, BINS, height=0.4), label, voicing=0.3) == [True]


def test_frames_are_judged_one_by_one():
    label = jnp.array([[220.0, 220.0, 220.0, 0.0]])
    heard = _salience([[220.0, 440.0, 223.0, 220.0]], BINS)
    right = hard_samples.right_frames(heard, label, BINS, tolerance_cents=50.0, voicing=0.5)
    assert right.tolist() == [[True, False, True, False]]


def test_case_table():
    right = jnp.array([True, True, False, False, True])
    in_target = jnp.array([True, False, True, False, True])
    known = jnp.array([True, True, True, True, False])
    assert hard_samples.case_numbers(right, in_target, known).tolist() == [1, 2, 3, 4, 0]


def test_a_segment_s_shares_are_those_of_the_frames_whose_case_is_known():
    case = jnp.array([[1, 1, 3, 0], [0, 0, 0, 0], [4, 4, 4, 4]])
    np.testing.assert_allclose(
        hard_samples.segment_shares(case).T, [[2 / 3, 0, 1 / 3, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    )


# ---- weights ------------------------------------------------------------------------------------


def _samples(case=ALL_CASES, losses=None, seed=0):
    losses = np.random.default_rng(seed).gamma(2.0, 0.02, len(case)) if losses is None else losses
    return Samples(jnp.asarray(losses, jnp.float32), hard_samples.case_shares(jnp.asarray(case)))


def _scores(objective, shape, seed=0):
    if objective not in hard_samples.LEARNT:
        return None
    return jnp.asarray(5 * np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("task", "raised"), [(0, [0, 0, 0, 1, 0]), (1, [0, 0, 1, 0, 1])])
def test_weights_are_bounded_and_only_those_of_the_table_are_raised(objective, task, raised):
    settings = HardSamples(objective, largest_increase=0.5, middle_weight=1.2)
    weights, _ = hard_samples.weigh(_scores(objective, 5), _samples(), task, settings)
    weights, raised = np.asarray(weights), np.asarray(raised, bool)
    assert np.all(weights[~raised] == 1.0)  # case 1 and what is not selected: exactly
    assert np.all((weights[raised] > 1.0) & (weights[raised] <= 1.5))


def test_an_exponent_of_minus_one_lowers():
    settings = HardSamples("fixed", exponents=((0, 0), (0, -1), (1, 0), (1, 1)))
    weights = [hard_samples.weigh(None, _samples(), task, settings)[0] for task in (0, 1)]
    np.testing.assert_allclose(np.stack(weights, 1), [(1, 1), (1, 1), (1, 0.5), (2, 1), (2, 2)])


def test_a_segment_judged_by_its_frames_is_raised_by_their_share():
    shares = hard_samples.segment_shares(jnp.array([[1, 1, 1, 3], [3, 3, 0, 0], [1, 1, 1, 1]]))
    weights, _ = hard_samples.weigh(
        None,
        Samples(jnp.ones(3), shares),
        0,
        HardSamples("fixed", largest_increase=0.5, middle_weight=1.2),
    )
    assert weights.tolist() == [1.125, 1.5, 1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "fix"}, "config.dwhs.objective is 'fix'"),
        ({"objective": "regularised"}, "config.dwhs.objective is 'regularised'; expected one of"),
        ({"grain": "note"}, "config.dwhs.grain is 'note'; expected one of segment, frame"),
        ({"temperature": 0.0}, "config.dwhs.temperature is 0.0; expected above 0"),
        ({"exponents": ((1, 0), (0, 1), (1, 0), (0, 1))}, "an easy sample counts exactly once"),
        ({"exponents": ((0, 0), (0, 1))}, "each of the four cases"),
        ({"middle_weight": 2.5}, "config.dwhs.middle_weight is 2.5; expected between 1 and 1 \\+"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        HardSamples(**{"objective": "fixed", **changes})


def test_readings_tell_shares_means_spread_and_correlation():
    samples = _samples([1, 1, 3, 3, 3, 4, 0, 2], [0.1, 0.2, 1, 2, 4, 3, 9, 1])
    weights = jnp.array([1, 1, 1.2, 1.3, 1.9, 1, 1, 1])
    found = hard_samples.readings(weights, samples, 0, HardSamples("robust"))
    shares = [float(found[f"share_case{number}"]) for number in (1, 2, 3, 4)]
    np.testing.assert_allclose(shares, np.array([2, 1, 3, 1]) / 7, rtol=1e-6)
    assert found["weight_separation_case1"] == 1.0 and found["weight_separation_case1_std"] == 0.0
    chosen, losses = np.array([1.2, 1.3, 1.9]), np.array([1, 2, 4])
    np.testing.assert_allclose(found["weight_separation_case3"], chosen.mean(), rtol=1e-6)
    np.testing.assert_allclose(found["weight_separation_case3_std"], chosen.std(), rtol=1e-5)
    expected = np.corrcoef(chosen, losses)[0, 1]
    np.testing.assert_allclose(found["weight_loss_separation_case3"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["weight_loss_separation"], expected, rtol=1e-5)
    found = hard_samples.readings(weights, samples, 1, HardSamples("robust"))
    assert np.isnan(found["weight_loss_pitch_case4"])  # one sample has no correlation
    assert found["weight_pitch_case4_std"] == 0.0


# ---- do weights follow difficulty? --------------------------------------------------------------


def _free_scores(settings, *, weight=1.0, steps=300, size=64):
    """Weights of 64 samples of case 4 whose scores are parameters, after following the
    objective.
    """
    samples = _samples([4] * size, seed=3)

    def objective(scores):
        weights, own = hard_samples.weigh(scores, samples, 1, settings)
        return (weights * samples.losses).mean() + weight * own

    scores = _descend(objective, jnp.zeros(size), steps)
    return np.asarray(hard_samples.weigh(scores, samples, 1, settings)[0]), samples


def _descend(objective, params, steps):
    optimizer = optax.adam(3e-2)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(objective)(params), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), None, length=steps)
    return params


def _correlation(weights, losses):
    return np.corrcoef(weights, np.asarray(losses))[0, 1]


def test_free_weights_follow_difficulty_under_the_default_objective():
    """The objective that was the default gave -0.73 here: easy samples got more."""
    default = HardSamples(majl_config("paper").dwhs.objective)
    weights, samples = _free_scores(default)
    assert _correlation(weights, samples.losses) > 0.5
    assert np.all((weights > 1) & (weights <= 2)) and weights.std() > 0.1
    assert abs(weights.mean() - 1.5) < 0.05


def test_free_scores_reach_the_exact_adversary():
    learnt, samples = _free_scores(HardSamples("robust"))
    exact, _ = hard_samples.weigh(None, samples, 1, HardSamples("exact"))
    np.testing.assert_allclose(learnt, exact, atol=2e-3)


def test_the_exact_adversary_is_the_best_answer_to_its_objective():
    settings, samples = HardSamples("exact", temperature=0.7, middle_weight=1.4), _samples([4] * 5)
    weights = np.asarray(hard_samples.weigh(None, samples, 1, settings)[0], np.float64)
    losses = np.asarray(samples.losses, np.float64)
    gain = (losses - losses.mean()) / losses.std() / 0.7 + np.log(0.4 / 0.6)
    u = np.linspace(1e-4, 1 - 1e-4, 20_001)
    value = u * gain[:, None] - u * np.log(u) - (1 - u) * np.log1p(-u)
    np.testing.assert_allclose(weights, 1 + u[value.argmax(1)], atol=1e-3)


@pytest.mark.parametrize(("temperature", "least", "most"), [(0.1, 0.35, 0.5), (10.0, 0.0, 0.05)])
def test_the_temperature_sets_the_spread(temperature, least, most):
    weights, _ = hard_samples.weigh(
        None, _samples([4] * 64), 1, HardSamples("exact", temperature=temperature)
    )
    assert least < float(weights.std()) < most


def test_self_paced_weights_are_the_opposite():
    weights, samples = _free_scores(HardSamples("self_paced"))
    assert _correlation(weights, samples.losses) < -0.5
    assert abs(weights.mean() - 1.5) < 0.05


def test_without_its_regulariser_self_paced_collapses():
    weights, _ = _free_scores(HardSamples("self_paced"), weight=0.0)
    assert weights.mean() < 1.1


@pytest.mark.parametrize("sees_losses", [False, True])
def test_a_module_learns_weights_that_follow_difficulty_on_segments_it_has_not_seen(sees_losses):
    """PE's answers, from clear to lost, with their label; what they say of the loss is enough, and
    the loss helps.
    """
    settings, module = HardSamples("robust"), WeightModule((32,))

    def drawn(seed):
        rng = np.random.default_rng(seed)
        bins, (batch, frames) = 24, (64, 8)
        peak = np.eye(bins)[rng.integers(bins, size=(batch, frames))]
        clarity = rng.uniform(0.02, 0.45, size=(batch, 1, 1))  # of the estimate; the source is lost
        noise = rng.uniform(0, 0.1, size=(2, batch, frames, bins))
        parts = [jnp.asarray(x, jnp.float32) for x in (clarity * peak + noise[0], noise[1], peak)]
        of_label = np.asarray((parts[0] * parts[2]).sum(-1))
        samples = _samples([4] * batch, -np.log(of_label).mean(1))
        hardness = sees_losses * hard_samples.difficulty(samples)
        return [*parts, jnp.broadcast_to(hardness[:, None, None], (batch, frames, 2))], samples

    parts, samples = drawn(0)
    labelled = jnp.ones(parts[0].shape[:2], bool)

    def scores(params, parts):
        return over_segments(module.apply(params, *parts), labelled)[:, 1]

    def objective(params):
        weights, own = hard_samples.weigh(scores(params, parts), samples, 1, settings)
        return (weights * samples.losses).mean() + own

    params = _descend(objective, module.init(jax.random.key(0), *parts), 200)
    parts, samples = drawn(1)
    weights, _ = hard_samples.weigh(scores(params, parts), samples, 1, settings)
    least = 0.9 if sees_losses else 0.5
    assert _correlation(weights, samples.losses) > least and float(weights.std()) > 0.05


@pytest.mark.parametrize("objective", ["robust", "exact", "fixed"])
def test_no_gradient_of_the_weighted_loss_reaches_scores_or_losses(objective):
    samples = _samples([3, 4, 4])

    def weighted(scores, losses):
        own = scores if objective == "robust" else None
        changed = Samples(losses, samples.shares)
        return hard_samples.weigh(own, changed, 1, HardSamples(objective))[0].sum()

    gradients = jax.grad(weighted, (0, 1))(jnp.ones(3), samples.losses)
    assert not any(np.any(g) for g in gradients)


def _on_two_devices(function, *arrays):
    over = jax.sharding.PartitionSpec(parallel.AXIS)
    split = jax.shard_map(
        function,
        mesh=parallel.mesh(jax.devices()[:2]),
        in_specs=over,
        out_specs=over,
        check_vma=False,
    )
    return jax.jit(split)(*arrays)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_devices_weigh_as_one(objective):
    """Weights, the module's loss, its gradient and the readings, with other cases on each
    device.
    """
    settings = HardSamples(objective)
    case, losses = jnp.array([1, 2, 0, 4, 4, 4, 4, 0]), _samples(range(8)).losses
    scores = jnp.asarray(np.random.default_rng(5).normal(size=8), jnp.float32)

    def ours(scores, losses, case):
        samples = Samples(losses, hard_samples.case_shares(case))
        own = scores if objective in hard_samples.LEARNT else None
        weights, loss = hard_samples.weigh(own, samples, 1, settings)
        return loss, (weights, hard_samples.readings(weights, samples, 1, settings))

    def on_each(scores, losses, case):
        (loss, (weights, told)), gradient = jax.value_and_grad(ours, has_aux=True)(
            scores, losses, case
        )
        loss, told = parallel.across((loss, told))
        return weights, gradient / parallel.axis_size(), jax.tree.map(jnp.atleast_1d, (loss, told))

    one = on_each(scores, losses, case)
    two = _on_two_devices(on_each, scores, losses, case)
    for mine, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(theirs[: len(mine)], mine, rtol=1e-4, atol=1e-6)


# ---- the module ---------------------------------------------------------------------------------


def test_the_order_of_frames_does_not_matter_and_unlabelled_ones_do_not_count():
    rng = np.random.default_rng(1)
    parts = [jnp.asarray(rng.uniform(size=(3, 8, n)), jnp.float32) for n in (12, 12, 12, 2)]
    labelled = jnp.asarray(rng.uniform(size=(3, 8)) < 0.7)
    module = WeightModule()
    variables = module.init(jax.random.key(0), *parts)
    # At first the last layer is 0, and only the losses count.
    variables = jax.tree.map(lambda x: x + 0.1, variables)

    def scores(parts, labelled):
        return over_segments(module.apply(variables, *parts), labelled)

    order = np.random.default_rng(2).permutation(8)
    np.testing.assert_allclose(
        scores([x[:, order] for x in parts], labelled[:, order]), scores(parts, labelled), atol=1e-6
    )
    noise = [jnp.where(labelled[..., None], x, 5.0) for x in parts]
    np.testing.assert_allclose(scores(noise, labelled), scores(parts, labelled), atol=1e-6)
    assert np.all(np.asarray(scores(parts, jnp.zeros_like(labelled))) == 0.0)
