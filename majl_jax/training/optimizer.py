"""Learning-rate schedules, clipping, the optimiser, and which parameters it may change."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from majl_jax.training.parameters import path_of
from majl_jax.training.schedules import Schedule, constant


def _scale_by_plateau() -> optax.GradientTransformation:
    def scale(plateau_factor: Any) -> optax.GradientTransformation:
        return optax.scale(plateau_factor)

    return optax.inject_hyperparams(scale)(plateau_factor=1.0)


def at_plateau(opt_state: Any, factor: Any) -> Any:
    """The state of an `optimizer(..., plateau=True)` whose learning rate is multiplied with
    `factor` from now on.
    """

    try:
        return optax.tree.set(opt_state, plateau_factor=factor)
    except KeyError:
        raise ValueError(
            "this optimiser has no plateau_factor: make it with plateau=True"
        ) from None


class AutoClipState(NamedTuple):
    """The last gradient norms above 0 (a ring), how many there were, and the norm last clipped
    to.
    """

    norms: Float[Array, " history"]
    steps: Int[Array, ""]
    clip_norm: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class AutoClip:
    """At which norm `clip_by_percentile` clips."""

    percentile: float = 10.0
    """Of the norms so far, from 0 to 100."""
    history_steps: int = 1024
    """How many of them are looked at, from the last on."""

    def __post_init__(self) -> None:
        if not 0 <= self.percentile <= 100 or self.history_steps < 1:
            raise ValueError(
                f"percentile is {self.percentile}, expected 0 to 100; history_steps is "
                f"{self.history_steps}, expected at least 1"
            )


@dataclasses.dataclass(frozen=True)
class Adam:
    """The decay of both moments, and what keeps the divisor from 0."""

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8


ADAM = Adam()


def clip_by_percentile(settings: AutoClip) -> optax.GradientTransformation:
    """AutoClip: clip the global norm at a percentile of the norms so far, this one included.

    updates * min(1, c / (norm + 1e-6)), where c is the percentile, linearly interpolated, of the
    last `history_steps` norms (Seetharaman et al. 2020, section 3). Norms of 0, of steps without a
    label, do not count: a tenth of them would clip all others to nothing.
    """
    percentile, history_steps = settings.percentile, settings.history_steps

    def init(params):
        del params
        zero = jnp.zeros((), jnp.float32)
        return AutoClipState(jnp.zeros(history_steps, jnp.float32), jnp.zeros((), jnp.int32), zero)

    def update(updates, state, params=None):
        del params
        norm = optax.tree.norm(updates)
        entered = state.norms.at[state.steps % history_steps].set(norm)
        norms = jnp.where(norm > 0, entered, state.norms)
        steps = state.steps + (norm > 0)
        filled = jnp.clip(steps, 1, history_steps)  # before the first norm: its place, a 0
        ordered = jnp.sort(jnp.where(jnp.arange(history_steps) < filled, norms, jnp.inf))
        place = percentile / 100 * (filled - 1)
        low = jnp.floor(place).astype(jnp.int32)
        high = jnp.minimum(low + 1, filled - 1)
        clip_norm = ordered[low] + (place - low) * (ordered[high] - ordered[low])
        scale = jnp.minimum(1.0, clip_norm / (norm + 1e-6))
        updates = jax.tree.map(lambda u: (u * scale).astype(u.dtype), updates)
        return updates, AutoClipState(norms, steps, clip_norm)

    return optax.GradientTransformation(init, update)


def scale_by_rules(rules: Sequence[tuple[str, float]]) -> optax.GradientTransformation:
    """Updates times the factor of the first pattern that matches their path: learning rates by
    part.
    """

    def factor(key_path: Any) -> float:
        path = path_of(key_path)
        for pattern, value in rules:
            if re.fullmatch(pattern, path):
                return value
        raise ValueError(
            f"no pattern of rate_factors matches the parameter {path!r} (patterns: "
            f"{[p for p, _ in rules]}): add one, e.g. ('.*', 1.0) as the last"
        )

    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(
            lambda path, update: factor(path) * update, updates
        )
    )


def optimizer(
    learning_rate: float | Schedule,
    *,
    weight_decay: float = 0.0,
    rate_factors: Sequence[tuple[str, float]] = (),
    clip_norm: float = 0.0,
    auto_clip: AutoClip | None = None,
    plateau: bool = False,
    accumulate_steps: int = 1,
    adam: Adam = ADAM,
) -> optax.GradientTransformation:
    """Adam, or AdamW if `weight_decay` > 0, after clipping by `clip_norm` or by `auto_clip`.

    Args:
        learning_rate: of all updates, or a schedule of it.
        weight_decay: times the parameters, added to what Adam gives; 0: none.
        rate_factors: (pattern of paths, factor of the learning rate), the first that matches; ()
            for one rate.
        clip_norm: largest global norm of the gradients; 0: any.
        auto_clip: the same, from the norms so far; None: any.
        plateau: whether a `Plateau` will lower the rate.
        accumulate_steps: so many steps' mean gradient makes one update; schedules count updates.
        adam: its constants.
    """
    if clip_norm and auto_clip is not None:
        raise ValueError("clip by clip_norm or by auto_clip, not by both: leave one out")
    parts = []
    if clip_norm:
        parts.append(optax.clip_by_global_norm(clip_norm))
    if auto_clip is not None:
        parts.append(clip_by_percentile(auto_clip))
    parts.append(optax.scale_by_adam(b1=adam.b1, b2=adam.b2, eps=adam.eps))
    if weight_decay > 0:
        parts.append(optax.add_decayed_weights(weight_decay))
    if rate_factors:
        parts.append(scale_by_rules(rate_factors))
    if plateau:
        parts.append(_scale_by_plateau())
    schedule = learning_rate if callable(learning_rate) else constant(learning_rate)
    # Injected: then the learning rate in force stands in the state, where `step_metrics` finds it.
    parts.append(optax.inject_hyperparams(optax.scale_by_learning_rate)(learning_rate=schedule))
    chain = optax.chain(*parts)
    if accumulate_steps == 1:
        return chain
    return optax.MultiSteps(chain, accumulate_steps).gradient_transformation()


def step_metrics(opt_state: Any) -> dict[str, Any]:
    """What an optimiser's state tells the log: `learning_rate`, `clip_norm`, where it has them."""
    found: dict[str, Any] = {}

    def look(node):
        if isinstance(node, AutoClipState):
            found["clip_norm"] = node.clip_norm
        elif hasattr(node, "hyperparams"):
            found.update(node.hyperparams)
        return isinstance(node, AutoClipState) or hasattr(node, "hyperparams")

    jax.tree.leaves(opt_state, is_leaf=look)
    return found


def rate_of_last_update(
    optimizer: optax.GradientTransformation, params: Any, opt_state: Any
) -> float | None:
    """The learning rate that an optimiser gives the last update of a state, which another one may
    have made; None where it is not told.
    """

    def one_less(path: Any, leaf: Any) -> Any:
        return leaf - 1 if getattr(path[-1], "name", "") == "count" else leaf

    before = jax.tree_util.tree_map_with_path(one_less, opt_state)
    zeros = jax.tree.map(jnp.zeros_like, params)
    _, after = jax.jit(optimizer.update)(zeros, before, params)
    rate = step_metrics(after).get("learning_rate")
    return None if rate is None else float(rate)
