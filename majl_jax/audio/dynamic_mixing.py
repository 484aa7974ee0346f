"""New training mixtures on the device: mixtures of two mixtures, and stems of different examples at random levels.

Saijo & Bando, WASPAA 2025 (arXiv 2505.07631; repository b-sigpro/mixit-mss). Nothing is limited to full scale 1: networks that
take these mixtures normalise them. Everything that pairs examples does so within the batch it is given, which inside the step
is one device's share. What is drawn per example comes from a key per example (`mixing.example_keys`).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from majl_jax.audio import mixing

LEVELS = ("rms", "mean_abs")
_SILENT_POWER = 1e-12  # -120 dB, below the last bit of 16


def mixtures_of_mixtures(
    segments: Float[Array, "segment time channel"],
    keys: Key[Array, "batch"],
    *,
    low_db: float | int = -5.0,
    high_db: float | int = 5.0,
) -> Float[Array, "batch time 2 channel"]:
    """Segments i and n + i of 2n as two mixtures, the first scaled to lie U(low_db, high_db) dB above the second.

    x_0 <- x_0 sqrt(P_1 / P_0 · 10^(SNR / 10)), P the mean square over time and channels, one key per pair; nothing is scaled
    where one is silent, below -120 dB. The network hears the sum over the axis of size 2.
    """
    count = segments.shape[0]
    if count % 2 or keys.shape[0] != count // 2:
        raise ValueError(
            f"mixtures_of_mixtures got {count} segments and {keys.shape[0]} keys; expected an even number of segments, "
            "and a key for each pair."
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
    """Each stem of any example in which it is `sounding`, some left out, all at one level, times U(low_db, high_db) dB.

    The mixture is the sum over stems. Where a stem comes from is drawn by `key`, among the examples whose stems are `known`;
    all else by `keys`. Stems that are silent stay so; `level` is that of `normalise_level`.
    """
    draws = jax.vmap(jax.random.split)(keys)
    examples = draw_examples(key, sounding(stems), known)
    stems = jax.vmap(lambda stem, example: stem[example], (2, 1), 2)(stems, examples)
    kept = draw_kept(draws[:, 0], stems=stems.shape[2], drop_probability=drop_probability)
    stems = normalise_level(stems * kept[:, None, :, None], level=level)
    gains_db = mixing.random_gains_db(
        draws[:, 1], jnp.ones_like(kept), low_db=float(low_db), high_db=float(high_db)
    )
    return mixing.apply_gains(stems, gains_db)


def sounding(
    stems: Float[Array, "batch time stem channel"],
    *,
    chunks: int = 10,
    sounding_chunks: int = 5,
    min_energy: float | int = 1e-3,
) -> Bool[Array, "batch stem"]:
    """Whether `sounding_chunks` of a stem's equal `chunks` have an energy sum x^2, over samples and channels, above min_energy.

    The rule of Luo & Yu 2022 (arXiv 2209.15174, sec. IV-A) for the crop alone. Theirs also wants the energy above the 15th
    percentile of the recording, which a crop does not know.
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
    """The example that each stem of each example is taken from: any known one in which it sounds, or any known one if there is none."""
    batch, stems = sounding.shape
    draws = jax.random.uniform(key, (batch, batch, stems))
    return jnp.argmax(draws + sounding + 2 * known[:, None], axis=1)


def draw_kept(
    keys: Key[Array, "batch"], *, stems: int, drop_probability: float | int = 0.05
) -> Bool[Array, "batch {stems}"]:
    """False for a stem with `drop_probability`, each on its own; where all would go, one stays, any with equal probability."""
    if not 0.0 <= drop_probability < 1.0:
        raise ValueError(f"drop_probability={drop_probability}; expected 0 or more, less than 1.")

    def draw(key: Array) -> Array:
        uniform = jax.random.uniform(key, (stems,))
        return (uniform >= drop_probability) | (uniform == uniform.max())

    return jax.vmap(draw)(keys)


def normalise_level(
    stems: Float[Array, "batch time stem channel"], *, level: str = "rms"
) -> Float[Array, "batch time stem channel"]:
    """Each stem divided by its level over time and channels: sqrt(mean x^2) ("rms"), or mean |x| ("mean_abs"); silence stays.

    The authors say RMS and compute mean |x|, which lets stems of few loud sounds stand out.
    """
    if level not in LEVELS:
        raise ValueError(f"level={level!r} is not one of {', '.join(LEVELS)}.")
    if level == "rms":
        levels = jnp.sqrt(jnp.mean(stems**2, axis=(1, 3), keepdims=True))
    else:
        levels = jnp.mean(jnp.abs(stems), axis=(1, 3), keepdims=True)
    return stems / jnp.where(levels > 0.0, levels, 1.0)
