"""MAJL: joint separation and pitch, two stages (Wei et al., arXiv 2501.03689).

Mixture -> separator -> estimated voice -> pitch estimator: one cascade, trained by the sum of both
losses, the pitch loss reaching into the separator, samples that are hard counting more
(losses/hard_samples.py). A *teacher* learns from the few fully labelled tracks, labels what the
others lack (pitch where there are stems, stems where there is pitch), and a *student* starts
afresh on everything that is trusted. *pipeline* is the same two networks trained apart,
*naive_joint* the cascade without a second stage.

What the paper leaves open is a field of configs/majl.py and listed under Deviations in
experiments/majl/README.md.
"""

import dataclasses
import functools
import itertools
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath
from jaxtyping import Array

from majl_jax import console, parallel
from majl_jax.audio.voice_remixing import Remixing
from majl_jax.batch import Key, Variables
from majl_jax.datasets import records
from majl_jax.datasets.input import reader
from majl_jax.datasets.input.sources import (
    Source,
    open_sources,
    silence_first,
    target_first,
)
from majl_jax.evaluation.examples import NO_FILES, ForReport
from majl_jax.evaluation.rows import means
from majl_jax.evaluation.target import Target, score_tracks
from majl_jax.inference.segments import Segmenting, SegmentModel
from majl_jax.losses.cascade import CascadeTerms, cascade_loss
from majl_jax.losses.hard_samples import LEARNT, HardSamples
from majl_jax.losses.interface import Interface
from majl_jax.models import by_name
from majl_jax.models.cascade import Cascade
from majl_jax.models.harmof0 import RATE_HZ
from majl_jax.models.weight_module import WeightModule
from majl_jax.pseudo_labels import labelling
from majl_jax.pseudo_labels.filtering import Filter
from majl_jax.pseudo_labels.teacher import Teacher
from majl_jax.recipes import warm_start
from majl_jax.recipes.inputs import check_sources, device_share
from majl_jax.recipes.labels import BOTH, PITCH, STEMS, require
from majl_jax.recipes.ranges import check_ranges
from majl_jax.training import dry_run, optimizer, schedules
from majl_jax.training.stage import Stage, chosen

STAGES = ("pipeline", "naive_joint", "teacher", "student")
GRID = ("sample_rate_hz", "hop_samples", "segment_samples")
UNFINISHED = ("stems_only", "pitch_only", "unlabelled")  # of config.data: what a teacher labels
PITCH_TERMS = ("pitch", "pitch_on_target")  # of config.weights: what the pitch estimator learns by


# ---- from the config to networks ----------------------------------------------------------------


def build(config: Any) -> Cascade:
    """The two networks that `config.separator` and `config.pitch` name, each with its own group of
    fields.
    """
    hop_samples, rate_hz = config.data.hop_samples, config.data.sample_rate_hz
    if rate_hz != RATE_HZ:
        raise ValueError(
            f"config.data.sample_rate_hz is {rate_hz}; expected {RATE_HZ}, which the pitch"
            f" estimators ({', '.join(by_name.PITCH_ESTIMATORS)}) hear"
        )
    groups = config.to_dict()
    separator = by_name.separator(
        config.separator, groups.get(config.separator, {}), hop_samples=hop_samples
    )
    listener, bin_cents = by_name.pitch_estimator(
        config.pitch, groups.get(config.pitch, {}), hop_samples=hop_samples
    )
    return Cascade(separator, listener, bin_cents, config.data.segment_samples)


def _hard_samples(config: Any, stage: str) -> HardSamples | None:
    """The dynamic weights of a stage: the two stages of MAJL have them, the baselines do not."""
    options = {k: v for k, v in config.dwhs.items() if k != "features"}
    options["exponents"] = tuple(tuple(pair) for pair in options["exponents"])
    settings = HardSamples(**options)
    return settings if stage in ("teacher", "student") and settings.objective != "none" else None


def _interface(config: Any, stage: str) -> Interface:
    """How the two networks of a stage are joined."""
    losses, method = config.losses.separation, config.balance.method
    if method == "uncertainty" and losses.startswith("neg_"):
        raise ValueError(
            "config.balance.method is 'uncertainty', which needs losses above 0, and"
            f" config.losses.separation is {losses!r}; take l1_wav or l1_mag, or another balance"
        )
    return Interface(
        joint=stage != "pipeline",
        stop_gradient=config.stop_gradient_between,
        balance=method,
        pitch_share=config.balance.pitch_share,
    )


def segment_model(config: Any, cascade: Cascade | None = None) -> SegmentModel:
    """What evaluation and `majl_jax.separate` apply: the voice in a mixture and its pitch."""
    cascade, gain = cascade or build(config), config.data.mixture_gain

    def apply(variables: Variables, audio: Array) -> dict[str, Array]:
        voice, _ = cascade.separate(variables, gain * audio[..., 0])
        logits, _ = cascade.listen(variables, voice)
        return {"stems": voice[:, :, None, None], "salience": jax.nn.sigmoid(logits)}

    return _on_grid(config, cascade, apply, stems=_target_names(config)[:1])


