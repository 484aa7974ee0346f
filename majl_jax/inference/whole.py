"""A whole track through a model as one pure function of its variables and the audio: for `jax.jit`,
`jax.grad` and what else JAX transforms. The same numbers as `segments.apply_track` and
`multi_pitch.transcribe`, for a track that fits into memory.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from majl_jax.audio import harmonic_cqt
from majl_jax.inference import context, segments
from majl_jax.inference.multi_pitch import MultiPitchModel
from majl_jax.inference.segments import SegmentModel


def apply(
    model: SegmentModel,
    variables: Any,
    audio: Float[Array, "time channel"],
    *,
    overlap: float = 0.5,
    batch_size: int = 8,
) -> dict[str, Array]:
    """Returns stems [time, stem, channel] and salience [frame, bin], where the model gives them.

    Where audio samples go in which segment is known from the length alone; they are gathered, and
    what comes out is added up where it came from.

    Args:
        model: what is applied.
        variables: of the model.
        audio: at the model's rate, full scale 1.
        overlap: share of a segment that it has in common with the next, 0 <= overlap < 1.
        batch_size: segments per call of the model.
    """
    samples, channels = audio.shape
    # Place 0 is silence, and takes what belongs nowhere; sample k has the place k + 1.
    padded = jnp.concatenate([jnp.zeros((1, channels)), audio])
    ramp = np.repeat(1.0 + np.arange(samples)[:, None], model.channels, axis=1)
    if model.context_samples:
        pieces = list(
            context.pieces(
                [ramp],
                segment_samples=model.segment_samples,
                context_samples=model.context_samples,
                hop_samples=model.hop_samples,
            )
        )
        places = np.stack([piece.audio[:, 0] for piece in pieces]).astype(int)
        stems = _in_batches(model, variables, padded, places, batch_size)["stems"]
        kept = [made[piece.kept] for made, piece in zip(stems, pieces, strict=True)]
        return {"stems": jnp.concatenate(kept)}
    step = segments.step_of(model, overlap)
    cut = [segment[:, 0] for segment, _ in segments.segments_of([ramp], model, step)]
    places = np.zeros((len(cut), model.segment_samples), int)
    for row, segment in zip(places, cut, strict=True):
        row[: len(segment)] = segment
    outputs = _in_batches(model, variables, padded, places, batch_size)
    window = segments.window_of(model.segment_samples, step, crossfade=model.crossfade)
    found = {}
    if "stems" in outputs:
        found["stems"] = _added(outputs["stems"], places, window)
    if "salience" in outputs:
        hop, of_hops = model.hop_samples, places[:, :: model.hop_samples]
        frames = np.where(of_hops > 0, (of_hops - 1) // hop + 1, 0)
        found["salience"] = _added(
            outputs["salience"], frames, window[::hop], edge=model.edge_frames
        )
    return found


def _in_batches(
    model: SegmentModel, variables: Any, padded: Array, places: np.ndarray, batch_size: int
) -> dict[str, Array]:
    """What the model makes of every segment, one batch after the other."""
    count, samples = places.shape
    size = min(batch_size, count)
    filled = np.pad(places, ((0, -count % size), (0, 0))).reshape(-1, size, samples)
    made = jax.lax.map(
        lambda batch: dict(model.apply(variables, padded[batch])), jnp.asarray(filled)
    )
    return {name: value.reshape(-1, *value.shape[2:])[:count] for name, value in made.items()}


def _added(made: Array, places: np.ndarray, window: np.ndarray, *, edge: int = 0) -> Array:
    """The weighted mean, at every place but 0, of the values that belong there."""
    size, rest, end = int(places.max()) + 1, made.shape[2:], len(places) - 1
    weights = np.stack(
        [
            segments.weights_of(window, edge=edge, first=number == 0, last=number == end)
            for number in range(len(places))
        ]
    )
    total_weight = np.zeros(size, np.float32)
    np.add.at(total_weight, places, weights)
    weighted = made * weights.reshape(*weights.shape, *[1] * len(rest))
    total = jnp.zeros((size, *rest)).at[places].add(weighted)
    return total[1:] / total_weight[1:].reshape(-1, *[1] * len(rest))


def transcribe(
    model: MultiPitchModel, variables: Any, audio: Float[Array, "time"]
) -> Float[Array, "frame bin"]:
    """Returns the salience of a track at the model's rate, brought to a peak of 1, in one pass."""
    loud = jnp.max(jnp.abs(audio))
    audio = audio / jnp.where(loud > 0, loud, 1.0)
    magnitudes = model.apply_magnitudes(audio[None])
    peak = jnp.max(magnitudes, axis=(1, 2, 3))
    features = harmonic_cqt.unit_decibels(magnitudes, reference=peak)
    return model.apply_features(variables, features, jnp.ones(magnitudes.shape[:2], bool))[0]
