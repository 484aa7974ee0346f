"""Scores of separated stems of whole tracks, in float64 NumPy: SDR family and BSS Eval v4.

Estimate first, reference second, audio as [time] or [time, channel]. A silent reference has no
score: NaN, for who takes means to leave out and to count. Unequal shapes and values that are not
finite are errors. What a silent estimate gets, and one that equals its reference, each score says.
"""

from collections.abc import Mapping

import numpy as np
import scipy.fft
import scipy.linalg
from jaxtyping import Float

# An underscore: unequal shapes are told by the functions themselves, also when shapes are checked.
Audio = Float[np.ndarray, "_time *_channel"]
SDR_FLOOR = 1e-8


def sdr_db(estimate: Audio, reference: Audio) -> float:
    """Global SDR, 10 lg max(mean s^2, 1e-8) - 10 lg max(mean (s_hat - s)^2, 1e-8).

    As MAJL's authors compute it (DJCM code, `evaluate.py`): whole track, no scaling, no filter.
    A silent estimate gets 0 dB, equal signals 80 dB more than the reference's level; NaN for a
    silent reference.
    """
    estimate, reference = _checked(estimate, reference)
    if not np.any(reference):
        return float("nan")
    signal, noise = np.mean(reference**2), np.mean((estimate - reference) ** 2)
    return float(10 * np.log10(max(signal, SDR_FLOOR)) - 10 * np.log10(max(noise, SDR_FLOOR)))


def si_sdr_db(estimate: Audio, reference: Audio, *, zero_mean: bool = False) -> float:
    """SI-SDR, 10 lg |a s|^2 / |s_hat - a s|^2 with a = <s_hat, s> / |s|^2 (Le Roux et al. 2019).

    One scale for all channels; `zero_mean` first removes each channel's mean. A silent estimate,
    and any other without a share of the reference, gets -inf, equal signals +inf; NaN for a silent
    reference. With `zero_mean` what is constant is silent.
    """
    estimate, reference = _checked(estimate, reference)
    if zero_mean:
        estimate, reference = map(_without_mean, (estimate, reference))
    if not np.any(reference):
        return float("nan")
    target = np.sum(estimate * reference) / np.sum(reference**2) * reference
    return _ratio_db(np.sum(target**2), np.sum((estimate - target) ** 2))


def usdr_db(
    estimate: Audio, reference: Audio, *, channel_mean: bool = False, epsilon: float = 1e-8
) -> float:
    """Utterance-level SDR of a song, 10 lg (|s|^2 + eps) / (|s - s_hat|^2 + eps).

    Energies are summed over the channels (Music Demixing Challenge, Mitsufuji et al. 2022, eq. 1);
    `channel_mean` averages the decibels of the channels instead (Saijo and Bando 2025). A silent
    estimate gets 0 dB, equal signals 10 lg (|s|^2 / eps + 1); NaN for a silent reference.
    """
    estimate, reference = _checked(estimate, reference)
    if not np.any(reference):
        return float("nan")
    axis = 0 if channel_mean else None
    signal = np.sum(reference**2, axis) + epsilon
    noise = np.sum((estimate - reference) ** 2, axis) + epsilon
    return float(np.mean(10 * np.log10(signal / noise)))


