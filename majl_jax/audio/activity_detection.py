"""Which parts of a recording sound, for preparing data: NumPy, audio as [time, channel] at full scale 1."""

import numpy as np
from jaxtyping import Float, Int, Shaped

_ENERGY_OF_SILENCE = 1e-5


def active_segments(
    audio: Float[np.ndarray, "time channel"],
    *,
    segment_samples: int,
    hop_samples: int | None = None,
    chunks: int = 10,
    active_chunks: int = 5,
    percentile: float | int = 15.0,
    min_energy: float | int = 1e-3,
) -> Int[np.ndarray, "segment"]:
    """The first samples of the segments in which a source is active (Luo & Yu 2022, arXiv 2209.15174, sec. IV-A).

    Segments overlap by half if `hop_samples` is None; what is left at the end, and a shorter recording, gives none. Each has
    `chunks` chunks of energy sum x^2 over samples and channels, digital silence counting as 1e-5. A segment stays if
    `active_chunks` of them exceed max(the percentile of all chunks, min_energy). Published numbers use segments of 8 s.
    """
    hop_samples = segment_samples // 2 if hop_samples is None else hop_samples
    if not 1 <= chunks <= segment_samples or hop_samples < 1:
        raise ValueError(
            f"active_segments got segments of {segment_samples} samples, a hop of {hop_samples} and {chunks} chunks; expected a "
            "hop of a sample or more, and chunks of a sample or more."
        )
    starts = np.arange(0, len(audio) - segment_samples + 1, hop_samples)
    if not len(starts):
        return starts
    energies = _chunk_energies(audio, starts, segment_samples // chunks, chunks)
    energies = np.where(energies == 0.0, _ENERGY_OF_SILENCE, energies)
    threshold = max(np.percentile(energies, percentile), min_energy)
    return starts[(energies > threshold).sum(axis=1) >= active_chunks]


def mostly_silent(
    segment: Shaped[np.ndarray, "time channel"], *, chunks: int = 20, silent_chunks: int = 10
) -> bool:
    """Whether `silent_chunks` of a segment's `chunks` equal chunks are digital silence, every sample 0.

    The rule for segments of unlabelled music. The authors give up the whole recording that has such a segment; the paper and
    this function, the segment alone. With segments of 10 s and the defaults: 5 s of silence, in pieces of 0.5 s.
    """
    length = len(segment) // chunks
    if length < 1:
        raise ValueError(
            f"mostly_silent got {len(segment)} samples for {chunks} chunks; expected one for each."
        )
    sounding = segment[: length * chunks].reshape(chunks, -1).any(axis=1)
    return bool(chunks - sounding.sum() >= silent_chunks)


def _chunk_energies(
    audio: np.ndarray, starts: np.ndarray, chunk_samples: int, chunks: int
) -> np.ndarray:
    """Energies [segment, chunk] by differences of a running sum, so that overlapping segments cost nothing."""
    power = np.sum(np.square(audio, dtype=np.float64), axis=1)
    until = np.concatenate([[0.0], np.cumsum(power)])
    first = starts[:, None] + chunk_samples * np.arange(chunks)
    return until[first + chunk_samples] - until[first]
