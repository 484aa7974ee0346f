"""Dynamic weights on hard samples (DWHS; Wei et al., arXiv 2501.03689).

A sample is judged twice by the same pitch estimator PE: on the estimated source, P1 = PE(s_hat),
and on the true one, P2 = PE(s). Which of the two agrees with the label tells where the fault lies:

    case   P1      P2      fault                              raised (default)
    1      right   right   none                               neither: both weights are exactly 1
    2      right   wrong   PE unreliable, or a wrong label    pitch
    3      wrong   right   separation                         separation
    4      wrong   wrong   PE, or a wrong label               pitch

Attested: the comparison, that case 3 raises the weight of the separation loss above 1, that
weights belong to single samples and come from a trainable module. The other rows, the numbering,
the test for "right", the bound and how the module is trained are our decisions (`HardSamples`).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from majl_jax import parallel
from majl_jax.audio import pitch
from majl_jax.losses.weighting import masked_mean

OBJECTIVES = ("robust", "exact", "self_paced", "fixed", "none")
LEARNT = ("robust", "self_paced")  # those with a weight module
GRAINS = ("segment", "frame")
CASES = (1, 2, 3, 4)
UNKNOWN = 0  # the case of what has no voiced label or no true source
_FEWEST = 3  # samples of which a correlation is told


@dataclasses.dataclass(frozen=True)
class HardSamples:
    """How samples are judged and what their weights become."""

    objective: str
    exponents: tuple[tuple[int, int], ...] = ((0, 0), (0, 1), (1, 0), (0, 1))
    """Per case, for (separation, pitch): the weight is omega ** exponent; -1 lowers it."""
    largest_increase: float = 1.0
    """c: omega lies in (1, 1 + c]."""
    middle_weight: float = 1.5
    """omega of a sample of average difficulty ("robust", "exact"); what "self_paced" holds the
    mean of omega at.
    """
    temperature: float = 1.0
    """T of "robust" and "exact": the lower, the further omega spreads; its limits are 1 + c (0)
    and `middle_weight`.
    """
    grain: str = "segment"
    """What has a case: a segment, or every voiced frame."""
    right_share: float = 0.5
    """A segment is right if at least so many of its labelled voiced frames are (grain
    "segment").
    """
    tolerance_cents: float = 50.0
    voicing: float = 0.5
    """Salience from which a frame is voiced."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("objective", self.objective, OBJECTIVES),
            ("grain", self.grain, GRAINS),
        ):
            if value not in known:
                raise ValueError(
                    f"config.dwhs.{name} is {value!r}; expected one of {', '.join(known)}"
                )
        pairs = len(self.exponents) == len(CASES) and all(len(p) == 2 for p in self.exponents)
        values = {x for pair in self.exponents for x in pair}
        if not pairs or not values <= {-1, 0, 1} or any(self.exponents[0]):
            raise ValueError(
                f"config.dwhs.exponents is {self.exponents}; expected (separation, pitch) of -1, 0"
                " or 1 for each of the four cases, (0, 0) for case 1: an easy sample counts"
                " exactly once"
            )
        if self.largest_increase <= 0 or not 0 < self.middle_weight - 1 < self.largest_increase:
            raise ValueError(
                f"config.dwhs.middle_weight is {self.middle_weight}; expected between 1 and 1 +"
                f" largest_increase = {1 + self.largest_increase}"
            )
        if self.temperature <= 0:
            raise ValueError(f"config.dwhs.temperature is {self.temperature}; expected above 0")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """What is weighed for one task: segments, or the frames of segments."""

    losses: Float[Array, "*sample"]
    """Their losses before weighing."""
    shares: Float[Array, "4 *sample"]
    """How much of each is in cases 1 to 4: 0 or 1, between them where a segment is judged by its
    frames; all 0: unknown.
    """

    @property
    def known(self) -> Bool[Array, "*sample"]:
        """Whether it has a case."""
        return self.shares.sum(0) > 0


# ---- judging ------------------------------------------------------------------------------------


