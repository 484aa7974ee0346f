"""HarmoF0: pitch from a log-frequency spectrum by convolutions dilated to the harmonics (Wei et
al., ICME 2022).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from majl_jax.audio.stft import hann_window
from majl_jax.models.crepe import frames
from majl_jax.models.layers.harmonic_convolution import conv3x3, shifted_products

PUBLISHED_CHANNELS = (32, 64, 128, 128)
BINS, BINS_PER_OCTAVE, LOWEST_HZ = 352, 48, 27.5
FRAME_SAMPLES, RATE_HZ = 1024, 16_000
HARMONICS = 12
HARMONIC_BINS = tuple(int(b) for b in np.round(BINS_PER_OCTAVE * np.log2(np.arange(1, 13))))
POWER_FLOOR, RANGE_DB = 1e-10, 80.0
HARMOF0_BIN_CENTS = 1200.0 * np.log2(LOWEST_HZ / 10.0) + 25.0 * np.arange(BINS)
"""HarmoF0's 352 bin centres, 27.5 to 4371 Hz in steps of 25 cents."""


def interpolation_matrix(*, swapped: bool = False) -> Float[np.ndarray, "513 352"]:
    """Power of 513 FFT bins to log-frequency bins f_k = 27.5 * 2^(k / 48) Hz, by linear
    interpolation.

    With x the fractional FFT bin of f_k: P[floor x] (ceil x - x) + P[ceil x] (x - floor x). The
    released code, and so its weights, exchange the two factors (`swapped`).
    """
    place = LOWEST_HZ * 2.0 ** (np.arange(BINS) / BINS_PER_OCTAVE) * FRAME_SAMPLES / RATE_HZ
    low = np.floor(place).astype(int)
    upper = place - low
    weights = (upper, 1.0 - upper) if swapped else (1.0 - upper, upper)
    matrix = np.zeros((FRAME_SAMPLES // 2 + 1, BINS), np.float32)
    for rows, values in zip((low, low + 1), weights, strict=True):
        matrix[rows, np.arange(BINS)] += values
    return matrix


def log_spectrogram_db(
    framed: Float[Array, "batch frame 1024"],
    *,
    swapped: bool = False,
    floor_per_batch: bool = False,
) -> Float[Array, "batch frame 352"]:
    """Power on log-frequency bins in dB: 10 lg max(P, 1e-10), at least 80 dB below the maximum of
    the example.

    `floor_per_batch` takes the maximum of all examples together, as the released code does: what
    is heard in one then depends on the others. No gradient flows through the maximum.
    """
    spectrum = jnp.fft.rfft(framed * hann_window(FRAME_SAMPLES)[None, None])
    power = jnp.real(spectrum) ** 2 + jnp.imag(spectrum) ** 2
    matrix = interpolation_matrix(swapped=swapped)
    power = jnp.matmul(power, matrix, precision=jax.lax.Precision.HIGHEST)
    level_db = 10.0 * jnp.log10(jnp.maximum(power, POWER_FLOOR))
    axes = None if floor_per_batch else (1, 2)
    peak_db = jax.lax.stop_gradient(level_db.max(axes, keepdims=True))
    return jnp.maximum(level_db, peak_db - RANGE_DB)


class HarmoF0(nn.Module):
    """Four blocks of two convolutions and a normalisation, from audio at 16 kHz to the logits of
    352 pitch bins per frame.

    The second convolution of the first block adds up the harmonics 1 to 12 of every bin (MRDConv),
    those of the other blocks reach an octave up and down. At the published width 372,865
    parameters. `swapped_interpolation` and `floor_per_batch` are what the published weights were
    trained with. Statistics are those of all devices of the axis `statistics_axis`, if given.
    """

    channels: tuple[int, ...] = PUBLISHED_CHANNELS
    hop_samples: int = 320
    norm_momentum: float = 0.9
    statistics_axis: str | None = None
    swapped_interpolation: bool = False
    floor_per_batch: bool = False
    dtype: Any = jnp.float32

    @property
    def reach_samples(self) -> int:
        """What a frame hears at either side of its centre: a 3 x 3 convolution per block sees its
        neighbours.
        """
        return FRAME_SAMPLES // 2 + len(self.channels) * self.hop_samples

    def __call__(
        self,
        audio: Float[Array, "batch time"],
        *,
        index: Integer[Array, "batch frame"] | None = None,
        train: bool = False,
    ) -> Float[Array, "batch frame 352"]:
        """Logits per frame; `index` picks frames after all were computed, for they see their
        neighbours.
        """
        logits = self.from_frames(frames(audio, hop_samples=self.hop_samples), train=train)
        return logits if index is None else jnp.take_along_axis(logits, index[..., None], 1)

    def from_frames(
        self, framed: Float[Array, "batch frame 1024"], *, train: bool = False
    ) -> Float[Array, "batch frame 352"]:
        """Logits of frames that are cut already."""
        spectrogram = log_spectrogram_db(
            framed, swapped=self.swapped_interpolation, floor_per_batch=self.floor_per_batch
        )
        return self.from_spectrogram(spectrogram, train=train)

    @nn.compact
    def from_spectrogram(
        self, spectrogram: Float[Array, "batch frame 352"], *, train: bool = False
    ) -> Float[Array, "batch frame 352"]:
        """Logits of a spectrogram from `log_spectrogram_db`."""
        hidden = spectrogram[..., None].astype(self.dtype)
        for i, features in enumerate(self.channels, start=1):
            hidden = nn.relu(_Conv(features, self.dtype, name=f"conv{i}")(hidden))
            shifts = HARMONIC_BINS if i == 1 else (-BINS_PER_OCTAVE, 0, BINS_PER_OCTAVE)
            hidden = _Shifted(features, shifts, self.dtype, name=f"dilated{i}")(hidden)
            norm = nn.BatchNorm(
                use_running_average=not train,
                momentum=self.norm_momentum,
                epsilon=1e-5,
                axis_name=self.statistics_axis,
                # Decibels have a mean far from 0: the mean of squares minus its square would lose
                # digits.
                use_fast_variance=False,
                dtype=jnp.float32,
                name=f"norm{i}",
            )
            hidden = norm(nn.relu(hidden).astype(jnp.float32)).astype(self.dtype)
        hidden = nn.relu(nn.Dense(self.channels[-1] // 2, dtype=self.dtype, name="conv5")(hidden))
        return nn.Dense(1, dtype=self.dtype, name="conv6")(hidden)[..., 0].astype(jnp.float32)


class _Conv(nn.Module):
    """A 3 x 3 convolution with zero padding to the same size."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch frame bin channel"]
    ) -> Float[Array, "batch frame bin feature"]:
        shape = (3, 3, inputs.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        convolved: Array = conv3x3(inputs, jnp.asarray(kernel, self.dtype))
        return convolved + bias[None, None, None].astype(self.dtype)


class _Shifted(nn.Module):
    """y[f] = sum_i W_i x[f + d_i] over the shifts d_i that stay inside, plus biases.

    The harmonics (12 shifts) have a bias each, which counts where its shift stays inside; the
    dilated convolution (3 shifts) has one.
    """

    features: int
    shifts: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch frame bin channel"]
    ) -> Float[Array, "batch frame bin feature"]:
        count, bins = len(self.shifts), inputs.shape[2]
        own_biases = count == HARMONICS
        shape = (count, inputs.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(batch_axis=0), shape)
        bias_shape = (count, self.features) if own_biases else (self.features,)
        bias = self.param("bias", nn.initializers.zeros, bias_shape)
        if own_biases:
            read = np.arange(bins)[:, None] + np.array(self.shifts)
            inside = ((read >= 0) & (read < bins)).astype(np.float32)
            bias = jnp.matmul(inside, bias, precision=jax.lax.Precision.HIGHEST)
        total: Array = shifted_products(inputs, jnp.asarray(kernel, self.dtype), self.shifts)
        return total + jax.lax.broadcast_to_rank(bias, total.ndim).astype(self.dtype)
