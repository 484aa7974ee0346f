"""Which of a teacher's labels are kept, and what that comes to."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from majl_jax.pseudo_labels.mislabelling import ANY_PITCH, OCTAVE

GRANULARITIES = ("frame", "segment", "song")
THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(21))  # where the statistics say what is kept
SEGMENT_SECONDS = 2.56
VOICING = 0.5  # the confidence from which a frame is voiced
TOLERANCE_CENTS = 50.0  # how far from the label the teacher may hear a pitch


@dataclasses.dataclass(frozen=True)
class Filter:
    """Which of a teacher's labels are kept, after some were made wrong on purpose if that is
    wanted.
    """

    threshold: float
    """Least trust, from 0 to 1."""
    granularity: str = "frame"
    """What is kept or masked as one. Of pitch: "frame", "segment" or "song"; of stems "frame" and
    "segment" are a record, "song" is a track."""
    segment_frames: int | None = None
    """Label frames of a segment; None: 2.56 s."""
    wrong_pitch: float = 0.0
    """Share of the voiced frames whose pitch is made wrong, see `mislabelling`."""
    seed: int = 0
    """Of those errors."""
    tolerance_cents: float = TOLERANCE_CENTS
    """Of stems: how far from the labelled pitch the teacher may hear it."""

    def __post_init__(self) -> None:
        if self.granularity not in GRANULARITIES:
            raise ValueError(
                f"granularity is {self.granularity!r}; expected one of {', '.join(GRANULARITIES)}"
            )
        if not 0.0 <= self.wrong_pitch <= 1.0:
            raise ValueError(f"wrong_pitch is {self.wrong_pitch}; expected a share in [0, 1]")
        if self.tolerance_cents <= 0.0:
            raise ValueError(f"tolerance_cents is {self.tolerance_cents}; expected more than 0")

    def frames(self, frame_s: float) -> int:
        """Label frames of a segment, of which each lasts `frame_s` seconds."""
        return self.segment_frames or round(SEGMENT_SECONDS / frame_s)


def filter_pitch(
    f0_hz: Float[np.ndarray, "frame"],
    confidence: Float[np.ndarray, "frame"],
    *,
    threshold: float,
    granularity: str,
    segment_frames: int,
) -> tuple[Float[np.ndarray, "frame"], Bool[np.ndarray, "frame"], Float[np.ndarray, "frame"]]:
    """A track's pitch labels (0 = unvoiced), which are kept, and the trust compared with
    `threshold`.

    The trust in a frame is c_t = max_b p_tb where it is voiced (c_t >= VOICING), else 1 - c_t.
    "frame" judges every frame by its own trust, "segment" stretches of `segment_frames` (the last
    may be shorter) and "song" the whole track by the mean.

    Args:
        f0_hz: a guess for every frame.
        confidence: c_t, from 0 to 1.
        threshold: least trust.
        granularity: "frame", "segment" or "song".
        segment_frames: frames of a segment.
    """
    alone = granularity == "frame"
    length = segment_frames if granularity == "segment" else max(len(f0_hz), 1)
    trust = np.where(confidence >= VOICING, confidence, 1.0 - confidence)
    judged = trust if alone else np.zeros(len(trust))
    labels, kept = np.zeros(len(f0_hz), np.float32), np.zeros(len(f0_hz), bool)
    for first in range(0, len(f0_hz), length):
        part = slice(first, first + length)
        labels[part], kept[part] = trusted_pitch(
            f0_hz[part],
            confidence[part],
            threshold=threshold,
            granularity="frame" if alone else "segment",
            voicing=VOICING,
        )
        if not alone:
            judged[part] = trust[part].mean()
    return labels, kept, judged


@dataclasses.dataclass
class Counts:
    """What a filter saw and what it kept: frames of pitch labels, records of stem labels."""

    seen: int = 0
    kept: int = 0
    voiced_kept: int | None = None  # None: the labels are stems
    wrong_pitch: float = 0.0  # the share asked for
    wrong_pitch_seed: int = 0
    octaves_wrong: int = 0  # kept voiced frames with an octave error
    pitches_wrong: int = 0  # kept voiced frames with any other error
    notes: int = 0  # whose octave is not attested
    notes_settled: int = 0  # of those, in an octave that the teacher is sure of
    samples: int = 0
    records: int = 0  # whose stems were judged beside their pitch
    records_kept: int = 0
    trust: float = 0.0  # sum
    reached: list[int] = dataclasses.field(default_factory=lambda: [0] * len(THRESHOLDS))

    def add(
        self,
        trust: Float[np.ndarray, "unit"],
        kept: Bool[np.ndarray, "unit"],
        *,
        samples: int,
        voiced: Bool[np.ndarray, "unit"] | None = None,
        errors: UInt8[np.ndarray, "unit"] | None = None,
    ) -> None:
        """Counts the frames or records of a stretch of audio.

        Args:
            trust: in each, as the threshold is compared with it.
            kept: which are.
            samples: length of the stretch.
            voiced: which frames are, of pitch labels.
            errors: what `mislabel_pitch` did to each frame.
        """
        self.seen += len(kept)
        self.kept += int(kept.sum())
        self.samples += samples
        self.trust += float(trust.sum(dtype=np.float64))
        # One threshold at a time: as a Python number each compares just as the filter's own does.
        self.reached = [
            n + int((trust >= t).sum()) for n, t in zip(self.reached, THRESHOLDS, strict=True)
        ]
        if voiced is not None:
            self.voiced_kept = (self.voiced_kept or 0) + int((voiced & kept).sum())
            if errors is not None:
                self.octaves_wrong += int((kept & voiced & (errors == OCTAVE)).sum())
                self.pitches_wrong += int((kept & voiced & (errors == ANY_PITCH)).sum())

    def add_record(self, kept: bool) -> None:
        """Counts a record of which the stems are a label too, where `kept`."""
        self.records += 1
        self.records_kept += int(kept)

    def summary(self, sample_rate_hz: int) -> dict[str, Any]:
        """The statistics as JSON: counts, mean trust, and the share that each threshold would
        keep.
        """
        seen = max(self.seen, 1)
        found: dict[str, Any] = {
            "seen": self.seen,
            "kept": self.kept,
            "masked": self.seen - self.kept,
            "mean_confidence": round(self.trust / seen, 4),
            "minutes": round(self.samples / sample_rate_hz / 60, 2),
        }
        if self.voiced_kept is not None:
            found |= {
                "voiced_kept": self.voiced_kept,
                "unvoiced_kept": self.kept - self.voiced_kept,
            }
        if self.records:
            found |= {"records": self.records, "records_kept": self.records_kept}
        if self.wrong_pitch > 0:
            wrong = self.octaves_wrong + self.pitches_wrong
            found |= {
                "wrong_pitch": self.wrong_pitch,
                "wrong_pitch_seed": self.wrong_pitch_seed,
                "wrong_kept": wrong,
                "wrong_octaves_kept": self.octaves_wrong,
                "wrong_share": round(wrong / max(self.voiced_kept or 0, 1), 4),
            }
        if self.notes:
            found |= {"notes": self.notes, "notes_settled": self.notes_settled}
        shares = zip(THRESHOLDS, self.reached, strict=True)
        return found | {"kept_share_at": {f"{t:.2f}": round(n / seen, 4) for t, n in shares}}


def trusted_pitch(
    f0_hz: Float[np.ndarray, "frame"],
    confidence: Float[np.ndarray, "frame"],
    *,
    threshold: float,
    granularity: str = "frame",
    voicing: float = 0.5,
) -> tuple[Float[np.ndarray, "frame"], Bool[np.ndarray, "frame"]]:
    """A teacher's pitch as labels: (f0_hz with 0 = unvoiced, is it trusted), MAJL's filter.

    A frame is voiced where c_t = max_b p_tb reaches `voicing`; the trust in that decision is c_t
    or 1 - c_t, and it is kept where the trust reaches `threshold`. With granularity "segment" all
    frames are kept or dropped together, by their mean trust. The paper says that samples below the
    threshold are filtered out (0.7 is best); frames as the unit and the trust in unvoiced frames
    are our decision.

    Args:
        f0_hz: a guess for every frame.
        confidence: c_t, from 0 to 1.
        threshold: least trust.
        granularity: "frame", or "segment" for all of them together.
        voicing: confidence from which a frame is voiced.
    """
    voiced = confidence >= voicing
    trust = np.where(voiced, confidence, 1.0 - confidence)
    if granularity == "frame":
        kept = trust >= threshold
    elif granularity == "segment":
        kept = np.full(len(trust), len(trust) > 0 and float(trust.mean()) >= threshold)
    else:
        raise ValueError(f"granularity is {granularity!r}; expected 'frame' or 'segment'")
    return np.where(voiced & kept, f0_hz, 0.0).astype(np.float32), kept


def stem_confidence(
    salience: Float[np.ndarray, "frame bin"],
    f0_hz: Float[np.ndarray, "frame"],
    has_pitch: Bool[np.ndarray, "frame"],
    bin_cents: Float[np.ndarray, "bin"],
    *,
    tolerance_cents: float = TOLERANCE_CENTS,
) -> float:
    """How far a pitch estimator hears the labelled pitch in a separated stem: a confidence for a
    waveform.

    mean over labelled voiced frames of max_{|c_b - c_t| <= tolerance} p_tb; 0 where no frame is
    voiced. A regression has no probability of its own, so this stands in for the confidence that
    the paper does not define (our decision).

    Args:
        salience: of the separated stem, 0 to 1.
        f0_hz: labels, 0 = unvoiced.
        has_pitch: which of them are known.
        bin_cents: centres of the salience's bins, cents above 10 Hz.
        tolerance_cents: how far a bin may lie from the label.
    """
    voiced = has_pitch & (f0_hz > 0)
    if not voiced.any():
        return 0.0
    heard = near_bins(salience[voiced], f0_hz[voiced], bin_cents, tolerance_cents)
    return float(heard.mean())


def near_bins(
    salience: Float[np.ndarray, "frame bin"],
    f0_hz: Float[np.ndarray, "frame"],
    bin_cents: Float[np.ndarray, "bin"],
    tolerance_cents: float,
) -> Float[np.ndarray, "frame"]:
    """max_{|c_b - c_t| <= tolerance} p_tb of every frame t, whose pitch f0_hz is above 0."""
    cents = 1200.0 * np.log2(f0_hz / 10.0)
    near = np.abs(bin_cents[None] - cents[:, None]) <= tolerance_cents
    return np.where(near, salience, 0.0).max(axis=1)
