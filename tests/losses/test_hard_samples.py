"""Dynamic weights: the four cases in cents, their bounds, the five objectives, and collapse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from majl_jax import parallel
from majl_jax.audio import pitch
from majl_jax.losses import hard_samples
from majl_jax.losses.hard_samples import HardSamples
from majl_jax.models.weight_module import WeightModule

BINS = pitch.CREPE_BIN_CENTS
COARSE_BINS = 1200 * np.log2(27.5 / 10) + 25.0 * np.arange(352)
ALL_CASES = jnp.arange(5)


def _salience(f0_hz, bins, height=0.9):
    peaks = pitch.gaussian_targets(jnp.asarray(f0_hz, jnp.float32), bins, width_cents=25.0)
    return height * peaks


def _right(salience, f0_hz, has_pitch=None, bins=BINS, **changes):
    f0_hz = jnp.asarray(f0_hz, jnp.float32)
    has_pitch = jnp.ones(f0_hz.shape, bool) if has_pitch is None else jnp.asarray(has_pitch)
    options = {"right_share": 0.5, "tolerance_cents": 50.0, "voicing": 0.5} | changes
    right, known = hard_samples.right_segments(salience, f0_hz, has_pitch, bins, **options)
    return right.tolist(), known.tolist()


@pytest.mark.parametrize("bins", [BINS, COARSE_BINS], ids=["20 cents", "25 cents"])
@pytest.mark.parametrize(("cents", "right"), [(0, True), (45, True), (55, False), (1200, False)])
def test_pitch_is_compared_in_cents_whatever_the_bins(bins, cents, right):
    label_hz = np.full((1, 6), 311.0)
    heard = _salience(label_hz * 2 ** (cents / 1200), bins)
    assert _right(heard, label_hz, bins=bins) == ([right], [True])


def test_half_of_the_labelled_voiced_frames_have_to_be_right():
    label = np.array([[220.0, 220.0, 220.0, 220.0, 0.0, 0.0]])
    heard = np.array([[220.0, 220.0, 440.0, 440.0, 330.0, 330.0]])  # unvoiced frames do not count
    assert _right(_salience(heard, BINS), label) == ([True], [True])
    heard[0, 1] = 440.0
    assert _right(_salience(heard, BINS), label) == ([False], [True])
    unlabelled = np.array([[True, False, False, False, True, True]])
    assert _right(_salience(heard, BINS), label, unlabelled) == ([True], [True])
    assert _right(_salience(heard, BINS), label, right_share=0.25) == ([True], [True])


def test_a_voice_that_is_not_heard_as_voiced_is_not_right():
    label = np.full((1, 4), 220.0)
    assert _right(_salience(label, BINS, height=0.4), label) == ([False], [True])
    assert _right(_salience(label, BINS, height=0.4), label, voicing=0.3) == ([True], [True])


def test_a_segment_without_voiced_labels_has_no_case():
    label = np.zeros((1, 4))
    _, known = _right(_salience(label + 220.0, BINS), label)
    assert known == [False]


def test_case_table():
    right = jnp.array([True, True, False, False, True])
    in_target = jnp.array([True, False, True, False, True])
    known = jnp.array([True, True, True, True, False])
    assert hard_samples.case_numbers(right, in_target, known).tolist() == [1, 2, 3, 4, 0]


@pytest.mark.parametrize("objective", ["regularised", "supervised", "adversarial", "fixed"])
def test_weights_are_bounded_and_only_those_of_the_table_are_raised(objective):
    settings = HardSamples(objective, largest_increase=0.5, mean_weight=1.2)
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)) * 5, jnp.float32)
    scores = None if objective == "fixed" else scores
    weights, _ = hard_samples.sample_weights(scores, ALL_CASES, settings)
    raised = np.array([(0, 0), (0, 0), (0, 1), (1, 0), (0, 1)], bool)
    weights = np.asarray(weights)
    assert np.all(weights[~raised] == 1.0)  # case 1 and what is not selected: exactly
    assert np.all((weights[raised] > 1.0) & (weights[raised] <= 1.5))


def test_an_exponent_of_minus_one_lowers():
    settings = HardSamples("fixed", exponents=((0, 0), (0, -1), (1, 0), (1, 1)))
    weights, _ = hard_samples.sample_weights(None, ALL_CASES, settings)
    np.testing.assert_allclose(weights, [(1, 1), (1, 1), (1, 0.5), (2, 1), (2, 2)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "fix"}, "config.dwhs.objective is 'fix'"),
        ({"exponents": ((1, 0), (0, 1), (1, 0), (0, 1))}, "an easy sample counts exactly once"),
        ({"exponents": ((0, 0), (0, 1))}, "each of the four cases"),
        ({"mean_weight": 2.5}, "config.dwhs.mean_weight is 2.5; expected between 1 and 1 \\+"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        HardSamples(**{"objective": "fixed", **changes})


def test_readings_tell_shares_and_mean_weights_per_case():
    settings = HardSamples("fixed")
    case = jnp.array([1, 1, 3, 4, 0])
    weights, _ = hard_samples.sample_weights(None, case, settings)
    found = {k: float(v) for k, v in hard_samples.readings(weights, case, settings).items()}
    shares = [found[f"share_case{number}"] for number in (1, 2, 3, 4)]
    np.testing.assert_allclose(shares, [0.5, 0.0, 0.25, 0.25])
    assert found["weight_separation_case1"] == found["weight_pitch_case1"] == 1.0
    assert found["weight_separation_case3"] == found["weight_pitch_case4"] == 2.0
    assert np.isnan(found["weight_pitch_case2"]) and found["weight_collapse"] == 0.0


# ---- the module ---------------------------------------------------------------------------------


def _frames(batch=3, frames=8, bins=12):
    rng = np.random.default_rng(1)
    parts = [jnp.asarray(rng.uniform(size=(batch, frames, bins)), jnp.float32) for _ in range(3)]
    return [*parts, jnp.asarray(rng.uniform(size=(batch, frames)) < 0.7)]


def test_the_order_of_frames_does_not_matter_and_unlabelled_ones_do_not_count():
    module, parts = WeightModule(), _frames()
    variables = module.init(jax.random.key(0), *parts)
    scores = module.apply(variables, *parts)
    order = np.random.default_rng(2).permutation(8)
    np.testing.assert_allclose(
        module.apply(variables, *(x[:, order] for x in parts)), scores, atol=1e-6
    )
    *heard, labelled = parts
    noise = [jnp.where(labelled[..., None], x, 5.0) for x in heard]
    np.testing.assert_allclose(module.apply(variables, *noise, labelled), scores, atol=1e-6)
    nothing = module.apply(variables, *heard, jnp.zeros_like(labelled))
    assert np.all(np.asarray(nothing) == 0.0)


def _trained_scores(settings, *, weight, steps=200):
    """Scores after the module has followed its objective on fixed losses of fixed samples."""
    rng = np.random.default_rng(3)
    parts = _frames(batch=16)
    case = jnp.asarray([1, 2, 3, 4] * 4)
    losses = jnp.asarray(rng.uniform(0.02, 0.1, size=(16, 2)), jnp.float32)
    module = WeightModule((16,))
    params = module.init(jax.random.key(0), *parts)
    optimizer = optax.adam(3e-2)

    def objective(params):
        scores = module.apply(params, *parts)
        weights, own = hard_samples.sample_weights(scores, case, settings)
        return (weights * losses).mean(0).sum() + weight * own

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(objective)(params), state)
        return (optax.apply_updates(params, updates), state), None

    start = (params, optimizer.init(params))
    (params, _), _ = jax.lax.scan(step, start, None, length=steps)
    weights, _ = hard_samples.sample_weights(module.apply(params, *parts), case, settings)
    return weights, case


def _collapse(settings, *, weight):
    weights, case = _trained_scores(settings, weight=weight)
    found = hard_samples.readings(weights, case, settings)
    return float(found["weight_collapse"])


def test_without_a_regulariser_the_weights_collapse_and_the_reading_shows_it():
    assert _collapse(HardSamples("regularised"), weight=0.0) > 0.9


def test_the_regularised_mean_stays_at_its_target():
    assert abs(_collapse(HardSamples("regularised", mean_weight=1.5), weight=1.0) - 0.5) < 0.05
    assert abs(_collapse(HardSamples("regularised", mean_weight=1.8), weight=1.0) - 0.2) < 0.05


def test_the_adversary_goes_to_the_bound():
    assert _collapse(HardSamples("adversarial"), weight=1.0) < 0.1


def test_the_supervised_module_learns_which_samples_are_hard():
    settings = HardSamples("supervised")
    weights, case = _trained_scores(settings, weight=1.0)
    assert float(hard_samples.readings(weights, case, settings)["weight_collapse"]) < 0.1


def test_a_supervised_module_gets_no_gradient_from_the_task_losses():
    settings, case = HardSamples("supervised"), jnp.array([3, 4])

    def weighted(scores):
        return hard_samples.sample_weights(scores, case, settings)[0].sum()

    assert np.all(np.asarray(jax.grad(weighted)(jnp.ones((2, 2)))) == 0.0)


def test_the_adversary_has_the_reversed_gradient():
    case, scores = jnp.array([3, 4]), jnp.array([[0.3, 0.1], [-0.2, 0.4]])

    def weighted(scores, objective):
        return hard_samples.sample_weights(scores, case, HardSamples(objective))[0].sum()

    plain = jax.grad(weighted)(scores, "regularised")
    np.testing.assert_allclose(jax.grad(weighted)(scores, "adversarial"), -plain)
    assert np.abs(np.asarray(plain)).sum() > 0


def test_the_regulariser_s_gradient_is_that_of_the_plain_formula():
    settings, case = HardSamples("regularised"), jnp.array([1, 2, 3, 4])
    scores = jnp.asarray(np.random.default_rng(4).normal(size=(4, 2)), jnp.float32)
    raised = np.array([(0, 0), (0, 1), (1, 0), (0, 1)], bool)

    def plain(scores):
        return (jnp.mean((1 + jax.nn.sigmoid(scores))[raised]) - 1.5) ** 2

    def ours(scores):
        return hard_samples.sample_weights(scores, case, settings)[1]

    np.testing.assert_allclose(ours(scores), plain(scores), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(ours)(scores), jax.grad(plain)(scores), rtol=1e-4)


def test_on_two_devices_the_regulariser_holds_the_mean_of_both():
    settings, case = HardSamples("regularised"), jnp.array([1, 2, 3, 4, 3, 1])
    scores = jnp.asarray(np.random.default_rng(5).normal(size=(6, 2)), jnp.float32)

    def ours(scores, case):
        return hard_samples.sample_weights(scores, case, settings)[1]

    def on_each(scores, case):
        value, gradient = jax.value_and_grad(ours)(scores, case)
        return jax.lax.pmean(value, parallel.AXIS), gradient / 2

    over = jax.sharding.PartitionSpec(parallel.AXIS)
    split = jax.shard_map(
        on_each,
        mesh=parallel.mesh(jax.devices()[:2]),
        in_specs=(over, over),
        out_specs=(jax.sharding.PartitionSpec(), over),
        check_vma=False,
    )
    value, gradient = jax.jit(split)(scores, case)
    np.testing.assert_allclose(value, ours(scores, case), rtol=1e-5)
    np.testing.assert_allclose(gradient, jax.grad(ours)(scores, case), rtol=1e-4)
