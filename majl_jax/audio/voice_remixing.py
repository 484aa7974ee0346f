"""Changes of a voice and what it stands in, on the device: other accompaniments, levels, keys.

Stem 0 is the voice, the others what accompanies it. Randomness is per example
(`mixing.example_keys`); only what a voice is put into depends on the batch.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Key

from majl_jax.audio import mixing, stretching

SILENT_POWER = 1e-8
"""Of an accompaniment that has no level: below -80 dB."""
LOUDEST = 10.0
"""What an accompaniment is raised by at most, 20 dB: a pause with noise stays one."""


@dataclasses.dataclass(frozen=True)
class Remixing:
    """How far a batch is changed; nothing is at 0."""

    others: float = 0.0
    """The probability that a voice gets the accompaniment of another example."""
    match_levels: bool = False
    """Whether that accompaniment is brought to the level of the one in whose place it stands."""
    gain_db: float = 0.0
    """Levels of voice and accompaniment are drawn within ± this, each."""
    shifted: float = 0.0
    """The probability that an example is moved to another key, voice and accompaniment alike."""
    semitones: float = 3.0
    """How far: within ± this."""

    def __post_init__(self) -> None:
        for name in ("others", "shifted"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a probability")
        for name in ("gain_db", "semitones"):
            if getattr(self, name) < 0.0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")


def remix(
    stems: Float[Array, "batch time stem"],
    known: Bool[Array, "batch"],
    f0_hz: Float[Array, "batch frame voice"],
    index: Integer[Array, "batch"],
    *,
    key: Key[Array, ""],
    options: Remixing,
) -> tuple[Float[Array, "batch time stem"], Float[Array, "batch frame voice"]]:
    """(stems, f0): x_0 10^(g_0 / 20) + r x_j' 10^(g_1 / 20), r matching levels, and pitches times
    2^(s / 12) where a key changes.

    An example whose stems are not known keeps its balance and its accompaniment, which cannot be
    told from its voice; its level and its key may change. Silence (f0 0) stays so.

    Args:
        stems: of the batch, the voice first.
        known: where all stems are.
        f0_hz: the labels.
        index: of the examples in the run.
        key: of the step.
        options: how far they are changed.
    """
    order_key, example_key = jax.random.split(key)
    keys = jax.vmap(lambda one: jax.random.split(one, 4))(mixing.example_keys(example_key, index))
    if options.others:
        given = _others(order_key, known)
        swapped = _chance(keys[:, 0], options.others) & known & known[given]
        own, other = stems[:, :, 1:], stems[given][:, :, 1:]
        if options.match_levels:
            other = other * _ratios(own, other)[:, None, None]
        accompaniment = jnp.where(swapped[:, None, None], other, own)
        stems = jnp.concatenate([stems[:, :, :1], accompaniment], axis=2)
    if options.gain_db:
        gains = jax.vmap(lambda one: jax.random.uniform(one, (2,), minval=-1.0))(keys[:, 1])
        gains = options.gain_db * jnp.where(known[:, None], gains, gains[:, :1])
        per_stem = jnp.concatenate(
            [gains[:, :1], jnp.repeat(gains[:, 1:], stems.shape[2] - 1, axis=1)], axis=1
        )
        stems = mixing.apply_gains(stems[..., None], per_stem)[..., 0]
    if options.shifted:
        most = options.semitones
        moved = stretching.draw_semitones(keys[:, 2], -most, most)
        moved = jnp.where(_chance(keys[:, 3], options.shifted), moved, 0.0)
        stems = _shift(stems, moved, most)
        f0_hz = f0_hz * jnp.exp2(moved / 12.0)[:, None, None]
    return stems, f0_hz


def _others(key: Array, known: Array) -> Array:
    """For each example another one whose stems are known, if there is one: [batch]."""
    batch = len(known)
    draws = jax.random.uniform(key, (batch, batch)) + 2.0 * known[None]
    return jnp.argmax(draws - 4.0 * jnp.eye(batch), axis=1)


def _ratios(
    own: Float[Array, "batch time stem"], other: Float[Array, "batch time stem"]
) -> Float[Array, "batch"]:
    """rms(sum own) / rms(sum other); 1 where either is silent, at most LOUDEST."""
    powers = [jnp.mean(jnp.square(x.sum(axis=2)), axis=1) for x in (own, other)]
    sound = (powers[0] > SILENT_POWER) & (powers[1] > SILENT_POWER)
    ratio = jnp.sqrt(powers[0] / jnp.where(sound, powers[1], 1.0))
    return jnp.where(sound, jnp.minimum(ratio, LOUDEST), 1.0)


def _chance(keys: Array, probability: float) -> Array:
    return jax.vmap(jax.random.bernoulli, (0, None))(keys, probability)


def _shift(stems: Array, semitones: Array, most: float) -> Array:
    batch, time, count = stems.shape
    rows = jnp.moveaxis(stems, 2, 1).reshape(-1, time)
    moved = stretching.pitch_shift(rows, jnp.repeat(semitones, count), max_semitones=most)
    return jnp.moveaxis(moved.reshape(batch, count, time), 1, 2)
