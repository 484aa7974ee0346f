"""ResUNetDecouple+: a deep residual U-Net that estimates magnitude and phase (Kong et al., ISMIR
2021).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from majl_jax.models.layers.decouple import MAPS, separate_by_maps

PUBLISHED_CHANNELS = (32, 64, 128, 256, 384, 384)
PUBLISHED_BLOCKS = 4
_EPSILON = 1e-5
_XAVIER = nn.initializers.glorot_uniform()


class ResUNetDecouplePlus(nn.Module):
    """Waveform to waveform: magnitudes through a `ResidualUNet`, its maps decoded by `decouple`.

    At the published size 102,570,824 parameters mono, 102,571,278 stereo. The paper's sampling
    rate is 44.1 kHz with a hop of 441 samples; a hop of 320 at 16 kHz gives the frames of 20 ms
    that pitch labels have. Each of the 1025 frequencies is normalised by its own statistics.
    `remat` computes the inside of each residual block anew in the backward pass, which saves most
    of the memory of training. Statistics are those of all devices of the axis `statistics_axis`,
    if given. `init` with `method="separate_channels"` for several channels or sources.
    """

    channels: tuple[int, ...] = PUBLISHED_CHANNELS
    blocks: int = PUBLISHED_BLOCKS  # residual blocks per stage
    centre_stages: int = 4
    audio_channels: int = 1
    sources: int = 1
    window_samples: int = 2048
    hop_samples: int = 320
    norm_momentum: float = 0.99
    statistics_axis: str | None = None
    dtype: Any = jnp.float32
    remat: bool = False

    def __call__(
        self, mixture: Float[Array, "batch time"], *, train: bool = False
    ) -> Float[Array, "batch time"]:
        """The estimated target at the mixture's scale and length; `time` is a multiple of the
        hop.
        """
        check_mono(self, mixture.shape[1])
        return self.separate_channels(mixture[..., None], train=train)[:, :, 0, 0]

    @nn.compact
    def separate_channels(
        self, mixture: Float[Array, "batch time channel"], *, train: bool = False
    ) -> Float[Array, "batch time source channel"]:
        """All sources of mixtures with `audio_channels` channels, of any length above half a
        window.
        """
        check_sizes(self, mixture.shape[2])
        network = ResidualUNet(
            channels=self.channels,
            blocks=self.blocks,
            centre_stages=self.centre_stages,
            maps=self.sources * self.audio_channels * MAPS,
            **self._stages(),
            norm_momentum=self.norm_momentum,
            statistics_axis=self.statistics_axis,
            dtype=self.dtype,
            remat=self.remat,
            train=train,
            name="network",
        )
        return separate_by_maps(
            mixture,
            network,
            sources=self.sources,
            window_samples=self.window_samples,
            hop_samples=self.hop_samples,
        )

    def _stages(self) -> dict[str, Any]:
        """How the stages of the `ResidualUNet` pool, normalise and bend."""
        return {
            "factors": ((2, 2),) * (len(self.channels) - 1) + ((1, 2),),
            "pool": "average",
            "in_place_norm": True,
            "prelu": False,
        }


def check_mono(separator: Any, length_samples: int) -> None:
    """A ValueError where a separator cannot map [batch, time] to [batch, time] of
    `length_samples`.
    """
    if separator.audio_channels != 1 or separator.sources != 1:
        raise ValueError(
            f"a separator with audio_channels={separator.audio_channels} and"
            f" sources={separator.sources} does not map [batch, time] to [batch, time]: call it"
            ' with method="separate_channels".'
        )
    if length_samples % separator.hop_samples:
        raise ValueError(
            f"the segment must be a multiple of the hop of {separator.hop_samples} samples, got"
            f" {length_samples} samples. Set segment_samples accordingly."
        )


def check_sizes(separator: Any, audio_channels: int) -> None:
    """A ValueError where a separator's fields and the number of channels of its input do not
    fit.
    """
    factor = 2 ** len(separator.channels)
    if separator.window_samples % (2 * factor):
        raise ValueError(
            f"{len(separator.channels)} stages halve the frequencies as often: window_samples must"
            f" be a multiple of {2 * factor}, got {separator.window_samples}."
        )
    if audio_channels != separator.audio_channels:
        raise ValueError(
            f"the mixture has {audio_channels} channels, the separator"
            f" audio_channels={separator.audio_channels}."
        )


class ResidualUNet(nn.Module):
    """Magnitudes [batch, channel, frame, frequency] to maps [batch, frame, frequency - 1, map].

    Stages of residual blocks, each followed by pooling over its factor of (time, frequency);
    stages in the centre; as many stages up, each a transposed convolution, the skip and residual
    blocks; a last stage and a 1 x 1 convolution. Frames are padded with zeros at the end to the
    multiple that can be pooled.
    """

    channels: tuple[int, ...]
    factors: tuple[tuple[int, int], ...]
    blocks: int
    centre_stages: int
    maps: int
    pool: str
    in_place_norm: bool
    prelu: bool
    norm_momentum: float
    statistics_axis: str | None
    dtype: Any
    remat: bool
    train: bool

    @nn.compact
    def __call__(
        self, level: Float[Array, "batch channel frame frequency"]
    ) -> Float[Array, "batch frame frequency_1 map"]:
        """Real maps in float32."""
        pool: Callable[[Array, tuple[int, int]], Array] = (
            _average_pool if self.pool == "average" else _max_pool
        )
        frames = level.shape[2]
        factor = math.prod(time for time, _ in self.factors)
        level = self._norm("input_norm")(level)[..., :-1]
        level = jnp.pad(level, ((0, 0), (0, 0), (0, -frames % factor), (0, 0)))
        hidden, skips = level.transpose(0, 2, 3, 1).astype(self.dtype), []
        for i, (features, factors) in enumerate(zip(self.channels, self.factors, strict=True), 1):
            hidden = self._stage(hidden, features, f"encoder{i}")
            skips.append(hidden)
            hidden = pool(hidden, factors)
        for i in range(1, self.centre_stages + 1):
            hidden = self._stage(hidden, self.channels[-1], f"centre{i}")
        for i, (features, factors) in enumerate(
            zip(reversed(self.channels), reversed(self.factors), strict=True), 1
        ):
            hidden = self._up(hidden, skips.pop(), features, factors, f"decoder{i}")
        hidden = self._stage(hidden, self.channels[0], "last")
        maps = _Conv(self.maps, 1, use_bias=True, dtype=self.dtype, name="maps")(hidden)
        return maps[:, :frames].astype(jnp.float32)

    def _stage(self, hidden: Array, features: int, name: str) -> Array:
        block = nn.remat(_Block) if self.remat else _Block
        for i in range(1, self.blocks + 1):
            hidden = block(
                features,
                in_place_norm=self.in_place_norm,
                prelu=self.prelu,
                norm_momentum=self.norm_momentum,
                statistics_axis=self.statistics_axis,
                dtype=self.dtype,
                train=self.train,
                name=f"{name}_block{i}",
            )(hidden)
        return hidden

    def _up(
        self, hidden: Array, skip: Array, features: int, factors: tuple[int, int], name: str
    ) -> Array:
        hidden = nn.relu(self._norm(f"{name}_norm")(hidden))
        hidden = _Upsample(features, factors, self.dtype, name=f"{name}_up")(hidden)
        return self._stage(jnp.concatenate([hidden, skip], -1), features, name)

    def _norm(self, name: str) -> "_Norm":
        return _Norm(self.norm_momentum, self.train, self.statistics_axis, name=name)


class _Block(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))), with a 1 x 1 convolution of x where the width
    changes.
    """

    features: int
    in_place_norm: bool
    prelu: bool
    norm_momentum: float
    dtype: Any
    train: bool
    statistics_axis: str | None = None

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch time frequency channel"]
    ) -> Float[Array, "batch time frequency feature"]:
        hidden = inputs
        for i in (1, 2):
            norm = _Norm(
                self.norm_momentum,
                self.train,
                self.statistics_axis,
                absolute_scale=self.in_place_norm and i == 2,
                name=f"norm{i}",
            )
            slope = 0.01
            if self.prelu:
                slope = self.param(f"slope{i}", nn.initializers.constant(0.25), ())
            hidden = norm(hidden)
            hidden = jnp.where(hidden >= 0, hidden, slope * hidden)
            hidden = _Conv(self.features, 3, dtype=self.dtype, name=f"conv{i}")(hidden)
        if inputs.shape[-1] != self.features:
            shortcut = _Conv(self.features, 1, use_bias=True, dtype=self.dtype, name="shortcut")
            inputs = shortcut(inputs)
        return inputs + hidden


