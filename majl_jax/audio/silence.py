"""Which parts of a recording are silence, for preparing data."""

import numpy as np
from jaxtyping import Shaped


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
