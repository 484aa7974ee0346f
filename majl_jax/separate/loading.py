"""Trained runs and published weights as models that can be applied."""

import contextlib
import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import majl_jax
from majl_jax import formats
from majl_jax.datasets import sounds
from majl_jax.separate import cards, hub, model_file, published

if TYPE_CHECKING:  # JAX is loaded only once the command line has been understood
    from majl_jax.inference.multi_pitch import MultiPitchModel
    from majl_jax.inference.segments import SegmentModel


Found = published.Found
SHIPPED = pathlib.Path(majl_jax.__file__).parent / "pretrained"
"""Model files that come with the package, by their names."""


def find(
    source: str | os.PathLike[str],
    *,
    stage: str | None = None,
    which: str = "best",
    recipe: str | None = None,
    architecture: str | None = None,
    by_name: bool = False,
) -> Found:
    """A model by where it is, or by its name.

    Raises FileNotFoundError where there is none, ValueError where the rest does not fit it.

    Args:
        source: the folder of a run, RUN:STAGE, a folder of runs with other stems each, a model file
          (.safetensors), its address (`hf://OWNER/NAME`), or a name: of a model that comes with the
          package, or of published weights (`crepe-tiny` to `crepe-full`).
        stage: of a run; None: the last one that was trained.
        which: "best" or "last" checkpoint of the stage.
        recipe: what it has to be of; None: any.
        architecture: of a file of published weights, whose name alone does not say it.
        by_name: whether the source is a name, whatever else is called so where it is run.
    """
    text = os.fspath(source)
    if hub.is_address(text):
        text = os.fspath(hub.fetch(text))
    path = pathlib.Path(text)
    if architecture is not None:
        return published.load(path, architecture)
    run, colon, of_run = text.rpartition(":")
    if colon and not path.exists() and pathlib.Path(run).is_dir():
        if stage not in (None, of_run):
            raise ValueError(f"{text} names the stage {of_run}, and {stage} is asked for as well")
        path, stage = pathlib.Path(run), of_run
    file = path if path.suffix == model_file.SUFFIX else SHIPPED / f"{text}{model_file.SUFFIX}"
    known = (by_name or not path.exists()) and (text in published.NAMES or file.is_file())
    if not known and file != path:
        return load_run(path, stage=stage, which=which, recipe=recipe)
    if stage is not None or which != "best":
        raise ValueError(f"{text} is one model: --stage and --which choose from a run")
    found = load_file(file) if file == path or file.is_file() else published.pitch(text)
    if recipe not in (None, found[2].recipe):
        kind = f"of the recipe {found[2].recipe}" if found[2].recipe else "of no recipe"
        raise ValueError(f"{text} is {kind}, not {recipe}; give another one, or leave --recipe out")
    return found


DEFAULT = "voice"


def default() -> str:
    """The name of the model that separates where none is asked for."""
    if DEFAULT not in names():
        raise FileNotFoundError(
            f"{SHIPPED / DEFAULT}{model_file.SUFFIX} does not exist: this installation has no"
            " model of its own. Give --checkpoint=RUN (the --workdir of a training run), or"
            " --pitch_only"
        )
    return DEFAULT


def names() -> list[str]:
    """Models that are known by name."""
    shipped = sorted(path.stem for path in SHIPPED.glob(f"*{model_file.SUFFIX}"))
    return [*shipped, *published.NAMES]


def load_run(
    run: pathlib.Path,
    *,
    stage: str | None = None,
    which: str = "best",
    recipe: str | None = None,
) -> Found:
    """Returns the model of a training run, the variables of a stage, and what is known about it.

    recipe: what the run has to be of, None for any. A folder of runs, each of other stems, gives
      the stems of all.
    """
    from majl_jax.training import restore

    manifest = run / "config.json"
    if not manifest.is_file() and (runs := sorted(run.glob("*/config.json"))):
        found = [load_run(one.parent, stage=stage, which=which, recipe=recipe) for one in runs]
        return _together(run, found) if len(found) > 1 else found[0]
    if not manifest.is_file():
        raise FileNotFoundError(
            f"{manifest} does not exist; expected the --workdir of a training run, RUN:STAGE, a "
            f"folder of runs, a {model_file.SUFFIX} file, or one of {', '.join(names())}"
        )
    said = formats.read(manifest, formats.RUN, needs=("config",))
    name = str(said["config"].get("recipe", ""))
    module = _recipe(name, manifest)
    if recipe not in (None, name):
        raise ValueError(
            f"{run} is a run of the recipe {name}, not {recipe}; give another --checkpoint, or "
            "leave --recipe out"
        )
    variables, meta = restore.load_variables(run, stage, which)
    paper = " ".join((module.__doc__ or name).partition("\n\n")[0].split())
    info = cards.of_run(run, said, meta, which=which, paper=paper)
    if not _heard_labels(run, info, getattr(module, "PITCH_TERMS", ())):
        info = cards.without_pitch(info, "of which it heard no label")
    model, info = _model(info)
    return model, variables, info


def load_file(path: pathlib.Path) -> Found:
    """The model in a file of `majl_jax.export`."""
    variables, info = model_file.read(path)
    _recipe(info.recipe, path)
    model, info = _model(info)
    model_file.check_fits(model, variables, path)
    return model, variables, info


