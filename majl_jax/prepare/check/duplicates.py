"""Audio that occurs twice: the same samples, or the same sound at another level, place or
quality.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.fft
from jaxtyping import Float32, Int16

LOWEST_HZ, HIGHEST_HZ, BANDS = 300.0, 2000.0, 25
HOP_S, WINDOW_S = 0.02, 0.37
KEPT_BITS = 3  # one fingerprint in 2**3 is kept
COMMONPLACE = 12  # a fingerprint that occurs more often says nothing
# Of other pieces by the same instruments at most 4 agree; of a piece with noise 20 dB below it a
# third or more.
FEWEST_HITS, LEAST_SHARE = 8, 0.12


class Prints(NamedTuple):
    """What identifies a stretch of sound: values, and the time of each in samples or hops."""

    values: np.ndarray  # uint64
    times: np.ndarray  # int64


class Twins(NamedTuple):
    """Two signals with something in common, by their numbers, and how often they agree."""

    first: int
    second: int
    hits: int


NO_PRINTS = Prints(np.zeros(0, np.uint64), np.zeros(0, np.int64))


def digest(signal: Int16[np.ndarray, "channel time"], start_sample: int) -> Prints:
    """One value that only the same samples have."""
    value = hashlib.blake2b(signal.tobytes(), digest_size=8).digest()
    return Prints(np.frombuffer(value, np.uint64), np.asarray([start_sample]))


def fingerprint(
    signal: Float32[np.ndarray, " time"], start_sample: int, *, sample_rate_hz: int
) -> Prints:
    """24 bits per 20 ms: whether the difference of neighbouring bands' energies grows (Haitsma and
    Kalker 2002).

    One in eight is kept, chosen by its value, so that two copies of the same sound keep the same
    ones.
    """
    fold = max(1, int(sample_rate_hz / (2.5 * HIGHEST_HZ)))
    rate_hz = sample_rate_hz / fold
    coarse = signal[: len(signal) // fold * fold].reshape(-1, fold).mean(1, dtype=np.float32)
    hop, window = max(1, round(HOP_S * rate_hz)), 1 << int(np.log2(WINDOW_S * rate_hz))
    edges_hz = np.geomspace(LOWEST_HZ, HIGHEST_HZ, BANDS + 1)
    edges = np.round(edges_hz * window / rate_hz).astype(np.int64)
    if len(coarse) < window + hop or edges[-1] > window // 2 or np.diff(edges).min() < 1:
        return NO_PRINTS
    frames = np.lib.stride_tricks.sliding_window_view(coarse, window)[::hop]
    windowed = frames * np.hanning(window).astype(np.float32)
    spectrum = np.asarray(scipy.fft.rfft(windowed), np.complex64)[:, : edges[-1]]
    energy = np.add.reduceat(np.abs(spectrum) ** 2, edges[:-1], axis=1)
    grows = np.diff(energy[:, :-1] - energy[:, 1:], axis=0) > 0
    values = (grows @ (1 << np.arange(BANDS - 1))).astype(np.uint32)
    loudness = energy[1:].sum(axis=1)
    sounding = loudness > 1e-6 * loudness.max()
    spread = values * np.uint32(2654435761)  # the golden ratio's multiplier: similar values part
    keep = sounding & (spread >> np.uint32(32 - KEPT_BITS) == 0)
    keep[1:] &= values[1:] != values[:-1]  # a steady tone counts once
    times = np.arange(len(values)) + round(start_sample / fold / hop)
    return Prints(values[keep].astype(np.uint64), times[keep])


def joined(prints: Sequence[Prints]) -> Prints:
    """All in one."""
    return Prints(*(np.concatenate(column) for column in zip(NO_PRINTS, *prints, strict=True)))


def same_samples(signals: Sequence[Prints], owners: Sequence[int]) -> list[Twins]:
    """Pairs of signals that share a digest; `owners` says whose each is, and an owner has no twin
    in itself.
    """
    return _twins(signals, owners, neighbours=2, fewest=1, commonplace=None)


def same_sound(signals: Sequence[Prints], owners: Sequence[int]) -> list[Twins]:
    """Pairs of signals that share an eighth or more of the shorter one's fingerprints, all shifted
    alike.
    """
    sizes = [len(one.values) for one in signals]
    return [
        twins
        for twins in _twins(
            signals, owners, neighbours=COMMONPLACE, fewest=FEWEST_HITS, commonplace=COMMONPLACE
        )
        if twins.hits >= LEAST_SHARE * min(sizes[twins.first], sizes[twins.second])
    ]


def _twins(
    signals: Sequence[Prints],
    owners: Sequence[int],
    *,
    neighbours: int,
    fewest: int,
    commonplace: int | None,
) -> list[Twins]:
    """Sorts all values and counts what every two signals share at the same shift in time, up to
    one.
    """
    values, times = joined(signals)
    signal = np.repeat(np.arange(len(signals)), [len(one.values) for one in signals])
    order = np.lexsort((signal, values))
    values, times, signal = values[order], times[order], signal[order]
    if commonplace is not None:
        _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
        rare = counts[which] <= commonplace
        values, times, signal = values[rare], times[rare], signal[rare]
    owner = np.asarray(owners, np.int64)[signal]
    pairs, shifts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for step in range(1, neighbours + 1):
        equal = (values[step:] == values[:-step]) & (owner[step:] != owner[:-step])
        first = np.flatnonzero(equal)
        pairs.append(signal[first] * len(signals) + signal[first + step])
        shifts.append(times[first + step] - times[first])
    pair, shift = np.concatenate(pairs), np.concatenate(shifts)
    found, which, counts = np.unique(pair, return_inverse=True, return_counts=True)
    enough = counts[which] >= fewest
    which, shift = which[enough], shift[enough]
    hits = np.zeros(len(found), np.int64)
    for phase in (0, 1):  # a shift between two hops shows as both
        places, number = np.unique(
            np.stack([which, (shift + phase) // 2]), axis=1, return_counts=True
        )
        np.maximum.at(hits, places[0], number)
    return [
        Twins(*divmod(int(found[row]), len(signals)), int(hits[row]))
        for row in np.flatnonzero(hits >= fewest)
    ]
