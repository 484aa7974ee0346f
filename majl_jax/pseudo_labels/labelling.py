"""A teacher's labels for tracks that have only half of them, written as prepared data sets."""

import itertools
import json
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from majl_jax import atomic, console
from majl_jax.audio import int16
from majl_jax.datasets import records
from majl_jax.inference.decoding import decode_pitch
from majl_jax.inference.segments import SegmentModel, apply_track
from majl_jax.pseudo_labels import filtering
from majl_jax.pseudo_labels.filtering import Counts
from majl_jax.training import manifest, parameters

Variables = Mapping[str, Any]
STRETCH_SECONDS = 0.5  # the longest stretch that is made wrong as one


def identity(variables: Variables) -> str:
    """Eight hexadecimal digits that tell one teacher from another."""
    checksums = json.dumps(parameters.fingerprint(variables), sort_keys=True)
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
    segment_frames: int = 128,
    **segments: Any,
) -> Iterator[records.Record]:
    """Gives whole tracks the pitch that the teacher hears in the true stem, where it is sure of it.

    `counts` says how much of it is made wrong on purpose, before the filter: which errors there are does not depend on the
    threshold. `segments`: overlap and batch_size of `evaluate.apply_track`.
    """
    stretch_frames = max(round(STRETCH_SECONDS * model.sample_rate_hz / model.hop_samples), 1)
    for track in tracks:
        voice = int16.to_float(track["stems"][:, target])
        outputs = apply_track(model, variables, voice, **segments)
        f0_hz, confidence = decode_pitch(outputs["salience"], _bins(model))
        frames = len(track["f0_hz"])
        f0_hz, confidence = f0_hz[:frames], confidence[:frames]
        f0_hz, errors = filtering.mislabel_pitch(
            np.where(confidence >= filtering.VOICING, f0_hz, 0.0).astype(np.float32),
            share=counts.wrong_pitch,
            seed=counts.wrong_pitch_seed,
            track=track["track"],
            stretch_frames=stretch_frames,
        )
        labels, kept, trust = filtering.filter_pitch(
            f0_hz,
            confidence,
            threshold=threshold,
            granularity=granularity,
            segment_frames=segment_frames,
        )
        labelled = {**track, "f0_hz": track["f0_hz"].copy(), "has_pitch": track["has_pitch"].copy()}
        labelled["f0_hz"][:, target], labelled["has_pitch"][:, target] = labels, kept
        counts.add(trust, kept, samples=len(voice), voiced=labels > 0, errors=errors)
        yield labelled


def label_stems(
    pieces: Iterable[records.Record],
    model: SegmentModel,
    variables: Variables,
    *,
    target: int,
    threshold: float,
    counts: Counts,
    granularity: str = "frame",
    **segments: Any,
) -> Iterator[records.Record]:
    """Gives records the voice that the teacher separates, where it hears the labelled pitch in it.

    The estimate takes the target's place and mixture minus estimate that of another stem, so that the stems still sum to
    the mixture. The records come track by track and in order of time. Granularity "frame" and "segment" judge each by its
    own confidence, "song" those of a track together, by the mean over those that have a voiced label.
    """
    for _, group in itertools.groupby(pieces, key=lambda piece: piece["track"]):
        track = list(group)
        separated = [_separate(piece, model, variables, target, segments) for piece in track]
        trust = np.array([confidence for _, confidence in separated])
        if granularity == "song":
            voiced = [bool((p["has_pitch"] & (p["f0_hz"] > 0))[:, target].any()) for p in track]
            trust[:] = trust[voiced].mean() if any(voiced) else 0.0
        kept = trust >= threshold
        counts.add(trust, kept, samples=max(p["start_sample"] + p["valid_samples"] for p in track))
        for piece, (stems, _), trusted in zip(track, separated, kept, strict=True):
            has_stems = (np.arange(stems.shape[1]) == target) & trusted
            yield {**piece, "stems": stems, "has_stems": has_stems}


