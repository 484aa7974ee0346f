import json

import numpy as np

from majl_jax.datasets.input import beside


class Numbers:
    """Batches whose audio says how many came before."""

    def __init__(self, scale, stems=2):
        self.scale, self.stems, self.step = scale, stems, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.step += 1
        value = np.full((3, 4, self.stems, 1), self.scale * self.step, np.int16)
        return {"stems": value, "index": np.arange(3)}

    def save(self):
        return json.dumps(self.step).encode()

    def restore(self, state):
        self.step = json.loads(state)


def test_the_second_stream_s_mixture_stands_beside_the_first():
    both = beside.Beside(Numbers(1), Numbers(100), key="percussion")
    next(both)
    batch = next(both)
    assert batch["stems"].shape == (3, 4, 2, 1) and (batch["stems"] == 2).all()
    assert batch["percussion"].shape == (3, 4, 1) and batch["percussion"].dtype == np.int16
    assert (batch["percussion"] == 400).all()  # the sum of two stems of 200


def test_a_mixture_beyond_full_scale_is_limited_not_wrapped():
    batch = next(beside.Beside(Numbers(1), Numbers(30_000), key="percussion"))
    assert (batch["percussion"] == 32_767).all()


def test_both_go_on_from_a_saved_position():
    streams = [beside.Beside(Numbers(1), Numbers(100), key="drums") for _ in range(2)]
    for _ in range(3):
        next(streams[0])
    streams[1].restore(streams[0].save())
    expected, found = next(streams[0]), next(streams[1])
    for key in expected:
        np.testing.assert_array_equal(expected[key], found[key])