def bss_eval_v4(
    estimates: Float[np.ndarray, "_stem _time _channel"],
    references: Float[np.ndarray, "_stem _time _channel"],
    *,
    window_samples: int,
    hop_samples: int | None = None,
    filter_taps: int = 512,
    sdr_only: bool = False,
) -> dict[str, Float[np.ndarray, "stem window"]]:
    """BSS Eval v4, "images": sdr_db, isr_db, sir_db, sar_db per window (Stoeter et al. 2018).

    One least-squares distortion filter per track, scores per window. A window in which any
    reference is silent, or any estimate that sounds elsewhere, is NaN for every stem, as in
    museval; silent are channels that sum to zero. An estimate that is silent throughout, which
    museval refuses, gets SDR and ISR of 0 dB and SIR and SAR of -inf, and leaves the scores of the
    other stems as they are; equal signals get +inf, but for rounding in the filters.

    Args:
        estimates: of all stems of a track.
        references: the true stems.
        window_samples: length of a window; published numbers use windows and hops of 1 s.
        hop_samples: from a window to the next; None: a whole window.
        filter_taps: length of the distortion filter.
        sdr_only: leaves all but the SDR out, which needs no filter and takes milliseconds.
    """
    estimates, references = _checked(estimates, references)
    if references.ndim != 3:
        raise ValueError(f"bss_eval_v4 needs [stem, time, channel], got shape {references.shape}.")
    hop_samples = window_samples if hop_samples is None else hop_samples
    windows = _windows(references.shape[1], window_samples, hop_samples)
    heard = estimates[~_silent(estimates)]
    silent = [_silent(references[:, w]).any() or _silent(heard[:, w]).any() for w in windows]
    names = ("sdr_db",) if sdr_only else ("sdr_db", "isr_db", "sir_db", "sar_db")
    scores = {name: np.full((len(references), len(windows)), np.nan) for name in names}
    filters = (
        []
        if sdr_only or all(silent)
        else [*_distortion_filters(estimates, references, filter_taps)]
    )
    for column, (window, is_silent) in enumerate(zip(windows, silent, strict=True)):
        if is_silent:
            continue
        truth, guess = references[:, window], estimates[:, window]
        true_energy = _energy(truth)
        scores["sdr_db"][:, column] = _ratios_db(true_energy, _energy(guess - truth))
        if sdr_only:
            continue
        tail = ((0, 0), (0, filter_taps - 1), (0, 0))
        truth, guess = np.pad(truth, tail), np.pad(guess, tail)
        own, everything = _project(references[:, window], *filters, taps=filter_taps)
        scores["isr_db"][:, column] = _ratios_db(true_energy, _energy(own - truth))
        scores["sir_db"][:, column] = _ratios_db(_energy(own), _energy(everything - own))
        scores["sar_db"][:, column] = _ratios_db(_energy(everything), _energy(guess - everything))
    return scores


def median_over_windows(
    scores: Mapping[str, Float[np.ndarray, "stem window"]],
) -> dict[str, Float[np.ndarray, "stem"]]:
    """Median of the windows that are not NaN, per score and stem; NaN for a stem without any."""
    medians = {}
    for name, values in scores.items():
        empty = np.all(np.isnan(values), axis=1)
        medians[name] = np.full(len(values), np.nan)
        medians[name][~empty] = np.nanmedian(values[~empty], axis=1)
    return medians


def _checked(estimate, reference) -> tuple[np.ndarray, np.ndarray]:
    estimate, reference = np.asarray(estimate, np.float64), np.asarray(reference, np.float64)
    if estimate.shape != reference.shape:
        raise ValueError(
            f"the estimate has shape {estimate.shape}, the reference {reference.shape}. Cut or pad "
            "them to the same length first: a score would depend on how they are aligned."
        )
    if not reference.size:
        raise ValueError("estimate and reference are empty. Leave such tracks out.")
    for name, audio in (("estimate", estimate), ("reference", reference)):
        bad = audio.size - np.count_nonzero(np.isfinite(audio))
        if bad:
            raise ValueError(f"the {name} has {bad} samples that are NaN or infinite.")
    return estimate, reference


def _without_mean(audio: np.ndarray) -> np.ndarray:
    """Each channel without its mean; exactly 0 where it is constant, which rounding would hide."""
    return np.where(np.ptp(audio, axis=0) == 0, 0.0, audio - audio.mean(0))


def _energy(stems: np.ndarray) -> np.ndarray:
    return np.sum(stems**2, axis=(1, 2))


