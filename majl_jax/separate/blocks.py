"""A song to its stems and its pitch, block by block: what comes in at any rate and with any number
of channels goes out at that rate, with as many channels and samples.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from majl_jax.audio import files, resampling
from majl_jax.audio.high_band import HighBand
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
    the length of the song. What the song has above the model's band is shared out to the stems
    (`audio/high_band.py`). AudioFileError for other numbers of channels.

    Args:
        model: what is applied.
        variables: of the model, for this song (`SegmentModel.for_song`).
        blocks: of the song, full scale 1.
        sample_rate_hz: of the song.
        channels: of the song.
        options: overlap, batch_size, devices, threshold, stems, pitch_only and high_band.
        mix: brings a block to the model's channels (`files.downmix`); None: by the mean, or
          repetition.
    """
    chosen = chosen_stems(model, options)
    with_stems = bool(chosen)
    if mix is None:
        mix = lambda block: resampling.mix_channels(block, model.channels)  # noqa: E731
    voices = _voices(channels, model, mix, with_stems=with_stems)
    counted = _Counted(blocks)
    above = None
    if options.high_band and with_stems and sample_rate_hz > model.sample_rate_hz:
        above = _Above(counted, model, sample_rate_hz, channels)
    heard = (
        above.heard
        if above is not None
        else resampling.resample_blocks(
            counted, source_hz=sample_rate_hz, target_hz=model.sample_rate_hz
        )
    )
    waiting: list[np.ndarray] = []
    stems = _apply(model, variables, heard, voices, waiting.append, options)
    shape = (len(chosen), channels)
    given = 0
    if not with_stems:
        for _ in stems:
            yield Part(np.zeros((0, *shape), np.float32), *_pitch(model, waiting, options))
        return
    wanted = chosen if above is None else list(range(len(model.stems)))
    flat = (block[:, wanted].reshape(len(block), -1) for block in stems)
    for block in resampling.resample_blocks(
        flat, source_hz=model.sample_rate_hz, target_hz=sample_rate_hz
    ):
        made = block.reshape(len(block), len(wanted), -1)[: counted.samples - given]
        if made.shape[2] != channels:  # a mono song through a model of several channels
            made = made.mean(2, keepdims=True)
        if above is not None:
            made = above.add(made)[:, chosen]
        given += len(made)
        yield Part(made, *_pitch(model, waiting, options))
    if given < counted.samples or waiting:  # resampling there and back may lose a sample
        missing = np.zeros((counted.samples - given, *shape), np.float32)
        yield Part(missing, *_pitch(model, waiting, options))


class _Above:
    """What a song has above the band of the model, for the stems to share.

    `heard` is the song at the model's rate; the song itself waits here for its stems, as does what
    of it is heard.
    """

    def __init__(
        self, blocks: Iterable[Block], model: "SegmentModel", sample_rate_hz: int, channels: int
    ) -> None:
        song, waiting = itertools.tee(blocks)
        heard = resampling.resample_blocks(
            song, source_hz=sample_rate_hz, target_hz=model.sample_rate_hz
        )
        first, again = itertools.tee(heard)
        # No tee: from CPython 3.12.8 and 3.13.1 on, a tee of a tee keeps all that went through.
        self.heard = (block for block in first)
        low = resampling.resample_blocks(
            again, source_hz=model.sample_rate_hz, target_hz=sample_rate_hz
        )
        self._song, self._low = _Queue(waiting), _Queue(low)
        self._band = HighBand(
            sample_rate_hz=sample_rate_hz,
            model_hz=model.sample_rate_hz,
            stems=len(model.stems),
            channels=channels,
        )

    def add(self, stems: Stems) -> Stems:
        """The next samples of all stems with their shares; as they are where the low band has
        ended, a sample before the song.
        """
        song, low = (queue.take(len(stems)) for queue in (self._song, self._low))
        some = len(low)
        return np.concatenate(
            [self._band.add(stems[:some], song=song[:some], low=low), stems[some:]]
        )


class _Queue:
    """Blocks of any length, taken by the sample."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks, self._left = blocks, np.zeros((0, 1), np.float32)

    def take(self, samples: int) -> Block:
        """The next samples; fewer at the end."""
        parts = [self._left]
        missing = samples - len(self._left)
        while missing > 0 and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            missing -= len(block)
        whole = np.concatenate([part for part in parts if len(part)] or parts[:1])
        self._left = whole[samples:]
        return whole[:samples]


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

    # Of several voices the last gives the pitch, those before it the stems: a listener's work on
    # these would be for nothing.
    each, last = segments.OUTPUTS[:1], segments.OUTPUTS[1:]
    wanted = [*(len(voices) - 1) * [each], last] if len(voices) > 1 else [segments.OUTPUTS]
    heard = [
        (voice, outputs) for voice, outputs in zip(voices, wanted, strict=True) if voice is not None
    ]
    streams = [
        segments.stream(
            model,
            variables,
            map(voice, copy),
            overlap=options.overlap,
            batch_size=options.batch_size,
            devices=options.devices,
            wanted=outputs,
        )
        for (voice, outputs), copy in zip(heard, itertools.tee(blocks, len(heard)), strict=True)
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
