"""Two tasks meet at an interface: how far the later one's gradient reaches back through it.

In MAJL's cascade the estimated waveform x is heard by two losses, L_s(x) (separation) and L_p(x)
(pitch). Their gradients at x, g_s and g_p, are all that the separator learns from:

    none            g_s + g_p            the plain sum of the weighted losses (DJCM: 1 : 1)
    ratio           g_s + r g_p          r = `pitch_share`
    gradient_norm   g_s + r |g_s| / |g_p| g_p
    uncertainty     g_s + L_s / L_p g_p

`gradient_norm` is GradNorm's aim (Chen et al. 2018, arXiv 1711.02257) reached in one step and
taken at the interface in place of a layer. `uncertainty` is the homoscedastic weighting of Kendall
et al. (2018, arXiv 1705.07115) with its variances at their optimum, where each task is weighted by
1 / L (Kirchdorfer et al. 2024, arXiv 2408.07985); L_s and L_p are the weighted terms. What the
pitch estimator itself learns from is L_p throughout.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from majl_jax import parallel

METHODS = ("none", "ratio", "gradient_norm", "uncertainty")
_TINY = 1e-20


@dataclasses.dataclass(frozen=True)
class Interface:
    """What PE hears in training, and what of its gradient the separator sees."""

    joint: bool = True
    """PE hears the estimate; False: the true source."""
    stop_gradient: bool = False
    """The pitch loss does not reach the separator."""
    balance: str = "none"
    pitch_share: float = 1.0
    """r of "ratio" and "gradient_norm"."""

    def __post_init__(self) -> None:
        if self.balance not in METHODS:
            raise ValueError(
                f"config.balance.method is {self.balance!r}; expected one of {', '.join(METHODS)}"
            )
        if self.pitch_share < 0:
            raise ValueError(
                f"config.balance.pitch_share is {self.pitch_share}; expected 0 or more"
            )


def balanced(
    losses: Callable,
    estimate: Float[Array, "batch time"],
    params: Any,
    settings: Interface,
) -> tuple[Float[Array, ""], Any, dict[str, Array]]:
    """(L, aux, readings) of `losses(separated, heard, params) -> (L, L_s, L_p, aux)`, balanced
    where `estimate` enters.

    `separated` and `heard` are both the estimate, apart so that g_s and g_p come out of one
    pullback, which is also the one that the training step uses: what is after the interface is
    differentiated once, and the readings cost two norms. Norms are those of all devices. Readings:
    root mean square over examples of the norm of an example's own gradient (which depends on
    neither the batch size nor the number of devices), the cosine of both, and the factor that g_p
    gets.
    """

    def total(separated: Array, heard: Array, params: Any) -> tuple[Array, tuple]:
        loss, *rest = losses(separated, heard, params)
        return loss, tuple(rest)

    # Cut off here, or the training step would differentiate the pullback, which is a second
    # derivative times nothing.
    point = jax.lax.stop_gradient((estimate, estimate, params))
    loss, pullback, (of_separation, of_pitch, aux) = jax.vjp(total, *point, has_aux=True)
    g_s, g_p, g_params = pullback(jnp.ones_like(loss))
    # Each device's losses are means over its own examples: times their number, it is one example's
    # gradient.
    squares = [len(estimate) * jnp.vdot(a, b) for a, b in ((g_s, g_s), (g_p, g_p), (g_s, g_p))]
    squares, task_losses = parallel.across(
        (jnp.stack(squares), jnp.stack([of_separation, of_pitch]))
    )
    norm_s, norm_p = jnp.sqrt(squares[0]), jnp.sqrt(squares[1])
    factor = _factor(settings, norm_s, norm_p, task_losses)
    readings = {
        "interface_grad_separation": norm_s,
        "interface_grad_pitch": norm_p,
        "interface_cosine": squares[2] / jnp.maximum(norm_s * norm_p, _TINY),
        "interface_pitch_factor": factor,
    }
    gradients = (g_s + factor * g_p, g_params)
    loss = _with_gradient(loss, (estimate, params), gradients)
    return loss, aux, readings


def _factor(settings: Interface, norm_s: Array, norm_p: Array, task_losses: Array) -> Array:
    match settings.balance:
        case "ratio":
            return jnp.float32(settings.pitch_share)
        case "gradient_norm":
            return jnp.where(
                norm_p > 0, settings.pitch_share * norm_s / jnp.maximum(norm_p, _TINY), 0.0
            )
        case "uncertainty":
            separation, pitch = task_losses
            return jnp.where(pitch > 0, separation / jnp.maximum(pitch, _TINY), 0.0)
    return jnp.ones(())


@jax.custom_vjp
def _with_gradient(value: Array, inputs: Any, gradients: Any) -> Array:
    """`value`, with `gradients` for its gradient in `inputs` and none in anything else."""
    del inputs, gradients
    return value


def _forward(value: Array, inputs: Any, gradients: Any) -> tuple[Array, Any]:
    del inputs
    return value, gradients


def _backward(gradients: Any, cotangent: Array) -> tuple[Any, Any, Any]:
    zeros = jax.tree.map(jnp.zeros_like, gradients)
    return (
        jnp.zeros_like(cotangent),
        jax.tree.map(lambda g: cotangent * g, gradients),
        zeros,
    )


_with_gradient.defvjp(_forward, _backward)
