"""What is known about a track once all its records have been looked at: sums that need no audio
any more.
"""

import dataclasses

import numpy as np

from majl_jax.audio import int16
from majl_jax.datasets.cutting import Layout, Record
from majl_jax.prepare.check import arrays, duplicates
from majl_jax.prepare.check.duplicates import Prints

MIXTURE = "mixture"
PITCH_RANGE_HZ = (20.0, 8000.0)
SILENT_BLOCK_S = 0.5
COMPARED_S = 12.0  # of a track, about, in which labels are compared with the audio


@dataclasses.dataclass
class Facts:
    """Facts of one record, or of several of one track once they are merged.

    Levels are of 16 bits (full scale 32768). Counts and sums are over records, which may overlap
    at a track's end.
    """

    track: str
    split: str
    spans: list[tuple[int, int]]  # start and number of samples
    has_stems: np.ndarray  # bool [stem]
    peaks: np.ndarray  # int [stem]
    sums: np.ndarray  # [stem]
    gram: np.ndarray  # [stem, stem]: inner products of the stems
    clipped: np.ndarray  # int [stem]: runs of samples at full scale
    flat: np.ndarray  # int [stem]: runs of samples at an extreme below it
    mixture_peak: int
    silence: np.ndarray  # blocks of half a second: silent, all
    padding: np.ndarray  # samples that sound, labels: in the padding
    labelled: np.ndarray  # frames [voice]
    voiced: np.ndarray  # frames [voice]
    voiced_in_silence: np.ndarray  # frames [voice]
    bad_pitch: np.ndarray  # labels: not finite, negative, out of range
    not_whole: int  # voiced labels that are no whole number of Hz
    pitch_hz: tuple[float, float]  # lowest and highest
    fit: np.ndarray  # [shift, 2], see arrays.label_fit
    digests: dict[str, Prints]
    fingerprints: dict[str, Prints]
    group: str = ""
    mixture_file: str = ""  # how the data set's own mixture differs from the sum of the stems

    @property
    def samples(self) -> int:
        """Length of the track."""
        return max(start + samples for start, samples in self.spans)

    @property
    def sounding_stems(self) -> np.ndarray:
        """Whether each stem is ever more than silence, bool [stem]."""
        return self.peaks > arrays.SILENT_PEAK


SUMMED = (
    *("sums", "gram", "clipped", "flat", "silence", "padding", "labelled", "voiced"),
    *("voiced_in_silence", "bad_pitch", "not_whole", "fit"),
)


def compared_records(count: int, layout: Layout) -> range:
    """Which of a track's records have their labels compared with the audio: those in its middle,
    one at least.
    """
    wanted = round(COMPARED_S * layout.sample_rate_hz / layout.record_samples)
    wanted = min(max(wanted, 1), count)
    first = (count - wanted + 1) // 2
    return range(first, first + wanted)


def merge(first: Facts, second: Facts) -> Facts:
    """The facts of both."""
    values = {name: getattr(first, name) + getattr(second, name) for name in SUMMED}
    lows, highs = zip(first.pitch_hz, second.pitch_hz, strict=True)
    return dataclasses.replace(
        first,
        spans=first.spans + second.spans,
        has_stems=first.has_stems & second.has_stems,
        peaks=np.maximum(first.peaks, second.peaks),
        mixture_peak=max(first.mixture_peak, second.mixture_peak),
        pitch_hz=(min(lows), max(highs)),
        digests=_joined(first.digests, second.digests),
        fingerprints=_joined(first.fingerprints, second.fingerprints),
        **values,
    )


def _joined(first: dict[str, Prints], second: dict[str, Prints]) -> dict[str, Prints]:
    none = duplicates.NO_PRINTS
    return {
        name: duplicates.joined([first.get(name, none), second.get(name, none)])
        for name in first.keys() | second.keys()
    }


