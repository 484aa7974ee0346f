"""How far the output for changed sound is from what the output for the untouched sound has become,
per frame.

Summed over pitch bins. z are logits, s = sigmoid(z). The binary cross entropy is SS-MPE's (arXiv
2506.23371); it is least for blank output, which the others are not drawn to.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from majl_jax.losses import salience_terms


def consistency(
    augmented_logits: Float[Array, "batch frame bin"],
    targets: Float[Array, "batch frame bin"],
    *,
    stop_gradient: bool = False,
) -> Float[Array, "batch frame"]:
    """sum_k -(t_k log s_k + (1 - t_k) log(1 - s_k)) for the salience t in [0, 1] of the untouched
    sound, moved along.

    Without `stop_gradient`, as released, the target moves too: dL/dt = -z pulls it down wherever
    the changed sound is not heard. Identical outputs cost their entropy, so the loss is 0 only for
    sure ones, all-blank included.
    """
    if stop_gradient:
        targets = jax.lax.stop_gradient(targets)
    return salience_terms.bce(augmented_logits, targets)


def symmetric_divergence(
    logits_a: Float[Array, "batch frame bin"], logits_b: Float[Array, "batch frame bin"]
) -> Float[Array, "batch frame"]:
    """sum_k JS(s_a, s_b), JS = H(m) - (H(s_a) + H(s_b)) / 2 with m = (s_a + s_b) / 2, in nats per
    bin, at most log 2.

    0 exactly for equal outputs, however unsure: nothing draws the output towards 0 or 1.
    Jensen-Shannon divergence (Lin 1991) between the on and off probabilities of a bin.
    """
    on_a, on_b = jax.nn.log_sigmoid(logits_a), jax.nn.log_sigmoid(logits_b)
    off_a, off_b = jax.nn.log_sigmoid(-logits_a), jax.nn.log_sigmoid(-logits_b)
    on = jnp.logaddexp(on_a, on_b) - jnp.log(2.0)
    off = jnp.logaddexp(off_a, off_b) - jnp.log(2.0)
    divergence = sum(
        jnp.exp(own) * (own - mean)
        for own, mean in ((on_a, on), (on_b, on), (off_a, off), (off_b, off))
    )
    return 0.5 * jnp.sum(jnp.asarray(divergence), axis=-1)


def categorical_consistency(
    logits_a: Float[Array, "batch frame bin"],
    logits_b: Float[Array, "batch frame bin"],
    *,
    stop_gradient: bool = False,
) -> Float[Array, "batch frame"]:
    """-sum_c q_c log p_c over the bins and one class for silence, p and q the softmax of logits_a
    and logits_b.

    The logit of silence is 0, where a bin is as likely on as off. b is the target; with
    `stop_gradient` it is fixed. The sum to one makes a pitch that is lost reappear as another
    class, which a sum over separate bins does not.
    """
    if stop_gradient:
        logits_b = jax.lax.stop_gradient(logits_b)
    log_p = jax.nn.log_softmax(_with_silence(logits_a), axis=-1)
    return -jnp.sum(jax.nn.softmax(_with_silence(logits_b), axis=-1) * log_p, axis=-1)


def _with_silence(logits: Array) -> Array:
    return jnp.concatenate([logits, jnp.zeros_like(logits[..., :1])], axis=-1)
