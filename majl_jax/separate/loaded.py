"""The library: a model by where it is or by its name, and what it makes of music in arrays.

    model = majl_jax.load("runs/majl")
    out = model(audio, sample_rate_hz)
    out.stems["soprano"], out.pitch.f0_hz

It is what `majl_jax.separate` does with files.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from majl_jax.audio import files, resampling
from majl_jax.inference import decoding, multi_pitch, placement, whole
from majl_jax.inference.multi_pitch import MultiPitchModel
from majl_jax.inference.segments import SegmentModel
from majl_jax.separate import loading, pitches, songs
from majl_jax.separate.blocks import separated
from majl_jax.separate.cards import Info
from majl_jax.separate.notes import notes
from majl_jax.separate.outputs import Options

Audio = np.ndarray | jax.Array
"""[time] or [time, channel], floats with full scale 1."""
Mix = Callable[[resampling.Block], resampling.Block]
Rate = int | float | np.number


class Pitch(NamedTuple):
    """One pitch per frame."""

    times_s: Float[np.ndarray, "frame"]
    f0_hz: Float[np.ndarray, "frame"]
    """0 where it is unvoiced: where the confidence is below the threshold."""
    confidence: Float[np.ndarray, "frame"]


class Pitches(NamedTuple):
    """Any number of pitches per frame, as `mir_eval.multipitch` takes them."""

    times_s: Float[np.ndarray, "frame"]
    f0_hz: list[np.ndarray]


class Note(NamedTuple):
    """A note that was heard."""

    start_s: float
    end_s: float
    midi: float
    """69 is A4 at 440 Hz; a mean, not rounded."""
    strength: float
    """From 0 to 1."""


@dataclasses.dataclass(frozen=True, eq=False)
class Output:
    """What a model made of a song, or of a part of it."""

    stems: dict[str, np.ndarray]
    """By name: with the rate, the length and the axes of the song."""
    pitch: Pitch | None = None
    pitches: Pitches | None = None
    notes: list[Note] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """A model that was loaded: call it on songs."""

    system: SegmentModel | MultiPitchModel
    """The function on segments, and its grid."""
    variables: Any
    """Its parameters and statistics."""
    info: Info
    """What is known about it."""
    devices: Sequence[Any] | None = None
    """Where it runs; None: on all devices of this process."""

    @property
    def _stems(self) -> tuple[str, ...]:
        return getattr(self.system, "stems", ())

    @overload
    def __call__(
        self,
        audio: Audio,
        sample_rate_hz: Rate,
        *,
        overlap: float = ...,
        batch_size: int = ...,
        threshold: float | None = ...,
        high_band: bool = ...,
    ) -> Output: ...

    @overload
    def __call__(
        self,
        audio: Sequence[Audio],
        sample_rate_hz: Rate,
        *,
        overlap: float = ...,
        batch_size: int = ...,
        threshold: float | None = ...,
        high_band: bool = ...,
    ) -> list[Output]: ...

    def __call__(
        self,
        audio: Any,
        sample_rate_hz: Any,
        *,
        overlap: float = 0.5,
        batch_size: int = 8,
        threshold: float | None = None,
        high_band: bool = True,
    ) -> Output | list[Output]:
        """What the model makes of a song, or of each song of a list.

        A mono model is applied to each channel by itself, its pitch is that of their mean. Raises
        ValueError for a rate, shape, type or value that is no audio, or an option out of its range.

        Args:
            audio: a song, or a list of songs.
            sample_rate_hz: of the audio; it is resampled for the model, and the stems back.
            overlap: share of a segment that it has in common with the next, 0 <= overlap < 1.
            batch_size: segments per call of the network.
            threshold: confidence that makes a pitch; None: that of the model.
            high_band: whether stems get their share of what a song has above the model's band.
        """
        options = self._options(overlap, batch_size, threshold, high_band)
        rate_hz = songs.rate(sample_rate_hz)
        several = isinstance(audio, (list, tuple))
        if several:
            given = [songs.checked(song, f"song {number}") for number, song in enumerate(audio)]
        else:
            given = [songs.checked(audio, "audio")]
        with placement.on_first(self.devices):
            found = [self._of_song(song, rate_hz, options) for song in given]
        return found if several else found[0]

    def stream(
        self,
        blocks: Iterable[Audio],
        sample_rate_hz: Rate,
        *,
        overlap: float = 0.5,
        batch_size: int = 8,
        threshold: float | None = None,
        high_band: bool = True,
    ) -> Iterator[Output]:
        """Yields what is finished of a song while its blocks come in, in constant memory; joined
        up, what a call gives for the whole song.

        A model that has to hear a song first (clusters of `transfer`) needs blocks that can be gone
        through again, as a list or an object with `__iter__`. A model of several pitches hears
        whole songs only: ValueError. Whether channels cancel each other is looked at only where a
        song has to be heard first.

        Args:
            blocks: of the song, of any length each.
            sample_rate_hz: of the song.
            overlap: share of a segment that it has in common with the next, 0 <= overlap < 1.
            batch_size: segments per call of the network.
            threshold: confidence that makes a pitch; None: that of the model.
            high_band: whether stems get their share of what a song has above the model's band.
        """
        options = self._options(overlap, batch_size, threshold, high_band)
        rate_hz = songs.rate(sample_rate_hz)
        if isinstance(self.system, MultiPitchModel):
            raise ValueError("a model of several pitches hears whole songs: call it instead")
        if self.system.for_song is not None and iter(blocks) is blocks:
            raise ValueError(
                "this model hears a song twice: give blocks that can be gone through twice"
            )
        parts = self._streamed(self.system, blocks, rate_hz, options)
        return placement.stepwise(parts, self.devices)

    def apply(
        self, variables: Any, audio: Float[Array | np.ndarray, "time *channel"]
    ) -> dict[str, Any]:
        """The network as a pure function, for `jax.jit`, `jax.grad` and the like.

        Returns "stems", each by its name with the axes of `audio`, and "salience" [frame, bin], as
        far as the model gives them: the numbers of a call, before pitch is decoded.

        Args:
            variables: `model.variables`, or others of their shapes.
            audio: at the model's rate `info.sample_rate_hz`, with its `info.channels`; a ValueError
              for others.
        """
        if isinstance(self.system, MultiPitchModel):
            mono = audio if audio.ndim == 1 else audio.mean(1)
            return {"salience": whole.transcribe(self.system, variables, jnp.asarray(mono))}
        if self.system.for_song is not None:
            raise ValueError("a model that clusters each song is no pure function: call it instead")
        columns = jnp.asarray(audio[:, None] if audio.ndim == 1 else audio)
        if columns.shape[1] != self.system.channels:
            raise ValueError(
                f"audio has shape {columns.shape}; the model takes {self.system.channels} channels:"
                " mix them down or repeat them first, or call it, which does"
            )
        found: dict[str, Any] = dict(whole.apply(self.system, variables, columns))
        if "stems" in found:
            found["stems"] = self._by_name(found["stems"], audio.ndim)
        return found

    def _options(
        self, overlap: float, batch_size: int, threshold: float | None, high_band: bool
    ) -> Options:
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap is {overlap}; expected 0 <= overlap < 1")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected at least 1")
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"threshold is {threshold}; expected a value from 0 to 1")
        return Options(
            overlap=overlap,
            batch_size=batch_size,
            threshold=self.system.threshold if threshold is None else threshold,
            high_band=high_band,
            devices=self.devices,
        )

    def _by_name(self, stems: Any, axes: int) -> dict[str, Any]:
        """Stems [time, stem, channel] by name, with the axes of the song."""
        kept = stems[..., 0] if axes == 1 else stems
        return {name: kept[:, number] for number, name in enumerate(self._stems)}

    def _of_song(self, song: np.ndarray, rate_hz: int, options: Options) -> Output:
        if isinstance(self.system, MultiPitchModel):
            return _transcribed(self.system, self.variables, song, rate_hz, options)
        cut = [song[k : k + files.BLOCK_SAMPLES] for k in range(0, len(song), files.BLOCK_SAMPLES)]
        mix = files.downmix_of(lambda: cut, self.system.channels, name="audio")
        parts = list(self._streamed(self.system, cut, rate_hz, options, mix))
        found = [part.pitch for part in parts if part.pitch is not None]
        return Output(
            {name: np.concatenate([part.stems[name] for part in parts]) for name in self._stems},
            Pitch(*map(np.concatenate, zip(*found, strict=True))) if found else None,
        )

    def _streamed(
        self,
        system: SegmentModel,
        blocks: Iterable[Audio],
        rate_hz: int,
        options: Options,
        mix: Mix | None = None,
    ) -> Iterator[Output]:
        variables = self.variables
        if system.for_song is not None:
            mono = files.downmix_of(lambda: map(songs.column, songs.alike(blocks)), 1, name="audio")
            heard = resampling.resample_blocks(
                map(mono, map(songs.column, songs.alike(blocks))),
                source_hz=rate_hz,
                target_hz=system.sample_rate_hz,
            )
            variables = system.for_song(variables, heard)
        alike = songs.alike(blocks)
        first = next(alike, None)
        if first is None:
            raise ValueError("there is no block: nothing to apply the model to")
        frame_s, frames = system.hop_samples / system.sample_rate_hz, 0
        for part in separated(
            system,
            variables,
            map(songs.column, itertools.chain([first], alike)),
            sample_rate_hz=rate_hz,
            channels=1 if first.ndim == 1 else first.shape[1],
            options=options,
            mix=mix,
        ):
            times_s = (frames + np.arange(len(part.f0_hz))) * frame_s
            frames += len(part.f0_hz)
            has_pitch = system.bin_cents is not None
            yield Output(
                self._by_name(part.stems, first.ndim),
                Pitch(times_s, part.f0_hz, part.confidence) if has_pitch else None,
            )


def load(
    source: str | os.PathLike[str],
    *,
    which: str = "best",
    architecture: str | None = None,
    device: str | None = None,
) -> Loaded:
    """Loads a model.

    FileNotFoundError, which lists the known names, where there is none.

    Args:
        source: the folder of a run (`runs/majl`), RUN:STAGE, a folder of runs with other stems
          each, a model file (`voice.safetensors`) or its address (`hf://OWNER/NAME`), or the name
          of a model of the package or of published weights (`crepe-tiny` to `crepe-full`).
        which: of a run: "best" or "last" checkpoint of the stage.
        architecture: of a file of published weights, as harmof0.
        device: "cpu", "gpu" or "tpu"; None: the best there is.
    """
    system, variables, info = loading.find(source, which=which, architecture=architecture)
    devices = jax.local_devices(backend=device) if device else None
    variables = jax.device_put(variables, devices[0] if devices else None)
    return Loaded(system, variables, info, devices)


def _transcribed(
    model: MultiPitchModel, variables: Any, song: np.ndarray, rate_hz: int, options: Options
) -> Output:
    whole_song = songs.column(song)
    mono = files.downmix_of(lambda: [whole_song], 1, name="audio")(whole_song)
    heard = resampling.resample_blocks([mono], source_hz=rate_hz, target_hz=model.sample_rate_hz)
    audio = np.concatenate([block[:, 0] for block in heard])
    picked = [one for _, one in pitches.heard(model, variables, audio, options)]
    rows = np.concatenate(picked)
    f0_hz = decoding.pitches_hz(rows, model.bin_hz)
    frame_s = model.hop_samples / model.sample_rate_hz
    found = notes(f0_hz, [row[row > 0] for row in rows], frame_s=frame_s)
    return Output(
        {},
        pitches=Pitches(multi_pitch.frame_times_s(model, len(f0_hz)), f0_hz),
        notes=[Note(*n.seconds(frame_s), n.midi, n.strength) for n in found],
    )
