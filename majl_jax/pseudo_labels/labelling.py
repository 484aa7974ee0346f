"""A teacher's labels for tracks that have only half of them, or none, written as prepared data
sets.
"""

import dataclasses
import functools
import itertools
import json
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from majl_jax import atomic, console
from majl_jax.audio import int16
from majl_jax.batch import Variables
from majl_jax.datasets import records
from majl_jax.inference.decoding import decode_pitch
from majl_jax.inference.segments import (
    SEGMENTING,
    Outputs,
    Segmenting,
    SegmentModel,
    apply_track,
)
from majl_jax.pseudo_labels import filtering
from majl_jax.pseudo_labels.filtering import Counts, Filter
from majl_jax.training import manifest, parameters

STRETCH_SECONDS = 0.5  # the longest stretch that is made wrong as one


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained system that labels."""

    model: SegmentModel
    variables: Variables
    segmenting: Segmenting = SEGMENTING
    step: int | None = None
    """Of its checkpoint, where that is known."""

    @functools.cached_property
    def identity(self) -> str:
        """Eight hexadecimal digits that tell one teacher from another."""
        checksums = json.dumps(parameters.fingerprint(self.variables), sort_keys=True)
        return f"{zlib.crc32(checksums.encode()):08x}"

    def hear(self, audio: Float[np.ndarray, "time channel"]) -> Outputs:
        """What the model gives for a track."""
        options = dataclasses.asdict(self.segmenting)
        return apply_track(self.model, self.variables, audio, **options)

    @property
    def bin_cents(self) -> np.ndarray:
        """Of its salience."""
        assert self.model.bin_cents is not None, "the teacher has to hear pitch"
        return self.model.bin_cents


def label_pitch(
    tracks: Iterable[records.Record],
    teacher: Teacher,
    *,
    target: int,
    kept: Filter,
    counts: Counts,
) -> Iterator[records.Record]:
    """Gives whole tracks the pitch that the teacher hears in the true stem, where it is sure of it.

    What is made wrong on purpose is so before the filter: which errors there are does not depend on
    the threshold.

    Args:
        tracks: whole-track records.
        teacher: who labels.
        target: number of the stem.
        kept: which labels count.
        counts: gets what was seen and kept.
    """
    frame_s = teacher.model.hop_samples / teacher.model.sample_rate_hz
    for track in tracks:
        voice = int16.to_float(track["stems"][:, target])
        f0_hz, confidence = decode_pitch(teacher.hear(voice)["salience"], teacher.bin_cents)
        frames = len(track["f0_hz"])
        f0_hz, confidence = f0_hz[:frames], confidence[:frames]
        f0_hz, errors = filtering.mislabel_pitch(
            np.where(confidence >= filtering.VOICING, f0_hz, 0.0).astype(np.float32),
            share=kept.wrong_pitch,
            seed=kept.seed,
            track=track["track"],
            stretch_frames=max(round(STRETCH_SECONDS / frame_s), 1),
        )
        labels, trusted, trust = filtering.filter_pitch(
            f0_hz,
            confidence,
            threshold=kept.threshold,
            granularity=kept.granularity,
            segment_frames=kept.frames(frame_s),
        )
        labelled = {**track, "f0_hz": track["f0_hz"].copy(), "has_pitch": track["has_pitch"].copy()}
        labelled["f0_hz"][:, target], labelled["has_pitch"][:, target] = labels, trusted
        counts.add(trust, trusted, samples=len(voice), voiced=labels > 0, errors=errors)
        yield labelled


def label_stems(
    pieces: Iterable[records.Record],
    teacher: Teacher,
    *,
    target: int,
    kept: Filter,
    counts: Counts,
) -> Iterator[records.Record]:
    """Gives records the voice that the teacher separates, where it hears the labelled pitch in it.

    The estimate takes the target's place and mixture minus estimate that of another stem, so that
    the stems still sum to the mixture. The records come track by track and in order of time.
    Granularity "frame" and "segment" judge each by its own confidence, "song" those of a track
    together, by the mean over those that have a voiced label.

    Args:
        pieces: the records.
        teacher: who labels.
        target: number of the stem.
        kept: which labels count.
        counts: gets what was seen and kept.
    """
    for _, group in itertools.groupby(pieces, key=lambda piece: piece["track"]):
        track = list(group)
        separated = [_separate(piece, teacher, target) for piece in track]
        trust = np.array([confidence for _, confidence in separated])
        if kept.granularity == "song":
            voiced = [bool((p["has_pitch"] & (p["f0_hz"] > 0))[:, target].any()) for p in track]
            trust[:] = trust[voiced].mean() if any(voiced) else 0.0
        trusted = trust >= kept.threshold
        samples = max(p["start_sample"] + p["valid_samples"] for p in track)
        counts.add(trust, trusted, samples=samples)
        for piece, (stems, _), good in zip(track, separated, trusted, strict=True):
            yield {
                **piece,
                "stems": stems,
                "has_stems": (np.arange(stems.shape[1]) == target) & good,
            }


def label_both(
    pieces: Iterable[records.Record],
    teacher: Teacher,
    *,
    target: int,
    kept: Filter,
    counts: Counts,
) -> Iterator[records.Record]:
    """Gives records of mixtures alone the voice that the teacher separates and the pitch that it
    hears in it.

    Pitch is filtered as in `label_pitch`, a record being the longest that is judged as one. The
    voice is a label where the teacher is sure of its pitch: the mean confidence of all frames that
    it hears voiced reaches the threshold. Not in the paper, whose sets have one of both labels.

    Args:
        pieces: the records.
        teacher: who labels.
        target: number of the stem.
        kept: which labels count.
        counts: gets what was seen and kept, frames and records.
    """
    frame_s = teacher.model.hop_samples / teacher.model.sample_rate_hz
    for piece in pieces:
        outputs, frames = teacher.hear(_mixture(piece)), len(piece["f0_hz"])
        salience = outputs["salience"][:frames]
        f0_hz, confidence = decode_pitch(salience, teacher.bin_cents)
        labels, trusted, trust = filtering.filter_pitch(
            f0_hz,
            confidence,
            threshold=kept.threshold,
            granularity=kept.granularity,
            segment_frames=kept.frames(frame_s),
        )
        voiced = np.where(confidence >= filtering.VOICING, f0_hz, 0.0).astype(np.float32)
        everywhere = np.ones(frames, bool)
        sure = filtering.stem_confidence(salience, voiced, everywhere, teacher.bin_cents)
        stems, columns = _stems(piece, outputs, target), np.arange(piece["stems"].shape[1])
        labelled = {**piece, "f0_hz": 0 * piece["f0_hz"], "has_pitch": piece["has_pitch"] & False}
        labelled["f0_hz"][:, target], labelled["has_pitch"][:, target] = labels, trusted
        counts.add(trust, trusted, samples=piece["valid_samples"], voiced=labels > 0)
        counts.add_record(sure >= kept.threshold)
        good = (columns == target) & (sure >= kept.threshold)
        yield {**labelled, "stems": stems, "has_stems": good}


def _mixture(piece: records.Record) -> Float[np.ndarray, "time channel"]:
    return int16.to_float(piece["stems"].astype(np.int32).sum(1))


def _separate(piece: records.Record, teacher: Teacher, target: int) -> tuple[np.ndarray, float]:
    """A record's stems as the teacher separates them, and its confidence in the target."""
    outputs = teacher.hear(_mixture(piece))
    confidence = filtering.stem_confidence(
        outputs["salience"][: len(piece["f0_hz"])],
        piece["f0_hz"][:, target],
        piece["has_pitch"][:, target],
        teacher.bin_cents,
    )
    return _stems(piece, outputs, target), confidence


