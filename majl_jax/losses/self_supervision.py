"""The loss of SS-MPE: labels where there are any, and what must leave the pitches heard as they
are (arXiv 2506.23371).

One pass over the untouched sound gives logits z; every self-supervised term compares them, or what
they should have become, with a second pass over changed sound.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from majl_jax import parallel
from majl_jax.audio import augmentation, harmonic_cqt, mixing, pitch
from majl_jax.batch import Batch
from majl_jax.losses import activity, equivariance, salience_terms, weighting

SECOND_PASSES = ("timbre", "percussion", "geometric")
_SILENT_LOGIT = -20.0
TERMS = (
    "supervised",
    *SECOND_PASSES,
    *("energy", "sparsity", "support", "harmonic", "content", "contrastive", "entropy"),
    *("anchored", "activity", "variance", "strict_positive"),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the self-supervised terms are made; the fields of config.self_supervision."""

    consistency: str = "bce"
    stop_gradient: bool = False
    teacher_decay: float = 0.0
    weight_positives: bool = False
    equalisation: str = "parabolic"
    percussion_volume: float = 1.0
    shift_octaves: float = 1.0
    shift_share: float = 0.25
    stretch: float = 2.0
    mask_padding: bool = False
    """Frames that shifts and stretches bring in from outside an excerpt are not compared."""
    energy_on: str = "unlabelled"
    sounding_rms: float = 0.01
    active_share: float = 0.5
    deviation: float = 0.1
    anchor_gain_db: float = 0.0

    def __post_init__(self) -> None:
        choices = {
            "consistency": ("bce", "divergence", "categorical"),
            "equalisation": ("parabolic", "gaussian"),
            "energy_on": ("unlabelled", "all"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"config.self_supervision.{name} is {getattr(self, name)!r}; expected one of "
                    f"{', '.join(allowed)}"
                )
        if not 0.0 <= self.teacher_decay < 1.0:
            raise ValueError(
                f"config.self_supervision.teacher_decay is {self.teacher_decay}; expected 0 <="
                " decay < 1"
            )


@dataclasses.dataclass(frozen=True)
class _Sound:
    """A batch as the terms need it."""

    audio: Float[Array, "batch time"]
    features: Float[Array, "batch frame bin harmonic"]
    targets: Float[Array, "batch frame bin"]
    is_label: Bool[Array, "batch frame"]
    has_labels: Bool[Array, "batch"]
    sounding: Bool[Array, "batch frame"]


def self_supervised_loss(
    params: Any,
    mutables: Any,
    batch: Batch,
    key: Any,
    *,
    front_end: harmonic_cqt.HarmonicCqt,
    network: Callable[[Any, Array], Array],
    settings: Settings,
    weights: Mapping[str, float],
) -> tuple[Float[Array, ""], tuple[Any, dict[str, Array]]]:
    """L = sum_i w_i L_i over the terms whose weight is not 0; each a sum over bins, a mean over
    frames and items.

    `supervised` is a mean over labelled frames, `energy`, `sparsity` and the terms against blank
    output over unlabelled items, every other term over all items.

    Args:
        params: of the network, trained.
        mutables: what else the step changes: those of a teacher, where there is one.
        batch: sound and its labels.
        key: of the changes to the sound.
        front_end: from sound to features.
        network: (params, features) -> logits.
        settings: how the terms are made.
        weights: w by the names in `TERMS`.
    """
    if unknown := sorted(weights.keys() - set(TERMS)):
        raise ValueError(f"config.weights names {unknown}; the terms are {', '.join(TERMS)}")
    used = {name: weight for name, weight in weights.items() if weight}
    if not used:
        raise ValueError("config.weights: all of them are 0, so there is nothing to learn from")
    keys = dict(zip(TERMS, jax.random.split(key, len(TERMS)), strict=True))
    sound = _listen(batch, front_end, settings)
    changes = {
        name: _change(name, batch, sound, keys[name], front_end, settings)
        for name in SECOND_PASSES
        if name in used
    }
    if "anchored" in used:
        anchored, anchors = _anchored(sound, front_end, settings)
        changes["anchored"] = _Change(anchored, None)
    # One pass over everything: the network is compiled once, not once per change.
    passes = [sound.features, *(change.features for change in changes.values())]
    heard = network(params, jnp.concatenate(passes))
    logits, *others = jnp.split(heard, len(passes))
    passed = dict(zip(changes, others, strict=True))
    target, mutables = _target(params, mutables, sound, logits, network, settings)
    terms = _output_terms(used, sound, logits, front_end, settings)
    for name, change in changes.items():
        if name == "anchored":
            values = activity.positive_bce(passed[name], anchors.targets)
            terms[name] = weighting.masked_mean(values, anchors.counts)
        else:
            values = _distance(passed[name], target, change.move, settings)
            compared = jnp.ones_like(values) if change.compared is None else change.compared
            terms[name] = weighting.masked_mean(values, compared)
    readings = _readings(sound, logits)
    return weighting.weighted_sum(terms, used), (mutables, {**terms, **readings})


def _features(
    audio: Float[Array, "batch time"], front_end: harmonic_cqt.HarmonicCqt
) -> Float[Array, "batch frame bin harmonic"]:
    """What the network hears: decibels below the loudest value of each excerpt, without the frame
    past its end.
    """
    return harmonic_cqt.unit_decibels(front_end.magnitudes(audio)[:, :-1])


def _listen(batch: Batch, front_end: harmonic_cqt.HarmonicCqt, settings: Settings) -> _Sound:
    audio = mixing.mixture(mixing.to_float(batch["stems"])).mean(axis=-1)
    features = _features(audio, front_end)
    is_label = batch["has_pitch"].all(axis=-1)
    rms = harmonic_cqt.frame_rms(audio, hop_samples=front_end.hop_samples)[:, :-1]
    return _Sound(
        audio,
        features,
        pitch.multi_pitch_targets(
            jnp.where(batch["has_pitch"], batch["f0_hz"], 0.0),
            fmin_hz=front_end.fmin_hz,
            bins=front_end.bins,
            bins_per_octave=front_end.bins_per_octave,
        ),
        is_label,
        is_label.any(axis=1),
        rms >= settings.sounding_rms,
    )


# ---- the same pitches in changed sound ----------------------------------------------------------


def _target(
    params: Any,
    mutables: Any,
    sound: _Sound,
    logits: Array,
    network: Callable,
    settings: Settings,
) -> tuple[Array, Any]:
    """Logits that the changed sound has to match, and the teacher after this step, if there is
    one.
    """
    if not settings.teacher_decay:
        return logits, mutables
    teacher, decay = mutables["teacher"], settings.teacher_decay
    moved = jax.tree.map(
        lambda old, new: decay * old + (1.0 - decay) * jax.lax.stop_gradient(new), teacher, params
    )
    return jax.lax.stop_gradient(network(teacher, sound.features)), {**mutables, "teacher": moved}


class _Change(NamedTuple):
    features: Array  # of the changed sound
    move: Callable[[Array], Array] | None  # what happened to its pitches, on [batch, frame, bin]
    compared: Array | None = None  # frames; None: all


def _change(
    name: str,
    batch: Batch,
    sound: _Sound,
    key: Array,
    front_end: harmonic_cqt.HarmonicCqt,
    settings: Settings,
) -> _Change:
    """The sound of a second pass; each example draws from its own key."""
    keys = mixing.example_keys(key, batch["index"])
    axis = {"harmonics": front_end.harmonics, "bins_per_octave": front_end.bins_per_octave}
    match name:
        case "timbre" if settings.equalisation == "parabolic":
            drawn = augmentation.draw_parabolic(keys)
            return _Change(augmentation.parabolic_eq(sound.features, drawn, **axis), None)
        case "timbre":
            drawn = augmentation.draw_gaussian(keys)
            return _Change(augmentation.gaussian_eq(sound.features, drawn, **axis), None)
        case "percussion":
            if "percussion" not in batch:
                raise ValueError(
                    "the percussion term found no drums in the batch; config.data.percussion names"
                    " a data set of them"
                )
            drums = mixing.to_float(batch["percussion"]).mean(axis=-1)
            volume = augmentation.draw_volume(keys, max_volume=settings.percussion_volume)
            mixed = augmentation.mix_percussion(sound.audio, drums, volume)
            return _Change(_features(mixed, front_end), None)
    geometry = augmentation.draw_geometry(
        keys,
        shift_bins=round(settings.shift_octaves * front_end.bins_per_octave),
        shift_frames=int(settings.shift_share * sound.features.shape[1]),
        stretch=settings.stretch,
    )
    move = functools.partial(augmentation.shift_and_stretch, **geometry)
    compared = None
    if settings.mask_padding:
        compared = augmentation.frames_covered(
            geometry["horizontal"], geometry["stretch"], frames=sound.features.shape[1]
        )
    return _Change(move(sound.features), move, compared)


def _distance(
    heard: Array, target: Array, move: Callable[[Array], Array] | None, settings: Settings
) -> Float[Array, "batch frame"]:
    """How far the logits heard in changed sound are from the (moved) output for the untouched
    one.
    """
    move = move or (lambda x: x)
    if settings.consistency == "bce":
        return equivariance.consistency(
            heard, move(jax.nn.sigmoid(target)), stop_gradient=settings.stop_gradient
        )
    # Logits that come in from outside are those of silence.
    moved = move(jnp.maximum(target, _SILENT_LOGIT) - _SILENT_LOGIT) + _SILENT_LOGIT
    if settings.consistency == "divergence":
        fixed = jax.lax.stop_gradient(moved)
        return equivariance.symmetric_divergence(heard, fixed if settings.stop_gradient else moved)
    return equivariance.categorical_consistency(heard, moved, stop_gradient=settings.stop_gradient)


# ---- terms of the output itself -----------------------------------------------------------------


def _output_terms(
    used: Mapping[str, float],
    sound: _Sound,
    z: Float[Array, "batch frame bin"],
    front_end: harmonic_cqt.HarmonicCqt,
    settings: Settings,
) -> dict[str, Array]:
    """Every term that needs no second pass, of the logits z."""
    salience = jax.nn.sigmoid(z)
    everywhere = jnp.ones(z.shape[:2], bool)
    unlabelled = everywhere & ~sound.has_labels[:, None]
    on = unlabelled if settings.energy_on == "unlabelled" else everywhere
    harmonics, mean = front_end.harmonics, weighting.masked_mean
    average = harmonic_cqt.harmonic_average(sound.features, harmonics=harmonics)
    first = sound.features[..., harmonics.index(1)]

    def activity_term() -> Array:
        heard = unlabelled & sound.sounding
        labelled = parallel.across(mean(sound.targets.sum(axis=-1), sound.is_label))
        least = settings.active_share * labelled
        return mean(activity.activity_hinge(salience, least, heard), heard.any(axis=1))

    def strict_positives() -> Array:
        sure = activity.strict_positive_mask(
            average, sound.features, harmonics=harmonics, bins_per_octave=front_end.bins_per_octave
        )
        return mean(activity.positive_bce(z, sure), unlabelled)

    likelihood = (
        salience_terms.positive_weighted_bce if settings.weight_positives else salience_terms.bce
    )
    terms: dict[str, Callable[[], Array]] = {
        "supervised": lambda: mean(likelihood(z, sound.targets), sound.is_label),
        "energy": lambda: mean(salience_terms.energy(z, average), on),
        "sparsity": lambda: mean(salience_terms.sparsity(z), on),
        "support": lambda: mean(salience_terms.support(z, first), everywhere),
        "harmonic": lambda: mean(salience_terms.harmonic(z, average), everywhere),
        "entropy": lambda: mean(salience_terms.entropy(z), everywhere),
        "content": lambda: salience_terms.gated_mean(salience_terms.content(z), sound.sounding),
        "contrastive": lambda: salience_terms.gated_mean(
            salience_terms.contrastive(z), sound.sounding
        ),
        "activity": activity_term,
        "variance": lambda: activity.variance_hinge(
            salience, unlabelled & sound.sounding, minimum_deviation=settings.deviation
        ),
        "strict_positive": strict_positives,
    }
    return {name: make() for name, make in terms.items() if name in used}


class _Anchors(NamedTuple):
    targets: Float[Array, "batch frame bin"]  # pitches that were mixed in
    counts: Bool[Array, "batch frame"]


def _anchored(
    sound: _Sound, front_end: harmonic_cqt.HarmonicCqt, settings: Settings
) -> tuple[Float[Array, "batch frame bin harmonic"], _Anchors]:
    """Labelled sound mixed into unlabelled: the pitches of the first must be heard, of the rest
    nothing is said.
    """
    # The labelled items first, then partners in their order, round and round.
    order = jnp.argsort(~sound.has_labels)
    partner = order[jnp.arange(len(order)) % jnp.maximum(sound.has_labels.sum(), 1)]
    gain = 10.0 ** (settings.anchor_gain_db / 20.0)
    features = _features(sound.audio + gain * sound.audio[partner], front_end)
    counts = ~sound.has_labels[:, None] & sound.is_label[partner]
    return features, _Anchors(sound.targets[partner], counts)


def _readings(sound: _Sound, logits: Array) -> dict[str, Array]:
    """Activity of labelled and unlabelled items: the first thing to fall where output goes blank;
    NaN where there are none.
    """
    mass = jax.lax.stop_gradient(jax.nn.sigmoid(logits)).sum(axis=-1).mean(axis=1)
    found = {}
    for name, items in (("labelled", sound.has_labels), ("unlabelled", ~sound.has_labels)):
        count = parallel.across(items.sum().astype(jnp.float32))
        found[f"activation_{name}"] = jnp.where(
            count > 0, weighting.masked_mean(mass, items), jnp.nan
        )
    return found
