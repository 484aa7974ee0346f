"""U-Net voice separation by a soft mask on the magnitude spectrogram (Jansson et al., ISMIR
2017).
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from majl_jax.audio.stft import istft, magnitude, stft
from majl_jax.models.layers.convolution import conv_halve, conv_transpose_double

PUBLISHED_CHANNELS = (16, 32, 64, 128, 256, 512)
SILENCE = 2e-5  # twice what `magnitude` gives for digital silence


class UNet(nn.Module):
    """Waveform to waveform: `s_hat = iSTFT(mask(|X|) * X)` with the mixture's phase.

    Six stride-2 convolutions down, six up with skips, batch normalisation on all layers but the
    last, LeakyReLU 0.2 down, ReLU up, dropout on the first three layers up, sigmoid at the end. At
    the published width 9,823,313 parameters. The magnitude is divided by its largest value in the
    segment, which makes the network independent of recording level; in silence it is 0. The port
    Xiao-Ming/UNet-VocalSeparation-Chainer has `kernel_size` 4 (6,288,545 parameters) and
    `norm_epsilon` 2e-5.

    Statistics are those of all devices of the axis `statistics_axis`, if given. The mask cannot
    exceed one: the target must be scaled as it is inside the mixture (`mixture_mode` of the
    recipe).
    """

    channels: tuple[int, ...] = PUBLISHED_CHANNELS
    window_samples: int = 1024
    hop_samples: int = 320
    dropout: float = 0.5
    norm_momentum: float = 0.99
    kernel_size: int = 5
    norm_epsilon: float = 1e-5
    statistics_axis: str | None = None
    dtype: Any = jnp.float32

    def __call__(
        self, mixture: Float[Array, "batch time"], *, train: bool = False
    ) -> Float[Array, "batch time"]:
        """The estimated target at the mixture's scale and length; `time` is frames * hop, frames a
        multiple of 64.
        """
        length, factor = mixture.shape[1], 2 ** len(self.channels)
        if length % (self.hop_samples * factor) or (self.window_samples // 2) % factor:
            raise ValueError(
                f"the U-Net halves time and frequency {len(self.channels)} times: the segment must"
                f" be a multiple of {factor} frames of {self.hop_samples} samples and"
                f" window_samples a multiple of {2 * factor}; got {length} samples and a window of"
                f" {self.window_samples}. Set segment_samples accordingly."
            )
        # Centred framing yields one frame more than there are pitch labels.
        spectrum = stft(mixture, window_samples=self.window_samples, hop_samples=self.hop_samples)
        spectrum = spectrum[:, :-1]
        level = magnitude(spectrum[..., 1:])  # without the DC bin: 2^k bins halve evenly
        peak = level.max((-2, -1), keepdims=True)
        heard = peak > SILENCE
        level = jnp.where(heard, level / jnp.where(heard, peak, 1.0), 0.0)
        mask = self.mask(level, train=train)
        mask = jnp.pad(mask, ((0, 0), (0, 0), (1, 0)))  # the DC bin is dropped
        return istft(
            mask * spectrum,
            window_samples=self.window_samples,
            hop_samples=self.hop_samples,
            length_samples=length,
        )

    @nn.compact
    def mask(
        self, level: Float[Array, "batch frame frequency"], *, train: bool = False
    ) -> Float[Array, "batch frame frequency"]:
        """The mask in 0..1 of a magnitude spectrogram without its DC bin; both sizes are multiples
        of 64.
        """

        def norm(x: Array, name: str) -> Array:
            return nn.BatchNorm(
                use_running_average=not train,
                momentum=self.norm_momentum,
                epsilon=self.norm_epsilon,
                axis_name=self.statistics_axis,
                dtype=self.dtype,
                name=name,
            )(x)

        conv = functools.partial(_Conv, size=self.kernel_size, dtype=self.dtype)
        hidden, depth, skips = level[..., None], len(self.channels), []
        for i, features in enumerate(self.channels, start=1):
            hidden = conv(features, down=True, name=f"down{i}")(hidden)
            hidden = nn.leaky_relu(norm(hidden, f"down{i}_norm"), 0.2)
            skips.append(hidden)
        for i, features in enumerate([*reversed(self.channels[:-1]), 1], start=1):
            if i > 1:
                hidden = jnp.concatenate([hidden, skips[depth - i]], -1)
            hidden = conv(features, down=False, name=f"up{i}")(hidden)
            if i == depth:
                return nn.sigmoid(hidden[..., 0].astype(jnp.float32))
            hidden = norm(hidden, f"up{i}_norm")
            if i <= 3:
                hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
            hidden = nn.relu(hidden)
        raise AssertionError("unreachable: the last layer returns")


class _Conv(nn.Module):
    """A square convolution that halves time and frequency, or its transpose that doubles them."""

    features: int
    down: bool
    size: int
    dtype: Any

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "batch time frequency channel"]
    ) -> Float[Array, "batch time2 frequency2 feature"]:
        shape = (self.size, self.size, hidden.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        convolve = conv_halve if self.down else conv_transpose_double
        convolved = convolve(hidden.astype(self.dtype), jnp.asarray(kernel, self.dtype))
        return convolved + bias[None, None, None].astype(self.dtype)
