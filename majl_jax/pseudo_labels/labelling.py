"""A teacher's labels for tracks that have only half of them, or none, written as prepared data
sets.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from majl_jax import atomic, console
from majl_jax.datasets import records
from majl_jax.inference.segments import SEGMENTING
from majl_jax.pseudo_labels import filtering
from majl_jax.pseudo_labels.filtering import Counts, Filter
from majl_jax.pseudo_labels.teacher import OF_RECORDS, Teacher, label_pitch
from majl_jax.training import manifest


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

    The folder's name holds the teacher's identity, the overlap of its segments and the filter, so
    a resumed run finds its own labels and nobody else's; beside it a JSON file tells what the
    filter kept.

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
            how |= {} if labels == "both" else {"octave_known": prepared.layout.octave_known}
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
    if not pitch and kept.tolerance_cents != filtering.TOLERANCE_CENTS:
        said["tolerance_cents"] = kept.tolerance_cents
    if pitch and kept.granularity == "segment":
        said["segment_frames"] = kept.frames(model.hop_samples / model.sample_rate_hz)
    if teacher.segmenting.overlap != SEGMENTING.overlap:
        said["overlap"] = teacher.segmenting.overlap
    if kept.wrong_pitch > 0:
        said |= {"wrong_pitch": kept.wrong_pitch, "wrong_pitch_seed": kept.seed}
    return said


def _folder_name(source: str, said: Mapping[str, Any]) -> str:
    """Holds all that the labels depend on: teacher, segments, filter and errors made on purpose."""
    name = f"{source}-{said['teacher']}-{said['threshold']:g}-{said['granularity']}"
    name += str(said.get("segment_frames", ""))
    if "tolerance_cents" in said:
        name += f"-{said['tolerance_cents']:g}cents"
    if "overlap" in said:
        name += f"-overlap{said['overlap']:g}"
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

    # What the teacher hears is in its octave, and so is what it moved there.
    octave_known = prepared.layout.octave_known or said["labels"] != "pitch"
    builder.write_dataset(
        directory,
        {"train": counted()},
        layout=dataclasses.replace(prepared.layout, octave_known=octave_known),
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
