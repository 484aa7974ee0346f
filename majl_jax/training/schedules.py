"""Learning rate schedules."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import optax

Schedule = Callable[[Any], Any]  # step -> learning rate


def constant(value: float) -> Schedule:
    """The same learning rate at every step."""
    return optax.constant_schedule(value)


def step_decay(initial: float, *, factor: float = 0.95, every_steps: int) -> Schedule:
    """initial * factor ** (step // every_steps)."""
    if every_steps < 1:
        raise ValueError(f"every_steps is {every_steps}; expected at least 1")
    return lambda step: initial * factor ** (step // every_steps)


def linear_warmup(peak: float, *, warmup_steps: int) -> Schedule:
    """peak min(1, step / warmup_steps)."""
    if warmup_steps < 1:
        raise ValueError(f"warmup_steps is {warmup_steps}; expected at least 1")
    return optax.linear_schedule(0.0, peak, warmup_steps)


def warmup_cosine(
    peak: float, *, warmup_steps: int, total_steps: int, end: float = 0.0
) -> Schedule:
    """A straight line from 0 to `peak`, then half a cosine down to `end` at `total_steps`."""
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps is {warmup_steps}; expected 0 to total_steps - 1 = {total_steps - 1}"
        )
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, total_steps, end)


def cosine_warmup(peak: float, *, warmup_steps: int) -> Schedule:
    """peak * (1 - cos(pi (1 + min(step, n)) / (n + 1))) / 2 with n = warmup_steps, then `peak` for
    ever.
    """
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps is {warmup_steps}; expected 0 or more")

    def rate(step):
        share = (1 + jnp.minimum(step, warmup_steps)) / (warmup_steps + 1)
        return peak * jnp.sin(0.5 * jnp.pi * share) ** 2  # 1 - cos would cancel at the first steps

    return rate


def warmup_decay(
    peak: float,
    *,
    warmup_steps: int,
    decay_from: int,
    decay_every: int,
    factor: float,
    decay_to: int,
) -> Schedule:
    """With n = step + 1: peak min((n - 1) / (warmup_steps - 1), 1), and from n = `decay_from` on
    times factor ** ((n - decay_from) // decay_every).

    n grows no further than `decay_to` (the code of Saijo & Bando 2025, whose first rate is 0).

    Args:
        peak: the largest learning rate.
        warmup_steps: updates of the straight line up to it.
        decay_from: the update from which on the rate falls.
        decay_every: updates from one fall to the next.
        factor: what the rate is multiplied with at each.
        decay_to: the update after which it stays.
    """
    if not 2 <= warmup_steps <= decay_from <= decay_to or decay_every < 1:
        raise ValueError(
            "expected 2 <= warmup_steps <= decay_from <= decay_to and decay_every of 1 or more,"
            f" got {warmup_steps}, {decay_from}, {decay_to} and {decay_every}"
        )

    def rate(step):
        n = jnp.minimum(step + 1, decay_to)
        falls = jnp.maximum(n - decay_from, 0) // decay_every
        return peak * jnp.minimum((n - 1) / (warmup_steps - 1), 1.0) * factor**falls

    return rate


@dataclasses.dataclass(frozen=True)
class Plateau:
    """When to lower the learning rate: `metric` of a validation has not fallen for more than
    `patience` validations.

    The rule of torch.optim.lr_scheduler.ReduceLROnPlateau: less by a share of 1e-4 counts as a
    fall. Its stage needs an `optimizer(..., plateau=True)`.
    """

    metric: str
    factor: float = 0.5
    patience: int = 5

    def rate_factor(self, values: Sequence[float]) -> float:
        """What the learning rate is multiplied with after these validations, in their order."""
        best, waited, scale = math.inf, 0, 1.0
        for value in values:
            if value < best * (1 - 1e-4):
                best, waited = value, 0
            else:
                waited += 1
            if waited > self.patience:
                waited, scale = 0, scale * self.factor
        return scale
