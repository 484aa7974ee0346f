"""MAJL: joint separation and pitch, two stages (Wei et al., arXiv 2501.03689).

Mixture -> separator -> estimated voice -> pitch estimator: one cascade, trained by the sum of both losses, the pitch loss
reaching into the separator. A *teacher* learns from the few fully labelled tracks, labels what the others lack (pitch where
there are stems, stems where there is pitch), and a *student* starts afresh on everything that is trusted. *pipeline* is the
same two networks trained apart, *naive_joint* the cascade without a second stage.

What the paper leaves open is a field of configs/majl.py and listed under Deviations in experiments/majl/README.md.
"""

import functools
import itertools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from majl_jax import optimize, parallel, pseudo_labels
from majl_jax.audio import mixing, pitch, stft
from majl_jax.batch import Batch
from majl_jax.datasets import memory, pipeline, records
from majl_jax.evaluate import SegmentModel, score_tracks
from majl_jax.losses import salience, separation, weighting
from majl_jax.models.cascade import Cascade
from majl_jax.models.crepe import Crepe
from majl_jax.models.unet import UNet
from majl_jax.train import Stage

Variables = Mapping[str, Any]


def cascade_loss(
    params: Any,
    mutables: Any,
    batch: Batch,
    key: Any,
    *,
    cascade: Cascade,
    target: int,
    separation_loss: str,
    positive_weight: float,
    target_width_cents: float,
    pitch_frames: int,
    mixture_gain: float,
    joint: bool,
    stop_gradient: bool,
    weights: Mapping[str, float],
) -> tuple[Float[Array, ""], tuple[Any, dict[str, Array]]]:
    """L = w_separation L_separation(s_hat, s) + w_pitch L_pitch(PE(s_hat), y), each over what is labelled.

    With `joint`, PE hears the estimate (gradients flow into the separator unless `stop_gradient`); without, the true voice:
    two networks trained side by side, each on its own loss. L_pitch is taken on `pitch_frames` frames per segment, one drawn
    from each of as many equal stretches: neighbouring 64 ms frames share most of their samples.
    """
    stems = mixing.to_float(batch["stems"])
    truth = stems[:, :, target, 0]
    keys = jax.random.split(jax.random.fold_in(key, batch["index"][0]), 2)
    variables = {"params": params, **mutables}
    estimate, separator_state = cascade.separate(
        variables, mixture_gain * stems.sum(2)[..., 0], key=keys[0]
    )

    index = _draw_frames(
        mixing.example_keys(key, batch["index"]), batch["f0_hz"].shape[1], pitch_frames
    )
    f0_hz, has_pitch = (
        jnp.take_along_axis(batch[name][:, :, target], index, 1) for name in ("f0_hz", "has_pitch")
    )
    heard = jax.lax.stop_gradient(estimate) if stop_gradient else estimate
    logits, pitch_state = cascade.listen(
        variables, heard if joint else truth, index=index, key=keys[1]
    )

    distance = _separation_loss(separation_loss, estimate, truth)
    likelihood = salience.weighted_bce(
        logits,
        _pitch_targets(f0_hz, cascade.bin_cents, target_width_cents),
        positive_weight=positive_weight,
    )
    terms = {
        "separation": weighting.masked_mean(distance, batch["has_stems"][:, target]),
        "pitch": weighting.masked_mean(likelihood, has_pitch),
    }
    states = {"separator": separator_state, "pitch": pitch_state}
    updated = {
        c: {name: states[name].get(c, old) for name, old in parts.items()}
        for c, parts in mutables.items()
    }
    return weighting.weighted_sum(terms, weights), (updated, terms)


def _draw_frames(keys: Array, frames: int, drawn: int) -> Array:
    """One random frame from each of `drawn` equal stretches of a segment: [batch, drawn]."""
    if not 0 < drawn <= frames or frames % drawn:
        raise ValueError(
            f"config.pitch.frames_per_segment is {drawn}; expected a divisor of {frames}, the frames of a segment"
        )
    stride = frames // drawn
    offsets = jax.vmap(lambda key: jax.random.randint(key, (drawn,), 0, stride))(keys)
    return jnp.arange(drawn) * stride + offsets


def _separation_loss(name: str, estimate: Array, truth: Array) -> Array:
    match name:
        case "l1_wav":
            return separation.l1_wav(estimate, truth)
        case "l1_mag":
            spectra = (
                stft.magnitude(stft.stft(x, window_samples=1024, hop_samples=320))
                for x in (estimate, truth)
            )
            return separation.l1_mag(*spectra)
        case "neg_sdr":
            return separation.neg_sdr(estimate, truth)
        case "neg_si_sdr":
            return separation.neg_si_sdr(estimate, truth)
    raise ValueError(
        f"config.losses.separation is {name!r}; expected l1_wav, l1_mag, neg_sdr or neg_si_sdr"
    )


