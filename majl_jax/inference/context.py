"""A song in segments whose kept parts hear all that they depend on, as if the song were heard
whole.

A network of convolutions knows a sample from its neighbourhood. Segments that overlap by twice
that neighbourhood, of which only the middle is kept, give what one pass over the song gives, edges
of the song included: no fading, no difference.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Piece(NamedTuple):
    """A segment, and which of its samples are kept; those of one song's pieces follow each
    other.
    """

    audio: Float[np.ndarray, "time channel"]
    kept: slice


def pieces(
    blocks: Iterable[Float[np.ndarray, "_ channel"]],
    *,
    segment_samples: int,
    context_samples: int,
    hop_samples: int,
) -> Iterator[Piece]:
    """Segments that start at whole hops; the last one ends where the song ends, filled up to a
    whole hop.

    A song shorter than a segment is one piece of its own length. Memory is two segments and a
    block. A ValueError for a context that leaves nothing of a segment, and for no samples.
    """
    step = segment_samples - 2 * context_samples
    if step < hop_samples or segment_samples % hop_samples or context_samples % hop_samples:
        raise ValueError(
            f"segments of {segment_samples} samples with a context of {context_samples} at either"
            f" side; expected whole hops of {hop_samples} samples, and one or more of them between"
            " the contexts"
        )
    # From the start of the next segment on, `before` more in front
    waiting: np.ndarray | None = None
    before, first = 0, True
    for block in blocks:
        waiting = block if waiting is None else np.concatenate([waiting, block])
        while len(waiting) - before > segment_samples:  # '>': the last one must be known as such
            start = before
            kept = slice(0 if first else context_samples, segment_samples - context_samples)
            yield Piece(waiting[start : start + segment_samples], kept)
            first = False
            # The last segment reaches back by less than a segment before the start of the next one.
            drop = max(start + step - segment_samples, 0)
            waiting, before = waiting[drop:], start + step - drop
    if waiting is None or not len(waiting):
        raise ValueError("the track has no samples: nothing to apply the model to")
    missing = -(len(waiting) - before) % hop_samples
    end = len(waiting)
    filled = np.pad(waiting, ((0, missing), (0, 0)))
    start = max(len(filled) - segment_samples, 0) if not first else before
    done = before + (0 if first else context_samples)
    yield Piece(filled[start:], slice(done - start, end - start))
