"""SS-MPE: self-supervised multi-pitch estimation (Cwitkowitz and Duan, arXiv 2506.23371).

Mixture -> harmonic CQT -> autoencoder -> salience of every pitch. The *reference* learns from
labelled music, and from what must not change the pitches heard (other timbre, added drums, shifts
and stretches) on labelled and unlabelled music alike (losses/self_supervision.py). *finetune* goes
on from the stage before it with a lower learning rate, usually on more unlabelled music. The
paper's finding: on unlabelled music of another kind the output goes blank; the terms after
`entropy` in config.weights are remedies.

What the paper leaves open is a field of configs/ss_mpe.py and listed under Deviations in
experiments/ss_mpe/README.md.
"""

import dataclasses
import functools
import itertools
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jaxtyping import Array

from majl_jax import console, parallel
from majl_jax.audio.cqt import wavelet_lengths
from majl_jax.audio.harmonic_cqt import HarmonicCqt
from majl_jax.batch import Variables
from majl_jax.datasets import records
from majl_jax.datasets.input import beside, reader
from majl_jax.datasets.input.schedule import Batches
from majl_jax.datasets.input.sources import Source, mixture_sources, parse_shares
from majl_jax.evaluation import basic_pitch
from majl_jax.evaluation.examples import NO_FILES, ForReport
from majl_jax.evaluation.multi_pitch import Judging, score_tracks
from majl_jax.inference import multi_pitch
from majl_jax.losses.self_supervision import Settings, self_supervised_loss
from majl_jax.models.timbre_trap import TimbreTrap
from majl_jax.recipes import warm_start
from majl_jax.recipes.inputs import check_sources, device_share
from majl_jax.recipes.labels import PITCH, require
from majl_jax.recipes.ranges import check_ranges
from majl_jax.training import dry_run, optimizer, schedules
from majl_jax.training.stage import Stage, chosen

STAGES = ("reference", "finetune")


# ---- from the config to functions ---------------------------------------------------------------


def build(config: Any) -> tuple[HarmonicCqt, TimbreTrap]:
    """The front end and the network that the config describes."""
    grid = {name: config.data[name] for name in ("sample_rate_hz", "hop_samples")}
    front_end = HarmonicCqt(**grid, **config.front_end.to_dict())
    if 1 not in front_end.harmonics:
        raise ValueError(
            f"config.front_end.harmonics is {front_end.harmonics}; expected 1 among them, whose"
            " bins are the pitches"
        )
    fields = {**config.network.to_dict(), "dtype": jnp.dtype(config.network.dtype)}
    del fields["initial_salience"]
    sizes = {"bins": front_end.bins, "harmonics": len(front_end.harmonics)}
    return front_end, TimbreTrap(**sizes, **fields)


def _network(network: TimbreTrap) -> Callable[[Any, Array], Array]:
    def listen(params: Any, features: Array) -> Array:
        logits: Any = network.apply({"params": params}, features)
        return logits

    return listen


