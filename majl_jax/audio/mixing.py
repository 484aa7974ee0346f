"""From stems to the mixture inside the jitted step: scaling, random gains, peak limit.

The sum over stems is always the mixture, also when the stems are unknown, so every gain is
applied to the stems and the mixture is made last. Randomness is per example:
`keys = example_keys(key, batch["index"])`, so an example is drawn alike on any number of devices.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Key, Shaped

FULL_SCALE = 32768.0


def to_float(stems: Shaped[Array, "*any"]) -> Float[Array, "*any"]:
    """x / 32768 for int16 audio, in [-1, 1)."""
    if not jnp.issubdtype(stems.dtype, jnp.integer):
        raise TypeError(f"to_float expects int16 stems, got {stems.dtype}: already converted?")
    return stems.astype(jnp.float32) / FULL_SCALE


def mixture(
    stems: Float[Array, "batch time stem channel"], *, mode: str = "sum"
) -> Float[Array, "batch time channel"]:
    """Sum of the stems; "mean" divides by their number, as MAJL's authors load MIR-1K, (L + R) / 2.

    With "mean" a stem is louder than its share of the mixture, out of reach of a mask below 1.
    """
    if mode not in ("sum", "mean"):
        raise ValueError(f'mixture mode must be "sum" or "mean", got {mode!r}.')
    return stems.sum(axis=-2) if mode == "sum" else stems.mean(axis=-2)


def example_keys(key: Key[Array, ""], index: Integer[Array, "batch"]) -> Key[Array, "batch"]:
    """One random key per example from its global number, fold_in(key, index)."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def random_gains_db(
    keys: Key[Array, "batch"],
    has_stems: Bool[Array, "batch stem"],
    *,
    low_db: float,
    high_db: float,
) -> Float[Array, "batch stem"]:
    """Uniform gains in decibels, one per stem where all stems are known, else one per example.

    Stems of which some are unknown are only parts of a mixture whose balance must not change.
    """
    if low_db > high_db:
        raise ValueError(f"random_gains_db needs low_db <= high_db, got {low_db} and {high_db}.")
    stems = has_stems.shape[1]
    gains = jax.vmap(lambda key: jax.random.uniform(key, (stems,), minval=low_db, maxval=high_db))(
        keys
    )
    return jnp.where(has_stems.all(axis=1, keepdims=True), gains, gains[:, :1])


def apply_gains(
    stems: Float[Array, "batch time stem channel"], gain_db: Float[Array, "batch stem"]
) -> Float[Array, "batch time stem channel"]:
    """x * 10^(g / 20), g per example and stem."""
    return stems * (10.0 ** (gain_db / 20.0))[:, None, :, None]


def limit_peak(
    stems: Float[Array, "batch time stem channel"], *, ceiling: float = 1.0
) -> Float[Array, "batch time stem channel"]:
    """Scales all stems of an example by min(1, ceiling / max |mixture|), so the mix cannot clip.

    One factor per example keeps the balance; quieter mixtures and silence stay as they are.
    """
    peak = jnp.abs(mixture(stems)).max(axis=(1, 2))
    factor = ceiling / jnp.maximum(peak, ceiling)
    return stems * factor[:, None, None, None]
