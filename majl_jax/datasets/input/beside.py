"""Two streams of batches side by side: the second's mixtures under a key of their own."""

import json

import numpy as np

from majl_jax.audio import int16
from majl_jax.datasets.input.schedule import Batches


class Beside:
    """The batches of `first`, with the mixture of `second`'s examples as `key`, int16 [batch,
    time, channel].
    """

    def __init__(self, first: Batches, second: Batches, *, key: str) -> None:
        self._streams, self._key = (first, second), key

    def __iter__(self) -> "Beside":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        first, second = (next(stream) for stream in self._streams)
        mixture = second["stems"].sum(axis=2, dtype=np.int32)
        return {**first, self._key: int16.limited(mixture)}

    @property
    def step(self) -> int:
        """Batches handed out."""
        return self._streams[0].step

    def save(self) -> bytes:
        """The positions of both."""
        return json.dumps([stream.save().decode() for stream in self._streams]).encode()

    def restore(self, state: bytes) -> None:
        """Both go to their saved positions."""
        for stream, position in zip(self._streams, json.loads(state), strict=True):
            stream.restore(position.encode())