def _stems(piece: records.Record, outputs: Outputs, target: int) -> np.ndarray:
    """A record's stems as they were separated: the target, and the rest in another's place."""
    mixture = piece["stems"].astype(np.int32).sum(1)
    voice = int16.from_float(outputs["stems"][:, 0]).astype(np.int32)
    # The rest has to fit 16 bits too.
    voice = np.clip(voice, mixture - int16.HIGHEST, mixture - int16.LOWEST)
    stems = np.zeros_like(piece["stems"])
    stems[:, target] = int16.limited(voice)
    stems[:, 0 if target else 1] = mixture - stems[:, target]
    return stems


OF_RECORDS = {"stems": label_stems, "both": label_both}


def write(
    source: records.Folder,
    folder: pathlib.Path,
    *,
    labels: str,
    teacher: Teacher,
    target: str | Sequence[str],
    kept: Filter,
    file_format: str,
    workdir: pathlib.Path | None = None,
) -> pathlib.Path:
    """Labels the training split of a prepared data set and writes it anew.

    The folder's name holds the teacher's identity and the filter, so a resumed run finds its own
    labels and nobody else's; beside it a JSON file tells what the filter kept.

    Args:
        source: the prepared data set.
        folder: gets the labelled one and the JSON file.
        labels: "pitch", "stems" or "both".
        teacher: who labels.
        target: name of the stem, or names of which the data set has exactly one.
        kept: which labels count. Stems are never made wrong.
        file_format: "tfrecord" or "array_record".
        workdir: folder of the run in whose manifest teacher and filter are to stand.

    Returns the folder of the labelled data set.
    """
    if labels not in ("pitch", *OF_RECORDS):
        raise ValueError(f"labels is {labels!r}; expected pitch, stems or both")
    name, pitch = epath.Path(source).name, labels == "pitch"
    prepared = records.open_prepared(source)
    number = stem_number(prepared, target)
    if not pitch:
        kept = dataclasses.replace(kept, wrong_pitch=0.0)
    counts = Counts(wrong_pitch=kept.wrong_pitch, wrong_pitch_seed=kept.seed)
    said = _said(labels, teacher, prepared.layout.stems[number], kept)
    directory = folder / _folder_name(name, said)
    if not records.is_prepared(directory):
        console.say(f"the teacher {teacher.identity} labels the {labels} of {name}")
        how: dict[str, Any] = {"target": number, "kept": kept, "counts": counts}
        if pitch:
            tracks = label_pitch(records.read_tracks(source, "train"), teacher, **how)
            labelled = (one for track in tracks for one in records.cut(track, prepared.layout))
        else:
            label = OF_RECORDS[labels]
            labelled = label(records.read_records(source, "train"), teacher, **how)
        _write_counted(directory, labelled, prepared, counts, said, file_format)
    _tell(directory, folder / f"{name}.json", said)
    if workdir is not None:
        where = directory.relative_to(workdir) if directory.is_relative_to(workdir) else directory
        entry = {**said, "folder": where.as_posix()}
        manifest.add_to_manifest(workdir, "pseudo_labels", {name: entry})
    return directory