def data_sets(config: Any) -> list[str]:
    """The sets that the stages of a run learn from."""
    always = config.data.labelled, config.data.get("without_target", "")
    later = [config.data.get(field, "") for field in UNFINISHED]
    return [*filter(None, always), *filter(None, later * ("student" in config.run))]


def pitch_model(config: Any, cascade: Cascade) -> SegmentModel:
    """The pitch estimator alone: what it hears in the true voice, or in an untouched mixture."""

    def apply(variables: Variables, audio: Array) -> dict[str, Array]:
        logits, _ = cascade.listen(variables, audio[..., 0])
        return {"salience": jax.nn.sigmoid(logits)}

    return _on_grid(config, cascade, apply, stems=())


def _target_names(config: Any) -> tuple[str, ...]:
    return tuple(name.strip() for name in config.data.target.split(","))


def _on_grid(
    config: Any, cascade: Cascade, apply: Callable, stems: tuple[str, ...]
) -> SegmentModel:
    return SegmentModel(
        apply,
        sample_rate_hz=config.data.sample_rate_hz,
        segment_samples=config.data.segment_samples,
        hop_samples=config.data.hop_samples,
        stems=stems,
        bin_cents=cascade.bin_cents,
        threshold=config.evaluation.pitch_threshold,
        frame_reach_samples=cascade.pitch.reach_samples,
    )


# ---- from the config to stages ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Setting:
    """What all stages of a run share; its models are compiled once."""

    config: Any
    workdir: pathlib.Path
    cascade: Cascade
    model: SegmentModel
    listener: SegmentModel
    target: int  # the stem of whole tracks of the labelled set; in batches it is stem 0
    labelled: epath.Path

    def score(
        self,
        name: str,
        variables: Variables,
        split: str,
        report: ForReport = NO_FILES,
        **judged: Any,
    ) -> dict[str, float]:
        """Means over the tracks of a split of the labelled set, and how many are in none;
        tracks.jsonl has everything.

        Args:
            name: of the model in the rows.
            variables: of the model.
            split: "valid" or "test".
            report: where rows and examples go.
            judged: further fields of `Target`.
        """
        chosen = self.config.evaluation
        tracks = chosen[f"{split}_tracks"] or None  # 0: all of them
        found = score_tracks(
            self.model,
            variables,
            itertools.islice(records.read_tracks(self.labelled, split), tracks),
            system=name,
            target=Target(
                self.target,
                pitch_threshold=chosen.pitch_threshold,
                mixture_gain=self.config.data.mixture_gain,
                **judged,
            ),
            segmenting=Segmenting(chosen.overlap, chosen.batch_size),
            report=report,
            progress=None if split == "valid" else f"{name}: {split}",
        )
        return means(found) | {k: found[k] for k in ("threshold_best", "oa_best") if k in found}


def stages(config: Any, workdir: pathlib.Path) -> tuple[Stage, ...]:
    """The stages that `config.run` names, in its order."""
    check_ranges(config)
    run = chosen(config.run, STAGES, field="config.run", follows={"student": "teacher"})
    reader.named(config.data.reader, fields="config.data.")
    warm_start.check_all(config, previous=True)
    for name in run:
        device_share(f"config.stages.{name}.batch_size", config.stages[name].batch_size)
    prepared, target = _open_sets(config, run)
    cascade = build(config)
    setting = _Setting(
        config,
        workdir,
        cascade,
        segment_model(config, cascade),
        pitch_model(config, cascade),
        target,
        prepared.directory,
    )
    found = tuple(_stage(name, setting) for name in run)
    batch = dry_run.batch_shapes(
        examples=1,
        segment_samples=config.data.segment_samples,
        hop_samples=config.data.hop_samples,
        stems=len(prepared.layout.stems),
        voices=len(prepared.layout.stems),
    )
    dry_run.trace_loss(found[0], batch)
    for stage in found[1:]:  # after the first has trained would be too late
        if config.stages[stage.name].start:
            dry_run.trace_init(stage)
    return found


