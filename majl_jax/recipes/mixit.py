"""MixIT: a network learns to separate from mixtures alone, then from few songs with stems (Saijo &
Bando, arXiv 2505.07631).

A band-split TF-Locoformer hears the sum of two mixtures and gives N outputs. *pretrain* puts each
output to one of the two and holds the sums against them (losses/mixit.py); *supervised* takes the
outputs that are most like the stems (output_assignment.py) and all else over, and learns from
stems, mixed anew at every step; *scratch* learns the same from fresh parameters.

What the paper leaves open is a field of configs/mixit.py and listed under Deviations in
experiments/mixit/README.md.
"""

import dataclasses
import functools
import json
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Bool, Float

from majl_jax import atomic, console, formats, parallel, weights
from majl_jax.audio import int16, mixing
from majl_jax.audio.mixing import dynamic_mixing, group, mixtures_of_mixtures
from majl_jax.batch import Variables
from majl_jax.datasets import records, stem_groups
from majl_jax.datasets.input import reader
from majl_jax.datasets.input.schedule import Batches
from majl_jax.datasets.input.sources import Source, group_sources, mixture_sources
from majl_jax.evaluation import output_assignment
from majl_jax.evaluation.examples import ForReport
from majl_jax.evaluation.stems import score_stems
from majl_jax.inference.band_split import Separator
from majl_jax.inference.segments import Segmenting, SegmentModel
from majl_jax.losses import mixit as losses
from majl_jax.losses import weighting
from majl_jax.models.band_split import BandSplitLocoformer, select_outputs
from majl_jax.models.layers import attention
from majl_jax.recipes import warm_start
from majl_jax.recipes.inputs import check_sources, device_share
from majl_jax.recipes.labels import STEMS, require
from majl_jax.recipes.ranges import check_ranges
from majl_jax.training import dry_run, optimizer, parameters, schedules
from majl_jax.training.stage import Stage, chosen

STAGES = ("pretrain", "supervised", "scratch")
MIXINGS = ("dynamic", "none")
GRID = ("sample_rate_hz", "hop_samples", "channels", "segment_samples")
VALIDATION_SEED = 1  # of its crops and pairs, whatever the seed of the training
HEADS_FILE = "heads.json"


# ---- from the config to functions ---------------------------------------------------------------


def stems_of(config: Any) -> tuple[str, ...]:
    """The stems that the labelled data sets have in common, in alphabetical order."""
    return tuple(next(iter(stem_groups.parse(config.data.labelled).values())))


def build(config: Any, stage: str) -> BandSplitLocoformer:
    """The network of a stage: `outputs` of them in pretrain, else one per stem."""
    fields = config.network.to_dict()
    fields |= {"dtype": jnp.dtype(fields["dtype"]), "bands": tuple(fields["bands"])}
    count = fields.pop("outputs")
    return BandSplitLocoformer(
        sources=count if stage == "pretrain" else len(stems_of(config)),
        audio_channels=config.data.channels,
        **fields,
    )


def separator(config: Any, network: BandSplitLocoformer) -> Separator:
    """The network with its STFT."""
    return Separator(
        network, config.window_samples, config.data.hop_samples, config.data.sample_rate_hz
    )


def segment_model(config: Any, stage: str | None = None) -> SegmentModel:
    """What `majl_jax.separate` applies to a song: the stems, or all outputs of a network that is
    not yet told which are which.
    """
    last = str(config.run[-1]) if stage is None else stage
    network, names = build(config, last), stems_of(config)
    if last == "pretrain":
        names = tuple(f"output_{number + 1}" for number in range(network.sources))
    return separator(config, network).segment_model(
        names,
        segment_samples=config.evaluation.segment_samples,
        crossfade=config.evaluation.crossfade,
    )