def _said(labels: str, teacher: Teacher, stem: str, kept: Filter) -> dict[str, Any]:
    """What the labels are, for the files beside them."""
    pitch, model = labels in ("pitch", "both"), teacher.model
    said: dict[str, Any] = {
        "labels": labels,
        "unit": "frames" if pitch else "records",
        "target": stem,
        "teacher": teacher.identity,
        **({} if teacher.step is None else {"teacher_step": teacher.step}),
        "threshold": kept.threshold,
        "granularity": kept.granularity,
    }
    if pitch and kept.granularity == "segment":
        said["segment_frames"] = kept.frames(model.hop_samples / model.sample_rate_hz)
    if kept.wrong_pitch > 0:
        said |= {"wrong_pitch": kept.wrong_pitch, "wrong_pitch_seed": kept.seed}
    return said


def _folder_name(source: str, said: Mapping[str, Any]) -> str:
    """Holds all that the labels depend on: teacher, filter and errors made on purpose."""
    name = f"{source}-{said['teacher']}-{said['threshold']:g}-{said['granularity']}"
    name += str(said.get("segment_frames", ""))
    if "wrong_pitch" in said:
        name += f"-wrong{said['wrong_pitch']:g}-seed{said['wrong_pitch_seed']}"
    return name


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
        f"kept {counts.kept} of {counts.seen} {said['unit']} of {prepared.directory.name}"
        f" ({share:.0%})"
    )


def _tell(directory: pathlib.Path, path: pathlib.Path, said: Mapping[str, Any]) -> None:
    """Writes what the labels in use are, and the statistics that lie inside them, into one file."""
    counted = json.loads((directory / records.REPORT_FILE).read_text(encoding="utf-8"))
    atomic.write_text(path, json.dumps({**said, **counted}, indent=2) + "\n")


def stem_number(
    prepared: records.Prepared, target: str | Sequence[str], *, field: str = "target"
) -> int:
    """Which stem of a prepared data set is the target: the only one that has (one of) its names.

    field: what the target is called in an error.
    """
    names = (target,) if isinstance(target, str) else tuple(target)
    stems = prepared.layout.stems
    found = [number for number, stem in enumerate(stems) if stem in names]
    if len(found) != 1:
        asked = repr(names[0] if len(names) == 1 else names)
        several = " (several of them match, exactly one has to)" if found else ""
        raise ValueError(
            f"{field} is {asked}; the stems of {prepared.directory} are {', '.join(stems)}{several}"
        )
    if not prepared.layout.voices_are_stems:
        raise ValueError(
            f"{prepared.directory} has {prepared.layout.voices} pitches of its mixture, not one per"
            f" stem: which is that of {stems[found[0]]!r} is not known; use a set with a pitch per"
            " stem"
        )
    return found[0]
