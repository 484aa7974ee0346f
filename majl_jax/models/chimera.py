"""Chimera: one recurrent trunk, an embedding per time-frequency bin for deep clustering, and masks
(Luo et al., ICASSP 2017).

As nussl builds it for transfer learning in music separation (Bugler et al., arXiv 2010.12650).
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from majl_jax.models.layers.blstm import BLSTM

NORMS = ("batch", "instance")
_FLOOR = 1e-4
_EPSILON = 1e-5
_MOMENTUM = 0.1
_SMALLEST_NORM = 1e-12


class ChimeraOutput(NamedTuple):
    """What the heads of `Chimera` say; None where a head is absent."""

    embedding: Float[Array, "batch frame frequency embedding"] | None
    masks: Float[Array, "batch frame frequency source"] | None


class Chimera(nn.Module):
    """Linear magnitudes to unit vectors with entries from 0 to 1, and one mask from 0 to 1 per
    source.

    Level in dB, normalisation, `BLSTM`, then a dense layer per head. `embedding` or `sources` may
    be None: that head and its parameters do not exist. 26,189,142 parameters at the published size
    without masks, 257,257 more per source.

    `norm` is "batch", one mean and variance over everything and a running copy in "batch_stats",
    over all devices of the axis `statistics_axis` if given; or "instance", one of each per item.
    `implementation` is that of `BLSTM`, `dtype` that of matrix products; outputs are float32. A
    loss over pieces of time calls `trunk` once, then `embed` and `mask` on pieces of frames:
    `model.apply(variables, hidden[:, a:b], method="embed")`.
    """

    frequency_bins: int = 257
    units: int = 500
    layers: int = 4
    dropout: float = 0.3
    embedding: int | None = 20
    sources: int | None = None
    norm: str = "batch"
    statistics_axis: str | None = None
    dtype: Any = jnp.float32
    implementation: str = "auto"

    def setup(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm={self.norm!r} is not one of {', '.join(NORMS)}.")
        if self.norm == "batch":
            self.scalar_norm = ScalarBatchNorm(self.statistics_axis, name="norm")
        self.recurrent = BLSTM(
            *(self.units, self.layers, self.dropout, self.dtype, self.implementation), name="blstm"
        )
        # Attributes of other names than the fields; in the parameters they are `embedding` and
        # `mask`.
        self.embedding_head = self._head(self.embedding, "embedding")
        self.mask_head = self._head(self.sources, "mask")

    def _head(self, count: int | None, name: str) -> nn.Dense | None:
        if not count:
            return None
        kernel_init = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")
        features = self.frequency_bins * count
        return nn.Dense(features, dtype=self.dtype, kernel_init=kernel_init, name=name)

    def __call__(
        self, magnitude: Float[Array, "batch frame frequency"], *, train: bool = False
    ) -> ChimeraOutput:
        """Both heads for all frames; in training a dropout above 0 needs the key "dropout"."""
        hidden = self.trunk(magnitude, train=train)
        return ChimeraOutput(
            self.embed(hidden) if self.embedding else None,
            self.mask(hidden) if self.sources else None,
        )

    def trunk(
        self, magnitude: Float[Array, "batch frame frequency"], *, train: bool = False
    ) -> Float[Array, "batch frame state"]:
        """States of the last recurrent layer, in `dtype`."""
        if magnitude.shape[-1] != self.frequency_bins:
            raise ValueError(
                f"the magnitudes have {magnitude.shape[-1]} frequency bins, the network has "
                f"frequency_bins={self.frequency_bins}."
            )
        level = decibels(magnitude)
        if self.norm == "batch":
            level = self.scalar_norm(level, train=train)
        else:
            level = instance_norm(level)
        return self.recurrent(level, deterministic=not train)

    def embed(
        self, hidden: Float[Array, "batch frame state"]
    ) -> Float[Array, "batch frame frequency embedding"]:
        """v = s / max(||s||, 1e-12) with s = sigmoid(W h + b), per bin: unit vectors for deep
        clustering.
        """
        if self.embedding_head is None:
            raise ValueError("a Chimera with embedding=None has no embedding.")
        squashed = self._bins(self.embedding_head(hidden))
        # Far below zero all sigmoids may be 0: the square root has no gradient there.
        power = jnp.sum(squashed**2, -1, keepdims=True)
        return squashed / jnp.sqrt(jnp.maximum(power, _SMALLEST_NORM**2))

    def mask(
        self, hidden: Float[Array, "batch frame state"]
    ) -> Float[Array, "batch frame frequency source"]:
        """Sigmoids, independent of each other."""
        if self.mask_head is None:
            raise ValueError("a Chimera with sources=None has no masks.")
        return self._bins(self.mask_head(hidden))

    def _bins(self, values: Array) -> Array:
        values = values.reshape(*values.shape[:2], self.frequency_bins, -1)
        return jax.nn.sigmoid(values.astype(jnp.float32))


class ScalarBatchNorm(nn.Module):
    """y = (x - m) / sqrt(v + 1e-5) * scale + bias with a single mean and variance of all values.

    In training those of the batch, else the running ones, which move by a tenth per step and take
    the unbiased variance.
    """

    statistics_axis: str | None = None

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch frame frequency"], *, train: bool = False
    ) -> Float[Array, "batch frame frequency"]:
        """Of the same shape, in float32."""
        scale = self.param("scale", nn.initializers.ones, ())
        bias = self.param("bias", nn.initializers.zeros, ())
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, ())
        running_var = self.variable("batch_stats", "var", jnp.ones, ())
        if not train:
            return (inputs - running_mean.value) * _inverse(running_var.value) * scale + bias
        axis = self.statistics_axis if not self.is_initializing() else None
        average, count = jnp.mean, inputs.size
        if axis is not None:
            average = lambda x: jax.lax.pmean(jnp.mean(x), axis)  # noqa: E731
            count *= jax.lax.axis_size(axis)
        mean = average(inputs)
        centred = inputs - mean
        variance = average(centred**2)
        if not self.is_initializing():
            unbiased = variance * (count / max(count - 1, 1))
            running_mean.value += _MOMENTUM * (mean - running_mean.value)
            running_var.value += _MOMENTUM * (unbiased - running_var.value)
        return centred * _inverse(variance) * scale + bias


def instance_norm(
    inputs: Float[Array, "batch frame frequency"],
) -> Float[Array, "batch frame frequency"]:
    """y = (x - m) / sqrt(v + 1e-5) with one mean and variance per item."""
    centred = inputs - inputs.mean((1, 2), keepdims=True)
    return centred * _inverse(jnp.mean(centred**2, (1, 2), keepdims=True))


def decibels(magnitude: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """20 log10(max(m, 1e-4)) in dB: -80 at silence."""
    return 20 * jnp.log10(jnp.maximum(magnitude.astype(jnp.float32), _FLOOR))


def _inverse(variance: Array) -> Array:
    return jax.lax.rsqrt(variance + _EPSILON)
