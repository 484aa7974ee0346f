"""Jukebox: a VQ-VAE learns to write a stem, a second encoder to read its latents out of the
mixture (arXiv 2111.14200).

*music* learns a VQ-VAE on other people's music, as OpenAI did; *vqvae* goes on with one stem;
*encoder* learns to give for the mixture what the first encoder gives for the stem
(losses/vqvae.py). Separated: the second encoder, the nearest rows of the codebook, the first
decoder. A run is of one stem.

What the paper leaves open is a field of configs/jukebox.py and listed under Deviations in
experiments/jukebox/README.md.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float

from majl_jax import console, parallel, weights
from majl_jax.audio import int16, mixing
from majl_jax.batch import Variables
from majl_jax.datasets import records
from majl_jax.datasets.input import reader
from majl_jax.datasets.input.schedule import Batches
from majl_jax.datasets.input.sources import Source, mixture_sources, target_first
from majl_jax.evaluation.examples import ForReport
from majl_jax.evaluation.rows import means
from majl_jax.evaluation.stems import score_stems
from majl_jax.evaluation.target import Target, score_tracks
from majl_jax.inference.segments import Segmenting, SegmentModel
from majl_jax.losses import reconstruction
from majl_jax.losses import vqvae as losses
from majl_jax.models.layers import vector_quantizer
from majl_jax.models.vqvae import Decoder, Encoder, VqVaeSizes, context_samples, hop
from majl_jax.recipes import warm_start
from majl_jax.recipes.inputs import check_sources, device_share
from majl_jax.recipes.labels import require
from majl_jax.recipes.ranges import check_ranges
from majl_jax.training import dry_run, optimizer, schedules
from majl_jax.training.stage import Stage, chosen

STAGES = ("music", "vqvae", "encoder")
GRID = ("sample_rate_hz", "hop_samples", "channels", "segment_samples")
UPDATES = ("ema", "frozen")
INITIAL = ("random", "pretrained", "stem")
BANDWIDTH_EXCERPTS = 64


# ---- from the config to functions ---------------------------------------------------------------


def build(config: Any) -> tuple[VqVaeSizes, Encoder, Decoder]:
    """The network of all stages."""
    network = config.network
    sizes = VqVaeSizes(
        width=network.width,
        depth=network.depth,
        multiplier=1,
        downs=tuple(network.halvings),
        strides=(2,) * len(network.halvings),
        latent=network.latent,
    )
    how = {"remat": network.remat, "dtype": jnp.dtype(network.dtype)}
    return sizes, Encoder(sizes, **how), Decoder(sizes, **how)


def segment_model(config: Any) -> SegmentModel:
    """What `majl_jax.separate` applies to a song: the stem of the run, by the last stage's
    encoder.
    """
    sizes, *networks = build(config)
    encoder, decoder = (network.clone(remat="none") for network in networks)  # no backward pass
    stage, step = config.run[-1], hop(sizes)

    def apply(variables: Variables, audio: jax.Array) -> dict[str, jax.Array]:
        heard = variables.get("averaged", variables["params"])
        latents: Any = encoder.apply({"params": heard["encoder"]}, audio)
        writer = variables["stem"] if stage == "encoder" else heard
        codes, _ = vector_quantizer.nearest_codes(latents, variables["codebook"]["vectors"])
        rows = vector_quantizer.look_up(variables["codebook"]["vectors"], codes)
        made: Any = decoder.apply({"params": writer["decoder"]}, rows)
        return {"stems": made[:, :, None]}

    context = -(-context_samples(sizes) // step) * step
    return SegmentModel(
        apply,
        sample_rate_hz=config.data.sample_rate_hz,
        segment_samples=config.evaluation.segment_samples,
        hop_samples=step,
        stems=(config.data.stem,) if stage == "encoder" else ("coded",),
        context_samples=context if config.evaluation.exact else 0,
    )


# ---- from the config to stages ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Setting:
    """A stage of a run, as the config and its data describe it."""

    config: Any
    name: str
    encoder: Encoder
    decoder: Decoder
    folder: epath.Path
    target: int  # which of the data's stems; -1: their sum
    settings: losses.Settings

    @property
    def options(self) -> Any:
        return self.config.stages[self.name]

    @functools.cached_property  # one object: it is compiled once
    def model(self) -> SegmentModel:
        config = self.config.copy_and_resolve_references()
        config.run = (self.name,)
        return segment_model(config)


def stages(config: Any, workdir: pathlib.Path) -> tuple[Stage, ...]:
    """The stages that `config.run` names, in its order."""
    del workdir
    check_ranges(config)
    _check(config)
    reader.named(config.data.reader, fields="config.data.")
    shares = {
        name: device_share(f"config.stages.{name}.batch_size", config.stages[name].batch_size)
        for name in config.run
    }
    found = []
    for name, share in shares.items():
        setting = _open(config, name)
        check_sources(_sources(setting), reader=config.data.reader)
        stage = _stage(setting)
        dry_run.trace_loss(stage, _batch_shapes(setting, share))
        found.append(stage)
    return tuple(found)


def _check(config: Any) -> None:
    start, follows = config.stages.vqvae.start, {"encoder": "vqvae"}
    run = chosen(config.run, STAGES, field="config.run", follows=follows, in_order=True)
    for field, value, known in (
        ("codebook_update", config.codebook_update, UPDATES),
        ("stages.encoder.init", config.stages.encoder.init, INITIAL),
        ("stages.encoder.loss", config.stages.encoder.loss, losses.LATENT_LOSSES),
    ):
        if value not in known:
            raise ValueError(f"config.{field} is {value!r}; expected one of {', '.join(known)}")
    warm_start.check_all(config)
    if start and "music" in run:
        raise ValueError(
            f"config.run is {run} and config.stages.vqvae.start names {start}: vqvae starts from"
            " one of both; leave music out"
        )
    pretrained = start or "music" in run
    if config.codebook_update == "frozen" and run[0] == "vqvae" and not start:
        raise ValueError(
            "config.codebook_update is frozen and nothing fills the codebook: the decoder would"
            " hear the same row for all music; set config.stages.vqvae.start, let music run first,"
            " or take ema"
        )
    if "encoder" in run and config.stages.encoder.init == "pretrained" and not pretrained:
        raise ValueError(
            "config.stages.encoder.init is pretrained: set config.stages.vqvae.start, or let music"
            " run first"
        )
    sizes, _, _ = build(config)
    for part in (config.data, config.evaluation):
        if part.segment_samples % hop(sizes):
            raise ValueError(
                f"segment_samples is {part.segment_samples}; expected a multiple of {hop(sizes)},"
                " the samples of a latent"
            )
    if config.evaluation.exact and config.evaluation.segment_samples <= 2 * context_samples(sizes):
        raise ValueError(
            f"config.evaluation.segment_samples is {config.evaluation.segment_samples}; an output"
            f" depends on {context_samples(sizes)} samples at either side: take more than twice as"
            " many, or config.evaluation.exact=False"
        )


def data_sets(config: Any) -> list[str]:
    """The sets that the stages of a run learn from."""
    return list(dict.fromkeys(_data_set(config, name) for name in config.run))


def _data_set(config: Any, stage: str) -> str:
    return config.data.music if stage == "music" else config.data.labelled


def _open(config: Any, name: str) -> _Setting:
    data = config.data
    folder = epath.Path(data.directory) / _data_set(config, name)
    grid = {field: data[field] for field in GRID}
    prepared = reader.open_set(folder, **grid, fields="config.data.")
    layout = prepared.layout
    if name != "music" and data.stem not in layout.stems:
        raise ValueError(
            f"{folder} has the stems {', '.join(layout.stems)}; config.data.stem is {data.stem!r}"
        )
    target = -1 if name == "music" else layout.stems.index(data.stem)
    for split in ("train", "valid", "test"):
        require(prepared, split, {})
    if name != "music":
        _refuse_unknown_stems(prepared)
    _, encoder, decoder = build(config)
    bandwidth = reconstruction.NO_BANDWIDTH
    if name != "encoder":
        bandwidth = _bandwidth(config, prepared, target)
    wanted = {field: config.losses[field] for field in ("l2", "linf", "top", "spectral", "commit")}
    settings = losses.Settings(
        bandwidth,
        **wanted,
        resolutions=tuple(
            reconstruction.Resolution(fft, step, window)
            for window, step, fft in config.losses.resolutions
        ),
        decay=config.codebook.decay,
        restart_below=config.codebook.restart_below,
        # `music` always learns its codebook: there is no other.
        frozen=config.codebook_update == "frozen" and name != "music",
        average_decay=config.optimizer.average_decay,
    )
    return _Setting(config, name, encoder, decoder, folder, target, settings)


def _refuse_unknown_stems(prepared: records.Prepared) -> None:
    """The codebook follows all that a batch holds: there must be no song whose mixture stands in a
    stem's place.
    """
    unknown, _ = _unknown_stems(prepared, "train")
    if unknown:
        raise ValueError(
            f"{prepared.directory}: the stems of {unknown[0]} are not known;"
            " config.data.labelled needs those of all songs"
        )
    unknown, count = _unknown_stems(prepared, "valid")
    if len(unknown) == count:
        raise ValueError(
            f"{prepared.directory}: the stems of no song of its validation are known: there is"
            " nothing to choose the best step by"
        )


def _unknown_stems(prepared: records.Prepared, split: str) -> tuple[list[str], int]:
    """The songs whose stems are not known, and how many songs there are."""
    # Of a song all records know the same stems: the index tells the first of each.
    _, firsts = np.unique(prepared.split(split).track, return_index=True)
    songs = [records.read_record(prepared, split, number) for number in firsts.tolist()]
    return [song["track"] for song in songs if not song["has_stems"].all()], len(songs)


def _some_records(prepared: records.Prepared) -> list[int]:
    """Numbers of training records, evenly over the set."""
    count = len(prepared.split("train").valid_samples)
    return np.unique(np.linspace(0, count - 1, BANDWIDTH_EXCERPTS).astype(int)).tolist()


def _bandwidth(config: Any, prepared: records.Prepared, target: int) -> reconstruction.Bandwidth:
    """What the errors are divided by: of the config, or else estimated from excerpts of the
    training set.
    """
    given = config.losses
    if given.variance and given.spectral_norm:
        return reconstruction.Bandwidth(1.0, given.variance, given.spectral_norm)
    numbers = _some_records(prepared)

    def excerpts() -> Iterator[np.ndarray]:
        for number in numbers:
            stems = records.read_record(prepared, "train", number)["stems"]
            part = int16.to_float(stems[: config.data.segment_samples])
            yield part.sum(axis=1) if target < 0 else part[:, target]

    found = reconstruction.estimate_bandwidth(excerpts())
    console.say(
        f"{prepared.directory}: variance {found.l2:.4g}, spectral norm {found.spectral:.4g} of"
        f" {len(numbers)} excerpts"
    )
    return reconstruction.Bandwidth(
        found.l1, given.variance or found.l2, given.spectral_norm or found.spectral
    )


def _stage(setting: _Setting) -> Stage:
    config, options = setting.config, setting.options
    score = "sdr_db" if setting.name == "encoder" else "usdr_db"
    return Stage(
        name=setting.name,
        init=functools.partial(_init, setting),
        batches=lambda previous: _batches(setting),
        loss=functools.partial(_loss, setting, axis=parallel.AXIS),
        evaluate=functools.partial(_score, setting, "valid", None),
        test=lambda variables, folder: _score(setting, "test", folder, variables),
        optimizer=optimizer.optimizer(
            schedules.linear_warmup(
                options.learning_rate, warmup_steps=config.optimizer.warmup_steps
            ),
            clip_norm=config.optimizer.clip_norm,
        ),
        steps=options.steps,
        best=score if config.evaluation.select_best else None,
    )


def _init(setting: _Setting, key: Any, previous: Variables | None) -> Variables:
    """What a stage starts from: see STAGES, their `start` and `init` of encoder."""
    config, name = setting.config, setting.name
    if name == "encoder":  # the stages share a key: else it would begin where the first one did
        key = jax.random.fold_in(key, 1)
    sizes, keys = setting.encoder.sizes, jax.random.split(key)
    encoder = parallel.runs_once(setting.encoder.init)
    decoder = parallel.runs_once(setting.decoder.init)
    fresh = {
        "encoder": encoder(keys[0], jnp.zeros((1, hop(sizes), 1)))["params"],
        "decoder": decoder(keys[1], jnp.zeros((1, 1, sizes.latent)))["params"],
    }
    if name == "encoder":
        return _second_encoder(setting, fresh["encoder"], previous)
    codebook = vector_quantizer.empty(config.codebook.codes, sizes.latent)._asdict()
    params, start = fresh, setting.options.start
    if start:
        loaded = _whole(warm_start.load(start))
        wanted = {"params": fresh, "codebook": {"vectors": codebook["vectors"]}}
        weights.check_shapes(loaded, wanted, where=start)
        params = loaded["params"]
        tokens = config.data.segment_samples // hop(sizes)
        vectors = jnp.asarray(loaded["codebook"]["vectors"])
        codebook = vector_quantizer.restore(
            vectors, tokens_per_item=tokens, items=setting.options.batch_size
        )._asdict()
    elif name == "vqvae" and previous is not None:
        params, codebook = _trained(previous), previous["codebook"]
    variables = {"params": params, "codebook": codebook}
    if config.optimizer.average_decay:
        variables["averaged"] = params
    if name == "vqvae" and config.stages.encoder.init == "pretrained":
        variables["pretrained"] = {"encoder": params["encoder"]}
    # Copies: the step gives away its arguments' memory.
    return jax.tree.map(jnp.array, variables)


def _second_encoder(setting: _Setting, fresh: Any, previous: Variables | None) -> Variables:
    config = setting.config
    if previous is None:  # to know its shapes
        blank = setting.decoder.init(
            jax.random.key(0), jnp.zeros((1, 1, setting.encoder.sizes.latent))
        )
        stem = {"encoder": fresh, "decoder": blank["params"]}
        codebook = vector_quantizer.empty(
            config.codebook.codes, setting.encoder.sizes.latent
        )._asdict()
        params = {"encoder": fresh}
    elif config.stages.encoder.init == "pretrained" and "pretrained" not in previous:
        raise ValueError(
            "config.stages.encoder.init is 'pretrained', but the vqvae in this folder was trained"
            " without it and did not keep what it started from: give another --workdir"
        )
    else:
        stem, codebook = _trained(previous), previous["codebook"]
        params = {
            "random": lambda: {"encoder": fresh},
            "stem": lambda: {"encoder": stem["encoder"]},
            "pretrained": lambda: {"encoder": previous["pretrained"]["encoder"]},
        }[config.stages.encoder.init]()
    params = warm_start.started(
        {"params": params}, setting.options.start, field="config.stages.encoder.start"
    )["params"]
    variables = {"params": params, "stem": stem, "codebook": codebook}
    if config.optimizer.average_decay:
        variables["averaged"] = params
    return jax.tree.map(jnp.array, variables)


def _whole(loaded: Variables) -> Variables:
    """Of a file of weights or a run: both networks and the rows of the codebook."""
    found = {"params": loaded["params"]}
    if "codebook" in loaded:
        found["codebook"] = {"vectors": loaded["codebook"]["vectors"]}
    return found


def _trained(variables: Variables) -> Any:
    """The moving average of the parameters where there is one."""
    return variables.get("averaged", variables["params"])


# ---- input and loss -----------------------------------------------------------------------------


def _sources(setting: _Setting) -> list[Source]:
    if setting.target < 0:
        return mixture_sources({setting.folder: 1.0}, "train")
    layout, stem = records.open_prepared(setting.folder).layout, setting.config.data.stem
    places = target_first(layout, (stem,), len(layout.stems), data_set=setting.folder)
    return [Source(setting.folder, "train", 1.0, places, layout.pitch_voices)]


def _batches(setting: _Setting) -> Batches:
    config = setting.config
    return reader.open_batches(
        _sources(setting),
        reader=config.data.reader,
        batch_size=setting.options.batch_size,
        segment_samples=config.data.segment_samples,
        seed=config.seed,
        fields="config.data.",
    )


def _loss(
    setting: _Setting, params: Any, mutables: Any, batch: Any, key: Any, *, axis: str | None
) -> Any:
    """The loss of a device's share of a batch; the codebook follows all devices of `axis`."""
    stems, config = mixing.to_float(batch["stems"]), setting.config
    blend_key, other_key, code_key = (jax.random.fold_in(key, number) for number in range(3))
    keys = mixing.example_keys(blend_key, batch["index"])
    mixture = mono(stems.sum(axis=2), keys)
    if setting.name == "encoder":
        if not config.data.shared_blend:
            keys = mixing.example_keys(other_key, batch["index"])
        return losses.latent_loss(
            params,
            mutables,
            mixture,
            mono(stems[:, :, 0], keys),
            batch["has_stems"].all(axis=1).astype(jnp.float32),
            encoder=setting.encoder,
            loss=setting.options.loss,
            settings=setting.settings,
        )
    known = jnp.ones(len(stems)) if setting.target < 0 else batch["has_stems"].all(axis=1)
    return losses.autoencoder_loss(
        params,
        mutables,
        mixture if setting.target < 0 else mono(stems[:, :, 0], keys),
        known.astype(jnp.float32),
        code_key,
        encoder=setting.encoder,
        decoder=setting.decoder,
        settings=dataclasses.replace(setting.settings, axis=axis),
    )