def _open_sets(config: Any, run: tuple[str, ...]) -> tuple[records.Prepared, int]:
    """The labelled set and the number of its target, after a look at whether the sets of all
    stages are there, with the labels that these need.
    """

    labelled, target = _open_labelled(config, config.data.labelled)
    # Trained apart, PE hears the true voice: its pitch counts where that is known.
    of_pitch = BOTH if "pipeline" in run else PITCH
    kinds = {"separation": STEMS, "pitch": of_pitch, "pitch_on_target": BOTH}
    if any((found := _hard_samples(config, name)) and found.objective in LEARNT for name in run):
        kinds["weighting"] = BOTH
    weights = {name: config.weights.get(name, 0.0) for name in kinds}
    needs = {f"config.weights.{k} = {w:g}": kinds[k] for k, w in weights.items() if w}
    if "student" in run and not any(weights[term] for term in PITCH_TERMS):
        raise ValueError(
            f"config.weights.{' and '.join(PITCH_TERMS)} are 0: the teacher would hear no pitch,"
            " and the student needs what it hears; raise one, or leave student out of config.run"
        )
    require(labelled, "train", needs, stem=target)
    best = {"SDR": STEMS, "RPA": PITCH} if config.evaluation.select_best else {}
    wanted = {f"the {k} of config.evaluation.select_best": kind for k, kind in best.items()}
    require(labelled, "valid", wanted, stem=target)
    require(labelled, "test", {}, stem=target)
    later = {"stems_only": {STEMS}, "pitch_only": {PITCH}, "unlabelled": set()}
    for field, kinds_of in later.items() if "student" in run else ():
        if name := config.data[field]:
            other, stem = _open_labelled(config, name)
            if field != "stems_only" and len(other.layout.stems) < 2:
                raise ValueError(
                    f"config.data.{field} is {name}, which has the stem"
                    f" {other.layout.stems[stem]} alone: there is nothing to separate it from;"
                    " expected two or more"
                )
            needed = {f"config.data.{field} = {name}": kind for kind in kinds_of}
            require(other, "train", needed, stem=stem)
    if name := config.data.without_target:
        music = _open_set(config, name)
        if there := {*music.layout.stems} & {*_target_names(config)}:
            raise ValueError(
                f"config.data.without_target is {name}, which has the stem {', '.join(there)}:"
                " expected music in which config.data.target is nowhere"
            )
    _check_sources(config, run)
    return labelled, target


def _open_labelled(config: Any, name: str) -> tuple[records.Prepared, int]:
    """A set and the number of its target."""
    prepared, names = _open_set(config, name), _target_names(config)
    return prepared, labelling.stem_number(prepared, names, field="config.data.target")


def _open_set(config: Any, name: str) -> records.Prepared:
    """A set on the grid of the run; the networks hear one channel."""
    prepared = reader.open_set(
        epath.Path(config.data.directory) / name,
        **{field: config.data[field] for field in GRID},
        fields="config.data.",
    )
    if (channels := prepared.layout.channels) != 1:
        raise ValueError(
            f"{prepared.directory} was prepared with channels = {channels}, and the networks of"
            " majl hear one: prepare it again with --channels=1 and another --output"
        )
    return prepared


def _check_sources(config: Any, run: tuple[str, ...]) -> None:
    """The sets of all stages fit each other and the reader."""
    folder, labelled = epath.Path(config.data.directory), config.data.labelled
    of_teacher = _place_stems({str(folder / labelled): 1.0}, config)
    check_sources(of_teacher, reader=config.data.reader)
    if "student" in run:
        # Those of the teacher look as what they are labels of, in the reader's format.
        names = [labelled, *filter(None, (config.data[field] for field in UNFINISHED))]
        open_sources(_place_stems({str(folder / name): 1.0 for name in names}, config))


def _stage(name: str, setting: _Setting) -> Stage:
    config = setting.config
    dynamic, cascade = _hard_samples(config, name), setting.cascade
    if dynamic is not None and dynamic.objective in LEARNT:
        module = WeightModule(features=tuple(config.dwhs.features))
        cascade = dataclasses.replace(cascade, weight_module=module)

    def validate(variables: Variables) -> dict[str, float]:
        found = setting.score(name, variables, "valid")
        # The authors' code selects by SDR (dB) + RPA (%), on the test split; here on validation.
        return {**found, "sdr_plus_rpa": found["sdr_db"] + 100.0 * found["rpa"]}

    def test(variables: Variables, folder: pathlib.Path) -> dict[str, float]:
        # Scores beside those at the fixed threshold: at the one that suits this system best on
        # validation.
        threshold = setting.score(name, variables, "valid", choose_threshold=True)["threshold_best"]
        console.say(f"{name}: the threshold chosen on validation is {threshold:.2f}")
        found = setting.score(
            name,
            variables,
            "test",
            ForReport(folder, config.evaluation.examples),
            bss_eval=config.evaluation.bss_eval,
            pitch_model=setting.listener if config.evaluation.references else None,
            tuned_threshold=threshold if math.isfinite(threshold) else None,
        )
        return found | {"threshold_tuned": threshold}

    return Stage(
        name=name,
        init=functools.partial(_init, name, setting, cascade),
        batches=functools.partial(_batches, name, setting),
        loss=functools.partial(
            cascade_loss,
            cascade=dataclasses.replace(cascade, statistics_axis=parallel.AXIS),
            terms=CascadeTerms(
                weights=config.weights.to_dict(),
                mixture_gain=config.data.mixture_gain,
                remixing=Remixing(**config.augmentation),
                **config.losses.to_dict(),
            ),
            interface=_interface(config, name),
            dynamic=dynamic,
        ),
        evaluate=validate,
        optimizer=_optimizer(config.optimizer, config.stages[name]),
        steps=config.stages[name].steps,
        best="sdr_plus_rpa" if config.evaluation.select_best else None,
        test=test,
    )


