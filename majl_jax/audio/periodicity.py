"""How periodic short frames of a sound are, and with which period."""

import numpy as np
from jaxtyping import Float

# Of the peaks of the autocorrelation the first that is as high as this share of the highest.
FIRST_PEAK = 0.93


def clarity(
    frames: Float[np.ndarray, "frame sample"],
    *,
    sample_rate_hz: int,
    lowest_hz: float = 27.5,
    highest_hz: float = 2000.0,
) -> tuple[Float[np.ndarray, " frame"], Float[np.ndarray, " frame"]]:
    """The clarity of the pitch of each frame, 1 of a periodic one, and its f0 in Hz; 0, 0 of none.

    n(t) = 2 sum_i x_i x_{i+t} / sum_i (x_i^2 + x_{i+t}^2); the peak of the first period that is
    nearly the highest, its place refined by a parabola (McLeod and Wyvill 2005, A smarter way to
    find pitch, eq. 9, with k = 0.93). A frame should last two periods of lowest_hz.
    """
    x = np.asarray(frames, np.float64)
    x = x - x.mean(axis=1, keepdims=True)
    size = x.shape[1]
    spectrum = np.fft.rfft(x, 2 * size)
    product = np.fft.irfft(np.abs(spectrum) ** 2)[:, :size]
    energy = np.cumsum(x**2, axis=1)
    whole = energy[:, -1:]
    # Of the samples that the shifted frame shares with the other, at each shift.
    before = np.concatenate([whole, energy[:, -2::-1]], axis=1)
    after = np.concatenate([whole, whole - energy[:, :-1]], axis=1)
    both = before + after
    n = np.divide(2 * product, both, out=np.zeros_like(both), where=both > 1e-20)
    last = min(int(sample_rate_hz / lowest_hz), size // 2)
    n = n[:, : last + 2]
    inside = np.cumsum(n < 0, axis=1)[:, 1:-1] > 0
    inside[:, : int(sample_rate_hz / highest_hz)] = False
    middle = n[:, 1:-1]
    peaks = inside & (middle >= n[:, :-2]) & (middle > n[:, 2:]) & (middle > 0)
    height = np.where(peaks, middle, 0.0)
    top = height.max(axis=1, initial=0.0)
    found = top > 0
    place = np.argmax(peaks & (height >= FIRST_PEAK * top[:, None]), axis=1)
    rows = np.arange(len(n))
    left, here, right = n[rows, place], n[rows, place + 1], n[rows, place + 2]
    bend = np.where(found, left - 2 * here + right, 1.0)
    lag = place + 1 + 0.5 * (left - right) / np.where(bend == 0, 1.0, bend)
    return np.where(found, here, 0.0), np.where(found, sample_rate_hz / lag, 0.0)
