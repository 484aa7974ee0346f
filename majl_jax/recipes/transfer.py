"""Transfer: deep clustering on many songs, then masks for a task with few (Bugler, Pardo &
Seetharaman, arXiv 2010.12650).

Mixture -> BLSTM -> an embedding per point of the STFT, and a mask per source: a Chimera network.
*pretrain* learns the embedding from a large set by deep clustering (losses/clustering.py);
*finetune* takes the trunk and the embedding over, gets a new mask layer for its own sources, and
learns either all of it (`trained = "whole"`) or the mask layer alone ("mask"). *scratch* learns
the same task from nothing, in as many steps as both together.

What the paper leaves open is a field of configs/transfer.py and listed under Deviations in
experiments/transfer/README.md.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jaxtyping import Array, Bool, Float

from majl_jax import parallel
from majl_jax.audio import mixing, stretching
from majl_jax.audio.mixing import group, incoherent
from majl_jax.batch import Variables
from majl_jax.datasets import records, stem_groups
from majl_jax.datasets.input import reader
from majl_jax.datasets.input.schedule import Batches
from majl_jax.datasets.input.sources import Source, group_sources
from majl_jax.evaluation.excerpt_scores import Evaluator
from majl_jax.inference.chimera import Separator
from majl_jax.inference.segments import SegmentModel
from majl_jax.losses import chimera as losses
from majl_jax.models.chimera import Chimera
from majl_jax.recipes import warm_start
from majl_jax.recipes.inputs import check_sources, device_share
from majl_jax.recipes.labels import STEMS, require
from majl_jax.recipes.ranges import check_ranges
from majl_jax.training import dry_run, optimizer, parameters, schedules
from majl_jax.training.stage import Stage, chosen

MASK_LAYER = "params/mask/.*"
STAGES = ("pretrain", "finetune", "scratch")
AUGMENTATIONS = ("none", "pitch", "stretch")
MIXINGS = ("coherent", "incoherent")
GRID = ("sample_rate_hz", "hop_samples", "segment_samples")
JUDGED = (  # fields of config.evaluation
    "valid_excerpts",
    "test_excerpts",
    "clustering_excerpts",
    "batch_size",
    "threshold_db",
    "examples",
)


# ---- from the config to functions ---------------------------------------------------------------


def build(config: Any, stage: str) -> Chimera:
    """The network of a stage; the one that is pre-trained has no masks."""
    sources = len(_sources(config, stage))
    fields = {**config.network.to_dict(), "dtype": jnp.dtype(config.network.dtype)}
    return Chimera(
        frequency_bins=config.window_samples // 2 + 1,
        sources=None if stage == "pretrain" else sources,
        **fields,
    )


def _sources(config: Any, stage: str) -> tuple[str, ...]:
    groups = stem_groups.parse(config.stages[stage].data)
    return tuple(next(iter(groups.values())))


def data_sets(config: Any) -> list[str]:
    """The sets that the stages of a run learn from."""
    found = [stem_groups.parse(config.stages[name].data) for name in config.run]
    return list(dict.fromkeys(data_set for groups in found for data_set in groups))


def separator(config: Any, network: Chimera) -> Separator:
    """The network with the grid of the config."""
    grid = {name: config.data[name] for name in GRID}
    return Separator(network, config.window_samples, **grid)


def segment_model(config: Any) -> SegmentModel:
    """What `majl_jax.separate` applies to a song: the masks of the last stage, or clusters if that
    is pretrain.
    """
    stage = config.run[-1]
    sources, heard = _sources(config, stage), separator(config, build(config, stage))
    return heard.cluster_model(len(sources)) if stage == "pretrain" else heard.mask_model(sources)


# ---- from the config to stages ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Setting:
    """A stage of a run, as the config and its data describe it."""

    config: Any
    name: str
    network: Chimera
    data: list[Source]
    places: stem_groups.Places

    @property
    def options(self) -> Any:
        return self.config.stages[self.name]

    @property
    def mask_only(self) -> bool:
        return self.name != "pretrain" and self.options.trained == "mask"


def stages(config: Any, workdir: pathlib.Path) -> tuple[Stage, ...]:
    """The stages that `config.run` names, in its order."""
    del workdir
    check_ranges(config)
    reader.named(config.data.reader, fields="config.data.")
    follows = {} if config.stages.finetune.start else {"finetune": "pretrain"}
    run = chosen(config.run, STAGES, field="config.run", follows=follows)
    warm_start.check_all(config)
    shares = {name: _device_share(config, name) for name in run}
    found = []
    for name, share in shares.items():
        setting = _open(config, name)
        stage = _stage(setting)
        dry_run.trace_loss(stage, _batch_shapes(setting, share))
        found.append(stage)
    return tuple(found)


def _device_share(config: Any, name: str) -> int:
    """How many examples of a stage's batch a device gets: incoherent mixing is among them."""
    options, field = config.stages[name], f"config.stages.{name}"
    if options.mixing != "incoherent":
        return device_share(f"{field}.batch_size", options.batch_size)
    sources = len(_sources(config, name))
    return device_share(
        f"{field}.batch_size",
        options.batch_size,
        least=sources,
        because=f"{field}.mixing is incoherent: the {sources} sources of a mixture come from as"
        " many examples of a device",
    )


