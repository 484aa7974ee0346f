"""Records: what one holds, and how recordings are cut into records of equal length."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from majl_jax.audio import int16
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.track import Recording

# stems int16 [time, stem, channel], has_stems bool [stem], f0_hz float32 [frame, voice], has_pitch
# bool [frame, voice], track str, start_sample int, valid_samples int (the rest of `time` is padding
# of a track shorter than a record)
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Layout:
    """What all records of a data set have in common.

    voices: how many pitches a frame has, in no particular order; 0: one per stem, voice i being
      that of stem i.
    octave_known: whether labels of pitch are attested in their octave; else only their chroma is.
    """

    stems: tuple[str, ...]
    channels: int
    sample_rate_hz: int
    hop_samples: int
    record_samples: int
    voices: int = 0
    octave_known: bool = True

    def __post_init__(self) -> None:
        if self.record_samples <= 0 or self.record_samples % self.hop_samples:
            raise ValueError(
                f"record_samples must be a positive multiple of hop_samples ({self.hop_samples}), "
                f"got {self.record_samples}"
            )
        if self.voices < 0:
            raise ValueError(f"voices must be 0 (one per stem) or more, got {self.voices}")

    @property
    def grid(self) -> Grid:
        """The grid of audio and labels."""
        return Grid(self.sample_rate_hz, self.hop_samples, self.channels)

    @property
    def pitch_voices(self) -> int:
        """Number of voices of the pitch labels."""
        return self.voices or len(self.stems)

    @property
    def voices_are_stems(self) -> bool:
        """Whether it is known which stem each voice belongs to."""
        return not self.voices or self.voices == len(self.stems) == 1

    def arrays(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and type of each array of a record."""
        stems, frames = len(self.stems), self.record_samples // self.hop_samples
        labels = (frames, self.pitch_voices)
        return {
            "stems": ((self.record_samples, stems, self.channels), np.dtype(np.int16)),
            "has_stems": ((stems,), np.dtype(bool)),
            "f0_hz": (labels, np.dtype(np.float32)),
            "has_pitch": (labels, np.dtype(bool)),
        }


def whole(recording: Recording, track: str) -> Record:
    """A whole recording as one record of its own length."""
    return {
        "stems": int16.from_float(recording.audio),
        "has_stems": recording.has_stems,
        "f0_hz": recording.f0_hz,
        "has_pitch": recording.has_pitch,
        "track": track,
        "start_sample": 0,
        "valid_samples": len(recording.audio),
    }


def cut(track: Record, layout: Layout) -> Iterator[Record]:
    """Cuts a whole track into records of equal length; the last one ends where the track ends.

    So the last record overlaps the one before, and only a track shorter than a record is padded
    (with zeros that are no label).
    """
    samples, hop_samples = len(track["stems"]), layout.hop_samples
    frames = -(-samples // hop_samples)
    frames_per_record = layout.record_samples // hop_samples
    starts = list(range(0, max(frames - frames_per_record, 0), frames_per_record))
    starts.append(max(frames - frames_per_record, 0))
    for start in starts:
        record = {"track": track["track"], "start_sample": start * hop_samples}
        for key, (shape, dtype) in layout.arrays().items():
            if key == "has_stems":
                record[key] = np.asarray(track[key], dtype)
                continue
            first = start * (hop_samples if key == "stems" else 1)
            piece = np.asarray(track[key][first : first + shape[0]], dtype)
            if piece.shape[1:] != shape[1:]:
                raise ValueError(
                    f"{key} of track {track['track']} has shape {track[key].shape}, expected "
                    f"{('any', *shape[1:])}"
                )
            record[key] = np.zeros(shape, dtype)
            record[key][: len(piece)] = piece
        record["valid_samples"] = min(samples - record["start_sample"], layout.record_samples)
        yield record


def join(records: list[Record], layout: Layout) -> Record:
    """The inverse of `cut`: the records of one track, in order, to the whole track."""
    samples = max(record["start_sample"] + record["valid_samples"] for record in records)
    frames = samples // layout.hop_samples
    out = dict(records[0], start_sample=0, valid_samples=samples)
    for key, (shape, dtype) in layout.arrays().items():
        if key == "has_stems":
            continue
        step = 1 if key == "stems" else layout.hop_samples
        length = samples if key == "stems" else frames
        out[key] = np.zeros((length, *shape[1:]), dtype)
        for record in records:
            start = record["start_sample"] // step
            out[key][start : start + shape[0]] = record[key][: length - start]
    return out
