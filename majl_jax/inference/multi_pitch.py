"""Multi-pitch estimation of whole tracks: window by window to salience, its peaks to pitches.

`stream` is the constant-memory form, `transcribe` the same for a track in memory. Frame k is
centred at sample k * hop_samples. Scores: evaluation/multi_pitch.py.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from majl_jax.inference import placement

Estimate = tuple[np.ndarray, Sequence[np.ndarray]]
"""Times in seconds and, for each of them, the pitches in Hz (none, one or several)."""
KEPT_BYTES = 1 << 30  # magnitudes of longer tracks are computed twice instead of kept


@dataclasses.dataclass(
    frozen=True, eq=False
)  # compared by identity: its functions are compiled once per object
class MultiPitchModel:
    """A trained system as evaluation sees it: a front end, a network, and the grid they live on."""

    apply_magnitudes: Callable[[jax.Array], jax.Array]
    """audio [batch, time] -> linear magnitudes [batch, 1 + time // hop_samples, bin, harmonic]."""
    apply_features: Callable[[Any, jax.Array, jax.Array], jax.Array]
    """(variables, features [batch, frame, bin, harmonic] in 0..1, frame_mask bool [batch, frame])
    -> salience [batch, frame, bin] in 0..1; frames outside the mask must act as padding with zeros
    does."""
    sample_rate_hz: int
    hop_samples: int
    bin_hz: Float[np.ndarray, "bin"]
    """Centre of each salience bin."""
    reach_samples: int = 4096
    """No magnitude depends on audio further from the centre of its frame."""
    context_frames: int = 50
    """No salience depends on features further away (receptive field)."""
    window_frames: int = 512
    """Frames per call of the network, context on both sides included."""
    threshold: float = 0.5
    """Peaks of at least this salience are pitches."""

    def __post_init__(self) -> None:
        if self.reach_samples % self.hop_samples or self.reach_samples < 0:
            raise ValueError(
                f"reach_samples is {self.reach_samples}; expected a multiple of hop_samples = "
                f"{self.hop_samples}, so that windows lie on the frame grid"
            )
        if self.new_frames < 1:
            raise ValueError(
                f"window_frames is {self.window_frames}; expected more than twice the context of "
                f"{self.context_frames} frames"
            )

    @property
    def new_frames(self) -> int:
        """Frames of a window whose salience is that of the whole track."""
        return self.window_frames - 2 * self.context_frames

    @property
    def window_samples(self) -> int:
        """Audio that the magnitudes of a window depend on."""
        return (self.window_frames - 1) * self.hop_samples + 2 * self.reach_samples

    def frame_count(self, samples: int) -> int:
        """Frames of a track: one per whole hop, and the first at sample 0."""
        return 1 + samples // self.hop_samples


# ---- whole tracks -------------------------------------------------------------------------------


def peak_normalized(audio: Float[np.ndarray, "time"]) -> Float[np.ndarray, "time"]:
    """x / max |x| over the whole track, as Timbre-Trap's loaders do; silence stays silence."""
    peak = np.abs(audio).max(initial=0.0)
    return (audio / peak if peak else audio).astype(np.float32)


def stream(
    model: MultiPitchModel,
    variables: Any,
    audio: Float[np.ndarray, "time"],
    *,
    batch_size: int = 8,
    devices: Sequence[Any] | None = None,
) -> Iterator[Float[np.ndarray, "_ bin"]]:
    """Yields finished stretches of the salience of a whole track, in order.

    Joined up they are the salience of one pass over the whole track: windows overlap by the
    receptive field, and decibels refer to the largest magnitude of the track, which a first pass
    finds. Tracks of every length run the same compiled programs; beside audio and salience at most
    1 GiB of magnitudes is kept.

    Args:
        model: what is applied.
        variables: of the model.
        audio: a whole track at the model's rate, with a peak of 1.
        batch_size: windows per call of the model.
        devices: of this process; None: all of them.
    """
    if audio.ndim != 1 or not len(audio):
        raise ValueError(f"audio has shape {audio.shape}; expected [time] with at least one sample")
    frames = model.frame_count(len(audio))
    used = placement.dividing(batch_size, devices)
    hear, listen = _programs(model, used)
    variables = placement.everywhere(variables, used)
    starts = np.arange(0, frames, model.new_frames)
    batches = [starts[first : first + batch_size] for first in range(0, len(starts), batch_size)]
    peak, kept = 0.0, []
    for batch in batches:
        magnitudes, peaks = hear(*_windows(model, audio, batch, batch_size))
        peak = max(peak, float(np.max(peaks)))
        if magnitudes.nbytes * len(batches) <= KEPT_BYTES:
            kept.append(np.asarray(magnitudes))
    reference = np.full(batch_size, peak, np.float32)
    for number, batch in enumerate(batches):
        windows, mask = _windows(model, audio, batch, batch_size)
        magnitudes = kept[number] if kept else hear(windows, mask)[0]
        salience = np.asarray(listen(variables, magnitudes, mask, reference))
        _check(model, salience)
        joined = salience[: len(batch)].reshape(-1, salience.shape[-1])
        yield joined[: frames - batch[0]]


def transcribe(
    model: MultiPitchModel,
    variables: Any,
    audio: Float[np.ndarray, "time"],
    *,
    batch_size: int = 8,
    devices: Sequence[Any] | None = None,
) -> Float[np.ndarray, "frame bin"]:
    """Returns the salience of a whole track, 1 + time // hop_samples frames (see `stream`).

    Args:
        model: what is applied.
        variables: of the model.
        audio: a whole track at the model's rate, with a peak of 1.
        batch_size: windows per call of the model.
        devices: of this process; None: all of them.
    """
    return np.concatenate(
        list(stream(model, variables, audio, batch_size=batch_size, devices=devices))
    )


def _windows(
    model: MultiPitchModel, audio: np.ndarray, starts: np.ndarray, rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Audio [row, time] and frame mask [row, frame] of windows; silent, masked rows fill up."""
    windows = np.zeros((rows, model.window_samples), np.float32)
    mask = np.zeros((rows, model.window_frames), bool)
    for row, start in enumerate(starts):
        first_frame = start - model.context_frames
        numbers = first_frame + np.arange(model.window_frames)
        mask[row] = (numbers >= 0) & (numbers < model.frame_count(len(audio)))
        first = first_frame * model.hop_samples - model.reach_samples
        heard = audio[max(first, 0) : max(first + model.window_samples, 0)]
        windows[row, max(-first, 0) :][: len(heard)] = heard
    return windows, mask


def _check(model: MultiPitchModel, salience: np.ndarray) -> None:
    expected = (model.new_frames, len(model.bin_hz))
    if salience.shape[1:] != expected:
        raise ValueError(
            f"apply_features returned salience of {salience.shape[2:]} bins per frame; expected "
            f"{len(model.bin_hz)}, as many as bin_hz has"
        )


@functools.lru_cache(maxsize=16)
def _programs(model: MultiPitchModel, devices: placement.Devices) -> tuple[Any, Any]:
    """Both compiled functions of a window over `devices`."""
    from majl_jax.audio import harmonic_cqt

    skipped = model.reach_samples // model.hop_samples
    inner = slice(model.context_frames, model.window_frames - model.context_frames)

    def hear(audio: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = model.apply_magnitudes(audio)[:, skipped : skipped + model.window_frames]
        found = jnp.where(mask[:, :, None, None], found, 0.0)
        return found, found.max((1, 2, 3))

    def listen(
        variables: Any, magnitudes: jax.Array, mask: jax.Array, reference: jax.Array
    ) -> jax.Array:
        features = harmonic_cqt.unit_decibels(magnitudes, reference=reference)
        features = jnp.where(mask[:, :, None, None], features, 0.0)
        return model.apply_features(variables, features, mask)[:, inner]

    return (
        placement.by_rows(hear, devices, whole=0, rows=2),
        placement.by_rows(listen, devices, whole=1, rows=3),
    )


def frame_times_s(model: MultiPitchModel, frames: int) -> Float[np.ndarray, "frame"]:
    """k * hop_samples / sample_rate_hz for the first `frames` frames."""
    return np.arange(frames) * model.hop_samples / model.sample_rate_hz