def _ratios_db(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    return np.array([_ratio_db(s, n) for s, n in zip(signal, noise, strict=True)])


def _ratio_db(signal: float, noise: float) -> float:
    if signal == 0:  # also where there is no noise either: nothing at all
        return float("-inf")
    return float(10 * np.log10(signal / noise)) if noise > 0 else float("inf")


def _silent(stems: np.ndarray) -> np.ndarray:
    # BSS Eval v4's own rule: silent is a stem whose channels sum to zero at every sample.
    return np.all(np.sum(stems, axis=2) == 0, axis=1)


def _windows(time: int, window: int, hop: int) -> list[slice]:
    if window < 1 or hop < 1:
        raise ValueError(f"window_samples and hop_samples must be positive, got {window}, {hop}.")
    count = (time - window + hop) // hop if window < time else 1
    return [slice(k * hop, min(k * hop + window, time)) for k in range(count)]


def _correlations(a: np.ndarray, b: np.ndarray, lags: int) -> np.ndarray:
    """r[p, q, k] = sum_n a[p, n] b[q, n + k] for k < lags, in blocks that stay in the cache."""
    size = max(16384, 4 * lags)
    step = size - lags + 1
    blocks = -(-a.shape[1] // step)
    b = np.pad(b, ((0, 0), (0, blocks * step + lags - 1 - b.shape[1])))
    total = np.zeros((len(a), len(b), size // 2 + 1), complex)
    for start in range(0, blocks * step, step):
        spectrum_a = np.conj(np.fft.rfft(a[:, start : start + step], size))
        spectrum_b = np.fft.rfft(b[:, start : start + step + lags - 1], size)
        total += spectrum_a[:, None] * spectrum_b[None]
    return np.fft.irfft(total, size)[..., :lags]


def _distortion_filters(
    estimates: np.ndarray, references: np.ndarray, taps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares filters to each estimate from its own and from all references.

    own [stem, channel_in, channel_out, tap], all [stem, stem_in, channel_in, channel_out, tap].
    """
    stems, _, channels = references.shape
    inputs = references.transpose(0, 2, 1).reshape(stems * channels, -1)
    outputs = estimates.transpose(0, 2, 1).reshape(stems * channels, -1)
    auto = _correlations(inputs, inputs, taps)
    cross = _correlations(inputs, outputs, taps)
    # <x_p delayed by a, x_q delayed by b> is a function of a - b: one Toeplitz block per pair.
    gram = np.empty((stems * channels, taps, stems * channels, taps))
    for p in range(stems * channels):
        for q in range(stems * channels):
            gram[p, :, q, :] = scipy.linalg.toeplitz(auto[p, q], auto[q, p])
    size = stems * channels * taps
    right = cross.transpose(0, 2, 1).reshape(size, stems * channels)
    everything = _solve(gram.reshape(size, size), right)
    everything = everything.reshape(stems, channels, taps, stems, channels)
    own = np.empty((stems, channels, channels, taps))
    for stem in range(stems):
        rows = slice(stem * channels, (stem + 1) * channels)
        block = gram[rows, :, rows, :].reshape(channels * taps, channels * taps)
        right = cross[rows, rows].transpose(0, 2, 1).reshape(channels * taps, channels)
        own[stem] = _solve(block, right).reshape(channels, taps, channels).transpose(0, 2, 1)
    return own, everything.transpose(3, 0, 1, 4, 2)


def _solve(gram: np.ndarray, right: np.ndarray) -> np.ndarray:
    regular = gram.copy()
    regular.flat[:: len(gram) + 1] += np.finfo(float).eps
    try:
        return scipy.linalg.cho_solve(scipy.linalg.cho_factor(regular, lower=True), right)
    except np.linalg.LinAlgError:  # stems without treble: positive definite but for rounding
        pass
    try:
        return np.linalg.solve(regular, right)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(gram, right, rcond=None)[0]


def _project(
    references: np.ndarray, own: np.ndarray, everything: np.ndarray, *, taps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Projections on the own and on all references, each [stem, time + taps - 1, channel]."""
    time = references.shape[1] + taps - 1
    size = scipy.fft.next_fast_len(time, real=True)
    inputs = np.fft.rfft(references.transpose(0, 2, 1), size)
    by_own = np.einsum("scf,scdf->sdf", inputs, np.fft.rfft(own, size))
    by_all = np.zeros_like(by_own)
    for stem, filters in enumerate(everything):
        by_all[stem] = np.einsum("jcf,jcdf->df", inputs, np.fft.rfft(filters, size))
    projections = np.fft.irfft(np.stack([by_own, by_all]), size)[..., :time]
    return projections[0].transpose(0, 2, 1), projections[1].transpose(0, 2, 1)