def _separate(
    piece: records.Record,
    model: SegmentModel,
    variables: Variables,
    target: int,
    segments: Mapping[str, Any],
) -> tuple[np.ndarray, float]:
    """A record's stems as the teacher separates them, and its confidence in the target."""
    mixture = piece["stems"].astype(np.int32).sum(1)
    heard = int16.to_float(mixture)
    outputs = apply_track(model, variables, heard, **segments)
    confidence = filtering.stem_confidence(
        outputs["salience"][: len(piece["f0_hz"])],
        piece["f0_hz"][:, target],
        piece["has_pitch"][:, target],
        _bins(model),
    )
    voice = int16.from_float(outputs["stems"][:, 0]).astype(np.int32)
    # The rest has to fit 16 bits too.
    voice = np.clip(voice, mixture - int16.HIGHEST, mixture - int16.LOWEST)
    stems = np.zeros_like(piece["stems"])
    stems[:, target] = int16.limited(voice)
    stems[:, 0 if target else 1] = mixture - stems[:, target]
    return stems, confidence


def write(
    source: records.Folder,
    folder: pathlib.Path,
    *,
    labels: str,
    model: SegmentModel,
    variables: Variables,
    target: str | Sequence[str],
    threshold: float,
    granularity: str,
    overlap: float,
    batch_size: int,
    file_format: str,
    segment_frames: int | None = None,
    wrong_pitch: float = 0.0,
    seed: int = 0,
    teacher_step: int | None = None,
    workdir: pathlib.Path | None = None,
) -> pathlib.Path:
    """Labels the training split of a prepared data set ("pitch" or "stems") and writes it anew.

    The folder's name holds the teacher's identity and the filter, so a resumed run finds its own labels and nobody else's;
    beside it a JSON file tells what the filter kept.

    target: name of the stem, or names of which the data set has exactly one.
    granularity: what is kept or masked as one. "frame", "segment" (stretches of `segment_frames`, 2.56 s if not given) or "song"
      of pitch; of stems "frame" and "segment" are a record, "song" is a track.
    wrong_pitch: share of the voiced frames whose pitch is made wrong on purpose, see `label_filter.mislabel_pitch`; its errors
      depend on `seed`. Stems are left alone.
    workdir: folder of the run in whose manifest teacher and filter are to stand.
    """
    _check_filter(labels, granularity, wrong_pitch)
    name = epath.Path(source).name
    prepared, pitch = records.open_prepared(source), labels == "pitch"
    number = stem_number(prepared, target)
    counts = Counts(wrong_pitch=wrong_pitch if pitch else 0.0, wrong_pitch_seed=seed)
    options: dict[str, Any] = {"overlap": overlap, "batch_size": batch_size, "counts": counts}
    options |= {"target": number, "threshold": threshold, "granularity": granularity}
    said: dict[str, Any] = {
        "labels": labels,
        "unit": "frames" if pitch else "records",
        "target": prepared.layout.stems[number],
        "teacher": identity(variables),
        **({} if teacher_step is None else {"teacher_step": teacher_step}),
        "threshold": threshold,
        "granularity": granularity,
    }
    if pitch and granularity == "segment":
        seconds = filtering.SEGMENT_SECONDS
        frames = segment_frames or round(seconds * model.sample_rate_hz / model.hop_samples)
        said["segment_frames"] = options["segment_frames"] = frames
    if counts.wrong_pitch > 0:
        said |= {"wrong_pitch": wrong_pitch, "wrong_pitch_seed": seed}
    directory = folder / _folder_name(name, said)
    if not records.is_prepared(directory):
        console.say(f"the teacher {said['teacher']} labels the {labels} of {name}")
        make = _pitch_records if pitch else _stem_records
        labelled = make(source, model, variables, options)
        _write_counted(directory, labelled, prepared, counts, said, file_format)
    _tell(directory, folder / f"{name}.json", said)
    if workdir is not None:
        where = directory.relative_to(workdir) if directory.is_relative_to(workdir) else directory
        entry = {**said, "folder": where.as_posix()}
        manifest.add_to_manifest(workdir, "pseudo_labels", {name: entry})
    return directory


