"""CREPE: pitch of a monophonic voice from raw 64 ms frames (Kim, Salamon, Li and Bello, ICASSP
2018).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from majl_jax.models.layers.convolution import conv1d_spectral

FRAME_SAMPLES = 1024  # at 16 kHz
BINS = 360  # 20 cents each, see audio/pitch.py
CAPACITY = {"tiny": 4, "small": 8, "medium": 16, "large": 24, "full": 32}
FILTERS = (32, 4, 4, 4, 8, 16)  # times the capacity's multiplier
WIDTHS = (512, 64, 64, 64, 64, 64)


def frames(
    audio: Float[Array, "batch time"],
    *,
    hop_samples: int,
    index: Integer[Array, "batch frame"] | None = None,
) -> Float[Array, "batch frame 1024"]:
    """Frames centred at `k * hop_samples` (zero-padded by half a frame), all `time // hop` of them
    or those in `index`.
    """
    padded = jnp.pad(audio, ((0, 0), (FRAME_SAMPLES // 2, FRAME_SAMPLES // 2)))
    if index is None:
        index = jnp.broadcast_to(
            jnp.arange(audio.shape[1] // hop_samples),
            (audio.shape[0], audio.shape[1] // hop_samples),
        )

    def cut(signal: Array, start: Array) -> Array:
        return jax.lax.dynamic_slice(signal, (start,), (FRAME_SAMPLES,))

    return jax.vmap(jax.vmap(cut, (None, 0)))(padded, index * hop_samples)


def normalise(frame: Float[Array, "*row 1024"], *, floor: float) -> Float[Array, "*row 1024"]:
    """Remove each frame's mean and divide by its population standard deviation, at least `floor`.

    Below the floor the divisor is constant, so that its gradient, of the order 1 / std, cannot
    explode when pitch is trained through a nearly silent separated voice. Parity with the
    published weights needs 1e-8.
    """
    centred = frame - frame.mean(-1, keepdims=True)
    variance = jnp.mean(centred**2, -1, keepdims=True)
    return centred / jnp.sqrt(jnp.maximum(variance, floor**2))


class Crepe(nn.Module):
    """Six convolutions and a dense layer from audio at 16 kHz to the logits of 360 pitch bins per
    frame.

    A layer is convolution, ReLU, batch normalisation, max-pooling by 2, dropout, in the order of
    the released code (the paper's text puts the normalisation first). `capacity` is a published
    name or the multiplier itself. Trainable parameters: tiny 486,552, small 1,628,104, medium
    5,877,288, large 12,747,912, full 22,239,976. Statistics are those of all devices of the axis
    `statistics_axis`, if given.
    """

    capacity: str | int = "tiny"
    hop_samples: int = 320
    dropout: float = 0.25
    frame_floor: float = 1e-4
    norm_momentum: float = 0.99
    statistics_axis: str | None = None
    dtype: Any = jnp.float32

    @property
    def reach_samples(self) -> int:
        """What a frame hears at either side of its centre."""
        return FRAME_SAMPLES // 2

    @nn.compact
    def __call__(
        self,
        audio: Float[Array, "batch time"],
        *,
        index: Integer[Array, "batch frame"] | None = None,
        train: bool = False,
    ) -> Float[Array, "batch frame 360"]:
        """Logits per frame; `index` picks frames (all of them by default)."""
        multiplier = CAPACITY[self.capacity] if isinstance(self.capacity, str) else self.capacity
        framed = normalise(
            frames(audio, hop_samples=self.hop_samples, index=index), floor=self.frame_floor
        )
        # Axes (time, row, channel): all products below then work on contiguous memory.
        hidden = framed.reshape(-1, FRAME_SAMPLES, 1).astype(self.dtype).swapaxes(0, 1)
        for i, (filters, width) in enumerate(zip(FILTERS, WIDTHS, strict=True), start=1):
            hidden = _Conv(
                filters * multiplier,
                width=width,
                stride=4 if i == 1 else 1,
                padding=(254, 254) if i == 1 else (31, 32),  # as Keras pads an even kernel
                dtype=self.dtype,
                name=f"conv{i}",
            )(hidden)
            hidden = nn.BatchNorm(
                use_running_average=not train,
                momentum=self.norm_momentum,
                epsilon=1e-3,
                axis_name=self.statistics_axis,
                dtype=self.dtype,
                name=f"norm{i}",
            )(nn.relu(hidden))
            # Equal to max-pooling by 2; XLA's gradient of a windowed maximum is a slow scatter on
            # CPU.
            hidden = jnp.maximum(hidden[::2], hidden[1::2])
            hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        hidden = hidden.swapaxes(0, 1).reshape(hidden.shape[1], -1)  # time-major, as published
        logits = nn.Dense(BINS, dtype=self.dtype, name="dense")(hidden)
        return logits.reshape(*framed.shape[:2], BINS).astype(jnp.float32)


class _Conv(nn.Module):
    """A 1-D convolution over the first axis."""

    features: int
    width: int
    stride: int
    padding: tuple[int, int]
    dtype: Any

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "time row channel"]
    ) -> Float[Array, "time_out row feature"]:
        shape = (self.width, hidden.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        convolved = conv1d_spectral(
            hidden, kernel.astype(self.dtype), stride=self.stride, padding=self.padding
        )
        return convolved + bias[None, None].astype(self.dtype)
