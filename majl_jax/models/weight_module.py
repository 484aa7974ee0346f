"""The trainable module behind MAJL's dynamic weights (Wei et al., arXiv 2501.03689)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

TASKS = ("separation", "pitch")


class WeightModule(nn.Module):
    """From what PE hears in the estimate and in the true source, and the label, to one score per task.

    Each frame's concatenation (P1_t, P2_t, y_t) goes through fully connected layers with ReLU; the mean over the
    labelled frames of a segment makes the scores independent of their order. The paper names a fully connected module
    with these inputs; its sizes and the mean are our decision.
    """

    features: tuple[int, ...] = (128, 64)

    @nn.compact
    def __call__(
        self,
        heard_in_estimate: Float[Array, "batch frame bin"],
        heard_in_target: Float[Array, "batch frame bin"],
        label: Float[Array, "batch frame bin"],
        labelled: Bool[Array, "batch frame"],
    ) -> Float[Array, "batch 2"]:
        """Scores z before the sigmoid, in the order of `TASKS`; 0 where no frame is labelled."""
        hidden = jnp.concatenate([heard_in_estimate, heard_in_target, label], axis=-1)
        for i, features in enumerate(self.features, start=1):
            hidden = nn.relu(nn.Dense(features, name=f"dense{i}")(hidden))
        scores = nn.Dense(len(TASKS), name="scores")(hidden)
        kept = labelled[..., None]
        return jnp.where(kept, scores, 0.0).sum(1) / jnp.maximum(kept.sum(1), 1)