def mono(audio: Float[Array, "batch time channel"], keys: Any) -> Float[Array, "batch time 1"]:
    """m L + (1 - m) R with m from U(0, 1) for each example; mono stays as it is."""
    if audio.shape[2] == 1:
        return audio
    share = jax.vmap(lambda key: jax.random.uniform(key))(keys)[:, None, None]
    return share * audio[:, :, :1] + (1.0 - share) * audio[:, :, 1:2]


def _batch_shapes(setting: _Setting, examples: int) -> dry_run.Shapes:
    layout = records.open_prepared(setting.folder).layout
    return dry_run.batch_shapes(
        examples=examples,
        segment_samples=setting.config.data.segment_samples,
        hop_samples=layout.hop_samples,
        stems=len(layout.stems),
        voices=layout.pitch_voices,
        channels=layout.channels,
    )


# ---- evaluation ---------------------------------------------------------------------------------


def _score(
    setting: _Setting, split: str, folder: pathlib.Path | None, variables: Variables
) -> dict[str, float]:
    """How well the stem comes out of the mixture, or before that, out of the codebook."""
    config = setting.config
    songs = itertools.islice(
        records.read_tracks(setting.folder, split), config.evaluation[f"{split}_tracks"] or None
    )
    options: dict[str, Any] = {
        "system": setting.name,
        "segmenting": Segmenting(overlap=0.0, batch_size=config.evaluation.batch_size),
        "report": ForReport(folder, config.evaluation.examples),
        "progress": f"{setting.name}: {split}" if folder is not None else None,
    }
    if setting.name == "encoder":
        target = Target(setting.target)
        found = score_tracks(setting.model, variables, songs, target=target, **options)
        return means(found) | {k: v for k, v in found.items() if k.endswith("_median")}
    if setting.target < 0:
        songs = (
            {
                **song,
                "stems": song["stems"].sum(1, keepdims=True, dtype=np.int32),
                "has_stems": np.ones(1, bool),  # the mixture is, whatever stems it has
            }
            for song in songs
        )
    column = max(setting.target, 0)
    return score_stems(setting.model, variables, songs, columns=[column], **options)