# ---- from the config to stages ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Setting:
    """A stage of a run, as the config and its data describe it."""

    config: Any
    name: str
    separator: Separator
    folders: Mapping[str, epath.Path]  # of the data sets
    groups: Mapping[str, stem_groups.Groups]  # of each: the stems that make up each source
    places: stem_groups.Places | None  # of the stems in a batch; None where only their sum counts
    workdir: pathlib.Path

    @property
    def options(self) -> Any:
        return self.config.stages[self.name]

    def sources(self, split: str) -> list[Source]:
        """The stream of a split: each data set by its number of songs."""
        if self.places is not None:
            return group_sources(self.folders, self.groups, split)[0]
        sets = {folder: records.open_prepared(folder) for folder in self.folders.values()}
        if split == "valid":  # a folder of one's own may have none
            sets = {folder: one for folder, one in sets.items() if split in one.splits}
        if not sets:
            raise ValueError(
                f"config.data.unlabelled = {self.config.data.unlabelled}: nothing of it is to"
                " validate on. Prepare a folder of audio with subfolders train and valid, or name"
                " another data set besides"
            )
        tracks = {folder: float(len(set(one.split(split).track))) for folder, one in sets.items()}
        return mixture_sources(tracks, split)


def stages(config: Any, workdir: pathlib.Path) -> tuple[Stage, ...]:
    """The stages that `config.run` names, in its order."""
    check_ranges(config)
    _check(config)
    reader.named(config.data.reader, fields="config.data.")
    found = []
    for name in config.run:
        setting = _open(config, name, workdir)
        stage = _stage(setting)
        _dry_run(stage, setting)
        found.append(stage)
    if "pretrain" in config.run and config.evaluation.pretrained:
        _open(config, "supervised", workdir)  # after pretraining would be too late to miss its data
    network = build(config, config.run[0])
    head_features = network.attention_features // network.heads
    used = attention.implementation_for(network.attention, network.dtype, head_features)
    console.say(f"attention by {used}, {network.heads} heads of {head_features} features")
    return tuple(found)


def _check(config: Any) -> None:
    start = config.stages.supervised.start
    run = chosen(
        config.run,
        STAGES,
        field="config.run",
        follows={} if start else {"supervised": "pretrain"},
        advice=(", or config.stages.supervised.start has to name a run, a model file or weights"),
    )
    warm_start.check_all(config)
    if "=" in start or "," in start:
        raise ValueError(
            f"config.stages.supervised.start is {start!r}; expected one source of a whole network:"
            " the stems get the outputs of it that are most like them"
        )
    if "pretrain" in run and start:
        raise ValueError(
            f"config.run is {run} and config.stages.supervised.start names {start}: supervised"
            " starts from one of both; leave pretrain out"
        )
    for name in ("supervised", "scratch"):
        if (found := config.stages[name].mixing) not in MIXINGS:
            raise ValueError(
                f"config.stages.{name}.mixing is {found!r}; expected one of {', '.join(MIXINGS)}"
            )
    if (found := config.stages.pretrain.assignment) not in losses.ASSIGNMENTS:
        raise ValueError(
            f"config.stages.pretrain.assignment is {found!r}; expected one of"
            f" {', '.join(losses.ASSIGNMENTS)}"
        )
    for name in run:
        _device_share(config, name)
    outputs, stems = config.network.outputs, stems_of(config)
    if "pretrain" in config.run and outputs < len(stems):
        raise ValueError(
            f"config.network.outputs is {outputs}; expected at least one for each of the stems"
            f" {', '.join(stems)}"
        )
    for field, length in (("data", config.data), ("evaluation", config.evaluation)):
        if length.segment_samples % config.data.hop_samples:
            raise ValueError(
                f"config.{field}.segment_samples is {length.segment_samples}; expected a multiple"
                f" of config.data.hop_samples = {config.data.hop_samples}"
            )


def _device_share(config: Any, name: str) -> int:
    """How many examples of a stage's batch a device gets: those that are mixed are on one."""
    how: dict[str, Any] = {}
    if name == "pretrain":
        how = {"multiple": 2, "because": "the network hears the sum of two"}
    elif config.stages[name].mixing == "dynamic":
        because = f"config.stages.{name}.mixing is dynamic: two or more on a device are mixed"
        how = {"least": 2, "because": because}
    field = f"config.stages.{name}.batch_size"
    return device_share(field, config.stages[name].batch_size, **how)


def data_sets(config: Any) -> list[str]:
    """The sets that the stages of a run learn from."""
    found = [one for name in config.run for one in _names(config, name)]
    return list(dict.fromkeys(found))


def _names(config: Any, stage: str) -> list[str]:
    if stage == "pretrain":
        return [one.strip() for one in config.data.unlabelled.split(",")]
    return list(stem_groups.parse(config.data.labelled))