def _folder_name(source: str, said: Mapping[str, Any]) -> str:
    """Holds all that the labels depend on: teacher, filter and errors made on purpose."""
    name = f"{source}-{said['teacher']}-{said['threshold']:g}-{said['granularity']}"
    name += str(said.get("segment_frames", ""))
    if "wrong_pitch" in said:
        name += f"-wrong{said['wrong_pitch']:g}-seed{said['wrong_pitch_seed']}"
    return name


def _check_filter(labels: str, granularity: str, wrong_pitch: float) -> None:
    if labels not in ("pitch", "stems"):
        raise ValueError(f"labels is {labels!r}; expected pitch or stems")
    if granularity not in filtering.GRANULARITIES:
        raise ValueError(
            f"config.pseudo_labels.granularity is {granularity!r}; expected one of "
            f"{', '.join(filtering.GRANULARITIES)}"
        )
    if not 0.0 <= wrong_pitch <= 1.0:
        raise ValueError(f"wrong_pitch is {wrong_pitch}; expected a share in [0, 1]")


def _pitch_records(
    source: records.Folder, model: SegmentModel, variables: Variables, options: Mapping[str, Any]
) -> Iterator[records.Record]:
    layout = records.open_prepared(source).layout
    tracks = records.read_tracks(source, "train")
    for track in label_pitch(tracks, model, variables, **options):
        yield from records.cut(track, layout)


def _stem_records(
    source: records.Folder, model: SegmentModel, variables: Variables, options: Mapping[str, Any]
) -> Iterator[records.Record]:
    return label_stems(records.read_records(source, "train"), model, variables, **options)


def _write_counted(
    directory: pathlib.Path,
    labelled: Iterable[records.Record],
    prepared: records.Prepared,
    counts: Counts,
    said: Mapping[str, Any],
    file_format: str,
) -> None:
    """Writes the data set with what was counted on the way inside: both are there, or neither."""
    from majl_jax.datasets import builder

    report: dict[str, Any] = {}

    def counted() -> Iterator[records.Record]:
        yield from labelled
        report.update(counts.summary(prepared.layout.sample_rate_hz))  # before it is written

    builder.write_dataset(
        directory,
        {"train": counted()},
        layout=prepared.layout,
        options=said,
        report=report,
        file_format=file_format,
    )
    share = counts.kept / max(counts.seen, 1)
    console.say(
        f"kept {counts.kept} of {counts.seen} {said['unit']} of {prepared.directory.name} ({share:.0%})"
    )


def _tell(directory: pathlib.Path, path: pathlib.Path, said: Mapping[str, Any]) -> None:
    """Writes what the labels in use are, and the statistics that lie inside them, into one file."""
    counted = json.loads((directory / records.REPORT_FILE).read_text(encoding="utf-8"))
    if not counted and path.exists():
        return  # labels from before they held their statistics
    atomic.write_text(path, json.dumps({**said, **counted}, indent=2) + "\n")


def stem_number(prepared: records.Prepared, target: str | Sequence[str]) -> int:
    """Which stem of a prepared data set is the target: the only one that has (one of) its names."""
    names = (target,) if isinstance(target, str) else tuple(target)
    stems = prepared.layout.stems
    found = [number for number, stem in enumerate(stems) if stem in names]
    if len(found) != 1:
        asked = repr(names[0] if len(names) == 1 else names)
        several = " (several of them match, exactly one has to)" if found else ""
        raise ValueError(
            f"config.data.target is {asked}; the stems of {prepared.directory} are "
            f"{', '.join(stems)}{several}"
        )
    if not prepared.layout.voices_are_stems:
        raise ValueError(
            f"{prepared.directory} has {prepared.layout.voices} pitches of its mixture, not one per stem: which is "
            f"that of {stems[found[0]]!r} is not known; use a set with a pitch per stem"
        )
    return found[0]


def _bins(model: SegmentModel) -> np.ndarray:
    assert model.bin_cents is not None, "the teacher has to hear pitch"
    return model.bin_cents
