"""A teacher's labels for tracks that have only half of them, written as prepared data sets."""

import dataclasses
import itertools
import json
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from majl_jax import checkpoint, console, logs
from majl_jax.datasets import records
from majl_jax.evaluate import SegmentModel, apply_track, decode_pitch
from majl_jax.losses import weighting

Variables = Mapping[str, Any]


@dataclasses.dataclass
class Counts:
    """How many frames or records a filter saw, and how many it kept."""

    seen: int = 0
    kept: int = 0


def identity(variables: Variables) -> str:
    """Eight hexadecimal digits that tell one teacher from another."""
    checksums = json.dumps(checkpoint.fingerprint(variables), sort_keys=True)
    return f"{zlib.crc32(checksums.encode()):08x}"


def label_pitch(
    tracks: Iterable[records.Record],
    model: SegmentModel,
    variables: Variables,
    *,
    target: int,
    threshold: float,
    granularity: str,
    counts: Counts,
    **segments: Any,
) -> Iterator[records.Record]:
    """Gives whole tracks the pitch that the teacher hears in the true stem, where it is sure of it.

    `segments`: overlap and batch_size of `evaluate.apply_track`.
    """
    for track in tracks:
        voice = track["stems"][:, target].astype(np.float32) / records.INT16_SCALE
        outputs = apply_track(model, variables, voice, **segments)
        f0_hz, confidence = decode_pitch(outputs["salience"], _bins(model))
        frames = len(track["f0_hz"])
        labels, kept = weighting.trusted_pitch(
            f0_hz[:frames], confidence[:frames], threshold=threshold, granularity=granularity
        )
        labelled = {**track, "f0_hz": track["f0_hz"].copy(), "has_pitch": track["has_pitch"].copy()}
        labelled["f0_hz"][:, target], labelled["has_pitch"][:, target] = labels, kept
        counts.seen += frames
        counts.kept += int(kept.sum())
        yield labelled


def label_stems(
    pieces: Iterable[records.Record],
    model: SegmentModel,
    variables: Variables,
    *,
    target: int,
    threshold: float,
    counts: Counts,
    **segments: Any,
) -> Iterator[records.Record]:
    """Gives records the voice that the teacher separates, where it hears the labelled pitch in it.

    The estimate takes the target's place and mixture minus estimate that of another stem, so that
    the stems still sum to the mixture.
    """
    for piece in pieces:
        mixture = piece["stems"].astype(np.int32).sum(1)
        heard = mixture.astype(np.float32) / records.INT16_SCALE
        outputs = apply_track(model, variables, heard, **segments)
        frames = len(piece["f0_hz"])
        confidence = weighting.stem_confidence(
            outputs["salience"][:frames],
            piece["f0_hz"][:, target],
            piece["has_pitch"][:, target],
            _bins(model),
        )
        voice = records.to_int16(outputs["stems"][:, 0]).astype(np.int32)
        voice = np.clip(voice, mixture - 32767, mixture + 32768)  # the rest has to fit 16 bits too
        stems = np.zeros_like(piece["stems"])
        stems[:, target] = np.clip(voice, -32768, 32767)
        stems[:, 0 if target else 1] = mixture - stems[:, target]
        trusted = confidence >= threshold
        has_stems = (np.arange(stems.shape[1]) == target) & trusted
        counts.seen += 1
        counts.kept += int(trusted)
        yield {**piece, "stems": stems, "has_stems": has_stems}


def write(
    source: pathlib.Path,
    folder: pathlib.Path,
    *,
    labels: str,
    model: SegmentModel,
    variables: Variables,
    target: str,
    threshold: float,
    granularity: str,
    overlap: float,
    batch_size: int,
    file_format: str,
) -> pathlib.Path:
    """Labels the training split of a prepared data set ("pitch" or "stems") and writes it anew.

    The folder's name holds the teacher's identity and the filter, so a resumed run finds its own labels and
    nobody else's; beside it a JSON file tells what the filter kept.
    """
    prepared = records.open_prepared(source)
    teacher = identity(variables)
    directory = folder / f"{source.name}-{teacher}-{threshold:g}-{granularity}"
    if records.is_prepared(directory):
        return directory
    console.say(f"the teacher {teacher} labels the {labels} of {source.name}")
    counts, number = Counts(), stem_number(prepared, target)
    segments = {"overlap": overlap, "batch_size": batch_size}
    if labels == "pitch":
        tracks = label_pitch(
            records.read_tracks(source, "train"),
            model,
            variables,
            target=number,
            threshold=threshold,
            granularity=granularity,
            counts=counts,
            **segments,
        )
        cut = (records.cut(track, prepared.layout) for track in tracks)
        labelled = itertools.chain.from_iterable(cut)
    else:
        labelled = label_stems(
            records.read_records(source, "train"),
            model,
            variables,
            target=number,
            threshold=threshold,
            counts=counts,
            **segments,
        )
    from majl_jax.datasets import builder

    options = {"teacher": teacher, "threshold": threshold, "granularity": granularity}
    builder.write_dataset(
        directory,
        {"train": labelled},
        layout=prepared.layout,
        options=options,
        file_format=file_format,
    )
    unit = "frames" if labels == "pitch" else "records"
    found = {"labels": labels, "unit": unit, "kept": counts.kept, "seen": counts.seen, **options}
    logs.write_text(folder / f"{source.name}.json", json.dumps(found, indent=2) + "\n")
    share = counts.kept / max(counts.seen, 1)
    console.say(f"kept {counts.kept} of {counts.seen} {unit} of {source.name} ({share:.0%})")
    return directory


def stem_number(prepared: records.Prepared, target: str) -> int:
    """Which stem of a prepared data set is the target."""
    if target not in prepared.layout.stems:
        raise ValueError(
            f"config.data.target is {target!r}; the stems of {prepared.directory} are "
            f"{', '.join(prepared.layout.stems)}"
        )
    return prepared.layout.stems.index(target)


def _bins(model: SegmentModel) -> np.ndarray:
    assert model.bin_cents is not None, "the teacher has to hear pitch"
    return model.bin_cents
