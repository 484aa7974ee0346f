"""Where notes of a known pitch class are sung, in time and in octave, heard in the mixture."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

RATE_HZ = 16_000  # of the audio that is listened to
OCTAVES = (-2, -1, 0, 1)  # above the notes as they are written
HOP_S, LATEST_S = 0.02, 0.2  # offsets that are tried: up to so much, in such steps
CHANGE = 8  # by so many notes more two octaves, one after the other, have to fit better than one
LEAST_SHARE = 0.5  # of the notes, that have to be heard where they then lie
_WINDOW, _BINS = 2048, 8192  # samples of a frame, and of its spectrum
_BLOCK = 512  # frames
_HARMONICS, _HIGHEST_HZ = np.arange(1, 9), 4000.0
_TUNINGS_CENTS = (-40, -20, 0, 20, 40)


@dataclasses.dataclass(frozen=True)
class Heard:
    """How the notes of a singer lie: by how many octaves to move each, and all by how many seconds.

    share: of the notes, which are heard in that octave.
    """

    octaves: Int[np.ndarray, " note"]
    offset_s: float
    share: float

    @property
    def clear(self) -> bool:
        """Whether the octaves are more than a guess."""
        return self.share >= LEAST_SHARE


def hear(audio: Float[np.ndarray, " time"], notes: Float[np.ndarray, "note 3"]) -> Heard:
    """The offset at which notes are heard best, one for all, and their octaves.

    Each note alone is heard in the octave with the highest comb; together they lie where most do,
    and in another one from some note on only if that is right of `CHANGE` notes more.

    Args:
        audio: one channel at `RATE_HZ`.
        notes: one or more in order of time, as onset_s, offset_s and f0_hz in some octave.
    """
    scores = _scores(audio, notes)
    best, _ = np.unravel_index(scores.mean(0).argmax(), scores.shape[1:])
    alone = scores[:, best].argmax(1)
    together = _path(np.eye(len(OCTAVES))[alone])
    offset_s = round(float(best) * HOP_S - LATEST_S, 3)
    return Heard(np.array(OCTAVES)[together], offset_s, float(np.mean(alone == together)))


def _path(votes: Float[np.ndarray, "note octave"]) -> Int[np.ndarray, " note"]:
    """The octave of each note that gives the most votes, less `CHANGE` for each change."""
    total, came_from = np.zeros(votes.shape[1]), np.zeros(votes.shape, int)
    for number, vote in enumerate(votes):
        stays = total >= total.max() - CHANGE
        came_from[number] = np.where(stays, np.arange(len(total)), total.argmax())
        total = np.maximum(total, total.max() - CHANGE) + vote
    path = np.full(len(votes), total.argmax())
    for number in range(len(votes) - 1, 0, -1):
        path[number - 1] = came_from[number, path[number]]
    return path


def _scores(
    audio: Float[np.ndarray, " time"], notes: Float[np.ndarray, "note 3"]
) -> Float[np.ndarray, "note offset octave"]:
    """The mean comb of every note in every octave, moved by every offset."""
    steps = round(LATEST_S / HOP_S)
    offsets = np.arange(-steps, steps + 1)
    pitches_hz, which = np.unique(notes[:, 2], return_inverse=True)
    candidates_hz = pitches_hz[:, None] * 2.0 ** np.array(OCTAVES)
    combs = np.concatenate([*_combs(audio, candidates_hz.ravel())])
    sums = np.concatenate([np.zeros_like(combs[:1]), combs.cumsum(0, dtype=np.float64)])
    sums = sums.reshape(len(sums), *candidates_hz.shape)
    frames = np.ceil(notes[:, :2, None] / HOP_S + offsets).astype(int).clip(0, len(combs))
    ends = sums[frames, which[:, None, None]]
    length = np.maximum(frames[:, 1] - frames[:, 0], 1)
    return (ends[:, 1] - ends[:, 0]) / length[..., None]


def _combs(
    audio: Float[np.ndarray, " time"], f0_hz: Float[np.ndarray, " pitch"]
) -> Iterator[Float[np.ndarray, "frame pitch"]]:
    """How much more sounds at the harmonics of each pitch than half-way between them, per frame.

    s(f) = sum_h (a(h f) - a((h - 1/2) f)) / sqrt(h) with h from 1 to 8, a being the square root of
    the magnitude: an octave too low every other harmonic is missing, an octave too high more sounds
    half-way. Of five tunings the best counts.
    """
    hop, window = round(HOP_S * RATE_HZ), np.hanning(_WINDOW)
    padded = np.pad(audio, _WINDOW // 2)
    begins = np.arange(0, len(audio), hop)
    tuned_hz = f0_hz[:, None] * 2.0 ** (np.array(_TUNINGS_CENTS) / 1200)
    places_hz = tuned_hz[..., None] * _HARMONICS
    weights = (places_hz < _HIGHEST_HZ) / np.sqrt(_HARMONICS)
    at, between = (
        np.round(hz.clip(0, _HIGHEST_HZ) * _BINS / RATE_HZ).astype(int)
        for hz in (places_hz, places_hz - tuned_hz[..., None] / 2)
    )
    for first in range(0, len(begins), _BLOCK):
        pieces = padded[begins[first : first + _BLOCK, None] + np.arange(_WINDOW)]
        spectra = np.sqrt(np.abs(np.fft.rfft(pieces * window, _BINS)))
        yield np.stack(
            [
                np.einsum("fth,th->ft", spectra[:, up] - spectra[:, half], weight).max(1)
                for up, half, weight in zip(at, between, weights, strict=True)
            ],
            axis=1,
        )