def facts_of(record: Record, layout: Layout, split: str, *, compare_labels: bool) -> Facts:
    """The facts of one record; compare_labels: whether its labels are compared with its audio,
    which takes longest.
    """
    valid = min(max(record["valid_samples"], 0), layout.record_samples)
    stems = np.ascontiguousarray(record["stems"][:valid].transpose(1, 2, 0))
    mixture = stems.sum(axis=0, dtype=np.int32)
    signals = stems.reshape(len(stems), -1).astype(np.float32)
    hop = layout.hop_samples
    hop_peaks = arrays.block_peaks(stems, hop).max(axis=1, initial=0)
    mixture_peaks = arrays.block_peaks(mixture, hop).max(axis=0, initial=0)
    runs = [np.sum([arrays.clipped_runs(channel) for channel in stem], axis=0) for stem in stems]
    per_block = max(1, round(SILENT_BLOCK_S * layout.sample_rate_hz / hop))
    silent_blocks = arrays.block_peaks(mixture_peaks, per_block) == 0
    frames = -(-valid // hop)
    digests, fingerprints = _prints(record, layout, stems, mixture)
    return Facts(
        track=record["track"],
        split=split,
        spans=[(record["start_sample"], record["valid_samples"])],
        has_stems=record["has_stems"],
        peaks=hop_peaks.max(axis=1, initial=0),
        sums=signals.sum(axis=1, dtype=np.float64),
        gram=(signals @ signals.T).astype(np.float64),
        clipped=np.asarray([row[0] for row in runs]),
        flat=np.asarray([row[1] for row in runs]),
        mixture_peak=int(mixture_peaks.max(initial=0)),
        silence=np.asarray([np.count_nonzero(silent_blocks), len(silent_blocks)]),
        padding=np.asarray(
            [np.count_nonzero(record["stems"][valid:]), record["has_pitch"][frames:].sum()]
        ),
        digests=digests,
        fingerprints=fingerprints,
        **_label_facts(record, layout, hop_peaks, mixture_peaks),
        fit=_fit(record, layout, compare=compare_labels),
    )


def _prints(
    record: Record, layout: Layout, stems: np.ndarray, mixture: np.ndarray
) -> tuple[dict[str, Prints], dict[str, Prints]]:
    """Digests and fingerprints of the mixture and of each stem that is a label and sounds."""
    named = {MIXTURE: mixture}
    if len(stems) > 1:
        known = zip(layout.stems, stems, record["has_stems"], strict=True)
        named |= {name: stem for name, stem, is_known in known if is_known}
    digests, fingerprints = {}, {}
    for name, signal in named.items():
        if np.abs(signal.astype(np.int32)).max(initial=0) <= arrays.SILENT_PEAK:
            continue
        limited = int16.limited(signal)
        digests[name] = duplicates.digest(limited, record["start_sample"])
        fingerprints[name] = duplicates.fingerprint(
            int16.to_float(signal.mean(axis=0, dtype=np.float32)),
            record["start_sample"],
            sample_rate_hz=layout.sample_rate_hz,
        )
    return digests, fingerprints


def _label_facts(
    record: Record, layout: Layout, hop_peaks: np.ndarray, mixture_peaks: np.ndarray
) -> dict:
    """What the labels say, and where they name a pitch in silence."""
    f0_hz, has_pitch = record["f0_hz"], record["has_pitch"]
    finite = np.isfinite(f0_hz)
    voiced = has_pitch & finite & (f0_hz > 0)
    low, high = PITCH_RANGE_HZ
    outside = voiced & ((f0_hz < low) | (f0_hz > high) | (f0_hz >= layout.sample_rate_hz / 2))
    peaks = np.broadcast_to(mixture_peaks, (layout.pitch_voices, len(mixture_peaks)))
    if layout.voices_are_stems:  # of unknown stems all that sounds is in the mixture
        peaks = np.where(record["has_stems"][:, None], hop_peaks, peaks)
    silent = arrays.silent_frames(peaks).T
    frames = min(len(silent), len(f0_hz))
    pitches = f0_hz[voiced]
    return {
        "labelled": has_pitch.sum(axis=0),
        "voiced": voiced.sum(axis=0),
        "voiced_in_silence": (voiced[:frames] & silent[:frames]).sum(axis=0),
        "bad_pitch": np.asarray(
            [
                np.count_nonzero(~finite),
                np.count_nonzero(has_pitch & finite & (f0_hz < 0)),
                np.count_nonzero(outside),
            ]
        ),
        "not_whole": int(np.count_nonzero(pitches != np.round(pitches))),
        "pitch_hz": (float(pitches.min(initial=np.inf)), float(pitches.max(initial=0.0))),
    }


def _fit(record: Record, layout: Layout, *, compare: bool) -> np.ndarray:
    """How well labels and audio agree at each shift, over all voices."""
    total = np.zeros((len(arrays.label_shifts(layout.grid)), 2))
    f0_hz = np.where(record["has_pitch"] & np.isfinite(record["f0_hz"]), record["f0_hz"], 0)
    if not compare or not (f0_hz > 0).any():
        return total
    stems = int16.to_float(record["stems"].mean(axis=2, dtype=np.float32).T)
    for voice in np.flatnonzero((f0_hz > 0).any(axis=0)):
        separate = layout.voices_are_stems and record["has_stems"][voice]
        signal = stems[voice] if separate else stems.sum(axis=0)
        total += arrays.label_fit(signal, f0_hz[:, voice].astype(np.float32), grid=layout.grid)
    return total
