"""New mixtures from the stems of a batch: stems of different examples together, and places summed into groups."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def incoherent_sources(
    key: Key[Array, ""], *, batch: int, stems: int
) -> Int[Array, "{batch} {stems}"]:
    """The example that each stem of each example comes from, (i + d_j) mod batch with d_j drawn without repetition from 0..batch-1.

    So the stems of one example come from different ones, and every stem is used once.
    """
    if batch < stems:
        raise ValueError(
            f"incoherent mixing of {stems} stems needs as many examples to take them from, got a batch of {batch}; "
            "enlarge the batch of a device or sum stems into groups first."
        )
    shifts = jax.random.permutation(key, batch)[:stems]
    return (jnp.arange(batch)[:, None] + shifts) % batch


def incoherent(
    stems: Float[Array, "batch time stem channel"], key: Key[Array, ""]
) -> Float[Array, "batch time stem channel"]:
    """Stem j of example i from example `incoherent_sources`[i, j]: no two stems of an example belong together any more."""
    sources = incoherent_sources(key, batch=stems.shape[0], stems=stems.shape[2])
    return jax.vmap(lambda stem, source: stem[source], in_axes=(2, 1), out_axes=2)(stems, sources)


def group(
    stems: Float[Array, "batch time place channel"], members: int
) -> Float[Array, "batch time group channel"]:
    """s_g = sum of the places g members, …, (g + 1) members - 1; a place without a stem is silent."""
    batch, time, places, channels = stems.shape
    if members < 1 or places % members:
        raise ValueError(
            f"group got {places} places and {members} members per group; expected a number of members that divides the places. "
            "Fill smaller groups up with silent places."
        )
    return stems.reshape(batch, time, places // members, members, channels).sum(axis=3)
