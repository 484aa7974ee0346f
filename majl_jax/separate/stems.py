"""One song from file to files: read, separated and written piece by piece, in constant memory."""

import contextlib
import dataclasses
import itertools
import pathlib
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from majl_jax import atomic
from majl_jax.audio import files, resampling
from majl_jax.audio.resampling import Block
from majl_jax.datasets import track
from majl_jax.plotting.spectrogram import PitchTrack, Spectrogram, draw_overview
from majl_jax.separate.outputs import Options, names_of_stems, output_paths, refuse_existing

if TYPE_CHECKING:  # JAX is loaded only when there is something to do
    from majl_jax.inference.segments import SegmentModel

Stems = Float[np.ndarray, "_ stem channel"]


@dataclasses.dataclass(frozen=True)
class Result:
    """What came out of one file."""

    paths: tuple[pathlib.Path, ...]
    peaks_db: dict[str, float]
    frames: int
    voiced_frames: int


def separate_file(
    path: files.Path,
    folder: pathlib.Path,
    model: "SegmentModel",
    variables: Any,
    options: Options | None = None,
    *,
    progress: Callable[[float], object] = lambda seconds: None,
) -> Result:
    """Separates one file into `folder`, where outputs appear under their names once complete.

    A mono model is applied to each channel of the file by itself, and its pitch is that of the
    channels' mean; a model of several channels takes files of as many channels, or mono.

    Args:
        path: an audio file.
        folder: gets the files.
        model: what is applied.
        variables: of the model.
        options: how; None: the defaults.
        progress: called with the seconds of input that were read.
    """
    options = options or Options()
    info = files.inspect(path, allow_truncated=options.allow_truncated)
    outputs = _Outputs(folder, info, model, options)
    voices = _voices(info.channels, model, with_stems=bool(outputs.stems))
    if model.for_song is not None:
        heard = resampling.resample_blocks(
            files.stream(path, allow_truncated=options.allow_truncated),
            source_hz=info.sample_rate_hz,
            target_hz=model.sample_rate_hz,
        )
        with warnings.catch_warnings():  # said when the file is read once more, for its stems
            warnings.simplefilter("ignore", files.AudioFileWarning)
            variables = model.for_song(variables, heard)
    with outputs:
        song = outputs.remember(
            files.stream(path, allow_truncated=options.allow_truncated), progress
        )
        inputs = resampling.resample_blocks(
            song, source_hz=info.sample_rate_hz, target_hz=model.sample_rate_hz
        )
        stems = _apply(model, variables, inputs, voices, outputs.add_pitch, options)
        flat = (block.reshape(len(block), -1) for block in stems)
        for block in resampling.resample_blocks(
            flat, source_hz=model.sample_rate_hz, target_hz=info.sample_rate_hz
        ):
            outputs.add_stems(block.reshape(len(block), len(outputs.stems), -1))
    return outputs.result()


def _voices(
    channels: int, model: "SegmentModel", *, with_stems: bool
) -> Sequence[Callable[[Block], Block] | None]:
    """What the model listens to, one after the other; the pitch of the last voice counts, and its
    stems only where it is the only one.

    So the last of several is all channels together: for a model of pitch, else it is None and not
    heard.
    """
    if channels == model.channels:
        return [lambda block: block]
    if channels > 1 and model.channels > 1:
        raise files.AudioFileError(
            f"the file has {channels} channels, the model takes {model.channels}: "
            f"mix it to {model.channels} channels or to mono first"
        )
    whole = [lambda block: resampling.mix_channels(block, model.channels)]
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
    add_pitch: Callable[[np.ndarray], None],
    options: Options,
) -> Iterator[Stems]:
    """Yields stems with the file's channels, hands the salience of the last voice to add_pitch."""
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
    for parts in zip(*streams, strict=True):
        if "salience" in parts[-1]:
            add_pitch(parts[-1]["salience"])
        if "stems" in parts[-1] and not options.pitch_only:
            of_channels = parts[: len(voices) - 1] or parts
            yield np.concatenate([part["stems"] for part in of_channels], axis=2)


class _Backlog:
    """The part of the song that is read but not yet separated."""

    def __init__(self) -> None:
        self._blocks: deque[Block] = deque()
        self.samples = 0

    def put(self, block: Block) -> None:
        self._blocks.append(block)
        self.samples += len(block)

    def take(self, samples: int) -> Block:
        """Returns the oldest samples, at most as many as there are."""
        taken: list[Block] = []
        while samples and self._blocks:
            block = self._blocks.popleft()
            if len(block) > samples:
                self._blocks.appendleft(block[samples:])
                block = block[:samples]
            taken.append(block)
            samples -= len(block)
            self.samples -= len(block)
        return np.concatenate(taken) if taken else np.zeros((0, 1), np.float32)


