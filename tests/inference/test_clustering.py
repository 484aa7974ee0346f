"""Masks by k-means on made clusters and on a mixture of two tones, and the order of the sources."""

import numpy as np
import pytest
import scipy.signal

from majl_jax.inference.clustering import best_order, masks_by_clustering
from majl_jax.metrics import separation

RATE_HZ = 8000
STFT = {"fs": RATE_HZ, "window": "hann", "nperseg": 256, "noverlap": 192}


def _clusters(sources, *, spread=0.02):
    """(embedding near one axis per source, magnitude, which source) of 40 frames and 25
    frequencies.
    """
    rng = np.random.default_rng(0)
    source = rng.integers(0, sources, (40, 25))
    embedding = np.eye(sources + 1)[source] + spread * rng.standard_normal((40, 25, sources + 1))
    return embedding.astype(np.float32), rng.random((40, 25)).astype(np.float32), source


def _agreement(masks, source):
    """The part of the points that the masks give to their source, in the best order."""
    sources = masks.shape[-1]
    scores = np.stack([masks[source == s].sum(0) for s in range(sources)], axis=1)
    return scores[best_order(scores), np.arange(sources)].sum() / source.size


@pytest.mark.parametrize("sources", [2, 3, 4])
def test_clusters_become_masks(sources):
    embedding, magnitude, source = _clusters(sources)
    soft = masks_by_clustering(embedding, magnitude, sources=sources)
    binary = masks_by_clustering(embedding, magnitude, sources=sources, binary=True)
    assert soft.shape == binary.shape == (40, 25, sources) and soft.dtype == np.float32
    np.testing.assert_allclose(soft.sum(-1), 1.0, rtol=1e-6)
    assert set(np.unique(binary)) == {0.0, 1.0} and (binary.sum(-1) == 1).all()
    np.testing.assert_array_equal(binary.argmax(-1), soft.argmax(-1))
    assert _agreement(binary, source) == 1.0
    assert _agreement(soft, source) > 0.99


def test_soft_masks_are_exponentials_of_distances():
    """Two loud points are the centres; a point at 0 and sqrt(2), one half way."""
    embedding = np.array([[[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]], np.float32)
    magnitude = np.array([[1.0, 1.0, 0.1]], np.float32)
    masks = masks_by_clustering(embedding, magnitude, sources=2, percentile=50.0, beta=2.0)
    near, far = 1.0 + 1e-8, np.exp(-2.0 * np.sqrt(2.0)) + 1e-8
    np.testing.assert_allclose(np.sort(masks[0, 0]), [far / (near + far), near / (near + far)])
    np.testing.assert_allclose(masks[0, 2], [0.5, 0.5], rtol=1e-6)


def test_only_loud_points_place_the_centres():
    embedding, magnitude, source = _clusters(2)
    noise = np.random.default_rng(1).standard_normal(embedding.shape).astype(np.float32)
    quiet = magnitude < np.percentile(magnitude, 90)
    masks = masks_by_clustering(
        np.where(quiet[..., None], 20 * noise, embedding), magnitude, sources=2, binary=True
    )
    assert _agreement(masks[~quiet][None], source[~quiet][None]) == 1.0


def test_the_seed_and_the_level_decide_nothing_else():
    embedding, magnitude, _ = _clusters(3, spread=0.5)
    first = masks_by_clustering(embedding, magnitude, sources=3, seed=4)
    np.testing.assert_array_equal(
        first, masks_by_clustering(embedding, 8.0 * magnitude, sources=3, seed=4)
    )


def test_two_tones_come_apart():
    """A steady tone and one that comes and goes, from embeddings that know each point's ratio with
    an error.
    """
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    low = sum(0.3 / k * np.sin(2 * np.pi * 220 * k * time_s) for k in (1, 2, 3))
    high = sum(0.3 / k * np.sin(2 * np.pi * 587 * k * time_s) for k in (1, 2, 3))
    stems = np.stack([low, high * (np.sin(2 * np.pi * 1.5 * time_s) > 0)])
    spectra = scipy.signal.stft(stems, **STFT)[2].transpose(2, 1, 0)
    ratio = np.abs(spectra) / (np.abs(spectra).sum(-1, keepdims=True) + 1e-9)
    error = 0.1 * np.random.default_rng(0).standard_normal((*ratio.shape[:2], 5))
    embedding = np.concatenate([ratio, np.zeros_like(error[..., :3])], -1) + error
    mixture = spectra.sum(-1)
    masks = masks_by_clustering(embedding, np.abs(mixture), sources=2, binary=True)
    masked = (masks * mixture[..., None]).transpose(2, 1, 0)
    estimates = scipy.signal.istft(masked, **STFT)[1][:, : len(time_s)]
    scores = np.array([[separation.si_sdr_db(e, s) for s in stems] for e in estimates])
    order = best_order(scores)
    before = np.array([separation.si_sdr_db(stems.sum(0), s) for s in stems])
    gain = scores[order, [0, 1]] - before
    assert (gain > 10.0).all(), f"{gain} dB"


def test_best_order_of_every_permutation():
    scores = np.array([[1.0, 9.0, 2.0], [3.0, 1.0, 8.0], [7.0, 2.0, 1.0]])
    np.testing.assert_array_equal(best_order(scores), [2, 0, 1])
    # The largest score of all, 9, does not belong to the best order.
    np.testing.assert_array_equal(best_order(np.array([[9.0, 8.0], [8.0, 0.0]])), [1, 0])
    infinite = np.array([[-np.inf, -np.inf], [np.inf, -3.0]])
    np.testing.assert_array_equal(best_order(infinite), [1, 0])


def test_best_order_wants_numbers():
    with pytest.raises(ValueError, match="estimate 0 for source 1 is NaN"):
        best_order(np.array([[1.0, np.nan], [2.0, 3.0]]))
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        best_order(np.zeros((2, 3)))


def test_errors_say_what_is_wrong():
    embedding, magnitude, _ = _clusters(2)
    with pytest.raises(ValueError, match=r"0 distinct embeddings at 0 loud points.*silent"):
        masks_by_clustering(embedding, 0 * magnitude, sources=2)
    with pytest.raises(ValueError, match=r"1 distinct embeddings at 1 loud points.*at least 2"):
        masks_by_clustering(embedding[:1, :2], magnitude[:1, :2], sources=2)
    with pytest.raises(ValueError, match="1 distinct embeddings at 100 loud points"):
        masks_by_clustering(np.ones_like(embedding), magnitude, sources=2)
    with pytest.raises(ValueError, match="1 of 3000 values of the embedding are NaN"):
        broken = embedding.copy()
        broken[3, 4, 1] = np.nan
        masks_by_clustering(broken, magnitude, sources=2)
    with pytest.raises(ValueError, match="1000 of 1000 values of the magnitude are NaN"):
        masks_by_clustering(embedding, np.inf * np.ones_like(magnitude), sources=2)
    with pytest.raises(ValueError, match="expected at least 2"):
        masks_by_clustering(embedding, magnitude, sources=1)
    with pytest.raises(ValueError, match="expected 0 to 100"):
        masks_by_clustering(embedding, magnitude, sources=2, percentile=900.0)
