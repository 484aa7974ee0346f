"""Separation scored on fixed excerpts: SI-SDR of every source, by masks or by clustering an
embedding.

A row of tracks.jsonl is an excerpt and a system: its mean over the sources, and each source.
Models that are judged on the same data have the same excerpts, so that their rows can be compared
in pairs.
"""

import dataclasses
import functools
import itertools
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from majl_jax import console
from majl_jax.datasets import records, stem_groups
from majl_jax.evaluation.examples import ForReport, write_stems
from majl_jax.evaluation.excerpts import fixed_excerpts, in_batches
from majl_jax.evaluation.rows import Row, aggregate, flatten, mean, means
from majl_jax.inference import clustering
from majl_jax.metrics import separation

SEEDS = {"valid": 1, "test": 2}  # of the excerpts, whatever the seed of the training
Batch = tuple[Sequence[str], np.ndarray]  # names, sources [batch, time, source]


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluator:
    """Scores the variables of a stage; its functions are compiled once."""

    system: str
    folders: Mapping[
        records.Folder, stem_groups.Groups
    ]  # the data sets, each gives as many excerpts
    loss: Callable[[Any, jax.Array], jax.Array]  # (variables, sources) -> [batch]
    estimate: Callable[[Any, jax.Array], jax.Array] | None
    """(variables, audio [batch, time]) -> [batch, time, source]; None: there are no masks, the
    embedding is clustered.
    """
    embed: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
    """(variables, audio) -> its embedding [batch, frame, frequency, dimension] and its STFT."""
    inverse: Callable[[Any], jax.Array]  # STFT -> audio
    samples: int
    sample_rate_hz: int
    valid_excerpts: int
    test_excerpts: int
    clustering_excerpts: int
    batch_size: int
    threshold_db: float
    coherent: bool
    examples: int

    @functools.cached_property
    def _loss(self) -> Callable:
        return jax.jit(self.loss)

    @functools.cached_property
    def _estimate(self) -> Callable | None:
        return self.estimate and jax.jit(self.estimate)

    @functools.cached_property
    def _embed(self) -> Callable:
        return jax.jit(self.embed)

    @functools.cached_property
    def _inverse(self) -> Callable:
        return jax.jit(self.inverse)

    @property
    def sources(self) -> tuple[str, ...]:
        """Their names, in their order."""
        return tuple(next(iter(self.folders.values())))

    def _excerpts(self, split: str, count: int) -> Iterator[Batch]:
        each = -(-count // len(self.folders))
        excerpts = (
            fixed_excerpts(
                folder,
                split,
                groups,
                count=each,
                samples=self.samples,
                seed=SEEDS[split],
                coherent=self.coherent,
                threshold_db=self.threshold_db,
            )
            for folder, groups in self.folders.items()
        )
        return in_batches(
            itertools.islice(itertools.chain.from_iterable(excerpts), count), self.batch_size
        )

    @functools.cached_property
    def _validation(self) -> list[Batch]:
        return list(self._excerpts("valid", self.valid_excerpts))

    def validate(self, variables: Any) -> dict[str, float]:
        """The mean loss of the validation excerpts, and with masks their mean SI-SDR and of how
        many it is infinite (-inf: a silent estimate).
        """
        losses, ratios = [], []
        for names, sources in self._validation:
            losses += np.asarray(self._loss(variables, sources), np.float64)[: len(names)].tolist()
            if self._estimate is not None:
                estimates = np.asarray(self._estimate(variables, sources.sum(-1)))
                pairs = zip(names, estimates, sources, strict=False)
                ratios += [mean(_ratios(e, s)) for _, e, s in pairs]
        found = {"loss": float(np.mean(losses)), "minus_loss": -float(np.mean(losses))}
        if ratios:
            found["si_sdr_db"] = mean(ratios)
        if infinite := sum(map(math.isinf, ratios)):
            found["si_sdr_db_infinite"] = float(infinite)
        return found

    def test(self, variables: Any, folder: pathlib.Path) -> dict[str, float]:
        """Means over the test excerpts, `<name>_infinite` how many have a silent estimate; `folder`
        gets tracks.jsonl and examples/.
        """
        rows: list[Row] = []
        report = ForReport(folder, self.examples)
        by_masks = self._estimate is not None
        count = self.test_excerpts if by_masks else self.clustering_excerpts
        separate = self._by_masks if by_masks else self._by_clustering
        batches = console.with_progress(
            self._excerpts("test", count),
            f"{self.system}: test",
            unit="batch",
            total=-(-count // self.batch_size),
        )
        for names, sources in batches:
            found = separate(variables, sources, len(names))
            for i, name in enumerate(names):
                example = report.example_folder(name, len(rows) // len(found))
                if example is not None:
                    write_stems(
                        example,
                        found[self.system][i][:, :, None],
                        sources[i][:, :, None],
                        stems=self.sources,
                        sample_rate_hz=self.sample_rate_hz,
                    )
                rows += [self._row(name, who, made[i], sources[i]) for who, made in found.items()]
        report.keep_rows(rows)
        flat = flatten(aggregate(rows), self.system)
        return {**means(flat), "si_sdr_db_median": flat["si_sdr_db_median"]}

    def _by_masks(self, variables: Any, sources: np.ndarray, count: int) -> dict[str, np.ndarray]:
        del count
        mixture = sources.sum(-1)
        estimates = np.asarray(self._estimate(variables, mixture)) if self._estimate else mixture
        return {
            self.system: estimates,
            "mixture": np.repeat(mixture[..., None], sources.shape[2], 2),
        }

    def _by_clustering(
        self, variables: Any, sources: np.ndarray, count: int
    ) -> dict[str, np.ndarray]:
        """By k-means on the embedding, with soft and with binary masks, in the order that suits
        the sources best.
        """
        mixture, places = sources.sum(-1), sources.shape[2]
        embedding, spectrum = map(np.asarray, self._embed(variables, mixture))
        soft, binary = np.zeros_like(sources), np.zeros_like(sources)
        for i in range(count):
            masks = clustering.masks_by_clustering(
                embedding[i], np.abs(spectrum[i]), sources=places
            )
            parts = self._of_masks(masks, spectrum[i])
            table = [[_si_sdr_db(part, truth) for truth in sources[i].T] for part in parts.T]
            order = clustering.best_order(np.array(table))
            soft[i] = parts[:, order]
            nearest = np.eye(places, dtype=masks.dtype)[masks.argmax(-1)]
            binary[i] = self._of_masks(nearest, spectrum[i])[:, order]
        found = {self.system: soft, f"{self.system}, binary masks": binary}
        found["mixture"] = np.repeat(mixture[..., None], places, 2)
        return found

    def _of_masks(self, masks: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
        return np.asarray(self._inverse(np.moveaxis(masks, -1, 0) * spectrum)).T

    def _row(self, name: str, system: str, estimate: np.ndarray, truth: np.ndarray) -> Row:
        ratios = dict(zip(self.sources, _ratios(estimate, truth), strict=True))
        each = {f"si_sdr_db_{source}": value for source, value in ratios.items()}
        seconds = round(self.samples / self.sample_rate_hz, 3)
        about = {"track": name, "system": system, "seconds": seconds}
        return about | {"si_sdr_db": mean(ratios.values())} | each


def _ratios(
    estimate: Float[np.ndarray, "time source"], truth: Float[np.ndarray, "time source"]
) -> list[float]:
    return [_si_sdr_db(e, s) for e, s in zip(estimate.T, truth.T, strict=True)]


def _si_sdr_db(estimate: np.ndarray, truth: np.ndarray) -> float:
    """SI-SDR without the means, -inf for a silent estimate."""
    return separation.si_sdr_db(estimate, truth, zero_mean=True)
