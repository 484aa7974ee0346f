"""Embeddings to masks by k-means, and which estimate is which source; NumPy, on the host.

Hershey et al. 2016 (arXiv 1508.04306), with the settings of nussl,
`separation/base/clustering_separation_base.py`.
"""

import numpy as np
import scipy.optimize
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist

_LARGEST_SCORE = 1e9  # stands for infinity, of which no sum can be compared


def masks_by_clustering(
    embedding: Float[np.ndarray, "frame frequency dimension"],
    magnitude: Float[np.ndarray, "frame frequency"],
    *,
    sources: int,
    percentile: float = 90.0,
    beta: float = 5.0,
    binary: bool = False,
    restarts: int = 10,
    seed: int = 0,
) -> Float[np.ndarray, "frame frequency source"]:
    """Masks e^(-beta d_s) + 1e-8, scaled to the sum 1, d_s the distance of a point's embedding to
    centre s.

    k-means places the centres on the loud points. The order of the sources is arbitrary, see
    `best_order`.

    Args:
        embedding: of each point of the STFT.
        magnitude: of the mixture at these points.
        sources: how many centres, at least 2.
        percentile: points are loud from this one of the magnitudes on, 0 to 100, and not 0.
        beta: how fast a mask falls with the distance.
        binary: whether masks are 1 for the nearest centre and 0 for the others.
        restarts: starts of k-means, of which the best counts.
        seed: of the starts.

    Raises ValueError where the input is not finite, or has fewer distinct loud points than
    sources, as silence.
    """
    _check(embedding, magnitude, sources=sources, percentile=percentile)
    chosen = loud_points(embedding, magnitude, percentile=percentile)
    found = centres(chosen, sources=sources, restarts=restarts, seed=seed)
    distances = cdist(embedding.reshape(-1, embedding.shape[-1]), found)
    if binary:
        masks = np.eye(sources)[np.argmin(distances, axis=1)]
    else:
        near = np.exp(-beta * distances) + 1e-8
        masks = near / near.sum(axis=1, keepdims=True)
    return masks.astype(np.float32).reshape(*magnitude.shape, sources)


def loud_points(
    embedding: Float[np.ndarray, "frame frequency dimension"],
    magnitude: Float[np.ndarray, "frame frequency"],
    *,
    percentile: float = 90.0,
) -> Float[np.ndarray, "point dimension"]:
    """The embeddings of the points whose magnitude is at least the percentile, and not 0."""
    return embedding[(magnitude >= np.percentile(magnitude, percentile)) & (magnitude > 0)]


def centres(
    points: Float[np.ndarray, "point dimension"],
    *,
    sources: int,
    restarts: int = 10,
    seed: int = 0,
) -> Float[np.ndarray, "source dimension"]:
    """The centres of k-means, the best of `restarts` starts; a ValueError if fewer points differ
    than there are sources.
    """
    from sklearn.cluster import KMeans

    if (distinct := len(np.unique(points, axis=0))) < sources:
        raise ValueError(
            f"{distinct} distinct embeddings at {len(points)} loud points; expected at least"
            f" {sources}, the sources. The input is silent or too short: leave it out, or take a"
            " lower percentile."
        )
    model = KMeans(
        n_clusters=sources,
        n_init=restarts,  # pyright: ignore[reportArgumentType]
        random_state=seed,
    )
    return model.fit(points).cluster_centers_.astype(np.float32)


def best_order(scores: Float[np.ndarray, "estimate source"]) -> Int[np.ndarray, "source"]:
    """The order p of the estimates with the largest sum_s scores[p_s, s]: estimates[..., p] then
    follow the sources.

    A score may be infinite, as the SI-SDR of a silent estimate; a ValueError if one is NaN, as
    that of a silent source.
    """
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(
            f"the scores have the shape {scores.shape}; expected as many estimates as sources."
        )
    if np.isnan(scores).any():
        estimate, source = np.argwhere(np.isnan(scores))[0]
        raise ValueError(
            f"the score of estimate {estimate} for source {source} is NaN; leave out silent"
            " sources."
        )
    finite = np.clip(scores, -_LARGEST_SCORE, _LARGEST_SCORE)
    return scipy.optimize.linear_sum_assignment(finite.T, maximize=True)[1]


def _check(
    embedding: np.ndarray, magnitude: np.ndarray, *, sources: int, percentile: float
) -> None:
    if magnitude.ndim != 2 or embedding.ndim != 3 or embedding.shape[:2] != magnitude.shape:
        raise ValueError(
            f"the embedding has the shape {embedding.shape}, the magnitude {magnitude.shape};"
            " expected [frame, frequency, dimension] and [frame, frequency]."
        )
    if sources < 2:
        raise ValueError(f"sources is {sources}; expected at least 2.")
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile is {percentile}; expected 0 to 100.")
    for name, x in (("embedding", embedding), ("magnitude", magnitude)):
        wrong = int(np.size(x) - np.isfinite(x).sum())
        if wrong:
            raise ValueError(
                f"{wrong} of {np.size(x)} values of the {name} are NaN or infinite; expected none:"
                " look at the parameters and at the audio."
            )
