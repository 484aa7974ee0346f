"""Which outputs of a network trained without labels are the stems, by a vote of validation
segments.

Saijo & Bando, WASPAA 2025 (arXiv 2505.07631; repository b-sigpro/mixit-mss). The chosen outputs go
to `select_outputs` of the network's module. The authors let each stem take its most frequent
output, also if two take the same; here outputs are unique.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
import scipy.optimize
from jaxtyping import Float, Int

_EPSILON = 1e-8


@dataclasses.dataclass(frozen=True)
class OutputAssignment:
    """The output of each stem and what it was chosen by.

    `votes` [stem, output]: in how many segments the output was the stem's. `mean_snr_db` [stem,
    output]: SNR over the segments in which the stem sounds. `segments`: how many there were.
    """

    heads: tuple[int, ...]
    votes: Int[np.ndarray, "stem output"]
    mean_snr_db: Float[np.ndarray, "stem output"]
    segments: int

    @property
    def most_voted(self) -> tuple[int, ...]:
        """The output with most votes of each stem, the authors' choice; one may stand twice."""
        return tuple(int(head) for head in self.votes.argmax(axis=1))

    @property
    def shares(self) -> tuple[float, ...]:
        """The part of its votes that each stem's output has, from 0 to 1."""
        return tuple(
            float(votes[head] / votes.sum())
            for head, votes in zip(self.heads, self.votes, strict=True)
        )


def assign_outputs(
    segments: Iterable[
        tuple[
            Float[np.ndarray, "_time _output _channel"], Float[np.ndarray, "_time _stem _channel"]
        ]
    ],
) -> OutputAssignment:
    """One output for each stem from (estimates [time, output, channel], references [time, stem,
    channel]) of segments.

    In a segment the stems that sound get the outputs with the largest sum of SNRs of the first
    channel, no two the same: a vote each. Over all segments the stems get the outputs with most
    votes together; of equal choices that of the largest mean SNR. Segments are taken one at a
    time. A ValueError for no segment, a stem that never sounds, fewer outputs than stems, shapes
    that do not fit or change, and values that are not finite.
    """
    votes: np.ndarray
    sums: np.ndarray
    votes, sums, count = np.zeros(0, int), np.zeros(0), 0
    for count, (estimates, references) in enumerate(segments, start=1):
        snr_db = snr_matrix_db(estimates, references)
        if count == 1:
            votes, sums = np.zeros(snr_db.shape, np.int64), np.zeros(snr_db.shape)
        if snr_db.shape != votes.shape:
            raise ValueError(
                f"segment {count - 1} has {snr_db.shape[0]} stems and {snr_db.shape[1]} outputs;"
                f" expected {votes.shape[0]} and {votes.shape[1]} as in the first."
            )
        if not np.isfinite(snr_db).all():
            raise ValueError(
                f"segment {count - 1} has values that are not finite; look at the network's output."
            )
        stems = np.flatnonzero(np.any(references[..., 0], axis=0))
        _, outputs = scipy.optimize.linear_sum_assignment(snr_db[stems], maximize=True)
        votes[stems, outputs] += 1
        sums[stems] += snr_db[stems]
    if not count:
        raise ValueError("assign_outputs got no segment; expected some in which each stem sounds.")
    sounding = votes.sum(axis=1)
    if not sounding.all():
        raise ValueError(
            f"stem {', '.join(map(str, np.flatnonzero(sounding == 0)))} never sounds in {count}"
            " segments; expected some in which each stem sounds. Take more of the validation set,"
            " or leave the stem out."
        )
    mean_snr_db = sums / sounding[:, None]
    return OutputAssignment(unique_outputs(votes, mean_snr_db), votes, mean_snr_db, count)


def unique_outputs(
    votes: Int[np.ndarray, "stem output"], scores: Float[np.ndarray, "stem output"]
) -> tuple[int, ...]:
    """The output of each stem, no two the same, with most votes in sum; of equal sums that of the
    largest sum of scores.
    """
    # Scores from 0 to 1 / (stems + 1): in sum they weigh less than one vote.
    below_one = (scores - scores.min()) / max(np.ptp(scores), 1.0) / (len(scores) + 1)
    _, heads = scipy.optimize.linear_sum_assignment(votes + below_one, maximize=True)
    return tuple(int(head) for head in heads)


def snr_matrix_db(
    estimates: Float[np.ndarray, "_time _output _channel"],
    references: Float[np.ndarray, "_time _stem _channel"],
) -> Float[np.ndarray, "stem output"]:
    """10 lg (|r|^2 + 1e-8) / (|r - e|^2 + 1e-8) of the first channel, for each stem and output."""
    (time, outputs, _), (expected, stems, _) = estimates.shape, references.shape
    if time != expected or outputs < stems:
        raise ValueError(
            f"snr_matrix_db got estimates of shape {estimates.shape} and references of shape"
            f" {references.shape}, [time, output or stem, channel]; expected the same time, and as"
            " many outputs as stems or more."
        )
    e, r = (x[..., 0].astype(np.float64) for x in (estimates, references))
    power = np.sum(r**2, axis=0)[:, None]
    noise = power - 2.0 * r.T @ e + np.sum(e**2, axis=0)
    return 10.0 * np.log10((power + _EPSILON) / (np.maximum(noise, 0.0) + _EPSILON))