def _open(config: Any, name: str, workdir: pathlib.Path) -> _Setting:
    data = config.data
    groups = {} if name == "pretrain" else stem_groups.parse(data.labelled)
    folders = {one: epath.Path(data.directory) / one for one in _names(config, name)}
    for folder in folders.values():
        grid = {name: data[name] for name in GRID}
        prepared = reader.open_set(folder, **grid, fields="config.data.")
        needs = {f"stage {name} (config.data.labelled)": STEMS} if groups else {}
        for split in ("train", "valid", "test") if groups else ("train",):
            require(prepared, split, needs)
    stems = {one: records.open_prepared(folder).layout.stems for one, folder in folders.items()}
    places = stem_groups.places(groups, stems) if groups else None
    heard = separator(config, build(config, name))
    return _Setting(config, name, heard, folders, groups, places, workdir)


def _stage(setting: _Setting) -> Stage:
    config, name, options = setting.config, setting.name, setting.options
    schedule = schedules.warmup_decay(
        options.learning_rate,
        warmup_steps=options.warmup_steps,
        decay_from=options.decay_from,
        decay_every=options.decay_every,
        factor=options.decay_factor,
        decay_to=max(options.decay_from, -(-options.steps // options.accumulate_steps)),
    )
    program = jax.jit(lambda variables, batch, key: _terms(setting, variables, batch, key)[0])
    judged = name != "pretrain" or config.evaluation.pretrained
    return Stage(
        name=name,
        init=functools.partial(_init, setting),
        batches=lambda previous: _batches(setting, "train"),
        loss=functools.partial(_loss, setting),
        evaluate=functools.partial(_validate, setting, program),
        test=functools.partial(_test, setting) if judged else None,
        optimizer=optimizer.optimizer(
            schedule,
            weight_decay=config.optimizer.weight_decay,
            clip_norm=config.optimizer.clip_norm,
            accumulate_steps=options.accumulate_steps,
        ),
        steps=options.steps,
        best="minus_loss",
        average=config.evaluation.average,
    )


def _init(setting: _Setting, key: Any, previous: Variables | None) -> Variables:
    """Fresh variables; in `supervised` those of pretrain, with the outputs that the stems got."""
    options, network = setting.options, setting.separator.network
    shape = (1, network.audio_channels, 2, sum(network.bands))
    fresh = parallel.runs_once(network.init)(key, jnp.zeros(shape, jnp.complex64))
    if setting.name != "supervised":
        field = f"config.stages.{setting.name}.start"
        return warm_start.started(fresh, options.start, field=field)
    if options.start:
        previous = warm_start.load(options.start)
    if previous is None:
        return fresh
    config, params = setting.config.copy_and_resolve_references(), previous["params"]
    config.network.outputs = jnp.shape(params["decoder"]["group0_mask"]["bias"])[-3]
    before = build(config, "pretrain")
    spectrum = jnp.zeros(shape, jnp.complex64)
    wanted = jax.eval_shape(before.init, jax.random.key(0), spectrum)["params"]
    weights.check_shapes(params, wanted, where=options.start or "what pretrain learnt")
    # Also of as many outputs as stems: those of published weights stand in another order.
    file = setting.workdir / setting.name / HEADS_FILE
    choose = functools.partial(_heads, setting, separator(config, before), previous, file)
    heads = parallel.first_process(choose)
    return {"params": jax.tree.map(np.asarray, select_outputs(params, heads))}


# ---- input and loss -----------------------------------------------------------------------------


def _batches(setting: _Setting, split: str) -> Batches:
    config, training = setting.config, split == "train"
    judged = config.evaluation.batch_size * (1 if setting.groups else 2)  # a mixture is of two
    return reader.open_batches(
        setting.sources(split),
        reader=config.data.reader,
        batch_size=setting.options.batch_size if training else judged,
        segment_samples=config.data.segment_samples,
        seed=config.seed if training else VALIDATION_SEED,
        whole=not training,
        fields="config.data.",
    )


def _loss(setting: _Setting, params: Any, mutables: Any, batch: Any, key: Any) -> Any:
    total, terms = _terms(setting, {"params": params}, batch, key, train=True)
    return total, (mutables, terms)


def _terms(
    setting: _Setting, variables: Variables, batch: Any, key: Any, *, train: bool = False
) -> tuple[Array, dict[str, Array]]:
    """The loss of a device's share of a batch, in dB, and its parts."""
    mix_key, dropout_key = jax.random.split(key)
    use = _unlabelled if setting.name == "pretrain" else _labelled
    return use(setting, variables, batch, mix_key, _own(dropout_key, batch) if train else None)


def _own(key: Any, batch: Any) -> Any:
    """The devices share a key: the first example of each makes it its own."""
    return jax.random.fold_in(key, batch["index"][0])


def _unlabelled(
    setting: _Setting, variables: Variables, batch: Any, key: Any, dropout_key: Any
) -> tuple[Array, dict[str, Array]]:
    """MixIT on the sums of the first and the second half of a batch."""
    options = setting.options
    segments = mixing.mixture(mixing.to_float(batch["stems"]))
    keys = mixing.example_keys(key, batch["index"][: len(segments) // 2])
    low_db, high_db = options.snr_db
    mixtures = mixtures_of_mixtures(segments, keys, low_db=low_db, high_db=high_db)
    estimates, level = setting.separator.normalised(
        variables, mixtures.sum(axis=2), key=dropout_key
    )
    each, chosen = losses.mixit(
        estimates, mixtures / level, assignment=options.assignment, max_snr_db=options.max_snr_db
    )
    one_sided = chosen.min(axis=1) == chosen.max(axis=1)
    return each.mean(), {"one_sided": one_sided.astype(jnp.float32).mean()}


def _labelled(
    setting: _Setting, variables: Variables, batch: Any, key: Any, dropout_key: Any
) -> tuple[Array, dict[str, Array]]:
    """The thresholded SNR of every stem, mean over the examples whose stems are all known."""
    options, config = setting.options, setting.config
    stems, known = _stems(setting, batch)
    if options.mixing == "dynamic" and dropout_key is not None:
        batch_key, example_key = jax.random.split(key)
        low_db, high_db = options.gain_db
        stems = dynamic_mixing(
            stems,
            known,
            _own(batch_key, batch),
            mixing.example_keys(example_key, batch["index"]),
            drop_probability=options.drop_probability,
            level=options.level,
            low_db=low_db,
            high_db=high_db,
        )
        known = jnp.broadcast_to(known.any(), known.shape)  # all are made of those that are
    estimates, level = setting.separator.normalised(variables, stems.sum(axis=2), key=dropout_key)
    each = losses.inactive_sources(
        estimates,
        stems / level,
        max_snr_db=options.max_snr_db,
        inactive_db=options.inactive_db,
        inactive_weight=options.inactive_weight,
    )
    of_stems = jnp.moveaxis(each.mean(axis=2), 1, 0)
    by_stem = jax.vmap(weighting.masked_mean, (0, None))(of_stems, known)
    terms = dict(zip(stems_of(config), by_stem, strict=True))
    return by_stem.mean(), terms


def _stems(
    setting: _Setting, batch: Any
) -> tuple[Float[Array, "batch time stem channel"], Bool[Array, "batch"]]:
    """The stems of a batch and where all are known."""
    places = setting.places
    assert places is not None  # of a stage with stems
    stems = mixing.to_float(batch["stems"])
    stems = group(stems[:, :, : stems.shape[2] - places.left_out], places.members)
    return stems, batch["has_stems"].all(axis=1)


def _dry_run(stage: Stage, setting: _Setting) -> None:
    """What is wrong with the config or its data comes out before training."""
    for split in ("train", "valid"):
        check_sources(setting.sources(split), reader=setting.config.data.reader)
    stems = len(setting.sources("train")[0].stems or ())
    batch = dry_run.batch_shapes(
        examples=_device_share(setting.config, setting.name),
        segment_samples=setting.config.data.segment_samples,
        hop_samples=setting.config.data.hop_samples,
        stems=stems,
        voices=1,
        channels=setting.config.data.channels,
    )
    # Without a stage before it `supervised` has no outputs to choose from.
    fresh = dataclasses.replace(setting, name="scratch" if setting.groups else "pretrain")
    dry_run.trace_loss(stage, batch, init=functools.partial(_init, fresh))


# ---- evaluation ---------------------------------------------------------------------------------


def _validate(setting: _Setting, program: Any, variables: Variables) -> dict[str, float]:
    """The loss on the same crops of the validation set every time: no dropout, no dynamic mixing;
    a mean over known examples.
    """
    batches, key = _batches(setting, "valid"), jax.random.key(VALIDATION_SEED)
    found, counts = [], []
    for _, batch in zip(range(setting.config.evaluation.valid_batches), batches, strict=False):
        used = {k: batch[k] for k in ("stems", "has_stems", "index")}
        found.append(float(program(variables, used, key)))
        known = np.all(batch["has_stems"], axis=1)
        counts.append(int(known.sum()) if setting.groups else len(known))
    if not any(counts):
        raise ValueError(
            "no crop of the validation songs of config.data.labelled ="
            f" {setting.config.data.labelled} has all its stems known; prepare some that have"
        )
    loss = float(np.average(found, weights=counts))
    return {"loss": loss, "minus_loss": -loss}


def _test(setting: _Setting, variables: Variables, folder: pathlib.Path) -> dict[str, float]:
    """Scores on the labelled test songs; after pretrain, with the outputs that the validation
    songs choose.
    """
    config, name = setting.config, setting.name
    if name == "pretrain":
        setting = _open(config, "supervised", setting.workdir)
        before = separator(config, build(config, "pretrain"))
        heads = _heads(setting, before, variables, folder / HEADS_FILE)
        variables = {**variables, "params": select_outputs(variables["params"], heads)}
    return score_stems(
        segment_model(config, "supervised"),
        variables,
        _songs(setting, "test"),
        columns=range(len(stems_of(config))),
        system=name,
        segmenting=Segmenting(config.evaluation.overlap, config.evaluation.batch_size),
        report=ForReport(folder, config.evaluation.examples),
        progress=f"{name}: test",
    )


def _songs(setting: _Setting, split: str) -> Iterator[dict[str, Any]]:
    """Whole songs with the stems of the task."""
    for name, folder in setting.folders.items():
        stems = records.open_prepared(folder).layout.stems
        for record in records.read_tracks(folder, split):
            if record["has_stems"].all():
                wanted = stem_groups.of_stems(
                    record["stems"].astype(np.int32), stems, setting.groups[name]
                )
                known = np.ones(wanted.shape[1], bool)
                yield {"track": record["track"], "stems": wanted, "has_stems": known}


def _heads(
    setting: _Setting, before: Separator, variables: Variables, file: pathlib.Path
) -> list[int]:
    """The output of each stem by a vote of the validation songs, kept in `file` with a mark of the
    parameters it is of.
    """
    mark = zlib.crc32(json.dumps(parameters.fingerprint(variables["params"])).encode())
    if file.exists():
        said = formats.read(file, formats.RUN, needs=("parameters", "heads"))
        if said["parameters"] == mark:
            return said["heads"]
    found = output_assignment.assign_outputs(_segments(setting, before, variables))
    stems = stems_of(setting.config)
    about = {
        "parameters": mark,
        "stems": stems,
        "heads": found.heads,
        "shares_of_votes": found.shares,
        "most_voted": found.most_voted,
        "votes": found.votes.tolist(),
        "mean_snr_db": found.mean_snr_db.round(3).tolist(),
        "segments": found.segments,
    }
    atomic.write_text(file, json.dumps(about, indent=2) + "\n")
    said = zip(stems, found.heads, found.shares, strict=True)
    chosen = ", ".join(f"{stem} output {head + 1} ({share:.0%})" for stem, head, share in said)
    console.say(f"{setting.name}: {chosen} of the votes of {found.segments} segments")
    return list(found.heads)


def _segments(
    setting: _Setting, before: Separator, variables: Variables
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Estimates of all outputs and the true stems of the validation songs, a segment at a time,
    end to end.
    """
    config, program = setting.config, jax.jit(before.separate)
    samples, size = config.data.segment_samples, config.evaluation.batch_size
    for song in console.with_progress(_songs(setting, "valid"), "which output is which stem"):
        count = len(song["stems"]) // samples
        stems = int16.to_float(song["stems"][: count * samples])
        stems = stems.reshape(count, samples, *stems.shape[1:])
        for first in range(0, count, size):
            part = stems[first : first + size]
            filled = np.zeros((size, *part.shape[1:]), np.float32)
            filled[: len(part)] = part
            estimates = np.asarray(program(variables, filled.sum(axis=2)))
            yield from zip(estimates, part, strict=False)