def right_frames(
    salience: Float[Array, "batch frame bin"],
    f0_hz: Float[Array, "batch frame"],
    bin_cents: Float[np.ndarray, "bin"],
    *,
    tolerance_cents: float,
    voicing: float,
) -> Bool[Array, "batch frame"]:
    """Where a voice is heard and |c - c_label| < tolerance, in cents, whatever the bins of the
    estimator.

    Args:
        salience: of the estimator, 0 to 1.
        f0_hz: labels, 0 = no voice.
        bin_cents: centres of the bins.
        tolerance_cents: errors from it on are wrong.
        voicing: salience from which a frame is voiced.
    """
    heard_hz, confidence = pitch.decode_local_average(salience, bin_cents)
    error_cents = jnp.abs(pitch.hz_to_cents(heard_hz) - pitch.hz_to_cents(f0_hz))
    return (f0_hz > 0) & (confidence >= voicing) & (error_cents < tolerance_cents)


def right_segments(
    right: Bool[Array, "batch frame"], voiced: Bool[Array, "batch frame"], *, right_share: float
) -> Bool[Array, "batch"]:
    """Where at least `right_share` of the labelled voiced frames are right."""
    return (right & voiced).sum(1) >= right_share * jnp.maximum(voiced.sum(1), 1)


def case_numbers(
    right_in_estimate: Bool[Array, "*sample"],
    right_in_target: Bool[Array, "*sample"],
    known: Bool[Array, "*sample"],
) -> Int[Array, "*sample"]:
    """1 to 4 as in the table above, `UNKNOWN` where it cannot be told."""
    case = jnp.where(
        right_in_estimate, jnp.where(right_in_target, 1, 2), jnp.where(right_in_target, 3, 4)
    )
    return jnp.where(known, case, UNKNOWN)


def case_shares(case: Int[Array, "*sample"]) -> Float[Array, "4 *sample"]:
    """1 at a sample's case, 0 elsewhere."""
    return jnp.stack([1.0 * (case == number) for number in CASES])


def segment_shares(case: Int[Array, "batch frame"]) -> Float[Array, "4 batch"]:
    """The shares of the four cases among those frames of a segment whose case is known."""
    counts = case_shares(case).sum(-1)
    return counts / jnp.maximum(counts.sum(0, keepdims=True), 1.0)


# ---- weighing -----------------------------------------------------------------------------------


def weigh(
    scores: Float[Array, "*sample"] | None, samples: Samples, task: int, settings: HardSamples
) -> tuple[Float[Array, "*sample"], Float[Array, ""]]:
    """(weights of the samples' losses in a task, 0 separation or 1 pitch; the weight module's
    loss).

    omega = 1 + c u with u in (0, 1), and the weight is sum_case share_case omega **
    exponent[case], 1 where the case is unknown. u and the module's loss by objective, with scores
    z and standardised losses l (`difficulty`):

    robust       u = sigmoid(z); cross-entropy of u against the answer of an adversary, which
                 `exact` takes itself
    exact        no module: u = argmax_u u l / T + u b + H(u) = sigmoid(b + l / T), H the entropy
                 of u and 1 - u, b such
                 that l = 0 gives `middle_weight`: what raises the weighted loss most at a price
                 for leaving the middle
    self_paced   u = sigmoid(z); descends on omega L, with (mean omega - middle)^2 to keep it from
    1. So **easy** samples
                 get more (self-paced learning, Kumar et al. 2010), which is the opposite, for
                 where labels are doubtful
    fixed        no module: omega = 1 + c

    No gradient of the weighted loss reaches the module but with `self_paced`.
    """
    bound, loss, exponents = settings.largest_increase, jnp.zeros(()), _exponents(settings, task)
    raised = jnp.tensordot(jnp.asarray(exponents != 0, jnp.float32), samples.shares, 1)
    if settings.objective == "exact":
        omega = 1.0 + bound * _adversary(samples, settings)
    elif scores is None:
        omega = jnp.full(raised.shape, 1.0 + bound)
    elif settings.objective == "self_paced":
        omega = 1.0 + bound * jax.nn.sigmoid(scores)
        loss = _squared_mean_error(omega, raised, settings.middle_weight)
    else:
        omega = jax.lax.stop_gradient(1.0 + bound * jax.nn.sigmoid(scores))
        wanted = _adversary(samples, settings)
        loss = masked_mean(jax.nn.softplus(scores) - wanted * scores, raised)
    up, down = (
        jnp.tensordot(jnp.asarray(exponents == sign, jnp.float32), samples.shares, 1)
        for sign in (1, -1)
    )
    return 1.0 + up * (omega - 1.0) + down * (1.0 / omega - 1.0), loss