def _recipe(name: str, where: pathlib.Path) -> Any:
    """The module of a recipe, which the file `where` names."""
    import importlib
    from importlib.util import find_spec

    if not name.isidentifier() or find_spec(f"majl_jax.recipes.{name}") is None:
        raise ValueError(f"{where} names the recipe {name!r}, which this version does not have")
    return importlib.import_module(f"majl_jax.recipes.{name}")


def _model(info: cards.Info) -> tuple["SegmentModel | MultiPitchModel", cards.Info]:
    """The model of a card's config, and the card with what follows from both."""
    import importlib

    import ml_collections

    config = ml_collections.ConfigDict(_with_tuples(info.config))
    module = importlib.import_module(f"majl_jax.recipes.{info.recipe}")
    # A config of before may lack what would tell it, and so may a recipe of one's own.
    with contextlib.suppress(AttributeError, KeyError):
        info = dataclasses.replace(info, data=sounds.of(module.data_sets(config)))
    give = getattr(module, "segment_model", None) or module.multi_pitch_model
    model = give(config)
    if math.isfinite(tuned := info.scores.get("threshold_tuned") or math.nan):
        model = dataclasses.replace(model, threshold=tuned)
    if info.pitch == "" and getattr(model, "bin_cents", None) is not None:
        model = _without_pitch(model)
    return model, cards.with_model(info, model)


def _heard_labels(run: pathlib.Path, info: cards.Info, terms: Sequence[str]) -> bool:
    """Whether one of these terms of the loss had a weight and, as far as the log says, a label."""
    from majl_jax.training import run_log

    counted = run_log.terms_that_counted(run, info.stage) if terms else None
    weights = info.config.get("weights", {})
    return counted is None or any(weights.get(t, 0) > 0 and t in counted for t in terms)


def _without_pitch(model: Any) -> "SegmentModel":
    def apply(variables: Any, audio: Any) -> dict[str, Any]:
        return {"stems": model.apply(variables, audio)["stems"]}

    return dataclasses.replace(model, apply=apply, bin_cents=None)


def _with_tuples(value: Any) -> Any:
    """A config as it was before it was JSON, which knows no tuples."""
    if isinstance(value, dict):
        return {key: _with_tuples(one) for key, one in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def gives(model: "SegmentModel | MultiPitchModel") -> str:
    """What a model makes of a song, and up to where it hears it."""
    stems = getattr(model, "stems", None)
    out = ["all pitches"] if stems is None else [*stems]
    if getattr(model, "bin_cents", None) is not None:
        out.append("pitch" + f" (voiced from {model.threshold:g} on)" * (model.threshold != 0.5))
    rate_hz = model.sample_rate_hz
    return f"gives {', '.join(out)}; at {rate_hz} Hz, so it hears nothing above {rate_hz // 2} Hz"


def announced(
    model: "SegmentModel | MultiPitchModel", say: Callable[[str], object]
) -> "SegmentModel | MultiPitchModel":
    """The model, which says so before it is compiled for the first time: that may take minutes."""
    import dataclasses

    said: list[str] = []

    def before(function: Callable[..., Any]) -> Callable[..., Any]:
        # JAX runs it once for each program, to compile it.
        def traced(*arguments: Any) -> Any:
            if not said:
                said.append("compiling the model …")
                say(said[0])
            return function(*arguments)

        return traced

    names = ("apply", "apply_magnitudes", "apply_features", "for_song")
    functions = {name: getattr(model, name, None) for name in names}
    found = {name: before(function) for name, function in functions.items() if function}
    return dataclasses.replace(model, **found)


def _together(folder: pathlib.Path, runs: Sequence[Found]) -> Found:
    """One model that gives the stems of several, which hear the same segments."""
    import jax.numpy as jnp

    from majl_jax.inference.segments import SegmentModel

    models: list[Any] = [model for model, _, _ in runs]
    infos = [info for _, _, info in runs]
    fields = ("sample_rate_hz", "segment_samples", "hop_samples", "channels", "context_samples")
    grids = {tuple(getattr(model, field, None) for field in fields) for model in models}
    stems = [stem for model in models for stem in getattr(model, "stems", ())]
    fits = all(isinstance(model, SegmentModel) and model.for_song is None for model in models)
    if not fits or len(grids) > 1 or len(set(stems)) < len(stems):
        raise ValueError(
            f"{folder} holds the runs {', '.join(map(str, infos))}, with the stems"
            f" {', '.join(stems)}; expected runs that separate different stems at the same rate and"
            " in the same segments. Give one of them"
        )

    def apply(variables: Any, audio: Any) -> dict[str, Any]:
        parts = [m.apply(v, audio)["stems"] for m, v in zip(models, variables, strict=True)]
        return {"stems": jnp.concatenate(parts, axis=2)}

    if any(model.bin_cents is not None for model in models):
        infos[0] = cards.without_pitch(infos[0], "which one run alone gives")
    model = dataclasses.replace(models[0], apply=apply, stems=tuple(stems), bin_cents=None)
    scores = {f"{', '.join(i.stems)}/{k}": v for i in infos for k, v in i.scores.items()}
    info = dataclasses.replace(
        cards.with_model(infos[0], model),
        about="; ".join(info.about for info in infos),
        config={},
        stage="",
        step=0,
        data={name: sound for info in infos for name, sound in info.data.items()},
        scores=scores,
    )
    return model, [variables for _, variables, _ in runs], info
