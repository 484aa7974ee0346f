"""Dynamic weights on hard samples (DWHS; Wei et al., arXiv 2501.03689).

A segment is judged twice by the same pitch estimator PE: on the estimated source, P1 = PE(s_hat), and on the true one,
P2 = PE(s). Which of the two agrees with the label tells where the fault lies:

    case   P1      P2      fault                              raised (default)
    1      right   right   none                               neither: both weights are exactly 1
    2      right   wrong   PE unreliable, or a wrong label    pitch
    3      wrong   right   separation                         separation
    4      wrong   wrong   PE, or a wrong label               pitch

Attested: the comparison, that case 3 raises the weight of the separation loss above 1, that weights belong to single
samples and come from a trainable module. The other rows, the numbering, the test for "right", the bound and how the
module is trained are our decisions (`HardSamples`).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from majl_jax import parallel
from majl_jax.audio import pitch
from majl_jax.losses.weighting import masked_mean

OBJECTIVES = ("regularised", "supervised", "adversarial", "fixed", "none")
LEARNT = ("regularised", "supervised", "adversarial")  # those with a weight module
CASES = (1, 2, 3, 4)
UNKNOWN = 0  # the case of a segment without voiced labels or without a true source


@dataclasses.dataclass(frozen=True)
class HardSamples:
    """How segments are judged and what their weights become."""

    objective: str
    exponents: tuple[tuple[int, int], ...] = ((0, 0), (0, 1), (1, 0), (0, 1))
    """Per case, for (separation, pitch): the weight is omega ** exponent; -1 lowers it."""
    largest_increase: float = 1.0
    """c: omega lies in (1, 1 + c]."""
    mean_weight: float = 1.5
    """What "regularised" holds the mean of the raised weights at."""
    right_share: float = 0.5
    """A segment is right if at least so many of its labelled voiced frames are."""
    tolerance_cents: float = 50.0
    voicing: float = 0.5
    """Salience from which a frame is voiced."""

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"config.dwhs.objective is {self.objective!r}; expected one of {', '.join(OBJECTIVES)}"
            )
        pairs = len(self.exponents) == len(CASES) and all(len(p) == 2 for p in self.exponents)
        values = {x for pair in self.exponents for x in pair}
        if not pairs or not values <= {-1, 0, 1} or any(self.exponents[0]):
            raise ValueError(
                f"config.dwhs.exponents is {self.exponents}; expected (separation, pitch) of -1, 0 or 1 for each of "
                "the four cases, (0, 0) for case 1: an easy sample counts exactly once"
            )
        if self.largest_increase <= 0 or not 0 < self.mean_weight - 1 < self.largest_increase:
            raise ValueError(
                f"config.dwhs.mean_weight is {self.mean_weight}; expected between 1 and 1 + largest_increase "
                f"= {1 + self.largest_increase}"
            )


def right_segments(
    salience: Float[Array, "batch frame bin"],
    f0_hz: Float[Array, "batch frame"],
    has_pitch: Bool[Array, "batch frame"],
    bin_cents: Float[np.ndarray, "bin"],
    *,
    right_share: float,
    tolerance_cents: float,
    voicing: float,
) -> tuple[Bool[Array, "batch"], Bool[Array, "batch"]]:
    """(is the pitch right, can it be told): by the labelled voiced frames of each segment.

    A frame is right where it is heard as voiced and |c - c_label| < tolerance, in cents, whatever the bins of the
    estimator; a segment is right where at least `right_share` of these frames are.
    """
    heard_hz, confidence = pitch.decode_local_average(salience, bin_cents)
    voiced = has_pitch & (f0_hz > 0)
    error_cents = jnp.abs(pitch.hz_to_cents(heard_hz) - pitch.hz_to_cents(f0_hz))
    right = voiced & (confidence >= voicing) & (error_cents < tolerance_cents)
    frames = voiced.sum(1)
    return right.sum(1) >= right_share * jnp.maximum(frames, 1), frames > 0


def case_numbers(
    right_in_estimate: Bool[Array, "batch"],
    right_in_target: Bool[Array, "batch"],
    known: Bool[Array, "batch"],
) -> Int[Array, "batch"]:
    """1 to 4 as in the table above, `UNKNOWN` where it cannot be told."""
    case = jnp.where(
        right_in_estimate, jnp.where(right_in_target, 1, 2), jnp.where(right_in_target, 3, 4)
    )
    return jnp.where(known, case, UNKNOWN)


def sample_weights(
    scores: Float[Array, "batch 2"] | None, case: Int[Array, "batch"], settings: HardSamples
) -> tuple[Float[Array, "batch 2"], Float[Array, ""]]:
    """(weights of the separation and pitch loss of each segment, loss of the weight module).

    omega = 1 + c sigmoid(z), and the weight is omega ** exponent[case]. The module's objectives:

    regularised   descends on sum omega L, which alone would drive omega to 1 (collapse), plus (mean omega - target)^2
    supervised    binary cross-entropy of z against "the table raises this task"; L does not reach the module
    adversarial   ascends on sum omega L, against the bound 1 + c
    fixed         no module: omega = 1 + c
    """
    exponents = jnp.asarray([(0, 0), *settings.exponents], jnp.float32)[case]
    raised, zero = exponents != 0, jnp.zeros(())
    bound, loss = settings.largest_increase, zero
    if scores is None:
        omega = jnp.full(exponents.shape, 1.0 + bound)
    else:
        if settings.objective == "adversarial":
            scores = 2.0 * jax.lax.stop_gradient(scores) - scores  # same value, reversed gradient
        omega = 1.0 + bound * jax.nn.sigmoid(scores)
    if scores is not None and settings.objective == "regularised":
        loss = _squared_mean_error(omega, raised, settings.mean_weight)
    elif scores is not None and settings.objective == "supervised":
        omega = jax.lax.stop_gradient(omega)
        entropy = jax.nn.softplus(scores) - raised * scores
        loss = masked_mean(entropy, jnp.broadcast_to(case[:, None] != UNKNOWN, raised.shape))
    return jnp.where(raised, omega**exponents, 1.0), loss


def _squared_mean_error(
    omega: Float[Array, "batch 2"], raised: Bool[Array, "batch 2"], target: float
) -> Float[Array, ""]:
    """(mean of omega where raised, over all devices, - target)^2; 0 where none is raised.

    Each device returns the global value and the gradient of its own share.
    """
    mine = masked_mean(omega, raised)  # times the number of devices
    error = parallel.across(jax.lax.stop_gradient(mine)) - target
    error = jnp.where(parallel.across(raised.astype(jnp.float32).sum()) > 0, error, 0.0)
    return error**2 + 2.0 * error * (mine - jax.lax.stop_gradient(mine))


def readings(
    weights: Float[Array, "batch 2"], case: Int[Array, "batch"], settings: HardSamples
) -> dict[str, Array]:
    """For the log: the share of each case, the mean weight per case and task, and how far omega is from collapse.

    A mean over no sample is NaN, which the log leaves out. `weight_collapse` is 1 - mean (omega - 1) / c over what is
    raised: 1 where the module has given up on hard samples, 0 where it does not tell them apart any more.
    """
    known = case != UNKNOWN
    found: dict[str, Array] = {}
    for number, exponents in zip(CASES, settings.exponents, strict=True):
        found[f"share_case{number}"] = _mean(1.0 * (case == number), known)
        for task, exponent in enumerate(exponents):
            if exponent or number == 1:
                name = f"weight_{('separation', 'pitch')[task]}_case{number}"
                found[name] = _mean(weights[:, task], case == number)
    raised = jnp.asarray([(0, 0), *settings.exponents])[case]
    omega = jnp.where(raised < 0, 1.0 / weights, weights)
    found["weight_collapse"] = 1.0 - _mean((omega - 1.0) / settings.largest_increase, raised != 0)
    return jax.tree.map(jax.lax.stop_gradient, found)


def _mean(values: Array, counted: Array) -> Array:
    some = parallel.across(counted.astype(jnp.float32).sum()) > 0
    return jnp.where(some, masked_mean(values, counted), jnp.nan)
