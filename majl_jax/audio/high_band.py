"""What a song has above the band of a model, shared out to the stems that the model found."""

import numpy as np
import scipy.signal
from jaxtyping import Float

SMOOTHING_S = 0.01
"""Time constant of the powers that shares come from: an s lasts longer, a stroke begins faster."""
SILENT_POWER = 1e-10
"""Below -100 dB nothing in the octave says whose the band above it is."""


class HighBand:
    """Adds to each stem its share of what lies above the model's band, block by block.

    s_i' = s_i + p_i / (p_1 + … + p_n + p_rest) (x - x_low), p being the power in the model's upper
    octave (a quarter to a half of its rate, Butterworth, second order), smoothed over SMOOTHING_S.
    So stems and rest still sum to the song; where that octave is silent, the rest has all of the
    band. What is cut where does not matter.

    Args:
        sample_rate_hz: of the song.
        model_hz: sample rate of the model; the band begins at half of it.
        stems: their number.
        channels: of the song.
    """

    def __init__(self, *, sample_rate_hz: int, model_hz: int, stems: int, channels: int) -> None:
        corner, options = model_hz / 4, {"fs": sample_rate_hz, "output": "sos"}
        self._octave = np.asarray(scipy.signal.butter(2, corner, "highpass", **options))
        rate = 1.0 - np.exp(-1.0 / (SMOOTHING_S * sample_rate_hz))
        self._smooth = np.array([[rate, 0.0, 0.0, 1.0, rate - 1.0, 0.0]])
        self._states = [np.zeros((1, 2, stems + 1, channels)) for _ in range(2)]

    def add(
        self,
        stems: Float[np.ndarray, "_ stem channel"],
        *,
        song: Float[np.ndarray, "_ channel"],
        low: Float[np.ndarray, "_ channel"],
    ) -> Float[np.ndarray, "_ stem channel"]:
        """The next samples of the stems with their shares of `song - low`.

        Args:
            stems: as the model gives them, at the song's rate.
            song: the same samples of the song.
            low: the same as the model hears it: resampled to its rate and back.
        """
        if not len(stems):
            return stems
        rest = low[:, None] - stems.sum(1, keepdims=True)
        octave = self._filtered(0, self._octave, np.concatenate([stems, rest], axis=1))
        powers = np.maximum(self._filtered(1, self._smooth, np.square(octave)), 0.0)
        total = powers.sum(1, keepdims=True)
        shares = powers[:, :-1] / np.maximum(total, SILENT_POWER)
        return (stems + shares * (song - low)[:, None]).astype(np.float32)

    def _filtered(self, number: int, sections: np.ndarray, x: np.ndarray) -> np.ndarray:
        out, self._states[number] = scipy.signal.sosfilt(
            sections, x, axis=0, zi=self._states[number]
        )
        return out
