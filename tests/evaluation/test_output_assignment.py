"""Votes for outputs: known matrices, collisions, stems that are silent, and what cannot be."""

import itertools
import weakref

import numpy as np
import pytest

from majl_jax.evaluation import output_assignment


def _segment(assignment, *, outputs=5, silent=(), noise=0.1, seed=0, time=200):
    """Estimates that hold stem s, a little noisy, at output assignment[s], and the references."""
    rng = np.random.default_rng(seed)
    references = rng.standard_normal((time, len(assignment), 2)).astype(np.float32)
    references[:, list(silent)] = 0
    estimates = 0.01 * rng.standard_normal((time, outputs, 2)).astype(np.float32)
    noisy = references + noise * rng.standard_normal(references.shape).astype(np.float32)
    for stem, output in enumerate(assignment):
        estimates[:, output] += noisy[:, stem]
    return estimates, references


def test_snr_matrix_has_known_values():
    rng = np.random.default_rng(0)
    estimates, references = rng.standard_normal((2, 50, 3, 2))
    estimates[:, 1] = references[:, 0]
    found = output_assignment.snr_matrix_db(estimates, references[:, :2])
    for stem, output in itertools.product(range(2), range(3)):
        r, e = references[:, stem, 0], estimates[:, output, 0]
        expected = 10 * np.log10((np.sum(r**2) + 1e-8) / (np.sum((r - e) ** 2) + 1e-8))
        np.testing.assert_allclose(found[stem, output], expected, atol=1e-4)
    assert found[0, 1] > 90
    assert np.isfinite(output_assignment.snr_matrix_db(0 * estimates, 0 * references)).all()


def test_each_stem_gets_the_output_that_holds_it():
    segments = [_segment((3, 0, 4), seed=seed) for seed in range(4)]
    found = output_assignment.assign_outputs(iter(segments))
    assert found.heads == found.most_voted == (3, 0, 4)
    expected = np.zeros((3, 5))
    expected[[0, 1, 2], [3, 0, 4]] = 4
    np.testing.assert_array_equal(found.votes, expected)
    assert found.segments == 4 and found.shares == (1.0, 1.0, 1.0)
    np.testing.assert_allclose(found.mean_snr_db[[0, 1, 2], [3, 0, 4]], 20, atol=1)


def test_an_assignment_of_a_segment_is_the_best_of_all():
    rng = np.random.default_rng(1)
    estimates, references = rng.standard_normal((40, 4, 1)), rng.standard_normal((40, 3, 1))
    estimates[:, 2] = references.sum(axis=1) / 2  # the best for all stems
    snr_db = output_assignment.snr_matrix_db(estimates, references)
    assert len(set(snr_db.argmax(axis=1))) == 1
    best = max(
        itertools.permutations(range(4), 3), key=lambda p: sum(snr_db[s, p[s]] for s in range(3))
    )
    votes = output_assignment.assign_outputs([(estimates, references)]).votes
    assert tuple(votes.argmax(axis=1)) == best and votes.sum() == 3


def test_the_first_channel_counts():
    estimates, references = _segment((1, 0), outputs=2)
    estimates[..., 1] = estimates[:, ::-1, 1]
    assert output_assignment.assign_outputs([(estimates, references)]).heads == (1, 0)


def test_silent_stems_have_no_vote():
    silent = _segment((0, 1, 2), silent=(1,), seed=1)
    silent[0][:, 1] = 0
    nothing = tuple(np.zeros_like(x) for x in silent)
    only_right = tuple(x.copy() for x in silent)
    only_right[1][:, 0, 0] = 0
    segments = [_segment((0, 1, 2)), silent, nothing, only_right]
    found = output_assignment.assign_outputs(segments)
    np.testing.assert_array_equal(found.votes.sum(axis=1), [2, 1, 3])
    assert found.heads == (0, 1, 2) and found.segments == 4
    np.testing.assert_allclose(found.mean_snr_db[[0, 1, 2], [0, 1, 2]], 20, atol=1)


def test_stems_with_the_same_favourite_get_different_outputs():
    # Stem 0 is in output 2 five times and never elsewhere; stem 1 four times there, three times in
    # output 0.
    segments = [_segment((2, 3), silent=(1,), seed=seed) for seed in range(5)]
    segments += [_segment((3, 2), silent=(0,), seed=seed) for seed in range(4)]
    segments += [_segment((3, 0), silent=(0,), seed=seed) for seed in range(3)]
    found = output_assignment.assign_outputs(segments)
    assert found.most_voted == (2, 2)
    assert found.heads == (2, 0)
    np.testing.assert_allclose(found.shares, (1.0, 3 / 7))


@pytest.mark.parametrize(
    "votes, scores, expected",
    [
        ([[5, 4, 0], [5, 0, 0]], np.zeros((2, 3)), (1, 0)),  # the sum of votes, not the first come
        ([[5, 0, 0], [4, 0, 0]], [[9, 0, 0], [0, 1, 2]], (0, 2)),  # no vote left: the scores
        ([[5, 0, 0], [4, 0, 0]], [[9, 0, 0], [0, 200, 2]], (0, 1)),
        ([[3, 2], [2, 1]], [[0, 1], [1, 0]], (1, 0)),  # equal sums
        ([[1, 0], [0, 0]], [[-50, 1e6], [1e6, -50]], (0, 1)),  # no score outweighs a vote
    ],
)
def test_unique_outputs(votes, scores, expected):
    found = output_assignment.unique_outputs(np.asarray(votes), np.asarray(scores, float))
    assert found == expected


def test_segments_are_taken_one_at_a_time():
    made = []

    def stream():
        for seed in range(5):
            segment = _segment((1, 0), seed=seed)
            made.append(weakref.ref(segment[0]))
            yield segment
            del segment
            assert sum(one() is not None for one in made) <= 1

    assert output_assignment.assign_outputs(stream()).segments == len(made) == 5


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match="got no segment"):
        output_assignment.assign_outputs([])
    with pytest.raises(ValueError, match=r"\(200, 2, 2\).*\(200, 3, 2\).*as many outputs as stems"):
        estimates, references = _segment((0, 1, 2))
        output_assignment.assign_outputs([(estimates[:, :2], references)])
    with pytest.raises(ValueError, match="expected the same time"):
        output_assignment.assign_outputs([(estimates[:-1], references)])
    with pytest.raises(ValueError, match="stem 0, 2 never sounds in 2 segments"):
        output_assignment.assign_outputs([_segment((0, 1, 2), silent=(0, 2))] * 2)
    with pytest.raises(ValueError, match="segment 1 has 2 stems and 5 outputs; expected 3 and 5"):
        output_assignment.assign_outputs([_segment((0, 1, 2)), _segment((0, 1))])
    estimates[3, 1, 0] = np.nan
    with pytest.raises(ValueError, match="segment 1 has values that are not finite"):
        output_assignment.assign_outputs([_segment((0, 1, 2)), (estimates, references)])
