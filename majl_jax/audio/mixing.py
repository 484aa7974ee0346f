"""From stems to the mixture inside the jitted step: scaling, random gains, peak limit.

The sum over stems is always the mixture, also when the stems are unknown, so every gain is
applied to the stems and the mixture is made last. Randomness is per example:
`keys = example_keys(key, batch["index"])`, so an example is drawn alike on any number of devices.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Key, Shaped

from majl_jax.audio import int16


def to_float(stems: Shaped[Array, "*any"]) -> Float[Array, "*any"]:
    """x / 32768 for int16 audio, in [-1, 1)."""
    if not jnp.issubdtype(stems.dtype, jnp.integer):
        raise TypeError(f"to_float expects int16 stems, got {stems.dtype}: already converted?")
    return stems.astype(jnp.float32) / int16.FULL_SCALE


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


def incoherent_sources(
    key: Key[Array, ""], *, batch: int, stems: int, known: Bool[Array, "{batch}"] | None = None
) -> Int[Array, "{batch} {stems}"]:
    """The example that each stem of each example comes from: of n known ones number (i + d_j) mod
    n, with d_j drawn without repetition from 0..n-1.

    So the stems of one example come from different ones, and every stem is used once; where n is
    below `stems`, some of an example belong together.

    Args:
        key: of the draw.
        batch: examples.
        stems: of an example.
        known: whose stems there are; None: all.
    """
    if batch < stems:
        raise ValueError(
            f"incoherent mixing of {stems} stems needs as many examples to take them from, got a"
            f" batch of {batch}; enlarge the batch of a device or sum stems into groups first."
        )
    known = jnp.ones(batch, bool) if known is None else known
    among = jnp.maximum(known.sum(), 1)
    shifts = jax.random.permutation(key, batch)
    shifts = shifts[jnp.argsort(shifts >= among)][:stems]  # a stable sort: in their order
    return jnp.argsort(~known)[(jnp.arange(batch)[:, None] + shifts[None]) % among]


def incoherent(
    stems: Float[Array, "batch time stem channel"],
    key: Key[Array, ""],
    known: Bool[Array, "batch"] | None = None,
) -> Float[Array, "batch time stem channel"]:
    """Stem j of example i from example `incoherent_sources`[i, j]: no two stems of an example
    belong together any more.
    """
    batch, _, count, _ = stems.shape
    sources = incoherent_sources(key, batch=batch, stems=count, known=known)
    return jax.vmap(lambda stem, source: stem[source], in_axes=(2, 1), out_axes=2)(stems, sources)


def group(
    stems: Float[Array, "batch time place channel"], members: int
) -> Float[Array, "batch time group channel"]:
    """s_g = sum of the places g members, …, (g + 1) members - 1; a place without a stem is
    silent.
    """
    batch, time, places, channels = stems.shape
    if members < 1 or places % members:
        raise ValueError(
            f"group got {places} places and {members} members per group; expected a number of"
            " members that divides the places. Fill smaller groups up with silent places."
        )
    return stems.reshape(batch, time, places // members, members, channels).sum(axis=3)


LEVELS = ("rms", "mean_abs")
_SILENT_POWER = 1e-12  # -120 dB, below the last bit of 16


def mixtures_of_mixtures(
    segments: Float[Array, "segment time channel"],
    keys: Key[Array, "batch"],
    *,
    low_db: float | int = -5.0,
    high_db: float | int = 5.0,
) -> Float[Array, "batch time 2 channel"]:
    """Segments i and n + i of 2n as two mixtures, the first scaled to lie U(low_db, high_db) dB
    above the second.

    x_0 <- x_0 sqrt(P_1 / P_0 · 10^(SNR / 10)), P the mean square over time and channels, one key
    per pair; nothing is scaled where one is silent, below -120 dB. The network hears the sum over
    the axis of size 2.
    """
    count = segments.shape[0]
    if count % 2 or keys.shape[0] != count // 2:
        raise ValueError(
            f"mixtures_of_mixtures got {count} segments and {keys.shape[0]} keys; expected an even"
            " number of segments, and a key for each pair."
        )
    if low_db > high_db:
        raise ValueError(f"mixtures_of_mixtures needs low_db <= high_db, got {low_db}, {high_db}.")
    first, second = segments[: count // 2], segments[count // 2 :]
    snr_db = jax.vmap(lambda key: jax.random.uniform(key, (), minval=low_db, maxval=high_db))(keys)
    powers = [jnp.mean(x**2, axis=(1, 2)) for x in (first, second)]
    sounding = jnp.minimum(*powers) >= _SILENT_POWER
    ratio = powers[1] / jnp.where(sounding, powers[0], 1.0) * 10.0 ** (snr_db / 10.0)
    gain = jnp.sqrt(jnp.where(sounding, ratio, 1.0))
    return jnp.stack([first * gain[:, None, None], second], axis=2)


def dynamic_mixing(
    stems: Float[Array, "batch time stem channel"],
    known: Bool[Array, "batch"],
    key: Key[Array, ""],
    keys: Key[Array, "batch"],
    *,
    drop_probability: float | int = 0.05,
    level: str = "rms",
    low_db: float | int = -10.0,
    high_db: float | int = 10.0,
) -> Float[Array, "batch time stem channel"]:
    """Each stem of any example in which it is `sounding`, some left out, all at one level, times
    U(low_db, high_db) dB.

    The mixture is the sum over stems. Stems that are silent stay so.

    Args:
        stems: of all examples.
        known: which examples have stems to take.
        key: of where a stem comes from.
        keys: of all else, one per example.
        drop_probability: of a stem to be left out, see `draw_kept`.
        level: that of `normalise_level`.
        low_db: the smallest gain.
        high_db: the largest gain.
    """
    draws = jax.vmap(jax.random.split)(keys)
    examples = draw_examples(key, sounding(stems), known)
    stems = jax.vmap(lambda stem, example: stem[example], (2, 1), 2)(stems, examples)
    kept = draw_kept(draws[:, 0], stems=stems.shape[2], drop_probability=drop_probability)
    stems = normalise_level(stems * kept[:, None, :, None], level=level)
    gains_db = random_gains_db(
        draws[:, 1], jnp.ones_like(kept), low_db=float(low_db), high_db=float(high_db)
    )
    return apply_gains(stems, gains_db)


def sounding(
    stems: Float[Array, "batch time stem channel"],
    *,
    chunks: int = 10,
    sounding_chunks: int = 5,
    min_energy: float | int = 1e-3,
) -> Bool[Array, "batch stem"]:
    """Whether `sounding_chunks` of a stem's equal `chunks` have an energy sum x^2, over samples
    and channels, above min_energy.

    The rule of Luo & Yu 2022 (arXiv 2209.15174, sec. IV-A) for the crop alone. Theirs also wants
    the energy above the 15th percentile of the recording, which a crop does not know.
    """
    batch, time, count, channels = stems.shape
    if time < chunks:
        raise ValueError(f"sounding got {time} samples for {chunks} chunks; expected one for each.")
    used = stems[:, : time // chunks * chunks]
    energy = jnp.sum(used.reshape(batch, chunks, -1, count, channels) ** 2, axis=(2, 4))
    return jnp.sum(energy > min_energy, axis=1) >= sounding_chunks


def draw_examples(
    key: Key[Array, ""], sounding: Bool[Array, "batch stem"], known: Bool[Array, "batch"]
) -> Int[Array, "batch stem"]:
    """The example that each stem of each example is taken from: any known one in which it sounds,
    or any known one if there is none.
    """
    batch, stems = sounding.shape
    draws = jax.random.uniform(key, (batch, batch, stems))
    return jnp.argmax(draws + sounding[None] + 2 * known[None, :, None], axis=1)


def draw_kept(
    keys: Key[Array, "batch"], *, stems: int, drop_probability: float | int = 0.05
) -> Bool[Array, "batch {stems}"]:
    """False for a stem with `drop_probability`, each on its own; where all would go, one stays,
    any with equal probability.
    """
    if not 0.0 <= drop_probability < 1.0:
        raise ValueError(f"drop_probability={drop_probability}; expected 0 or more, less than 1.")

    def draw(key: Array) -> Array:
        uniform = jax.random.uniform(key, (stems,))
        return (uniform >= drop_probability) | (jnp.arange(stems) == jnp.argmax(uniform))

    return jax.vmap(draw)(keys)


def normalise_level(
    stems: Float[Array, "batch time stem channel"], *, level: str = "rms"
) -> Float[Array, "batch time stem channel"]:
    """Each stem divided by its level over time and channels: sqrt(mean x^2) ("rms"), or mean |x|
    ("mean_abs"); silence stays.

    The authors say RMS and compute mean |x|, which lets stems of few loud sounds stand out.
    """
    if level not in LEVELS:
        raise ValueError(f"level={level!r} is not one of {', '.join(LEVELS)}.")
    if level == "rms":
        levels = jnp.sqrt(jnp.mean(stems**2, axis=(1, 3), keepdims=True))
    else:
        levels = jnp.mean(jnp.abs(stems), axis=(1, 3), keepdims=True)
    return stems / jnp.where(levels > 0.0, levels, 1.0)


def mostly_silent(
    segment: Shaped[np.ndarray, "time channel"], *, chunks: int = 20, silent_chunks: int = 10
) -> bool:
    """Whether `silent_chunks` of a segment's `chunks` equal chunks are digital silence, every
    sample 0.

    The rule for segments of unlabelled music. The authors give up the whole recording that has
    such a segment; the paper and this function, the segment alone. With segments of 10 s and the
    defaults: 5 s of silence, in pieces of 0.5 s.
    """
    length = len(segment) // chunks
    if length < 1:
        raise ValueError(
            f"mostly_silent got {len(segment)} samples for {chunks} chunks; expected one for each."
        )
    sounding = segment[: length * chunks].reshape(chunks, -1).any(axis=1)
    return bool(chunks - sounding.sum() >= silent_chunks)