def difficulty(samples: Samples) -> Float[Array, "*sample"]:
    """(L - mean L) / std L over all samples of known case, on all devices; no gradient."""
    losses = jax.lax.stop_gradient(samples.losses)
    mean = parallel.across(masked_mean(losses, samples.known))
    variance = parallel.across(masked_mean((losses - mean) ** 2, samples.known))
    return (losses - mean) / jnp.sqrt(jnp.maximum(variance, 1e-12))


def _adversary(samples: Samples, settings: HardSamples) -> Float[Array, "*sample"]:
    middle = (settings.middle_weight - 1.0) / settings.largest_increase
    offset = np.log(middle / (1.0 - middle))
    return jax.nn.sigmoid(offset + difficulty(samples) / settings.temperature)


def _exponents(settings: HardSamples, task: int) -> np.ndarray:
    return np.asarray([pair[task] for pair in settings.exponents])


def _squared_mean_error(
    omega: Float[Array, "*sample"], raised: Float[Array, "*sample"], target: float
) -> Float[Array, ""]:
    """(mean of omega where raised, over all devices, - target)^2; 0 where none is raised.

    Each device returns the global value and the gradient of its own share.
    """
    mine = masked_mean(omega, raised)  # times the number of devices
    error = parallel.across(jax.lax.stop_gradient(mine)) - target
    error = jnp.where(parallel.across(raised.sum()) > 0, error, 0.0)
    return error**2 + 2.0 * error * (mine - jax.lax.stop_gradient(mine))


# ---- for the log --------------------------------------------------------------------------------


def readings(
    weights: Float[Array, "*sample"], samples: Samples, task: int, settings: HardSamples
) -> dict[str, Array]:
    """The share of each case, and per case that the task raises: mean and spread of the weights,
    and do they follow the loss.

    `weight_TASK_caseN`, its standard deviation `weight_TASK_caseN_std`, the correlation of weight
    and loss over the samples of the case, `weight_loss_TASK_caseN`, and over all that are raised,
    `weight_loss_TASK`. A mean over no sample, or a correlation of fewer than three or of equal
    weights, is NaN, which the log leaves out.
    """
    name, losses = ("separation", "pitch")[task], samples.losses
    exponents, found = _exponents(settings, task), {}
    for number, exponent, share in zip(CASES, exponents, samples.shares, strict=True):
        found[f"share_case{number}"] = _mean(share, samples.known)
        if exponent or number == 1:
            spread, correlation = _follows(weights, losses, share)
            found[f"weight_{name}_case{number}"] = _mean(weights, share)
            found[f"weight_{name}_case{number}_std"] = spread
        if exponent:
            found[f"weight_loss_{name}_case{number}"] = correlation
    raised = samples.shares[np.flatnonzero(exponents)].sum(0)
    _, found[f"weight_loss_{name}"] = _follows(weights, losses, raised)
    return jax.tree.map(jax.lax.stop_gradient, found)


def _follows(weights: Array, losses: Array, counted: Array) -> tuple[Array, Array]:
    """(standard deviation of the weights, their correlation with the losses), over all devices."""
    counted = counted.astype(jnp.float32)
    w, x = (v - parallel.across(masked_mean(v, counted)) for v in (weights, losses))
    moments = jnp.stack([masked_mean(a * b, counted) for a, b in ((w, w), (x, x), (w, x))])
    ww, xx, wx = parallel.across(moments)
    samples = parallel.across((counted > 0).sum().astype(jnp.float32)) * parallel.axis_size()
    told = (samples >= _FEWEST) & (ww > 1e-12) & (xx > 0)
    correlation = jnp.where(told, wx / jnp.sqrt(jnp.where(told, ww * xx, 1.0)), jnp.nan)
    return jnp.where(samples > 0, jnp.sqrt(ww), jnp.nan), correlation


def _mean(values: Array, counted: Array) -> Array:
    some = parallel.across(counted.astype(jnp.float32).sum()) > 0
    return jnp.where(some, masked_mean(values, counted), jnp.nan)
