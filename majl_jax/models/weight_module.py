"""The trainable module behind MAJL's dynamic weights (Wei et al., arXiv 2501.03689)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

TASKS = ("separation", "pitch")


class WeightModule(nn.Module):
    """From what PE hears in the estimate and in the true source, the label, and the losses, to one
    score per frame and task.

    z = gain l + b + w MLP(P1_t, P2_t, y_t), l the standardised losses, fully connected layers with
    ReLU, w = 0 and gain = 1 at first. The paper names a fully connected module with the first
    three inputs; its sizes and l are our decision: how far a waveform is off cannot be told from
    the pitch heard in it, and starting from l, weights follow difficulty from the first step.
    """

    features: tuple[int, ...] = (128, 64)

    @nn.compact
    def __call__(
        self,
        heard_in_estimate: Float[Array, "batch frame bin"],
        heard_in_target: Float[Array, "batch frame bin"],
        label: Float[Array, "batch frame bin"],
        difficulty: Float[Array, "batch frame 2"],
    ) -> Float[Array, "batch frame 2"]:
        """Scores z before the sigmoid, in the order of `TASKS`."""
        hidden = jnp.concatenate([heard_in_estimate, heard_in_target, label], axis=-1)
        for i, features in enumerate(self.features, start=1):
            hidden = nn.relu(nn.Dense(features, name=f"dense{i}")(hidden))
        gain = self.param("gain", nn.initializers.ones, (len(TASKS),))
        scores = nn.Dense(len(TASKS), kernel_init=nn.initializers.zeros, name="scores")(hidden)
        return gain[None, None] * difficulty + scores


def over_segments(
    scores: Float[Array, "batch frame 2"], labelled: Bool[Array, "batch frame"]
) -> Float[Array, "batch 2"]:
    """The mean over the labelled frames of each segment, whatever their order (our decision); 0
    where there are none.
    """
    kept = labelled[..., None]
    return jnp.where(kept, scores, 0.0).sum(1) / jnp.maximum(kept.sum(1), 1)