def _init(
    name: str, setting: _Setting, cascade: Cascade, key: Key, previous: Variables | None
) -> Variables:
    """The variables a stage starts from: fresh ones, the student's as well, but for what its
    `start` names.
    """
    return warm_start.started(
        cascade.init(key),
        setting.config.stages[name].start,
        field=f"config.stages.{name}.start",
        previous=previous,
    )


def _batches(name: str, setting: _Setting, previous: Variables | None) -> Any:
    """Random segments of the labelled set, for the student of its teacher's as well, and of music
    without the target, if there is any.
    """
    data = setting.config.data
    shares = {str(setting.labelled): 1.0}
    if name == "student":
        written = parallel.first_process(lambda: _pseudo_label(setting, previous))
        shares = {
            str(setting.labelled): data.labelled_share,
            **{path: (1.0 - data.labelled_share) / len(written) for path in written},
        }
    return reader.open_batches(
        _place_stems(shares, setting.config),
        reader=data.reader,
        batch_size=setting.config.stages[name].batch_size,
        segment_samples=data.segment_samples,
        seed=setting.config.seed,
        fields="config.data.",
    )


def _place_stems(shares: Mapping[str, float], config: Any) -> list[Source]:
    """Training sources whose stem 0 is the target, whatever stems they have besides, and the music
    that is without it.
    """
    data, target = config.data, _target_names(config)
    layouts = {path: records.open_prepared(path).layout for path in shares}
    places = max(len(layout.stems) for layout in layouts.values())
    silent = []
    if data.without_target:
        without = str(epath.Path(data.directory) / data.without_target)
        share, layout = data.without_target_share, records.open_prepared(without).layout
        places = max(places, len(layout.stems) + 1)
        stems = silence_first(layout, places, data_set=without)
        silent.append(Source(without, "train", share, stems, without_first=True))
        shares = {path: (1.0 - share) * of_rest for path, of_rest in shares.items()}
    return [
        Source(path, "train", share, target_first(layouts[path], target, places, data_set=path))
        for path, share in shares.items()
    ] + silent


def _pseudo_label(setting: _Setting, teacher: Variables | None) -> list[str]:
    """Lets the teacher label the sets that lack pitch, stems or both; returns their folders."""
    assert teacher is not None, "config.run puts the teacher before its student"
    config = setting.config
    segmenting = Segmenting(config.evaluation.overlap, config.evaluation.batch_size)
    kept = Filter(
        config.pseudo_labels.threshold,
        config.pseudo_labels.granularity,
        segment_frames=config.data.segment_samples // config.data.hop_samples,
        wrong_pitch=config.pseudo_labels.wrong_pitch,
        seed=config.seed,
        tolerance_cents=config.pseudo_labels.tolerance_cents,
    )
    work = [
        ("pitch", config.data.stems_only, setting.listener),
        ("stems", config.data.pitch_only, setting.model),
        ("both", config.data.unlabelled, setting.model),
    ]
    return [
        str(
            labelling.write(
                epath.Path(config.data.directory) / dataset,
                setting.workdir / "student" / "pseudo_labels",
                labels=labels,
                teacher=Teacher(model, teacher, segmenting),
                target=_target_names(config),
                kept=kept,
                file_format="tfrecord" if config.data.reader == "tf.data" else "array_record",
                workdir=setting.workdir,
            )
        )
        for labels, dataset, model in work
        if dataset
    ]


def _optimizer(options: Any, stage: Any) -> Any:
    """Adam with clipping by the global norm, at the learning rate of the config's schedule."""
    match options.schedule:
        case "constant":
            rate = schedules.constant(stage.learning_rate)
        case "step":
            rate = schedules.step_decay(
                stage.learning_rate,
                factor=options.decay_factor,
                every_steps=options.decay_every_steps,
            )
        case "cosine":
            rate = schedules.warmup_cosine(
                stage.learning_rate,
                warmup_steps=min(options.warmup_steps, stage.steps - 1),
                total_steps=stage.steps,
            )
        case other:
            raise ValueError(
                f"config.optimizer.schedule is {other!r}; expected constant, step or cosine"
            )
    return optimizer.optimizer(rate, clip_norm=options.clip_norm)