class _Norm(nn.Module):
    """Batch normalisation over all axes but the last, y = (x - mean) / sqrt(var + 1e-5) * scale +
    bias, in float32.

    `absolute_scale` multiplies by |scale| + 1e-5 instead, as In-Place ABN does (Rota Bulo et al.,
    CVPR 2018): published weights have scales of both signs.
    """

    momentum: float
    train: bool
    statistics_axis: str | None = None
    absolute_scale: bool = False

    @nn.compact
    def __call__(self, inputs: Float[Array, "*any feature"]) -> Float[Array, "*any feature"]:
        shape = inputs.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        inputs = inputs.astype(jnp.float32)
        wide = functools.partial(jax.lax.broadcast_to_rank, rank=inputs.ndim)
        mean, var = running_mean.value, running_var.value
        if self.train:
            axes = tuple(range(inputs.ndim - 1))
            mean = self._over_devices(inputs.mean(axes))
            var = self._over_devices(jnp.mean((inputs - wide(mean)) ** 2, axes))
            if not self.is_initializing():
                for running, batch in ((running_mean, mean), (running_var, var)):
                    running.value = self.momentum * running.value + (1 - self.momentum) * batch
        if self.absolute_scale:
            scale = jnp.abs(scale) + _EPSILON
        scale = scale * jax.lax.rsqrt(var + _EPSILON)
        return (inputs - wide(mean)) * wide(scale) + wide(bias)

    def _over_devices(self, x: Array) -> Array:
        if self.statistics_axis is None or self.is_initializing():
            return x
        return jax.lax.pmean(x, self.statistics_axis)