def _open(config: Any, name: str) -> _Setting:
    options = config.stages[name]
    for field, known in (("augmentation", AUGMENTATIONS), ("mixing", MIXINGS)):
        if options[field] not in known:
            raise ValueError(
                f"config.stages.{name}.{field} is {options[field]!r}; expected one of"
                f" {', '.join(known)}"
            )
    if name != "pretrain" and options.trained not in ("whole", "mask"):
        raise ValueError(
            f"config.stages.{name}.trained is {options.trained!r}; expected whole or mask"
        )
    if config.frozen_trunk not in ("eval", "train"):
        raise ValueError(f"config.frozen_trunk is {config.frozen_trunk!r}; expected eval or train")
    used = losses.used_terms(options.weights.to_dict())
    if (name == "pretrain") == ("mask_inference" in used) or (
        name != "pretrain" and options.trained == "mask" and len(used) > 1
    ):
        raise ValueError(
            f"config.stages.{name}.weights has the terms {', '.join(used)}: pretrain has no masks,"
            " a mask layer that is trained alone (trained = mask) has mask_inference alone, and"
            " the other stages need it"
        )
    groups = stem_groups.parse(options.data)
    folders = {data_set: epath.Path(config.data.directory) / data_set for data_set in groups}
    for folder in folders.values():
        prepared = reader.open_set(
            folder,
            sample_rate_hz=config.data.sample_rate_hz,
            hop_samples=config.data.hop_samples,
            segment_samples=_excerpt_samples(config, name),
            fields="config.data.",
        )
        for split in ("train", "valid", "test"):
            require(prepared, split, {f"stage {name} (config.stages.{name}.data)": STEMS})
    data, places = group_sources(folders, groups, "train")
    check_sources(data, reader=config.data.reader)
    return _Setting(config, name, build(config, name), data, places)


def _stage(setting: _Setting) -> Stage:
    config, name, options = setting.config, setting.name, setting.options
    evaluator = _evaluator(setting)
    head = (("mask/.*", True), (".*", False)) if setting.mask_only else ((".*", True),)
    return Stage(
        name=name,
        init=functools.partial(_init, setting),
        batches=lambda previous: _batches(setting),
        loss=functools.partial(_loss, setting, axis=parallel.AXIS),
        evaluate=evaluator.validate,
        test=evaluator.test,
        optimizer=optimizer.optimizer(
            options.learning_rate,
            auto_clip=optimizer.AutoClip(
                config.optimizer.clip_percentile, config.optimizer.clip_history_steps
            ),
            plateau=True,
        ),
        steps=options.steps,
        trainable=head,
        plateau=schedules.Plateau(
            "loss",
            factor=config.optimizer.plateau_factor,
            patience=config.optimizer.plateau_patience,
        ),
        best="minus_loss" if config.evaluation.select_best else None,
    )


def _init(setting: _Setting, key: Any, previous: Variables | None) -> Variables:
    """Fresh variables, or those that its `start` names; in `finetune` all but the mask layer are
    those of the stage before.
    """
    shape = (1, 2, setting.network.frequency_bins)
    fresh = parallel.runs_once(functools.partial(setting.network.init, train=False))(
        key, jnp.zeros(shape)
    )
    if setting.name == "finetune" and previous is not None:
        rules = ((MASK_LAYER, None), ("(.*)", r"\1"))
        fresh = parameters.partial_restore(fresh, previous, rules)
    return warm_start.started(
        fresh,
        setting.options.start,
        field=f"config.stages.{setting.name}.start",
        anew=MASK_LAYER if setting.name == "finetune" else "",
    )


def _batches(setting: _Setting) -> Batches:
    return reader.open_batches(
        setting.data,
        reader=setting.config.data.reader,
        batch_size=setting.options.batch_size,
        segment_samples=_excerpt_samples(setting.config, setting.name),
        seed=setting.config.seed,
        fields="config.data.",
    )