def multi_pitch_model(config: Any) -> multi_pitch.MultiPitchModel:
    """What evaluation and `majl_jax.separate` apply."""
    front_end, network = build(config)

    def listen(variables: Variables, features: Array, frame_mask: Array) -> Array:
        logits: Any = network.apply({"params": variables["params"]}, features, frame_mask)
        return jax.nn.sigmoid(logits)

    hop, lowest_hz = config.data.hop_samples, front_end.frequencies_hz.min()
    longest = wavelet_lengths(
        lowest_hz[None],
        sample_rate_hz=front_end.sample_rate_hz,
        bins_per_octave=front_end.bins_per_octave,
        gamma=None,
    )
    return multi_pitch.MultiPitchModel(
        front_end.magnitudes,
        listen,
        sample_rate_hz=config.data.sample_rate_hz,
        hop_samples=hop,
        bin_hz=front_end.frequencies_hz[front_end.harmonics.index(1)],
        reach_samples=(1 + int(longest.max()) // 2 // hop) * hop,
        window_frames=config.evaluation.window_frames,
        threshold=config.evaluation.threshold,
    )


# ---- from the config to stages ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Setting:
    """What all stages of a run share; its models are compiled once."""

    config: Any
    front_end: HarmonicCqt
    network: TimbreTrap
    model: multi_pitch.MultiPitchModel
    init: Callable[..., Any]  # (key, features) -> variables

    def path(self, data_set: str) -> epath.Path:
        return epath.Path(self.config.data.directory) / data_set

    def score(
        self,
        name: str,
        variables: Variables,
        split: str,
        *,
        references: Mapping[str, Callable[..., Any]] | None = None,
        tuned_threshold: float | None = None,
        choose_threshold: bool = False,
        report: ForReport = NO_FILES,
        **options: Any,
    ) -> dict[str, float]:
        """Macro means over the tracks of every scored set, <score>_<set>; those of the first set
        without its name.

        Args:
            name: of the model in the rows.
            variables: of the model.
            split: "valid" or "test".
            references: other systems by name, as of `score_tracks`.
            tuned_threshold: that of `Judging`.
            choose_threshold: that of `Judging`.
            report: where rows and examples go; of the rows there none stays.
            options: further ones of `score_tracks`.
        """
        chosen, found = self.config.evaluation, {}
        sets = chosen.sets if split == "valid" else chosen.test_sets
        for number, data_set in enumerate(sets):
            tracks = records.read_tracks(self.path(data_set), split)
            suffix = f", {data_set}" if number else ""
            scores = score_tracks(
                self.model,
                variables,
                itertools.islice(tracks, chosen[f"{split}_tracks"] or None),
                system=name + suffix,
                references={k + suffix: listen for k, listen in (references or {}).items()},
                judging=Judging(chosen.batch_size, tuned_threshold, choose_threshold),
                report=dataclasses.replace(report, anew=number == 0),
                **options,
            )
            shorter = {k.replace(f"{suffix.replace(' ', '_')}/", "/"): v for k, v in scores.items()}
            found |= {f"{k}_{data_set}": v for k, v in shorter.items()}
            if number == 0:
                found |= scores
        return found


def stages(config: Any, workdir: pathlib.Path) -> tuple[Stage, ...]:
    """The stages that `config.run` names, in its order."""
    del workdir
    check_ranges(config)
    follows = {} if config.stages.finetune.start else {"finetune": "reference"}
    run = chosen(config.run, STAGES, field="config.run", follows=follows)
    reader.named(config.data.reader, fields="config.data.")
    warm_start.check_all(config)
    front_end, network = build(config)
    init = parallel.runs_once(network.init)
    setting = _Setting(config, front_end, network, multi_pitch_model(config), init)
    _check_data(setting)
    for name in run:
        fields = f"config.stages.{name}.labelled + unlabelled"
        device_share(fields, config.stages[name].labelled + config.stages[name].unlabelled)
        for sources in _sources(name, setting):
            check_sources(sources, reader=config.data.reader)
    _references(config)
    found = tuple(_stage(name, setting) for name in run)
    for number, stage in enumerate(found):
        if not number or _weights(stage.name, config) != _weights(found[0].name, config):
            # The others differ in their data and learning rates only.
            dry_run.trace_loss(stage, _batch_shapes(config))
    return found


def _references(config: Any) -> dict[str, Callable[..., Any]]:
    """Other people's systems that hear the test tracks."""
    wanted = config.evaluation.references
    if wanted not in ("", "basic_pitch"):
        raise ValueError(f'config.evaluation.references is {wanted!r}; expected "" or basic_pitch')
    if not wanted:
        return {}
    if config.data.sample_rate_hz != basic_pitch.SAMPLE_RATE_HZ:
        raise ValueError(
            f"config.evaluation.references is basic_pitch, which hears {basic_pitch.SAMPLE_RATE_HZ}"
            f" Hz, and config.data.sample_rate_hz is {config.data.sample_rate_hz}"
        )
    basic_pitch.weights_path()  # an hour later would be too late to say that it is not there
    return {"Basic Pitch": basic_pitch.transcribe}


def _weights(name: str, config: Any) -> dict[str, float]:
    """The weights of a stage."""
    factor = config.stages[name].self_supervised
    weights = config.weights.to_dict()
    return {k: v if k == "supervised" else factor * v for k, v in weights.items()}


def _starting_at(params: Any, salience: float) -> Any:
    """The same parameters with log(s / (1 - s)) added to the last bias: the output starts about
    s.
    """
    if not 0 < salience < 1:
        raise ValueError(f"config.network.initial_salience is {salience}; expected between 0 and 1")
    decoder = params["decoder"]
    last = decoder["convout"]
    last = {**last, "bias": last["bias"] + math.log(salience / (1 - salience))}
    return {**params, "decoder": {**decoder, "convout": last}}


def _stage(name: str, setting: _Setting) -> Stage:
    config, network = setting.config, setting.network
    settings = Settings(**config.self_supervision.to_dict())

    def init(key: Any, previous: Variables | None) -> Variables:
        shape = (1, 4, network.bins, network.harmonics)
        if name == "reference" or previous is None:
            params = setting.init(key, jnp.zeros(shape))["params"]
            params = _starting_at(params, config.network.initial_salience)
        else:
            params = previous["params"]
        started = warm_start.started(
            {"params": params}, config.stages[name].start, field=f"config.stages.{name}.start"
        )
        params = started["params"]
        if not settings.teacher_decay:
            return {"params": params}
        # A copy: the step gives away its arguments' memory.
        return {"params": params, "teacher": jax.tree.map(jnp.array, params)}

    def evaluate(variables: Variables) -> dict[str, float]:
        return setting.score(name, variables, "valid", choose_threshold=True)

    def test(variables: Variables, folder: pathlib.Path) -> dict[str, float]:
        # F1 beside that at the fixed threshold: at the one that suits this system best on the first
        # validation set.
        threshold = evaluate(variables)["threshold_best"]
        console.say(
            f"{name}: the threshold chosen on {config.evaluation.sets[0]} is {threshold:.3f}"
        )
        found = setting.score(
            name,
            variables,
            "test",
            tuned_threshold=threshold if math.isfinite(threshold) else None,
            references=_references(config),
            report=ForReport(folder, config.evaluation.examples),
            progress=f"{name}: test",
        )
        return found | {"threshold_tuned": threshold}

    return Stage(
        name=name,
        init=init,
        batches=lambda previous: _batches(name, setting),
        loss=functools.partial(
            self_supervised_loss,
            front_end=setting.front_end,
            network=_network(network),
            settings=settings,
            weights=_weights(name, config),
        ),
        evaluate=evaluate,
        optimizer=optimizer.optimizer(
            schedules.cosine_warmup(
                config.stages[name].learning_rate, warmup_steps=config.optimizer.warmup_steps
            ),
            weight_decay=config.optimizer.weight_decay,
            clip_norm=config.optimizer.clip_norm,
            rate_factors=(("decoder/.*", config.optimizer.decoder_factor), (".*", 1.0)),
        ),
        steps=config.stages[name].steps,
        best="f1" if config.evaluation.select_best else None,
        test=test,
    )


def data_sets(config: Any) -> list[str]:
    """The sets that the stages of a run learn from."""
    found = [data_set for name in config.run for data_set in _data_sets(name, config)]
    found += [config.data.percussion] * bool(config.weights.percussion)
    return list(dict.fromkeys(found))


def _data_sets(name: str, config: Any) -> dict[str, float]:
    """The training sets of a stage and how many items of a batch each gives, on average."""
    sizes: dict[str, float] = {}
    for kind in ("labelled", "unlabelled"):
        for data_set, share in parse_shares(config.data[kind]).items():
            sizes[data_set] = sizes.get(data_set, 0.0) + share * config.stages[name][kind]
    return {data_set: size for data_set, size in sizes.items() if size}


def _check_data(setting: _Setting) -> None:
    """Every set that training or evaluation will need is there, on the grid of the config, with the
    labels that are needed of it.
    """
    config = setting.config
    for name in config.run:
        if not _data_sets(name, config):
            raise ValueError(
                f"config.stages.{name} has 0 labelled and 0 unlabelled items; expected 1 or more"
            )
    both = set(parse_shares(config.data.labelled)) & set(parse_shares(config.data.unlabelled))
    if both and any(config.stages[name].unlabelled for name in config.run):
        raise ValueError(
            f"config.data.labelled and config.data.unlabelled both have {', '.join(sorted(both))},"
            " whose labels would be looked at in either: take it out of one, or prepare a second"
            " copy under another --output and name that"
        )
    learnt = data_sets(config)
    needed = {*learnt, *config.evaluation.sets, *config.evaluation.test_sets}
    opened = {
        data_set: reader.open_set(
            setting.path(data_set),
            sample_rate_hz=config.data.sample_rate_hz,
            hop_samples=config.data.hop_samples,
            segment_samples=config.data.segment_samples if data_set in learnt else None,
            fields="config.data.",
        )
        for data_set in sorted(needed)
    }
    labelled = set()
    if any(config.stages[name].labelled for name in config.run):
        labelled = set(parse_shares(config.data.labelled))
    weights = {name: config.weights[name] for name in ("supervised", "anchored", "activity")}
    taught = {f"config.weights.{name} = {w:g}": PITCH for name, w in weights.items() if w}
    if taught and not labelled:
        raise ValueError(
            f"{next(iter(taught))} needs labels, and no stage of config.run has labelled items"
        )
    for data_set in learnt:
        require(opened[data_set], "train", taught if data_set in labelled else {})
    best = (
        {"the F1 of config.evaluation.select_best": PITCH} if config.evaluation.select_best else {}
    )
    for number, data_set in enumerate(config.evaluation.sets):
        require(opened[data_set], "valid", {} if number else best)
    for data_set in config.evaluation.test_sets:
        require(opened[data_set], "test", {})


def _batch_shapes(config: Any) -> dry_run.Shapes:
    """Of two examples, with drums beside them."""
    shapes = dry_run.batch_shapes(
        examples=2,
        segment_samples=config.data.segment_samples,
        hop_samples=config.data.hop_samples,
        stems=1,
        voices=1,
    )
    drums = jax.ShapeDtypeStruct((2, config.data.segment_samples, 1), jnp.int16)
    return {**shapes, "percussion": drums}


def _sources(name: str, setting: _Setting) -> list[list[Source]]:
    """Of labelled and unlabelled excerpts in fixed proportion, and of drums where a term wants
    them.
    """
    config = setting.config
    labelled, unlabelled = (
        set(parse_shares(config.data[kind])) for kind in ("labelled", "unlabelled")
    )
    music = mixture_sources(
        {setting.path(data_set): size for data_set, size in _data_sets(name, config).items()},
        "train",
        unlabelled=[setting.path(data_set) for data_set in unlabelled - labelled],
    )
    if not _weights(name, config)["percussion"]:
        return [music]
    return [music, [Source(setting.path(config.data.percussion), "train", 1.0)]]


def _batches(name: str, setting: _Setting) -> Batches:
    """Music, with drums beside it where a term wants them."""
    config = setting.config
    open_batches = functools.partial(
        reader.open_batches,
        reader=config.data.reader,
        batch_size=config.stages[name].labelled + config.stages[name].unlabelled,
        segment_samples=config.data.segment_samples,
        fields="config.data.",
    )
    music, *drums = _sources(name, setting)
    # Each stage hears other crops, and the drums' order has nothing to do with the music's.
    seed, offsets = config.seed + 2 * STAGES.index(name), config.data.distinct_offsets
    batches = open_batches(music, seed=seed, distinct_offsets=offsets)
    if not drums:
        return batches
    return beside.Beside(batches, open_batches(drums[0], seed=seed + 1), key="percussion")