class _Conv(nn.Module):
    """A convolution with a square kernel, stride 1 and zero padding to the same size."""

    features: int
    size: int
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch time frequency channel"]
    ) -> Float[Array, "batch time frequency feature"]:
        shape = (self.size, self.size, inputs.shape[-1], self.features)
        kernel = self.param("kernel", _XAVIER, shape).astype(self.dtype)
        inputs = inputs.astype(self.dtype)
        if self.size == 1:
            outputs = inputs @ kernel[0, 0]
        else:
            outputs = jax.lax.conv_general_dilated(
                inputs, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            outputs = outputs + bias[None, None, None].astype(self.dtype)
        return outputs


class _Upsample(nn.Module):
    """A transposed convolution whose stride is its kernel: one matrix product, then the outputs
    are laid side by side.
    """

    features: int
    factors: tuple[int, int]
    dtype: Any

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch time frequency channel"]
    ) -> Float[Array, "batch time2 frequency2 feature"]:
        kernel = self.param("kernel", _XAVIER, (*self.factors, inputs.shape[-1], self.features))
        outputs = jnp.einsum(
            "btfc,xyco->btxfyo", inputs.astype(self.dtype), kernel.astype(self.dtype)
        )
        batch, time, rows, frequency, columns, features = outputs.shape
        return outputs.reshape(batch, time * rows, frequency * columns, features)


def _average_pool(hidden: Array, factors: tuple[int, int]) -> Array:
    return _tiles(hidden, factors).mean((2, 4))


def _max_pool(hidden: Array, factors: tuple[int, int]) -> Array:
    return _tiles(hidden, factors).max((2, 4))


def _tiles(hidden: Array, factors: tuple[int, int]) -> Array:
    batch, time, frequency, channels = hidden.shape
    rows, columns = factors
    return hidden.reshape(batch, time // rows, rows, frequency // columns, columns, channels)
