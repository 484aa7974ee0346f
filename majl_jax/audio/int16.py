"""Audio as 16-bit integers: full scale, the limits, and the way from and to float (NumPy)."""

import numpy as np
from jaxtyping import Float32, Int16, Shaped

# An integer sample of this value is 1.0; the largest there is, HIGHEST, is one step below.
FULL_SCALE = 32768.0
LOWEST, HIGHEST = -32768, 32767


def to_float(samples: Shaped[np.ndarray, "*any"]) -> Float32[np.ndarray, "*any"]:
    """Samples of 16 bits, or sums and means of them, as float audio (full scale = 1)."""
    return np.asarray(samples, np.float32) / np.float32(FULL_SCALE)


def from_float(audio: Shaped[np.ndarray, "*any"]) -> Int16[np.ndarray, "*any"]:
    """Float audio (full scale = 1) to int16; values beyond full scale are limited."""
    return limited(np.round(audio * FULL_SCALE))


def limited(samples: Shaped[np.ndarray, "*any"]) -> Int16[np.ndarray, "*any"]:
    """Whole numbers as int16, each beyond the limits at the nearer one."""
    return np.clip(samples, LOWEST, HIGHEST).astype(np.int16)
