"""A song to its stems and its pitch, block by block: what comes in at any rate and with any number
of channels goes out at that rate, with as many channels and samples.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from majl_jax.audio import files, resampling
from majl_jax.audio.resampling import Block
from majl_jax.separate.outputs import chosen_stems

if TYPE_CHECKING:  # JAX is loaded only when there is something to do
    from majl_jax.inference.segments import SegmentModel
    from majl_jax.separate.outputs import Options

Stems = Float[np.ndarray, "_ stem channel"]


class Part(NamedTuple):
    """What is finished of a song."""

    stems: Stems
    """The next samples, at the song's rate; none of them where a model gives no stems."""
    f0_hz: Float[np.ndarray, "frame"]
    """The next frames of pitch, 0 where it is unvoiced; none where a model gives no pitch."""
    confidence: Float[np.ndarray, "frame"]


def separated(
    model: "SegmentModel",
    variables: Any,
    blocks: Iterable[Block],
    *,
    sample_rate_hz: int,
    channels: int,
    options: "Options",
    mix: Callable[[Block], Block] | None = None,
) -> Iterator[Part]:
    """Yields what is finished of a song while its blocks come in; joined up, the parts have as many
    samples as the song.

    A mono model is applied to each channel by itself, and its pitch is that of the channels' mean;
    a model of several channels takes songs of as many channels, or mono. Memory does not grow with
    the length of the song. AudioFileError for other numbers of channels.

    Args:
        model: what is applied.
        variables: of the model, for this song (`SegmentModel.for_song`).
        blocks: of the song, full scale 1.
        sample_rate_hz: of the song.
        channels: of the song.
        options: overlap, batch_size, devices, threshold, stems, and pitch_only.
        mix: brings a block to the model's channels (`files.downmix`); None: by the mean, or
          repetition.
    """
    chosen = chosen_stems(model, options)
    with_stems = bool(chosen)
    if mix is None:
        mix = lambda block: resampling.mix_channels(block, model.channels)  # noqa: E731
    voices = _voices(channels, model, mix, with_stems=with_stems)
    counted = _Counted(blocks)
    heard = resampling.resample_blocks(
        counted, source_hz=sample_rate_hz, target_hz=model.sample_rate_hz
    )
    waiting: list[np.ndarray] = []
    stems = _apply(model, variables, heard, voices, waiting.append, options)
    shape = (len(chosen), channels)
    given = 0
    if not with_stems:
        for _ in stems:
            yield Part(np.zeros((0, *shape), np.float32), *_pitch(model, waiting, options))
        return
    flat = (block[:, chosen].reshape(len(block), -1) for block in stems)
    for block in resampling.resample_blocks(
        flat, source_hz=model.sample_rate_hz, target_hz=sample_rate_hz
    ):
        made = block.reshape(len(block), shape[0], -1)[: counted.samples - given]
        if made.shape[2] != channels:  # a mono song through a model of several channels
            made = made.mean(2, keepdims=True)
        given += len(made)
        yield Part(made, *_pitch(model, waiting, options))
    if given < counted.samples or waiting:  # resampling there and back may lose a sample
        missing = np.zeros((counted.samples - given, *shape), np.float32)
        yield Part(missing, *_pitch(model, waiting, options))


class _Counted:
    """Blocks, and how many samples they had so far."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self.blocks, self.samples = blocks, 0

    def __iter__(self) -> Iterator[Block]:
        for block in self.blocks:
            self.samples += len(block)
            yield block


def _voices(
    channels: int, model: "SegmentModel", mix: Callable[[Block], Block], *, with_stems: bool
) -> Sequence[Callable[[Block], Block] | None]:
    """What the model listens to, one after the other; the pitch of the last voice counts, and its
    stems only where it is the only one.

    So the last of several is all channels together, by `mix`: for a model of pitch, else it is None
    and not heard.
    """
    if channels == model.channels:
        return [lambda block: block]
    if channels > 1 and model.channels > 1:
        raise files.AudioFileError(
            f"the song has {channels} channels, the model takes {model.channels}: "
            f"mix it to {model.channels} channels or to mono first"
        )
    whole = [mix]
    if channels == 1 or not with_stems:
        return whole
    each = [_channel(number) for number in range(channels)]
    return [*each, *(whole if model.bin_cents is not None else [None])]


def _channel(number: int) -> Callable[[Block], Block]:
    return lambda block: block[:, number : number + 1]


def _apply(
    model: "SegmentModel",
    variables: Any,
    blocks: Iterable[Block],
    voices: Sequence[Callable[[Block], Block] | None],
    add_salience: Callable[[np.ndarray], None],
    options: "Options",
) -> Iterator[Stems]:
    """Yields stems with the song's channels, or none, and hands the salience of the last voice to
    add_salience before.
    """
    from majl_jax.inference import segments

    heard = [voice for voice in voices if voice is not None]
    streams = [
        segments.stream(
            model,
            variables,
            map(voice, copy),
            overlap=options.overlap,
            batch_size=options.batch_size,
            devices=options.devices,
        )
        for voice, copy in zip(heard, itertools.tee(blocks, len(heard)), strict=True)
    ]  # in step with each other, so that the copies of the input stay as short as a batch
    nothing = np.zeros((0, 0, 0), np.float32)
    for parts in zip(*streams, strict=True):
        if "salience" in parts[-1]:
            add_salience(parts[-1]["salience"])
        of_channels = parts[: len(voices) - 1] or parts
        stems = [part["stems"] for part in of_channels if "stems" in part]
        yield np.concatenate(stems, axis=2) if stems else nothing


def _pitch(
    model: "SegmentModel", waiting: list[np.ndarray], options: "Options"
) -> tuple[np.ndarray, np.ndarray]:
    """The pitch of the salience that waits, which it takes; 0 Hz below the threshold."""
    from majl_jax.inference import decoding

    none = np.zeros(0, np.float32)
    if model.bin_cents is None or not waiting:
        return none, none
    f0_hz, confidence = decoding.decode_pitch(np.concatenate(waiting), model.bin_cents)
    waiting.clear()
    if not np.isfinite(confidence).all():
        raise ValueError("the model returned a salience that is not finite: check the checkpoint")
    return np.where(confidence >= options.threshold, f0_hz, 0.0).astype(np.float32), confidence
