"""Time stretching and pitch shifting by a phase vocoder, one rate per example, on the device.

Every shape is static and every rate a traced array, so new rates compile nothing anew. A phase
vocoder is not linear: stretch the stems of a mixture, all at the same rate, and sum them
afterwards. Positions are computed in integers, because a float32 product n rate is known to 1/64
sample only after 10 s. The frames are turned one after the other in a scan: on a CPU a quarter of
the time that arctangents, sums over the frames and cosines take.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int, Key

from majl_jax.audio.stft import istft, stft

_SILENT_POWER = 1e-30
_UNCHANGED = 1e-6  # a rate so near to 1, or a shift so near to 0, changes nothing
_MAX_POSITIONS = 2**20
_OVERSAMPLING = 2
_TAPS = 12
_TAP_DEGREE = 9
_KAISER_BETA = 9.0
_TRANSITION_BINS = 4
_MAIN_LOBE_BINS = 2  # of a Hann window, on either side

# ---- draws --------------------------------------------------------------------------------------


def draw_rates(
    keys: Key[Array, "batch"], low: float | int = 0.8, high: float | int = 1.2
) -> Float[Array, "batch"]:
    """Rates for `time_stretch`, uniform in [low, high); the default range is that of arXiv
    2010.12650.
    """
    if not 0 < low <= high:
        raise ValueError(f"draw_rates needs 0 < low <= high, got {low} and {high}.")
    return _uniform(keys, low, high)


def draw_semitones(
    keys: Key[Array, "batch"], low: float | int = -3.0, high: float | int = 3.0
) -> Float[Array, "batch"]:
    """Semitones for `pitch_shift`, uniform in [low, high); the default range is that of arXiv
    2010.12650.
    """
    if low > high:
        raise ValueError(f"draw_semitones needs low <= high, got {low} and {high}.")
    return _uniform(keys, low, high)


def _uniform(keys: Array, low: float | int, high: float | int) -> Array:
    return jax.vmap(lambda key: jax.random.uniform(key, (), minval=low, maxval=high))(keys)


# ---- sound --------------------------------------------------------------------------------------


def needed_samples(samples: int, max_rate: float | int) -> int:
    """ceil(samples max(1, max_rate)): how long an excerpt must be for `time_stretch` to fill
    `samples` at rates up to max_rate.
    """
    return math.ceil(samples * max(1.0, max_rate))


def time_stretch(
    audio: Float[Array, "batch time"],
    rates: Float[Array, "batch"],
    *,
    samples: int,
    window_samples: int = 1024,
    hop_samples: int = 256,
    locked: bool = True,
) -> Float[Array, "batch samples"]:
    """The first `samples` samples of each example at `rate` times its speed (above 1: faster), at
    the same pitch.

    Output sample n comes from around input sample n rate.

    Args:
        audio: `needed_samples` or more; what lies after the end is silent.
        rates: one per example; a rate of 1, to a millionth, gives the input back unchanged.
        samples: length of the result.
        window_samples: of the STFT; twice as many suit basses below 80 Hz better, and drums less.
        hop_samples: of the STFT.
        locked: that of `phase_vocoder`.
    """
    if audio.shape[1] < samples:
        raise ValueError(
            f"time_stretch got {audio.shape[1]} samples to make {samples}; pass"
            " needed_samples(samples, max_rate) or more."
        )
    sizes = {"window_samples": window_samples, "hop_samples": hop_samples}
    stretched = phase_vocoder(
        _edged_stft(audio, **sizes),
        rates,
        frames=_covering_frames(samples, **sizes),
        locked=locked,
    )
    found: Array = istft(stretched, **sizes, length_samples=samples)
    return jnp.where(jnp.abs(rates[:, None] - 1.0) < _UNCHANGED, audio[:, :samples], found)


def pitch_shift(
    audio: Float[Array, "batch time"],
    semitones: Float[Array, "batch"],
    *,
    max_semitones: float | int = 3.0,
    window_samples: int = 1024,
    hop_samples: int = 256,
    locked: bool = True,
) -> Float[Array, "batch time"]:
    """Each example at 2^(semitones / 12) times its pitch and the same duration; 0 semitones, to a
    millionth, give the input back unchanged.

    The sound is stretched to p = 2^(semitones / 12) times its length and sample n of the result
    read at n p. What would come to lie above half the sample rate is taken away.

    Args:
        audio: the sound.
        semitones: one shift per example, above 0: higher.
        max_semitones: the highest shift there can be; the end of a higher one is silent.
        window_samples: of the STFT.
        hop_samples: of the STFT.
        locked: that of `phase_vocoder`.
    """
    samples = audio.shape[1]
    ratios = jnp.exp2(semitones / 12.0)
    longest = math.ceil(samples * 2.0 ** (max(max_semitones, 0.0) / 12.0)) + _TAPS
    sizes = {"window_samples": window_samples, "hop_samples": hop_samples}
    stretched = phase_vocoder(
        _edged_stft(audio, **sizes),
        1.0 / ratios,
        frames=_covering_frames(longest, **sizes),
        locked=locked,
    )
    # Zeros above the spectrum make the inverse transform interpolate every frame, so that a short
    # filter does the rest.
    gains = _OVERSAMPLING * _anti_alias_gains(ratios, stretched.shape[2])
    above = (_OVERSAMPLING - 1) * (window_samples // 2)
    spectrum = jnp.pad(stretched * gains[:, None, :], ((0, 0), (0, 0), (0, above)))
    dense: Array = istft(
        spectrum,
        window_samples=_OVERSAMPLING * window_samples,
        hop_samples=_OVERSAMPLING * hop_samples,
        length_samples=_OVERSAMPLING * longest,
    )
    found = _read(dense, _OVERSAMPLING * ratios, samples)
    return jnp.where(jnp.abs(semitones[:, None]) < _UNCHANGED, audio, found)


def phase_vocoder(
    spectrum: Complex[Array, "batch frame frequency"],
    rates: Float[Array, "batch"],
    *,
    frames: int,
    locked: bool = False,
) -> Complex[Array, "batch frames frequency"]:
    """Frame t of the result lies at frame p_t = t rate of an STFT: Y_t = ((1 - a) |X_k| + a
    |X_{k+1}|) c_t with

    k = floor(p_t), a = p_t - k, u = X / |X|, c_0 = u_0 and c_{t+1} = c_t u_{k+1} conj(u_k) (Ellis
    2002, "A phase vocoder in Matlab"; as librosa). Frames after the last one are zero. Often the
    angles are added up instead, the advance of the bin's frequency in a hop plus the wrapped rest:
    the same up to whole turns.

    locked: every bin f goes on from the phase of Y_t[f] - Y_t[f-1] - Y_t[f+1] instead of c_t
    (Puckette 1995, "Phase-locked vocoder"), so that neighbours stay in step: music loses about 1
    dB of its level rather than 2 to 4. Rate 1 is not quite the input then.
    """
    last = spectrum.shape[1]
    spectrum = jnp.pad(spectrum, ((0, 0), (0, 2), (0, 0)))
    index, fraction = _positions(rates, frames)
    pairs_at = jax.vmap(lambda item, at: jax.lax.dynamic_slice_in_dim(item, at, 2, axis=0))

    def step(phasor: Array, position: tuple[Array, Array]) -> tuple[Array, Array]:
        at, weight = position
        level, unit = _polar(pairs_at(spectrum, at))
        found = (level[:, 0] + weight[:, None] * (level[:, 1] - level[:, 0])) * phasor
        if locked:
            beside = jnp.pad(found, ((0, 0), (1, 1)))
            phasor = _polar(found - beside[:, :-2] - beside[:, 2:])[1]
        following = phasor * unit[:, 1] * jnp.conj(unit[:, 0])
        # A Newton step keeps the length at 1.
        following *= 1.5 - 0.5 * (jnp.real(following) ** 2 + jnp.imag(following) ** 2)
        return following, found

    positions = (jnp.minimum(index, last).T, fraction.T)
    _, found = jax.lax.scan(step, _polar(spectrum[:, 0])[1], positions, unroll=2)
    return jnp.swapaxes(found, 0, 1)


def _polar(x: Array) -> tuple[Array, Array]:
    """|x| and x / |x|; 0 and 1 where x is as good as 0."""
    power = jnp.real(x) ** 2 + jnp.imag(x) ** 2
    sounds = power > _SILENT_POWER
    inverse = jnp.where(sounds, jax.lax.rsqrt(jnp.where(sounds, power, 1.0)), 0.0)
    return power * inverse, jnp.where(sounds, x * inverse, 1.0)


# ---- frames and positions -----------------------------------------------------------------------


def _edged_stft(audio: Array, *, window_samples: int, hop_samples: int) -> Array:
    """STFT of which neither the mirrored start spoils the phases nor the end the last windows of
    what is made of it.
    """
    # The last windows of the result reach beyond the end of the excerpt.
    longer = jnp.pad(audio, ((0, 0), (0, 2 * window_samples)), mode="reflect")
    spectrum = stft(longer, window_samples=window_samples, hop_samples=hop_samples)
    # Mirrored frames have other phases between neighbouring bins than a steady tone, which a
    # vocoder would carry on to its end (a loss of up to 4 dB); they get those of the first whole
    # frame, turned back.
    first = -(-window_samples // (2 * hop_samples))
    unit = _polar(spectrum[:, first : first + 2])[1]
    back, phasor = unit[:, 0] * jnp.conj(unit[:, 1]), unit[:, 0]
    for k in reversed(range(first)):
        phasor = phasor * back
        spectrum = spectrum.at[:, k].set(jnp.abs(spectrum[:, k]) * phasor)
    return spectrum


def _covering_frames(samples: int, *, window_samples: int, hop_samples: int) -> int:
    """The centred frames that touch any of the samples."""
    return -(-(samples + window_samples // 2) // hop_samples)


def _rows(x: Array, index: Array) -> Array:
    return jax.vmap(lambda item, at: item.at[at].get(mode="promise_in_bounds"))(x, index)


def _positions(
    rates: Float[Array, "batch"], count: int
) -> tuple[Int[Array, "batch count"], Float[Array, "batch count"]]:
    """floor(n rate) and the rest for n < count, exact for rates that are multiples of 2^-24
    (float32 from 1/2 upwards are).
    """
    if count > _MAX_POSITIONS:
        raise ValueError(
            f"cannot read {count} samples or frames in one piece; the most is {_MAX_POSITIONS}. Cut"
            " the excerpt."
        )
    n = jnp.arange(count, dtype=jnp.uint32)[None]
    whole = jnp.floor(rates)
    rest = jnp.round((rates - whole) * 2.0**24).astype(jnp.uint32)[:, None]
    low = n * (rest & 0xFFF)
    high = n * (rest >> 12) + (low >> 12)
    index = n * whole.astype(jnp.uint32)[:, None] + (high >> 12)
    fraction = (((high & 0xFFF) << 12) | (low & 0xFFF)).astype(jnp.float32) * 2.0**-24
    return index.astype(jnp.int32), fraction


# ---- resampling ---------------------------------------------------------------------------------


def _anti_alias_gains(ratios: Float[Array, "batch"], bins: int) -> Float[Array, "batch bins"]:
    """1 up to where a pitch times `ratio` nearly reaches half the sample rate, 0 from there on and
    in reach of a tone there.
    """
    cutoff = (bins - 1) / jnp.maximum(ratios, 1.0)[:, None] - _MAIN_LOBE_BINS
    return jnp.clip((cutoff - np.arange(bins)[None]) / _TRANSITION_BINS, 0.0, 1.0)


def _read(signal: Float[Array, "batch time"], rates: Float[Array, "batch"], samples: int) -> Array:
    """The signal at positions n rate, n < samples, by a Kaiser-windowed sinc; zero outside. For
    content below a quarter of the rate.
    """
    index, fraction = _positions(rates, samples)
    index = jnp.minimum(index, signal.shape[1])
    padded = jnp.pad(signal, ((0, 0), (_TAPS // 2 - 1, _TAPS)))
    offset, total = fraction - 0.5, jnp.zeros_like(fraction)
    for tap, coefficients in enumerate(_tap_polynomials()):
        weight = functools.reduce(lambda value, c: value * offset + c, coefficients.tolist())
        total = total + weight * _rows(padded, index + tap)
    return total


@functools.cache
def _tap_polynomials() -> np.ndarray:
    """[tap, degree + 1]: each tap of the filter as a polynomial in the fraction minus 1/2, highest
    power first.
    """
    nodes = 0.5 * np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    taps = np.arange(_TAPS)[:, None] - (_TAPS // 2 - 1)
    distance = nodes + 0.5 - taps
    inside = np.sqrt(np.maximum(1.0 - (2.0 * distance / _TAPS) ** 2, 0.0))
    filters = np.sinc(distance) * np.i0(_KAISER_BETA * inside) / np.i0(_KAISER_BETA)
    filters /= filters.sum(0)
    return np.polyfit(nodes, filters.T, _TAP_DEGREE).T
