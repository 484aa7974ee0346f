"""What can be wrong with audio and pitch labels, as functions of arrays alone."""

import numpy as np
import scipy.fft
from jaxtyping import Bool, Float, Float32, Int, Int16, Integer

from majl_jax.audio import int16
from majl_jax.datasets.grid import Grid

SILENT_PEAK = 3  # -81 dB, a few steps of 16 bits: dither and rounding
FLAT_PEAK = 8192  # -12 dB; a soft low tone may well hold its highest value for some samples
CLIPPED_RUN, FLAT_RUN = 3, 4  # samples at one extreme value
LONGEST_SHIFT_S, SHIFT_STEP_S = 0.2, 0.01
LOWEST_HZ = 50.0  # of the labels that are compared with the audio


def block_peaks(
    audio: Integer[np.ndarray, "*lead time"], samples: int
) -> Integer[np.ndarray, "*lead block"]:
    """Largest magnitude of each block of so many samples, int32 [*lead, block]; the last may be
    shorter.
    """
    starts = np.arange(0, audio.shape[-1], samples)
    if audio.shape[-1] % samples == 0:  # several times faster than reduceat
        blocks = audio.reshape(*audio.shape[:-1], len(starts), samples)
        high, low = blocks.max(-1), blocks.min(-1)
    else:
        high = np.maximum.reduceat(audio, starts, axis=-1)
        low = np.minimum.reduceat(audio, starts, axis=-1)
    return np.maximum(high.astype(np.int32), -low.astype(np.int32))


def clipped_runs(signal: Int16[np.ndarray, " time"]) -> tuple[int, int]:
    """Runs of samples at full scale, and runs at an extreme below it: a signal clipped, then
    turned down.
    """
    high, low = int(signal.max(initial=0)), int(signal.min(initial=0))
    clipped = flat = 0
    for extreme, at_extreme in ((high, signal == high), (-low, signal == low)):
        if extreme >= int16.HIGHEST:
            clipped += _runs(at_extreme, CLIPPED_RUN)
        elif extreme >= FLAT_PEAK:
            flat += _runs(at_extreme, FLAT_RUN)
    return clipped, flat


def _runs(at_extreme: Bool[np.ndarray, " time"], least: int) -> int:
    places = np.flatnonzero(at_extreme)
    if len(places) < least:
        return 0
    ends = np.flatnonzero(np.diff(places, append=-1) != 1)
    return int(np.count_nonzero(np.diff(ends, prepend=-1) >= least))


def likeness(gram: Float[np.ndarray, "stem stem"]) -> Float[np.ndarray, "stem stem"]:
    """Correlation of every two stems from their inner products; 0 where one of them is silent."""
    power = np.diag(gram)
    scale = np.sqrt(np.outer(power, power))
    return np.divide(gram, scale, out=np.zeros_like(gram), where=scale > 0)


def likeness_to_rest(gram: Float[np.ndarray, "stem stem"]) -> Float[np.ndarray, " stem"]:
    """Correlation of every stem with the sum of the others, from their inner products."""
    power, row = np.diag(gram), gram.sum(axis=1)
    rest = gram.sum() - 2 * row + power
    scale = np.sqrt(np.maximum(power * rest, 0.0))
    return np.divide(row - power, scale, out=np.zeros_like(power), where=scale > 0)


def silent_frames(peaks: Integer[np.ndarray, "*lead block"]) -> Bool[np.ndarray, "*lead block"]:
    """Whether nothing sounds a hop before and after the middle of each frame, from the peaks of
    the hops.
    """
    before = np.concatenate([peaks[..., :1], peaks[..., :-1]], axis=-1)
    return np.maximum(before, peaks) <= SILENT_PEAK


def label_shifts(grid: Grid) -> Int[np.ndarray, " shift"]:
    """The shifts, in frames, at which labels are compared with the audio: to 0.2 s, in steps of
    about 10 ms.
    """
    step = max(1, round(SHIFT_STEP_S * grid.sample_rate_hz / grid.hop_samples))
    most = max(1, int(LONGEST_SHIFT_S * grid.sample_rate_hz / grid.hop_samples / step))
    return step * np.arange(-most, most + 1)


def label_fit(
    signal: Float32[np.ndarray, " time"],
    f0_hz: Float32[np.ndarray, " frame"],
    *,
    grid: Grid,
) -> Float[np.ndarray, "shift 2"]:
    """How periodic the audio is with the labelled periods, for every shift of the labels against
    it.

    Sums over the voiced frames of (self-likeness at the labelled period, 1). A shift d stands for
    labels that come d frames late. The self-likeness is the autocorrelation of a spectrum whose
    magnitudes are not squared, which holds for mixtures too (Tolonen and Karjalainen 2000).
    """
    shifts, sample_rate_hz, hop_samples = label_shifts(grid), grid.sample_rate_hz, grid.hop_samples
    out = np.zeros((len(shifts), 2))
    window = 1 << int(np.ceil(np.log2(2.5 * sample_rate_hz / LOWEST_HZ)))
    voiced = np.flatnonzero((f0_hz >= LOWEST_HZ) & (f0_hz <= sample_rate_hz / 8))
    if not len(voiced) or not signal.any():
        return out
    padded = np.pad(signal, (window // 2, window // 2 + hop_samples))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop_samples]
    frames = frames[: len(f0_hz)] * np.hanning(window).astype(np.float32)
    spectrum = np.abs(np.asarray(scipy.fft.rfft(frames, 2 * window)))
    self_likeness = np.asarray(scipy.fft.irfft(spectrum))[:, : window // 2]
    power = self_likeness[:, :1]
    self_likeness /= np.where(power > 1e-6, power, np.inf)
    for row, shift in enumerate(shifts):
        labels = voiced[(voiced - shift >= 0) & (voiced - shift < len(self_likeness))]
        lags = sample_rate_hz / f0_hz[labels]
        out[row] = _at(self_likeness, labels - shift, lags).sum(), len(labels)
    return out


def _at(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Values between the columns of a table, on straight lines."""
    below = columns.astype(np.int64)
    share = columns - below
    return (1 - share) * table[rows, below] + share * table[rows, below + 1]
