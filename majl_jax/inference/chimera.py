"""A trained Chimera network applied to mixtures: by its masks, or by k-means on its embedding
where it has none.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from majl_jax.audio import stft
from majl_jax.batch import Variables
from majl_jax.inference import clustering
from majl_jax.inference.segments import SegmentModel
from majl_jax.models.chimera import Chimera

POINTS_PER_SEGMENT = 2000  # of a song, for k-means
MOST_POINTS = 400_000  # of a song; of a longer one every 2nd, 4th, 8th ... is kept
BETA = 5.0  # of soft masks, as nussl


@dataclasses.dataclass(frozen=True)
class Separator:
    """A network with the STFT that it listens to."""

    network: Chimera
    window_samples: int
    hop_samples: int
    sample_rate_hz: int
    segment_samples: int

    def spectrum(
        self, audio: Float[Array, "*batch time"]
    ) -> Complex[Array, "*batch frame frequency"]:
        """Its STFT."""
        return stft.scaled_stft(
            audio, window_samples=self.window_samples, hop_samples=self.hop_samples
        )

    def inverse(
        self, spectrum: Complex[Array, "*batch frame frequency"]
    ) -> Float[Array, "*batch time"]:
        """A segment from its STFT."""
        return stft.scaled_istft(
            spectrum,
            window_samples=self.window_samples,
            hop_samples=self.hop_samples,
            length_samples=self.segment_samples,
        )

    def by_masks(
        self, variables: Variables, audio: Float[Array, "batch time"]
    ) -> Float[Array, "batch time source"]:
        """Masks times the mixture's STFT, with its phases."""
        mixture = self.spectrum(audio)
        heard: Any = self.network.apply(variables, jnp.abs(mixture), train=False)
        return self._masked(heard.masks, mixture)

    def embed(
        self, variables: Variables, audio: Float[Array, "batch time"]
    ) -> tuple[
        Float[Array, "batch frame frequency dimension"], Complex[Array, "batch frame frequency"]
    ]:
        """The embedding of each point of the STFT, and the STFT."""
        mixture = self.spectrum(audio)
        heard: Any = self.network.apply(variables, jnp.abs(mixture), train=False)
        return heard.embedding, mixture

    def by_centres(
        self, variables: Variables, audio: Float[Array, "batch time"]
    ) -> Float[Array, "batch time source"]:
        """Soft masks e^(-5 d_s) + 1e-8, scaled to the sum 1, with d_s the distance to row s of
        variables["clusters"]["centres"].
        """
        embedding, mixture = self.embed(variables, audio)
        centres = variables["clusters"]["centres"][None, None, None]
        apart = embedding[..., None, :] - centres
        near = jnp.exp(-BETA * jnp.sqrt(jnp.sum(apart**2, axis=-1))) + 1e-8
        return self._masked(near / near.sum(axis=-1, keepdims=True), mixture)

    def _masked(self, masks: Array, mixture: Array) -> Array:
        estimates = jnp.moveaxis(masks, -1, 1) * mixture[:, None]
        return jnp.moveaxis(self.inverse(estimates), 1, -1)

    def mask_model(self, sources: tuple[str, ...]) -> SegmentModel:
        """For songs of any length, by the masks of the sources."""

        def apply(variables: Variables, audio: Array) -> dict[str, Array]:
            return {"stems": self.by_masks(variables, audio[..., 0])[..., None]}

        return self._on_grid(apply, sources)

    def cluster_model(self, count: int) -> SegmentModel:
        """For songs of any length, without masks: the centres are those of a song, found before it
        is separated.
        """

        def apply(variables: Variables, audio: Array) -> dict[str, Array]:
            return {"stems": self.by_centres(variables, audio[..., 0])[..., None]}

        names = tuple(f"cluster_{number + 1}" for number in range(count))
        prepare = functools.partial(self._with_centres, count)
        return dataclasses.replace(self._on_grid(apply, names), for_song=prepare)

    def _on_grid(self, apply: Any, stems: tuple[str, ...]) -> SegmentModel:
        return SegmentModel(
            apply,
            sample_rate_hz=self.sample_rate_hz,
            segment_samples=self.segment_samples,
            hop_samples=self.hop_samples,
            stems=stems,
        )

    def _with_centres(
        self, count: int, variables: Variables, blocks: Iterable[np.ndarray]
    ) -> Variables:
        rng, program, points = np.random.default_rng(0), jax.jit(self.embed), _Points()
        for segment in _segments(blocks, self.segment_samples):
            embedding, mixture = program(variables, segment[None])
            loud = clustering.loud_points(np.asarray(embedding[0]), np.abs(np.asarray(mixture[0])))
            points.add(rng.permutation(loud)[:POINTS_PER_SEGMENT])
        found = clustering.centres(np.concatenate(points.kept), sources=count)
        return {**variables, "clusters": {"centres": found}}


class _Points:
    """Points of a whole song: all of them, or an even part of at most MOST_POINTS."""

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []
        self._seen, self._every = 0, 1

    def add(self, points: Float[np.ndarray, "point dimension"]) -> None:
        """Takes those of the next segment, in random order."""
        self.kept.append(points[-self._seen % self._every :: self._every].copy())
        self._seen += len(points)
        while sum(map(len, self.kept)) > MOST_POINTS:
            self.kept = [np.concatenate(self.kept)[::2]]
            self._every *= 2


def _segments(
    blocks: Iterable[Float[np.ndarray, "_ channel"]], samples: int
) -> Iterator[Float[np.ndarray, "time"]]:
    """Mono segments end to end, the last one filled up with zeros."""
    waiting = np.zeros(0, np.float32)
    for block in blocks:
        waiting = np.concatenate([waiting, block.mean(axis=1)])
        while len(waiting) >= samples:
            yield waiting[:samples]
            waiting = waiting[samples:]
    if len(waiting):
        yield np.pad(waiting, (0, samples - len(waiting)))
