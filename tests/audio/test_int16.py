"""Audio as 16-bit integers."""

import numpy as np

from majl_jax.audio import int16


def test_floats_are_rounded_and_limited():
    audio = np.asarray([0.0, 0.5, -1.0, 1.0, 7.0, -7.0, 1.4 / 32768], np.float32)
    expected = [0, 16384, -32768, 32767, 32767, -32768, 1]
    np.testing.assert_array_equal(int16.from_float(audio), expected)


def test_every_integer_comes_back_from_float():
    samples = np.arange(-32768, 32768).astype(np.int16)
    audio = int16.to_float(samples)
    assert audio.dtype == np.float32 and audio.min() == -1.0 and audio.max() == 1 - 2.0**-15
    again = int16.from_float(audio)
    assert again.dtype == np.int16
    np.testing.assert_array_equal(again, samples)


def test_sums_are_limited():
    sums = np.asarray([-70000, -32769, 5, 32768, 70000], np.int32)
    assert int16.limited(sums).tolist() == [-32768, -32768, 5, 32767, 32767]
