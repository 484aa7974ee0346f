"""Tracks whose audio is read block by block, so that an hour takes as little memory as a minute."""

import dataclasses
import functools
import pathlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Float32, Float64

from majl_jax.audio import files
from majl_jax.audio.resampling import Block
from majl_jax.datasets import notes, source_files, track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.track import BadTrack, Recording

Stems = Float32[np.ndarray, "_ stem channel"]
BLOCK_SAMPLES = 1 << 16
# Tracks up to this size are decoded once; longer ones twice, to find their peak first.
KEPT_BYTES = 256 << 20
# So well a stem agrees with the sum of the others only if it is their mixture.
MIXTURE_DB = 20.0
CLEARER_DB = 6.0


@dataclasses.dataclass(frozen=True)
class Streamed:
    """Audio without a label of pitch.

    blocks: opens the files and yields [time, stem, channel] of any gain.
    """

    blocks: Callable[[], Iterator[np.ndarray]]
    stems: tuple[str, ...]
    known: bool  # whether the stems are labels; else the only one is a mixture
    grid: Grid
    voices: int = 0
    remarks: tuple[str, ...] = ()

    def load(self) -> Recording:
        """All of it, by one gain where it is beyond full scale."""
        audio = np.concatenate(list(self.blocks()))
        audio /= max(1.0, float(np.abs(audio).max(initial=0.0)))
        return dataclasses.replace(self.labels(len(audio)), audio=audio)

    def labels(self, samples: int) -> Recording:
        """A recording of this length that lacks its audio."""
        f0_hz, has_pitch = track.no_pitch(
            samples, stems=len(self.stems), grid=self.grid, voices=self.voices
        )
        return Recording(
            audio=np.zeros((0, len(self.stems), self.grid.channels), np.float32),
            stems=self.stems,
            has_stems=np.full(len(self.stems), self.known),
            f0_hz=f0_hz,
            has_pitch=has_pitch,
            grid=self.grid,
            voices=self.voices,
            remarks=self.remarks,
        )

    def measure(self) -> tuple[int, float, Callable[[], Iterator[np.ndarray]]]:
        """The length in samples, the peak, and what gives the blocks once more.

        BadTrack where they cannot be used.
        """
        samples, peak, bad, size, kept = 0, 0.0, 0, 0, list[np.ndarray]()
        for block in self.blocks():
            samples += len(block)
            peak = max(peak, float(np.abs(block).max(initial=0.0)))
            bad += int(np.count_nonzero(~np.isfinite(block)))
            size += block.nbytes
            kept.append(block)
            if size > KEPT_BYTES:
                kept.clear()
        track.check_audio(samples, grid=self.grid, bad=bad, silent=not peak)
        return samples, peak, functools.partial(iter, kept) if kept else self.blocks


def one_stem(blocks: Iterator[Block]) -> Iterator[Stems]:
    """[time, channel] as [time, 1, channel]."""
    for block in blocks:
        yield block[:, None]


def together(
    streams: Mapping[str, Iterator[Block]],
    *,
    grid: Grid,
    pad: bool = False,
    mixture_is_a_fault: bool = False,
) -> Iterator[Stems]:
    """The stems side by side; shorter ones end in zeros.

    Raises BadTrack at the end where, without `pad`, their lengths differ by more than
    `LENGTHS_DIFFER_S`; with mixture_is_a_fault where one of three or more is the sum of the others.
    """
    queues = [_Queue(stream) for stream in streams.values()]
    products = np.zeros((len(queues), len(queues)))
    while True:
        taken = [queue.take(BLOCK_SAMPLES) for queue in queues]
        length = max(map(len, taken))
        if not length:
            break
        channels = max(one.shape[1] for one in taken)
        block = np.zeros((length, len(taken), channels), np.float32)
        for number, one in enumerate(taken):
            block[: len(one), number] = one
        if mixture_is_a_fault:
            flat = block.swapaxes(0, 1).reshape(len(taken), -1).astype(np.float64)
            products += flat @ flat.T
        yield block
    lengths = [queue.given for queue in queues]
    if not pad and max(lengths) - min(lengths) > track.LENGTHS_DIFFER_S * grid.sample_rate_hz:
        raise BadTrack(track.unequal(lengths, grid=grid))
    if mixture_is_a_fault and (told := mixture_among(products, tuple(streams))):
        raise BadTrack(told)


def mixture_among(products: Float64[np.ndarray, "stem stem"], stems: tuple[str, ...]) -> str:
    """Which of three or more stems is the sum of the others, at any gain; empty if none is.

    products: the inner products of the stems.
    """
    if len(stems) < 3:
        return ""
    own = np.diag(products)
    with_others, others = products.sum(1) - own, products.sum() - 2 * products.sum(1) + own
    left = _left(with_others, own, others)
    # Stems that are alike one by one, such as two microphones at a drum, are no sum of each other.
    alone = _left(products - np.diag(own), own[:, None], own).min(1)
    best = int(np.argmin(left / alone))
    agreement_db, clearer_db = -10 * np.log10(left[best]), 10 * np.log10(alone[best] / left[best])
    if agreement_db < MIXTURE_DB or clearer_db < CLEARER_DB:
        return ""
    return (
        f"its stem {stems[best]} is the sum of the others (to {agreement_db:.0f} dB), so a "
        "mixture: name it mixture, or take it away"
    )


def _left(
    product: Float64[np.ndarray, "..."],
    one: Float64[np.ndarray, "..."],
    other: Float64[np.ndarray, "..."],
) -> Float64[np.ndarray, "..."]:
    """The share of its energy that one signal, at the best gain, leaves of another."""
    energy = one * other
    likeness = np.divide(
        product, np.sqrt(np.abs(energy)), out=np.zeros(product.shape), where=energy > 0
    )
    return np.maximum(1 - np.clip(likeness, 0.0, 1.0) ** 2, 1e-10)


class _Queue:
    """A stream of blocks, taken from in other lengths."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks, self._waiting, self._there = blocks, deque[Block](), 0
        self._channels, self.given = 1, 0

    def take(self, samples: int) -> Block:
        """The next samples: fewer at the end, then none."""
        while self._there < samples and (block := next(self._blocks, None)) is not None:
            self._channels = block.shape[1]
            self._waiting.append(block)
            self._there += len(block)
        parts, wanted = [np.zeros((0, self._channels), np.float32)], samples
        while wanted and self._waiting:
            block = self._waiting.popleft()
            if len(block) > wanted:
                self._waiting.appendleft(block[wanted:])
            parts.append(block[:wanted])
            wanted -= len(parts[-1])
        out = np.concatenate(parts)
        self._there -= len(out)
        self.given += len(out)
        return out


def unlabelled(path: pathlib.Path, *, grid: Grid) -> Streamed:
    """One file as a mixture without any label, read block by block."""
    blocks = functools.partial(_of_file, path, grid=grid)
    return Streamed(blocks, notes.MIXTURE, known=False, grid=grid, voices=1)


def _of_file(path: pathlib.Path, *, grid: Grid) -> Iterator[Stems]:
    blocks = source_files.stream_audio(path, grid=grid)
    try:
        yield from one_stem(blocks)
    except files.AudioFileError as error:
        raise BadTrack(str(error)) from error