def _pitch_targets(f0_hz: Array, bin_cents: np.ndarray, width_cents: float) -> Array:
    """One-hot for width 0 (DJCM), else blurred (CREPE)."""
    if width_cents == 0:
        return pitch.one_hot_targets(f0_hz, bin_cents)
    return pitch.gaussian_targets(f0_hz, bin_cents, width_cents=width_cents)


# ---- from the config to stages -----------------------------------------------------------------------


def build(config: Any) -> Cascade:
    """The two networks of the config."""
    hop_samples = config.data.hop_samples
    match config.separator.name:
        case "unet":
            options = config.separator
            separator = UNet(
                channels=tuple(options.channels),
                window_samples=options.window_samples,
                hop_samples=hop_samples,
                dropout=options.dropout,
                norm_momentum=options.norm_momentum,
                dtype=jnp.dtype(options.dtype),
            )
        case other:
            raise ValueError(f"config.separator.name is {other!r}; expected unet")
    match config.pitch.name:
        case "crepe":
            options = config.pitch
            listener = Crepe(
                capacity=options.multiplier or options.capacity,
                hop_samples=hop_samples,
                dropout=options.dropout,
                frame_floor=options.frame_floor,
                norm_momentum=options.norm_momentum,
                dtype=jnp.dtype(options.dtype),
            )
        case other:
            raise ValueError(f"config.pitch.name is {other!r}; expected crepe")
    return Cascade(separator, listener, pitch.CREPE_BIN_CENTS, config.data.segment_samples)


def segment_model(config: Any) -> SegmentModel:
    """What evaluation and `majl_jax.separate` apply: the voice in a mixture and its pitch."""
    cascade, gain = build(config), config.data.mixture_gain

    def apply(variables: Variables, audio: Array) -> dict[str, Array]:
        voice, _ = cascade.separate(variables, gain * audio[..., 0])
        logits, _ = cascade.listen(variables, voice)
        return {"stems": voice[:, :, None, None], "salience": jax.nn.sigmoid(logits)}

    return _on_grid(config, cascade, apply, stems=(config.data.target,))


def pitch_model(config: Any) -> SegmentModel:
    """The pitch estimator alone: what it hears in the true voice, or in a mixture that nobody separated."""
    cascade = build(config)

    def apply(variables: Variables, audio: Array) -> dict[str, Array]:
        logits, _ = cascade.listen(variables, audio[..., 0])
        return {"salience": jax.nn.sigmoid(logits)}

    return _on_grid(config, cascade, apply, stems=())


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
    )


def stages(config: Any, workdir: pathlib.Path) -> tuple[Stage, ...]:
    """The stages that `config.run` names, in its order."""
    known = ("pipeline", "naive_joint", "teacher", "student")
    unknown = [name for name in config.run if name not in known]
    if unknown or not config.run:
        raise ValueError(f"config.run is {tuple(config.run)}; expected some of {', '.join(known)}")
    for name, after in zip(config.run, (None, *config.run), strict=False):
        if name == "student" and after != "teacher":
            raise ValueError(
                f"config.run is {tuple(config.run)}; the student has to follow its teacher"
            )
    return tuple(_stage(name, config, workdir) for name in config.run)


