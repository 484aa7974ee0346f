"""A separator and a pitch estimator in a row, differentiable end to end (MAJL's joint cascade)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key

from majl_jax import parallel

Variables = Mapping[str, Any]
State = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Cascade:
    """Two modules, waveform to waveform and waveform to pitch logits, and their common variables.

    Variables are {"params": {"separator", "pitch"}, "batch_stats": {"separator", "pitch"}}, and
    with a `weight_module` params of that name. Without a key the modules run as in evaluation;
    with one, as in training, and their updated statistics come back: those of all devices of the
    axis `statistics_axis`, if given.
    """

    separator: nn.Module
    pitch: nn.Module
    bin_cents: np.ndarray
    segment_samples: int
    weight_module: nn.Module | None = None  # of dynamic weights on hard samples, for training only
    statistics_axis: str | None = None

    def init(self, key: Key[Array, ""]) -> dict[str, State]:
        """Fresh variables of both modules."""
        audio = jnp.zeros((1, self.segment_samples))
        separator_key, pitch_key = jax.random.split(key)
        fresh = {
            "separator": parallel.runs_once(self.separator.init)(separator_key, audio),
            "pitch": parallel.runs_once(self.pitch.init)(pitch_key, audio),
        }
        if self.weight_module is not None:
            frames = jnp.zeros((1, 1, len(self.bin_cents)))
            fresh["weight_module"] = parallel.runs_once(self.weight_module.init)(
                jax.random.fold_in(key, 2), frames, frames, frames, jnp.zeros((1, 1, 2))
            )
        collections = {collection for variables in fresh.values() for collection in variables}
        return {
            collection: {name: v[collection] for name, v in fresh.items() if collection in v}
            for collection in sorted(collections)
        }

    def separate(
        self,
        variables: Variables,
        mixture: Float[Array, "batch time"],
        *,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "batch time"], State]:
        """The voice in the mixture, and the separator's updated statistics."""
        separator = self._synchronised(self.separator)
        return _apply(separator, "separator", variables, mixture, key=key)

    def listen(
        self,
        variables: Variables,
        voice: Float[Array, "batch time"],
        *,
        index: Integer[Array, "batch frame"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "batch frame bin"], State]:
        """The pitch logits of a voice in all frames or those in `index`, and updated statistics."""
        listener = self._synchronised(self.pitch)
        return _apply(listener, "pitch", variables, voice, key=key, index=index)

    def weigh(
        self,
        variables: Variables,
        heard_in_estimate: Float[Array, "batch frame bin"],
        heard_in_target: Float[Array, "batch frame bin"],
        label: Float[Array, "batch frame bin"],
        difficulty: Float[Array, "batch frame 2"],
    ) -> Float[Array, "batch frame 2"] | None:
        """The weight module's scores; None where there is no module. No gradient leaves by its
        inputs.

        Args:
            variables: of the cascade.
            heard_in_estimate: what the pitch estimator hears in the separated voice.
            heard_in_target: and in the true one.
            label: the true salience.
            difficulty: of separation and of pitch (losses/hard_samples.py).
        """
        if self.weight_module is None:
            return None
        heard = jax.lax.stop_gradient((heard_in_estimate, heard_in_target))
        own = {"params": variables["params"]["weight_module"]}
        scores: Any = self.weight_module.apply(own, *heard, label, difficulty)
        return scores

    def _synchronised(self, module: nn.Module) -> nn.Module:
        if self.statistics_axis is None:
            return module
        # pyright: ignore[reportCallIssue]
        return module.clone(statistics_axis=self.statistics_axis)


def _apply(
    module: nn.Module, name: str, variables: Variables, audio: Any, *, key: Any, **options: Any
) -> tuple[Any, State]:
    own = {collection: parts[name] for collection, parts in variables.items() if name in parts}
    if key is None:
        return module.apply(own, audio, **options), {}
    state = [collection for collection in own if collection != "params"]
    outputs, updated = module.apply(
        own, audio, train=True, rngs={"dropout": key}, mutable=state, **options
    )
    return outputs, dict(updated)
