"""Sample rates and channel counts of float32 audio [time, channel], block by block or whole."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float

Audio = Float[np.ndarray, "time channel"]
Block = Float[np.ndarray, "_ channel"]  # a stretch of audio of any length


def mix_channels(audio: Audio, channels: int) -> Float[np.ndarray, "time mixed"]:
    """Mean over the channels to get one, repetition to get more from one; else an error."""
    if audio.shape[1] == channels:
        return audio
    if channels == 1:
        return audio.mean(1, keepdims=True, dtype=np.float32)
    if audio.shape[1] == 1:
        return np.repeat(audio, channels, axis=1)
    raise ValueError(
        f"cannot make {channels} channels from {audio.shape[1]}; "
        "expected the same number, one wanted, or one given"
    )


def resample_blocks(
    blocks: Iterable[Block],
    *,
    source_hz: int,
    target_hz: int,
    length_samples: int | None = None,
) -> Iterator[Block]:
    """Yields the blocks at another rate (soxr HQ, no delay); joined up, as if resampled whole.

    length_samples: cut or zero-padded to exactly this many samples; by default
    max(1, round(samples * target_hz / source_hz)).
    """
    import soxr

    stream_resampler, taken, given, channels = None, 0, 0, 1
    limit = np.inf if length_samples is None else length_samples
    for block in blocks:
        taken, channels = taken + len(block), block.shape[1]
        if source_hz != target_hz:
            stream_resampler = stream_resampler or soxr.ResampleStream(
                source_hz, target_hz, channels, dtype="float32", quality="HQ"
            )
            block = stream_resampler.resample_chunk(np.ascontiguousarray(block, np.float32))
        block = block[: int(min(len(block), limit - given))]
        given += len(block)
        if len(block):
            yield block
    if length_samples is None:
        length_samples = max(1, round(taken * target_hz / source_hz)) if taken else 0
    tail = np.zeros((0, channels), np.float32)
    if stream_resampler is not None:
        tail = stream_resampler.resample_chunk(tail, last=True)
    missing = length_samples - given - len(tail)
    tail = np.pad(tail, ((0, max(0, missing)), (0, 0)))[: length_samples - given]
    if len(tail):
        yield tail