def _excerpt_samples(config: Any, name: str) -> int:
    """Whole hops; sound that is sped up needs more of it."""
    samples, hop = config.data.segment_samples, config.data.hop_samples
    if config.stages[name].augmentation == "stretch":
        samples = stretching.needed_samples(samples, max(config.augmentation.rates))
    return -(-samples // hop) * hop


def _loss(
    setting: _Setting, params: Any, mutables: Any, batch: Any, key: Any, *, axis: str | None
) -> Any:
    """The loss of a device's share of a batch; the statistics of the network are those of all
    devices of `axis`.
    """
    config = setting.config
    mix_key, dropout_key = jax.random.split(key)
    # The first example's number tells the devices apart, so that they drop different units.
    dropout_key = jax.random.fold_in(dropout_key, batch["index"][0])
    sources, known = _mix(setting, batch, mix_key)
    return losses.chimera_loss(
        params,
        mutables,
        sources,
        known,
        dropout_key,
        network=setting.network.clone(statistics_axis=axis),
        settings=losses.Settings(
            spectrum=separator(config, setting.network).spectrum,
            weights=setting.options.weights.to_dict(),
            chunk_frames=config.chunk_frames,
        ),
        train=not (setting.mask_only and config.frozen_trunk == "eval"),
    )


def _mix(
    setting: _Setting, batch: Any, key: Any
) -> tuple[Float[Array, "batch time source"], Bool[Array, "batch"]]:
    """The sources of a batch, mixed and changed as the stage wants, and where all of them are
    known.
    """
    options, config = setting.options, setting.config
    stems = mixing.to_float(batch["stems"])
    used = stems.shape[2] - setting.places.left_out
    sources = group(stems[:, :, :used], setting.places.members).mean(axis=-1, keepdims=True)
    known = batch["has_stems"].all(axis=1)
    if options.mixing == "incoherent":
        sources = incoherent(sources, jax.random.fold_in(key, 0), known)
        known = jnp.broadcast_to(known.any(), known.shape)  # all are made of those that are
    sources = sources[..., 0]
    if options.augmentation == "none":
        return sources, known
    count, samples = sources.shape[2], config.data.segment_samples
    keys = mixing.example_keys(jax.random.fold_in(key, 1), batch["index"])
    if options.mixing == "incoherent":
        keys = jax.vmap(lambda one: jax.random.split(one, count))(keys).reshape(-1)
    else:  # one draw for all sources of a song
        keys = jnp.repeat(keys, count)
    flat = jnp.moveaxis(sources, 2, 1).reshape(-1, sources.shape[1])
    if options.augmentation == "pitch":
        most = config.augmentation.semitones
        draws = stretching.draw_semitones(keys, -most, most)
        flat = stretching.pitch_shift(flat, draws, max_semitones=most)
    else:
        draws = stretching.draw_rates(keys, *config.augmentation.rates)
        flat = stretching.time_stretch(flat, draws, samples=samples)
    changed = flat.reshape(len(sources), count, -1)[..., :samples]
    return jnp.moveaxis(changed, 1, 2), known


def _evaluator(setting: _Setting) -> Evaluator:
    config, network = setting.config, setting.network
    heard = separator(config, network)
    folder = epath.Path(config.data.directory)
    groups = stem_groups.parse(setting.options.data)
    used = losses.used_terms(setting.options.weights.to_dict())
    term = next(iter(used)) if setting.name == "pretrain" else "mask_inference"

    def loss(variables: Variables, sources: Array) -> Array:
        magnitudes, mixture = losses.magnitudes_of(sources, heard.spectrum)
        hidden: Any = network.apply(variables, mixture, train=False, method=network.trunk)
        terms = losses.terms_of_hidden(
            variables["params"],
            hidden,
            magnitudes,
            mixture,
            network=network,
            used={term: 1.0},
            chunk_frames=config.chunk_frames,
        )
        return terms[term]

    return Evaluator(
        setting.name,
        {folder / data_set: of_set for data_set, of_set in groups.items()},
        loss=loss,
        estimate=None if setting.name == "pretrain" else heard.by_masks,
        embed=heard.embed,
        inverse=heard.inverse,
        samples=config.data.segment_samples,
        sample_rate_hz=config.data.sample_rate_hz,
        coherent=config.evaluation.mixing == "coherent",
        **{name: config.evaluation[name] for name in JUDGED},
    )


def _batch_shapes(setting: _Setting, examples: int) -> dry_run.Shapes:
    layout = records.open_prepared(setting.data[0].directory).layout
    return dry_run.batch_shapes(
        examples=examples,
        segment_samples=_excerpt_samples(setting.config, setting.name),
        hop_samples=layout.hop_samples,
        stems=len(setting.data[0].stems or ()),
        voices=layout.pitch_voices,
        channels=layout.channels,
    )
