"""Separation of all stems of whole tracks, scored: uSDR in both definitions, cSDR and SI-SDR.

A row of tracks.jsonl is a track and a system: the mean over the stems of each score, and each
stem's own.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from majl_jax import console
from majl_jax.audio import int16
from majl_jax.batch import Variables
from majl_jax.evaluation.examples import NO_FILES, ForReport, Stems, write_stems
from majl_jax.evaluation.rows import Row, aggregate, flatten, mean, means
from majl_jax.inference.segments import SEGMENTING, Segmenting, SegmentModel, apply_track
from majl_jax.metrics import separation


def score_stems(
    model: SegmentModel,
    variables: Variables,
    tracks: Iterable[Mapping[str, Any]],
    *,
    columns: Sequence[int],
    system: str = "model",
    segmenting: Segmenting = SEGMENTING,
    report: ForReport = NO_FILES,
    progress: str | None = None,
) -> dict[str, float]:
    """Plays whole tracks through the model and scores each of its stems, and the untouched mixture
    beside it.

    Args:
        model: what is judged. variables: of the model. tracks: whole-track records (batch.py's
        keys without the batch axis, and `track`, the name). columns: for each stem of the model,
        its number in the records; the others are left out of the mixture. system: name of the
        model in the rows. segmenting: how the model is applied. report: where rows and examples
        go. progress: label of a progress bar, None for no bar.

    Returns the means over tracks by name, `<name>_median`, and `mixture/<name>`; a stem that is
    silent or not known has no score, and `<name>_skipped` tells of how many tracks a score is
    undefined.
    """
    rows: list[Row] = []
    for number, record in enumerate(console.with_progress(tracks, progress)):
        truth = int16.to_float(record["stems"])[:, list(columns)]
        known = np.asarray(record["has_stems"], bool)[list(columns)]
        if truth.shape[2] != model.channels:
            truth = np.repeat(truth.mean(2, keepdims=True), model.channels, axis=2)
        mixture = truth.sum(axis=1)
        outputs = apply_track(model, variables, mixture, **dataclasses.asdict(segmenting))
        untouched = np.repeat(mixture[:, None], truth.shape[1], axis=1)
        seconds = round(len(mixture) / model.sample_rate_hz, 3)
        systems = [(system, outputs["stems"])]
        if truth.shape[1] > 1:  # a stem alone is its own mixture
            systems.append(("mixture", untouched))
        for name, estimate in systems:
            row = {"track": record["track"], "system": name, "seconds": seconds}
            rate_hz = model.sample_rate_hz
            rows.append(
                row | score(estimate, truth, stems=model.stems, sample_rate_hz=rate_hz, known=known)
            )
        if not known.all():
            continue
        if (folder := report.example_folder(record["track"], number)) is not None:
            stretch = slice(0, round(report.example_seconds * model.sample_rate_hz))
            write_stems(
                folder,
                outputs["stems"][stretch],
                truth[stretch],
                stems=model.stems,
                sample_rate_hz=model.sample_rate_hz,
            )
    report.keep_rows(rows)
    flat = flatten(aggregate(rows), system)
    medians = {k: v for k, v in flat.items() if k.endswith("_median")}
    # As it is published: of each stem the median over tracks, then the mean over the stems.
    of_stems = [medians[f"csdr_db_{stem}_median"] for stem in model.stems]
    return means(flat) | medians | {"csdr_db_median": sum(of_stems) / len(of_stems)}


def score(
    estimate: Stems,
    truth: Stems,
    *,
    stems: Sequence[str],
    sample_rate_hz: int,
    known: Sequence[bool] | Bool[np.ndarray, "stem"] | None = None,
) -> dict[str, Any]:
    """Each score of each stem, and its mean over the stems that have one; None, with a reason in
    "skipped": undefined.

    usdr_db: channels' energies together (Music Demixing Challenge); usdr_channels_db: the mean of
    the channels' decibels; csdr_db: the median over windows of 1 s of BSS Eval v4's SDR, without
    those in which a true stem is silent, or an estimate that sounds elsewhere. An estimate that is
    silent throughout is scored as metrics/separation.py says: its SI-SDR is -inf.

    known: which true stems are; None: all of them.
    """
    known = [True] * len(stems) if known is None else known
    each: dict[str, dict[str, float | None]] = {}
    skipped: dict[str, str] = {}
    chunk_sdrs = _chunk_sdrs(estimate, truth, known, window_samples=sample_rate_hz)
    for number, stem in enumerate(stems):
        found, reason = _of_stem(estimate[:, number], truth[:, number], bool(known[number]))
        found["csdr_db"] = chunk_sdrs.get(number)
        for name, value in found.items():
            defined = value is not None and not math.isnan(value)
            each.setdefault(name, {})[stem] = value if defined else None
            if not defined:
                skipped[f"{name}_{stem}"] = reason or "in no second do all stems sound"
    row: dict[str, Any] = {}
    for name, values in each.items():
        kept = [value for value in values.values() if value is not None]
        row[name] = mean(kept) if kept else None
        if not kept:
            skipped[name] = "no stem has this score"
        row |= {f"{name}_{stem}": value for stem, value in values.items()}
    return row | ({"skipped": skipped} if skipped else {})


def _of_stem(
    estimate: Float[np.ndarray, "time channel"],
    truth: Float[np.ndarray, "time channel"],
    known: bool,
) -> tuple[dict[str, float | None], str]:
    names = ("usdr_db", "usdr_channels_db", "si_sdr_db")
    if not known:
        return dict.fromkeys(names), "the stem is not annotated"
    if not np.any(truth):
        return dict.fromkeys(names), "the true stem is silent"
    if not np.isfinite(estimate).all():
        return dict.fromkeys(names), "the estimate is not finite"
    values = (
        separation.usdr_db(estimate, truth),
        separation.usdr_db(estimate, truth, channel_mean=True),
        separation.si_sdr_db(estimate, truth),
    )
    return dict(zip(names, values, strict=True)), ""


def _chunk_sdrs(
    estimate: Stems,
    truth: Stems,
    known: Sequence[bool] | Bool[np.ndarray, "stem"],
    *,
    window_samples: int,
) -> dict[int, float]:
    """By number of the stem; silent stems, which BSS Eval cannot judge, and unknown ones are left
    out.
    """
    sounding = [
        n
        for n in range(truth.shape[1])
        if known[n] and np.any(truth[:, n]) and np.isfinite(estimate[:, n]).all()
    ]
    if not sounding:
        return {}
    if len(truth) < window_samples:
        return {}
    pair = (np.moveaxis(x[:, sounding], 1, 0) for x in (estimate, truth))
    windows = separation.bss_eval_v4(*pair, window_samples=window_samples, sdr_only=True)
    medians = separation.median_over_windows(windows)
    return dict(zip(sounding, map(float, medians["sdr_db"]), strict=True))
