"""A trained system that labels: pitch of stems, stems of mixtures with pitch, both of mixtures."""

import dataclasses
import functools
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float

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
from majl_jax.pseudo_labels import filtering, mislabelling, octaves
from majl_jax.pseudo_labels.filtering import Counts, Filter
from majl_jax.training import parameters

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

    @property
    def frame_s(self) -> float:
        """From one label frame to the next."""
        return self.model.hop_samples / self.model.sample_rate_hz

    def trusted(
        self,
        f0_hz: Float[np.ndarray, "frame"],
        confidence: Float[np.ndarray, "frame"],
        kept: Filter,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`filtering.filter_pitch` of what it hears."""
        return filtering.filter_pitch(
            f0_hz,
            confidence,
            threshold=kept.threshold,
            granularity=kept.granularity,
            segment_frames=kept.frames(self.frame_s),
        )


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
    the threshold. A track whose stem is not known gets no pitch; its frames count as seen.

    Args:
        tracks: whole-track records.
        teacher: who labels.
        target: number of the stem.
        kept: which labels count.
        counts: gets what was seen and kept.
    """
    for track in tracks:
        voice, frames = int16.to_float(track["stems"][:, target]), len(track["f0_hz"])
        labelled = {**track, "f0_hz": track["f0_hz"].copy(), "has_pitch": track["has_pitch"].copy()}
        if not track["has_stems"][target]:  # the mixture may stand in its place
            none = np.zeros(frames, bool)
            labelled["f0_hz"][:, target], labelled["has_pitch"][:, target] = 0.0, none
            counts.add(np.zeros(frames), none, samples=len(voice), voiced=none)
            yield labelled
            continue
        f0_hz, confidence = decode_pitch(teacher.hear(voice)["salience"], teacher.bin_cents)
        f0_hz, confidence = f0_hz[:frames], confidence[:frames]
        f0_hz, errors = mislabelling.mislabel_pitch(
            np.where(confidence >= filtering.VOICING, f0_hz, 0.0).astype(np.float32),
            share=kept.wrong_pitch,
            seed=kept.seed,
            track=track["track"],
            stretch_frames=max(round(STRETCH_SECONDS / teacher.frame_s), 1),
        )
        labels, trusted, trust = teacher.trusted(f0_hz, confidence, kept)
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
    octave_known: bool = True,
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
        octave_known: of the pitch labels; if not, notes go to the octave in which the teacher hears
            them, and are labels where it is sure (`octaves.settle`).
    """
    for _, group in itertools.groupby(pieces, key=lambda piece: piece["track"]):
        track = [_judge(piece, teacher, target, kept, octave_known) for piece in group]
        trust = np.array([one.confidence for one in track])
        if kept.granularity == "song":
            voiced = [one.voiced for one in track]
            trust[:] = trust[voiced].mean() if any(voiced) else 0.0
        trusted = trust >= kept.threshold
        samples = max(one.piece["start_sample"] + one.piece["valid_samples"] for one in track)
        counts.add(trust, trusted, samples=samples)
        for one, good in zip(track, trusted, strict=True):
            counts.notes += one.notes
            counts.notes_settled += one.notes_settled
            known = np.arange(one.piece["stems"].shape[1]) == target
            yield {**one.piece, "has_stems": known & good}


@dataclasses.dataclass(frozen=True)
class _Judged:
    """A record with the teacher's stems and the pitch labels that are kept."""

    piece: records.Record
    confidence: float
    voiced: bool  # a label says so
    notes: int = 0
    notes_settled: int = 0


def _judge(
    piece: records.Record, teacher: Teacher, target: int, kept: Filter, octave_known: bool
) -> _Judged:
    """A record's stems as the teacher separates them, and its confidence in the target."""
    stems, salience = _separate(piece, teacher, target)
    f0_hz, known = piece["f0_hz"][:, target], piece["has_pitch"][:, target]
    how = {"tolerance_cents": kept.tolerance_cents}
    if octave_known:
        confidence = filtering.stem_confidence(salience, f0_hz, known, teacher.bin_cents, **how)
        voiced = bool((known & (f0_hz > 0)).any())
        return _Judged({**piece, "stems": stems}, confidence, voiced)
    settled = octaves.settle(
        salience, f0_hz, known, teacher.bin_cents, threshold=kept.threshold, **how
    )
    confidence = filtering.stem_confidence(salience, settled.f0_hz, known, teacher.bin_cents, **how)
    piece = {**piece, "f0_hz": piece["f0_hz"].copy(), "has_pitch": piece["has_pitch"].copy()}
    piece["f0_hz"][:, target], piece["has_pitch"][:, target] = settled.f0_hz, settled.sure
    return _Judged(
        {**piece, "stems": stems}, confidence, settled.notes > 0, settled.notes, settled.notes_sure
    )


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
    for piece in pieces:
        outputs, frames = teacher.hear(_mixture(piece)), len(piece["f0_hz"])
        salience = outputs["salience"][:frames]
        f0_hz, confidence = decode_pitch(salience, teacher.bin_cents)
        labels, trusted, trust = teacher.trusted(f0_hz, confidence, kept)
        voiced = np.where(confidence >= filtering.VOICING, f0_hz, 0.0).astype(np.float32)
        # Beyond the end of a clip a record is padded.
        real = np.arange(frames) * (len(piece["stems"]) // frames) < piece["valid_samples"]
        trusted &= real
        sure = filtering.stem_confidence(salience, voiced, real, teacher.bin_cents)
        stems, columns = _stems(piece, outputs, target), np.arange(piece["stems"].shape[1])
        labelled = {**piece, "f0_hz": 0 * piece["f0_hz"], "has_pitch": piece["has_pitch"] & False}
        labelled["f0_hz"][:, target], labelled["has_pitch"][:, target] = labels, trusted
        counts.add(
            trust[real], trusted[real], samples=piece["valid_samples"], voiced=labels[real] > 0
        )
        counts.add_record(sure >= kept.threshold)
        good = (columns == target) & (sure >= kept.threshold)
        yield {**labelled, "stems": stems, "has_stems": good}


def _mixture(piece: records.Record) -> Float[np.ndarray, "time channel"]:
    return int16.to_float(piece["stems"].astype(np.int32).sum(1))


def _separate(
    piece: records.Record, teacher: Teacher, target: int
) -> tuple[np.ndarray, Float[np.ndarray, "frame bin"]]:
    """A record's stems as the teacher separates them, and the salience of the target."""
    outputs = teacher.hear(_mixture(piece))
    return _stems(piece, outputs, target), outputs["salience"][: len(piece["f0_hz"])]


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
