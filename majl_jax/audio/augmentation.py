"""Changes to a sound or to its harmonic CQT that leave its pitches as they are, or move them in a
known way.

Drawing is apart from applying: `draw_…(keys)` takes one key per example (`mixing.example_keys`)
and returns what the function that applies it takes. Features are levels 1 + dB / 80 in [0, 1];
zero is silence, and what fills in at the edges. Ranges are those of SS-MPE (arXiv 2506.23371;
repository cwitkowitz/ss-mpe, `ss_mpe/objectives`).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, Key

_SMALLEST_WIDTH_BINS = 1e-3

# ---- equalisation -------------------------------------------------------------------------------


def draw_parabolic(keys: Key[Array, "batch"]) -> Float[Array, "batch 2"]:
    """Curvature and centre for `parabolic_eq`, uniform in [0, 1)."""
    return _uniform(keys, 2)


def draw_gaussian(keys: Key[Array, "batch"]) -> Float[Array, "batch 3"]:
    """Height, centre and width for `gaussian_eq`, uniform in [0, 1)."""
    return _uniform(keys, 3)


def parabolic_eq(
    features: Float[Array, "batch frame bin harmonic"],
    uniforms: Float[Array, "batch 2"],
    *,
    harmonics: tuple[float | int, ...],
    bins_per_octave: int,
    pointiness: float = 2.0,
) -> Float[Array, "batch frame bin harmonic"]:
    """`equalise` by c(i) = 1 - pointiness a (i - b)^2, one downward parabola per item and constant
    in time.

    Args:
        features: levels in [0, 1].
        uniforms: what gives a and b, of `draw_parabolic`.
        harmonics: of the channels, one each.
        bins_per_octave: of the CQT.
        pointiness: how far the curve can fall below 1.
    """
    bins = curve_bins(features.shape[2], harmonics, bins_per_octave)
    curves = parabolic_curves(uniforms, bins=bins, pointiness=pointiness)
    return equalise(features, curves, harmonics=harmonics, bins_per_octave=bins_per_octave)


def gaussian_eq(
    features: Float[Array, "batch frame bin harmonic"],
    uniforms: Float[Array, "batch 3"],
    *,
    harmonics: tuple[float | int, ...],
    bins_per_octave: int,
    max_height: float = 0.375,
    max_width_octaves: float = 2.0,
) -> Float[Array, "batch frame bin harmonic"]:
    """`equalise` by c(i) = 1 + A exp(-(i - b)^2 / (2 w^2)), one boost or cut per item (arXiv
    2402.15569).

    Args:
        features: levels in [0, 1].
        uniforms: what gives A, b and w, of `draw_gaussian`.
        harmonics: of the channels, one each.
        bins_per_octave: of the CQT.
        max_height: the largest |A|.
        max_width_octaves: the largest w.
    """
    bins = curve_bins(features.shape[2], harmonics, bins_per_octave)
    curves = gaussian_curves(
        uniforms,
        bins=bins,
        max_height=max_height,
        max_width_bins=max_width_octaves * bins_per_octave,
    )
    return equalise(features, curves, harmonics=harmonics, bins_per_octave=bins_per_octave)


def parabolic_curves(
    uniforms: Float[Array, "batch 2"], *, bins: int, pointiness: float = 2.0
) -> Float[Array, "batch curve_bin"]:
    """c(i) = 1 - pointiness a (i - b)^2 with a = u_1 / (bins - 1)^2 and b = u_2 (bins - 1)."""
    curvature, centre = (x[:, None] for x in uniforms.T)
    distance = (jnp.arange(bins)[None] - centre * (bins - 1)) / (bins - 1)
    return 1.0 - pointiness * curvature * distance**2


def gaussian_curves(
    uniforms: Float[Array, "batch 3"],
    *,
    bins: int,
    max_height: float = 0.375,
    max_width_bins: float = 120.0,
) -> Float[Array, "batch curve_bin"]:
    """c(i) = 1 + A exp(-(i - b)^2 / (2 w^2)), A = max_height (2 u_1 - 1), b = u_2 (bins - 1), w =
    max_width_bins u_3.
    """
    height, centre, width = (x[:, None] for x in uniforms.T)
    # A width of 0, which can be drawn, would divide 0 by 0.
    width_bins = jnp.maximum(max_width_bins * width, _SMALLEST_WIDTH_BINS)
    distance = (jnp.arange(bins)[None] - centre * (bins - 1)) / width_bins
    return 1.0 + max_height * (2.0 * height - 1.0) * jnp.exp(-0.5 * distance**2)


def equalise(
    features: Float[Array, "batch frame bin harmonic"],
    curves: Float[Array, "batch curve_bin"],
    *,
    harmonics: tuple[float | int, ...],
    bins_per_octave: int,
) -> Float[Array, "batch frame bin harmonic"]:
    """min(1, max(0, c(i(k, h)) X)): levels times a curve over frequency; equal frequencies of two
    channels get equal values.
    """
    index = equalisation_bins(features.shape[2], harmonics, bins_per_octave)
    if len(harmonics) != features.shape[3] or index.max() >= curves.shape[1]:
        raise ValueError(
            f"equalise got features of {features.shape[2]} bins and {features.shape[3]} channels,"
            f" harmonics {harmonics} and curves of {curves.shape[1]} bins; expected one harmonic"
            f" per channel and curves of {index.max() + 1} bins or more (curve_bins)."
        )
    return jnp.clip(curves[:, None, index] * features, 0.0, 1.0)


def equalisation_bins(
    bins: int, harmonics: tuple[float | int, ...], bins_per_octave: int
) -> Integer[np.ndarray, "bin harmonic"]:
    """i(k, h) = round(k + bins_per_octave log2(h / h_min)), the place of every CQT bin on one
    log-frequency axis.
    """
    octaves = np.log2(np.asarray(harmonics, np.float64) / min(harmonics))
    return np.round(np.arange(bins)[:, None] + bins_per_octave * octaves).astype(np.int32)


def curve_bins(bins: int, harmonics: tuple[float | int, ...], bins_per_octave: int) -> int:
    """The bins of an equalisation curve: whole octaves that cover all channels."""
    last = int(equalisation_bins(bins, harmonics, bins_per_octave).max())
    return (last // bins_per_octave + 1) * bins_per_octave


# ---- shifts and stretches -----------------------------------------------------------------------


def draw_geometry(
    keys: Key[Array, "batch"], *, shift_bins: int, shift_frames: int, stretch: float = 2.0
) -> dict[str, Array]:
    """What `shift_and_stretch` takes: shifts uniform in -n..n, factors by `stretch_factors`, one
    of each per item.
    """
    parts = jax.vmap(lambda key: jax.random.split(key, 3))(keys)

    def integers(which: Array, largest: int) -> Array:
        return jax.vmap(lambda key: jax.random.randint(key, (), -largest, largest + 1))(which)

    return {
        "vertical": integers(parts[:, 0], shift_bins),
        "horizontal": integers(parts[:, 1], shift_frames),
        "stretch": stretch_factors(_uniform(parts[:, 2], 1)[:, 0], max_stretch=stretch),
    }


def stretch_factors(
    uniform: Float[Array, "batch"], *, max_stretch: float = 2.0
) -> Float[Array, "batch"]:
    """Linear from 1 / max_stretch at u = 0 to 1 at u = 1/2, and from there to max_stretch at u =
    1.
    """
    smallest = 1.0 / max_stretch
    shorter, longer = 2.0 * jnp.minimum(uniform, 0.5), 2.0 * jax.nn.relu(uniform - 0.5)
    return smallest + shorter * (1.0 - smallest) + longer * (max_stretch - 1.0)


def shift_and_stretch(
    x: Float[Array, "batch frame bin *channel"],
    vertical: Integer[Array, "batch"],
    horizontal: Integer[Array, "batch"],
    stretch: Float[Array, "batch"],
) -> Float[Array, "batch frame bin *channel"]:
    """Per item: `vertical` bins up, `horizontal` frames later, then `stretch` times as long about
    the middle.

    Zeros come in at the edges, what leaves is lost, and the shape stays. Stretching interpolates
    linearly between frames: frame n of the floor(frames * stretch) new ones lies at (n + 1/2) /
    stretch - 1/2, kept inside; of a longer one the middle is taken, a shorter one gets zeros on
    both sides. Linear in x, whose gradient is exact; reverse-mode only.
    """
    moved: Array = _shift_bins(x, vertical)
    return _resample_frames(moved, horizontal, stretch)


def frames_covered(
    horizontal: Integer[Array, "batch"], stretch: Float[Array, "batch"], *, frames: int
) -> Bool[Array, "batch {frames}"]:
    """Which frames `shift_and_stretch` makes wholly of frames there are; the others are padding,
    in part at least.
    """
    total = sum(weight for _, weight in _frames_read(frames, horizontal, stretch))
    return jnp.asarray(total) > 1.0 - 1e-3


@jax.custom_vjp
def _shift_bins(x: Array, shift: Array) -> Array:
    bins, ones = x.shape[2], (1,) * (x.ndim - 3)
    index = (jnp.arange(bins)[None] - shift[:, None]).reshape(-1, 1, bins, *ones)
    shifted = jnp.take_along_axis(x, jnp.clip(index, 0, bins - 1), axis=2)
    return jnp.where((index >= 0) & (index < bins), shifted, 0.0)


# The transpose of a shift is the shift back; that of a gather would be a scatter.
_shift_bins.defvjp(
    lambda x, shift: (_shift_bins(x, shift), shift),
    lambda shift, cotangent: (_shift_bins(cotangent, -shift), None),
)


@jax.custom_vjp
def _resample_frames(x: Array, shift: Array, stretch: Array) -> Array:
    frames = x.shape[1]
    total = 0.0
    for index, weight in _frames_read(frames, shift, stretch):
        rows = jax.vmap(lambda item, at: item[at])(x, jnp.clip(index, 0, frames - 1))
        total = total + weight.reshape(weight.shape + (1,) * (x.ndim - 2)) * rows
    return jnp.asarray(total)


def _resample_forward(x, shift, stretch):
    return _resample_frames(x, shift, stretch), (shift, stretch)


def _resample_backward(residual, cotangent):
    # As a product with the transposed [frame, frame] matrix: a scatter has no fixed order of
    # additions on a GPU.
    shift, stretch = residual
    frames = cotangent.shape[1]
    matrix = sum(
        weight[..., None] * (index[..., None] == jnp.arange(frames)[None, None])
        for index, weight in _frames_read(frames, shift, stretch)
    )
    flat = cotangent.reshape(*cotangent.shape[:2], -1)
    gradient = jnp.einsum("bnm,bnk->bmk", matrix, flat, precision=jax.lax.Precision.HIGHEST)
    return gradient.reshape(cotangent.shape), None, None


_resample_frames.defvjp(_resample_forward, _resample_backward)


def _frames_read(frames: int, shift: Array, stretch: Array) -> list[tuple[Array, Array]]:
    """The two frames that every new frame is made of, and their weights (0 where a frame lies
    outside): [batch, frame] each.
    """
    stretch, shift = stretch[:, None], shift[:, None]
    length = jnp.floor(frames * stretch).astype(jnp.int32)
    excess = length - frames
    # Halves are rounded towards zero on both sides: a crop starts and a padding ends at the floor.
    place = jnp.arange(frames)[None] + jnp.sign(excess) * (jnp.abs(excess) // 2)
    source = jnp.clip((place + 0.5) / stretch - 0.5, 0.0, frames - 1)
    low = jnp.floor(source).astype(jnp.int32)
    upper = source - low
    inside = (place >= 0) & (place < length)
    read = []
    for stretched, weight in ((low, 1.0 - upper), (jnp.minimum(low + 1, frames - 1), upper)):
        index = stretched - shift
        read.append((index, jnp.where(inside & (index >= 0) & (index < frames), weight, 0.0)))
    return read


# ---- added sound ---------------------------------------------------------------------------------


def draw_volume(keys: Key[Array, "batch"], *, max_volume: float = 1.0) -> Float[Array, "batch"]:
    """Volumes uniform in [0, max_volume); the authors' largest is 1."""
    return max_volume * _uniform(keys, 1)[:, 0]


def mix_percussion(
    audio: Float[Array, "batch time"],
    percussion: Float[Array, "batch time"],
    volume: Float[Array, "batch"],
) -> Float[Array, "batch time"]:
    """x + v p, neither rescaled nor clipped; p has its recording's peak at 1."""
    return audio + volume[:, None] * percussion


def _uniform(keys: Array, count: int) -> Array:
    return jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys)
