"""The rule for silent segments at its edge."""

import numpy as np
import pytest

from majl_jax.audio import mixing


def test_half_of_the_chunks_silent_is_mostly_silent():
    rng = np.random.default_rng(0)
    segment = rng.integers(1, 9, (207, 2), dtype=np.int16)  # the last 7 samples are in no chunk
    assert not mixing.mostly_silent(segment)
    segment[:90] = 0
    segment[90:100] = 0
    segment[95, 1] = 1
    assert not mixing.mostly_silent(segment)
    segment[95] = 0
    assert mixing.mostly_silent(segment)
    assert not mixing.mostly_silent(segment, silent_chunks=11)
    assert mixing.mostly_silent(np.zeros((40, 1), np.float32))
    with pytest.raises(ValueError, match="got 19 samples for 20 chunks"):
        mixing.mostly_silent(np.ones((19, 1)))