def _stage(name: str, config: Any, workdir: pathlib.Path) -> Stage:
    settings, data = config.stages[name], config.data
    prepared = records.open_prepared(pathlib.Path(data.directory) / data.labelled)
    _check_data(prepared, config)
    target = pseudo_labels.stem_number(prepared, data.target)
    cascade, model, listener = build(config), segment_model(config), pitch_model(config)
    loss = functools.partial(
        cascade_loss,
        cascade=cascade,
        target=target,
        separation_loss=config.losses.separation,
        positive_weight=config.losses.positive_weight,
        target_width_cents=config.losses.target_width_cents,
        pitch_frames=config.pitch.frames_per_segment,
        mixture_gain=data.mixture_gain,
        joint=name != "pipeline",
        stop_gradient=config.stop_gradient_between,
        weights=config.weights.to_dict(),
    )

    def score(variables: Variables, split: str, tracks: int, **kwargs: Any) -> dict[str, float]:
        chosen = itertools.islice(pipeline.read_tracks(prepared.directory, split), tracks or None)
        options = {
            "pitch_threshold": config.evaluation.pitch_threshold,
            "batch_size": config.evaluation.batch_size,
            "overlap": config.evaluation.overlap,
        }
        scores = score_tracks(
            model, variables, chosen, system=name, target=target, **options, **kwargs
        )
        # Means over tracks for the log; the rows of tracks.jsonl have everything.
        return {k.removesuffix("_mean"): v for k, v in scores.items() if k.endswith("_mean")}

    def validate(variables: Variables) -> dict[str, float]:
        scores = score(variables, "valid", config.evaluation.valid_tracks)
        # The authors' code selects by SDR + RPA (in dB and percent), on the test split; here on validation tracks.
        return {**scores, "sdr_plus_rpa": scores["sdr_db"] + 100.0 * scores["rpa"]}

    def test(variables: Variables, folder: pathlib.Path) -> dict[str, float]:
        return score(
            variables, "test", config.evaluation.test_tracks, pitch_model=listener, folder=folder,
            example_count=config.evaluation.examples, bss_eval=config.evaluation.bss_eval, progress=f"{name}: test",
        )  # fmt: skip

    return Stage(
        name=name,
        init=lambda key, previous: cascade.init(key),  # stage II starts afresh as well
        batches=functools.partial(_batches, name, config, workdir),
        loss=loss,
        evaluate=validate,
        optimizer=_optimizer(config.optimizer, settings),
        steps=settings.steps,
        best="sdr_plus_rpa" if config.evaluation.select_best else None,
        test=test,
    )


def _check_data(prepared: records.Prepared, config: Any) -> None:
    for name in ("sample_rate_hz", "hop_samples"):
        found, wanted = getattr(prepared.layout, name), config.data[name]
        if found != wanted:
            raise ValueError(
                f"{prepared.directory} was prepared with {name} = {found}, the config has {wanted}: prepare it again with "
                f"--{name}={wanted} and another --output, or change config.data.{name}"
            )


def _batches(name: str, config: Any, workdir: pathlib.Path, previous: Variables | None) -> Any:
    """Random segments: of the labelled set, and for the student of the pseudo-labelled sets as well."""
    data = config.data
    directory = pathlib.Path(data.directory)
    sources = [(str(directory / data.labelled), "train", data.labelled_share)]
    if name == "student":
        folder = workdir / name / "pseudo_labels"
        written = parallel.first_process(lambda: _label(config, folder, previous))
        sources += [(path, "train", (1.0 - data.labelled_share) / len(written)) for path in written]
    open_batches = {"tf.data": pipeline.open_batches, "memory": memory.open_batches}[data.reader]
    return open_batches(
        sources,
        batch_size=config.stages[name].batch_size,
        segment_samples=data.segment_samples,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _label(config: Any, folder: pathlib.Path, teacher: Variables | None) -> list[str]:
    """Both single-labelled sets, labelled by the teacher: their folders."""
    if teacher is None:
        raise ValueError(
            "the student needs a teacher: let config.run name 'teacher' before 'student'"
        )
    directory, trust = pathlib.Path(config.data.directory), config.pseudo_labels
    models = {"pitch": pitch_model(config), "stems": segment_model(config)}
    datasets = {"pitch": config.data.stems_only, "stems": config.data.pitch_only}
    written = [
        pseudo_labels.write(
            directory / dataset,
            folder,
            labels=labels,
            model=models[labels],
            variables=teacher,
            target=config.data.target,
            threshold=trust.threshold,
            granularity=trust.granularity,
            overlap=config.evaluation.overlap,
            batch_size=config.evaluation.batch_size,
            file_format="tfrecord" if config.data.reader == "tf.data" else "array_record",
        )
        for labels, dataset in datasets.items()
        if dataset
    ]
    return [str(path) for path in written]


def _optimizer(options: Any, settings: Any) -> Any:
    """Adam with clipping by the global norm, at the learning rate of the config's schedule."""
    match options.schedule:
        case "constant":
            rate = optimize.constant(settings.learning_rate)
        case "step":
            rate = optimize.step_decay(
                settings.learning_rate,
                factor=options.decay_factor,
                every_steps=options.decay_every_steps,
            )
        case "cosine":
            rate = optimize.warmup_cosine(
                settings.learning_rate,
                warmup_steps=min(options.warmup_steps, settings.steps - 1),
                total_steps=settings.steps,
            )
        case other:
            raise ValueError(
                f"config.optimizer.schedule is {other!r}; expected constant, step or cosine"
            )
    return optimize.optimizer(rate, clip_norm=options.clip_norm)
