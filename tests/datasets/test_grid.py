"""The grid of audio and labels."""

import numpy as np
import pytest

from majl_jax.datasets.grid import Grid

GRID = Grid(22050, 256)


def test_frames_are_centred_at_whole_hops_and_each_has_one():
    for samples in (0, 255, 256, 257, 22050):
        frames = GRID.frame_count(samples)
        assert frames * 256 <= samples < (frames + 1) * 256
    times_s = GRID.frame_times_s(5)
    assert times_s.dtype == np.float64
    assert times_s.tolist() == [k * 256 / 22050 for k in range(5)]
    assert GRID.seconds(22050 * 3) == 3.0


@pytest.mark.parametrize("seconds", [0.001, 256 / 22050, 1.0, np.float32(20.0)])
def test_the_fewest_frames_that_cover_a_time(seconds):
    frames = GRID.frames_over(seconds)
    assert frames * 256 / 22050 >= float(seconds) > (frames - 1) * 256 / 22050


@pytest.mark.parametrize("name", ["sample_rate_hz", "hop_samples", "channels"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_below_one_are_refused_by_name(name, value):
    good = {"sample_rate_hz": 16000, "hop_samples": 320, "channels": 2}
    with pytest.raises(ValueError, match=f"{name} is {value}; expected a whole number from 1 on"):
        Grid(**{**good, name: value})
