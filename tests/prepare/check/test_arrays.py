"""What the doctor measures of arrays: clipping, peaks, fingerprints; and which file is the
mixture.
"""

import pathlib

import numpy as np
import pytest
from made_songs import RATE_HZ, music

from majl_jax.prepare.check import arrays, duplicates, mixture

# Functions of arrays.


def test_clipped_runs_are_counted():
    signal = np.zeros(100, np.int16)
    signal[10:13], signal[20:22], signal[30:40] = 32767, 32767, 32767
    signal[50:55], signal[60] = -32768, -32768
    assert arrays.clipped_runs(signal) == (3, 0)
    below = np.where(np.abs(signal.astype(int)) > 0, np.sign(signal) * 20000, 0).astype(np.int16)
    assert arrays.clipped_runs(below) == (0, 2), "runs of four or more"
    soft = (np.sign(signal) * 500).astype(np.int16)
    assert arrays.clipped_runs(soft) == (0, 0), "a soft tone may hold its highest value"


def test_block_peaks_of_whole_and_broken_blocks():
    audio = np.asarray([[1, -5, 2, 0, -32768]], np.int16)
    np.testing.assert_array_equal(arrays.block_peaks(audio, 2), [[5, 2, 32768]])
    np.testing.assert_array_equal(arrays.block_peaks(audio[:, :4], 2), [[5, 2]])


@pytest.mark.parametrize("later_samples", [0, 37, 800, -3000])
def test_a_fingerprint_knows_shifted_noisy_audio(later_samples):
    rng, samples = np.random.default_rng(1), 20 * RATE_HZ
    audio, *others = (music(seed, 20.0)[0] for seed in range(40, 45))
    copy = np.roll(audio, later_samples) + rng.normal(0, 0.003, samples).astype(np.float32)
    prints = [
        duplicates.fingerprint(one.astype(np.float32), 0, sample_rate_hz=RATE_HZ)
        for one in (audio, 0.3 * copy, *others)
    ]
    (twins,) = duplicates.same_sound(prints, range(len(prints)))
    assert (twins.first, twins.second) == (0, 1)
    assert not duplicates.same_sound(prints, [0] * len(prints)), "no twins within one owner"


def test_the_mixture_among_files(tmp_path):
    for name in ("Song_MIX.wav", "remix.wav", "bass.wav"):
        (tmp_path / name).touch()
    assert mixture.find_mixture([tmp_path / "bass.wav"]) == tmp_path / "Song_MIX.wav"
    assert mixture.find_mixture([pathlib.Path("a.stem.mp4")]) == pathlib.Path("a.stem.mp4")
    assert mixture.find_mixture([]) is None