class _Outputs:
    """The files of one song while they are being written: all put in place at the end, or none."""

    def __init__(
        self,
        folder: pathlib.Path,
        info: files.AudioInfo,
        model: "SegmentModel",
        options: Options,
    ) -> None:
        self.folder, self.info, self.model, self.options = folder, info, model, options
        self.stems = names_of_stems(model, options)
        self._has_pitch = model.bin_cents is not None
        self.paths = output_paths(folder, model, options)
        refuse_existing(self.paths, info.path, options)
        self.channels = info.channels
        self.backlog = _Backlog()
        self.frames = self.voiced_frames = 0
        self._seconds_per_frame = model.hop_samples / model.sample_rate_hz
        spectrogram = ["song", *(f"estimate: {name}" for name in self.stems[:1])]
        self._pictures = {
            name: Spectrogram(sample_rate_hz=info.sample_rate_hz)
            for name in spectrogram * options.picture
        }
        self._track = PitchTrack(frame_s=self._seconds_per_frame)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "_Outputs":
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            self.writers = [
                stack.enter_context(
                    files.WavWriter(
                        path,
                        sample_rate_hz=self.info.sample_rate_hz,
                        channels=self.channels,
                        subtype=self.options.subtype,
                        expected_samples=self.info.samples,
                    )
                )
                for path in self.paths
                if path.suffix == ".wav"
            ]
            if self._has_pitch:
                part = stack.enter_context(atomic.draft(self.folder / "pitch.csv"))
                self._csv = stack.enter_context(part.open("w", encoding="utf-8"))
                self._csv.write("time,frequency,confidence\n")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                with self._stack:  # an error while finishing drops what is not yet in place
                    self._finish()
            else:
                self._stack.__exit__(kind, error, trace)
        finally:
            with contextlib.suppress(OSError):
                self.folder.rmdir()  # succeeds only where nothing was written

    def _finish(self) -> None:
        if self.stems and self.backlog.samples:  # resampling there and back may lose a sample
            shape = (self.backlog.samples, len(self.stems), self.channels)
            self.add_stems(np.zeros(shape, np.float32))
        if self._pictures:
            with atomic.draft(self.folder / "picture.png") as part:
                draw_overview(
                    part,
                    self._pictures,
                    title=track.printable(self.info.path.name),
                    pitch=self._track if self._has_pitch else None,
                )

    def remember(
        self, blocks: Iterable[Block], progress: Callable[[float], object]
    ) -> Iterator[Block]:
        """Passes the song on and keeps what will be needed to subtract the stems from it."""
        for block in blocks:
            if self.stems:
                self.backlog.put(block)
            elif self._pictures:
                self._pictures["song"].push(block.mean(1))
            yield block
            progress(len(block) / self.info.sample_rate_hz)

    def add_stems(self, stems: Stems) -> None:
        """Writes the next samples of every stem, and of what the song is without them."""
        song = self.backlog.take(len(stems))
        stems = stems[: len(song)]
        if stems.shape[2] != song.shape[1]:  # a mono song through a model of several channels
            stems = stems.mean(2, keepdims=True)
        signals = [*stems.transpose(1, 0, 2), song - stems.sum(1)]
        for writer, signal in zip(self.writers, signals, strict=True):
            writer.write(signal)
        for picture, signal in zip(self._pictures.values(), (song, stems[:, 0]), strict=False):
            picture.push(signal.mean(1))

    def add_pitch(self, salience: Float[np.ndarray, "frame bin"]) -> None:
        """Writes the next frames of pitch; what is below the threshold is unvoiced."""
        from majl_jax.inference import decoding

        if self.model.bin_cents is None:
            return
        f0_hz, confidence = decoding.decode_pitch(salience, self.model.bin_cents)
        if not np.isfinite(confidence).all():
            raise ValueError(
                "the model returned a salience that is not finite: check the checkpoint"
            )
        f0_hz = np.where(confidence >= self.options.threshold, f0_hz, 0.0)
        for frame, (hz, sure) in enumerate(zip(f0_hz, confidence, strict=True), start=self.frames):
            self._csv.write(f"{frame * self._seconds_per_frame:.4f},{hz:.3f},{sure:.4f}\n")
        self.frames += len(f0_hz)
        self.voiced_frames += int(np.count_nonzero(f0_hz))
        self._track.push(f0_hz, confidence)

    def result(self) -> Result:
        """What was written."""
        peaks_db = {w.path.name: w.written.peak_db for w in self.writers if w.written is not None}
        return Result(self.paths, peaks_db, self.frames, self.voiced_frames)
