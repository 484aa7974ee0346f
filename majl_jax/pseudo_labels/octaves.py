"""Notes whose octave is not attested, put into the octave in which a teacher hears them."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from majl_jax.pseudo_labels.filtering import near_bins

OCTAVES = (0, -1, 1, -2, 2)  # the one that is written goes first where several are heard alike


@dataclasses.dataclass(frozen=True)
class Settled:
    """Pitch labels of the target, in octaves that a teacher hears."""

    f0_hz: Float[np.ndarray, "frame"]
    sure: Bool[np.ndarray, "frame"]
    """Where the label is known and, if voiced, its octave too."""
    notes: int
    notes_sure: int


def settle(
    salience: Float[np.ndarray, "frame bin"],
    f0_hz: Float[np.ndarray, "frame"],
    has_pitch: Bool[np.ndarray, "frame"],
    bin_cents: Float[np.ndarray, "bin"],
    *,
    threshold: float,
    tolerance_cents: float,
) -> Settled:
    """Moves every note to the octave in which it is heard best, and says where that is sure.

    A note is a stretch of frames with one label f. Octave k of it is heard by
    s_k = mean over its frames of max_{|c_b - c(2^k f)| <= tolerance} p_tb; the label becomes
    2^k f with the largest s_k, and is sure where s_k reaches `threshold`.

    Args:
        salience: of the separated target, 0 to 1.
        f0_hz: labels, 0 = unvoiced.
        has_pitch: which of them are known.
        bin_cents: centres of the salience's bins, cents above 10 Hz.
        threshold: least s_k.
        tolerance_cents: how far a bin may lie from the label.
    """
    settled, sure = f0_hz.copy(), has_pitch.copy()
    voiced = has_pitch & (f0_hz > 0)
    borders = np.flatnonzero(np.diff(np.where(voiced, f0_hz, 0.0))) + 1
    notes = [note for note in np.split(np.arange(len(f0_hz)), borders) if voiced[note].any()]
    for note in notes:
        heard = [
            near_bins(salience[note], 2.0**octave * f0_hz[note], bin_cents, tolerance_cents).mean()
            for octave in OCTAVES
        ]
        best = int(np.argmax(heard))
        settled[note] *= 2.0 ** OCTAVES[best]
        sure[note] = heard[best] >= threshold
    return Settled(settled, sure, len(notes), sum(bool(sure[note].all()) for note in notes))
