"""Frequencies and filter lengths of constant-Q and variable-Q transforms against librosa."""

import librosa
import numpy as np
import pytest

from majl_jax.audio import cqt


@pytest.mark.parametrize("gamma", [0.0, None, 10.0])
@pytest.mark.parametrize(
    ("rate_hz", "fmin_hz", "bins", "per_octave"), [(22050, 32.7, 84, 12), (16000, 27.5, 440, 60)]
)
def test_bins_are_those_of_librosa(rate_hz, fmin_hz, bins, per_octave, gamma):
    frequencies = cqt.equal_temperament_hz(fmin_hz, bins, per_octave)
    expected = librosa.cqt_frequencies(bins, fmin=fmin_hz, bins_per_octave=per_octave)
    np.testing.assert_allclose(frequencies, expected, rtol=1e-12)
    found = cqt.wavelet_lengths(
        frequencies, sample_rate_hz=rate_hz, bins_per_octave=per_octave, gamma=gamma
    )
    expected, _ = librosa.filters.wavelet_lengths(freqs=frequencies, sr=rate_hz, gamma=gamma)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
