"""One song from file to files: read, separated and written piece by piece, in constant memory."""

import contextlib
import dataclasses
import pathlib
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from majl_jax import atomic
from majl_jax.audio import files
from majl_jax.audio.resampling import Block
from majl_jax.datasets import track
from majl_jax.plotting.spectrogram import PitchTrack, Spectrogram, draw_overview
from majl_jax.separate.blocks import Stems, separated
from majl_jax.separate.outputs import (
    FORMATS,
    Options,
    StemWriter,
    names_of_stems,
    output_paths,
    refuse_existing,
)

if TYPE_CHECKING:  # JAX is loaded only when there is something to do
    from majl_jax.inference.segments import SegmentModel


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
    channels' mean (`files.downmix`); a model of several channels takes files of as many channels,
    or mono.

    Args:
        path: an audio file.
        folder: gets the files.
        model: what is applied.
        variables: of the model.
        options: how; None: the defaults, and the threshold of the model.
        progress: called with the seconds of input that were read.
    """
    from majl_jax.inference import placement

    options = options or Options(threshold=model.threshold)
    info = files.inspect(path, allow_truncated=options.allow_truncated)
    outputs = _Outputs(folder, info, model, options)
    with placement.on_first(options.devices):
        _separate(info, outputs, model, variables, options, progress)
    return outputs.result()


def _separate(
    info: files.AudioInfo,
    outputs: "_Outputs",
    model: "SegmentModel",
    variables: Any,
    options: Options,
    progress: Callable[[float], object],
) -> None:
    path = info.path
    mix = files.downmix(path, model.channels, allow_truncated=options.allow_truncated)
    if model.for_song is not None:
        heard = files.stream(
            path,
            sample_rate_hz=model.sample_rate_hz,
            channels=1,
            allow_truncated=options.allow_truncated,
        )
        with warnings.catch_warnings():  # said when the file is read once more, for its stems
            warnings.simplefilter("ignore", files.AudioFileWarning)
            variables = model.for_song(variables, heard)
    with outputs:
        song = outputs.remember(
            files.stream(path, allow_truncated=options.allow_truncated), progress
        )
        for part in separated(
            model,
            variables,
            song,
            sample_rate_hz=info.sample_rate_hz,
            channels=info.channels,
            options=options,
            mix=mix,
        ):
            if len(part.stems):
                outputs.add_stems(part.stems)
            outputs.add_pitch(part.f0_hz, part.confidence)


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


def _remove_empty(folder: pathlib.Path) -> None:
    """Removes a folder in which nothing is."""
    with contextlib.suppress(OSError):
        folder.rmdir()


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
        drawn = ["song", *(f"estimate: {name}" for name in self.stems)]
        self._pictures = {
            name: Spectrogram(sample_rate_hz=info.sample_rate_hz)
            for name in drawn * options.picture
        }
        self._track = PitchTrack(frame_s=self._seconds_per_frame)
        self._stack = contextlib.ExitStack()
        self.writers: list[StemWriter] = []

    def __enter__(self) -> "_Outputs":
        self.folder.mkdir(parents=True, exist_ok=True)
        suffix, subtype = FORMATS[self.options.format]
        with contextlib.ExitStack() as stack:
            stack.callback(_remove_empty, self.folder)
            stack.push(self._take_back)
            others = [path for path in self.paths if path.suffix != suffix]
            parts = stack.enter_context(atomic.drafts(others))
            self._drafts = {path.name: part for path, part in zip(others, parts, strict=True)}
            for path in self.paths:
                if path.suffix == suffix:
                    writer = StemWriter(
                        path,
                        sample_rate_hz=self.info.sample_rate_hz,
                        channels=self.channels,
                        subtype=subtype,
                        expected_samples=self.info.samples,
                    )
                    stack.enter_context(writer)
                    self.writers.append(writer)
            if self._has_pitch:
                part = self._drafts["pitch.csv"]
                stack.enter_context(atomic.explained(self.folder / "pitch.csv", only=part))
                self._csv = stack.enter_context(part.open("w", encoding="utf-8"))
                self._csv.write("time,frequency,confidence\n")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                with self._stack:  # closing it puts all in place; an error drops all
                    self._finish()
            else:
                self._stack.__exit__(kind, error, trace)
        finally:
            _remove_empty(self.folder)

    def _finish(self) -> None:
        """Everything is complete and on disk before the first file takes its name."""
        if self._pictures:
            part = self._drafts["picture.png"]
            with atomic.explained(self.folder / "picture.png", only=part):
                draw_overview(
                    part,
                    self._pictures,
                    title=track.printable(self.info.path.name),
                    pitch=self._track if self._has_pitch else None,
                )
        if self._has_pitch:
            self._csv.close()
        for name, part in self._drafts.items():
            with atomic.explained(self.folder / name):
                atomic.sync(part)
        for writer in self.writers:
            writer.finish()

    def _take_back(self, kind: Any, error: Any, trace: Any) -> None:
        """Removes the stems that are in place where another file could not be."""
        for writer in self.writers if kind is not None else ():
            if writer.written is not None:
                with contextlib.suppress(OSError):
                    writer.path.unlink()

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
        signals = [*stems.transpose(1, 0, 2), song - stems.sum(1)]
        for writer, signal in zip(self.writers, signals, strict=True):
            writer.write(signal)
        drawn = [song, *stems.transpose(1, 0, 2)]
        for picture, signal in zip(self._pictures.values(), drawn, strict=False):
            picture.push(signal.mean(1))

    def add_pitch(
        self, f0_hz: Float[np.ndarray, "frame"], confidence: Float[np.ndarray, "frame"]
    ) -> None:
        """Writes the next frames of pitch, of which 0 Hz is unvoiced."""
        for frame, (hz, sure) in enumerate(zip(f0_hz, confidence, strict=True), start=self.frames):
            self._csv.write(f"{frame * self._seconds_per_frame:.4f},{hz:.3f},{sure:.4f}\n")
        self.frames += len(f0_hz)
        self.voiced_frames += int(np.count_nonzero(f0_hz))
        self._track.push(f0_hz, confidence)

    def result(self) -> Result:
        """What was written."""
        peaks_db = {w.path.name: w.written.peak_db for w in self.writers if w.written is not None}
        return Result(self.paths, peaks_db, self.frames, self.voiced_frames)
