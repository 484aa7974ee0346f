"""Trained runs and published weights as models that can be applied."""

import contextlib
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from majl_jax import formats

if TYPE_CHECKING:  # JAX is loaded only once the command line has been understood
    from majl_jax.inference.multi_pitch import MultiPitchModel
    from majl_jax.inference.segments import SegmentModel


def load_run(
    run: pathlib.Path,
    *,
    stage: str | None = None,
    which: str = "best",
    recipe: str | None = None,
) -> tuple["SegmentModel | MultiPitchModel", Any, str]:
    """Returns the model of a training run, the variables of a stage, and in words what they are.

    recipe: what the run has to be of, None for any. A folder of runs, each of other stems, gives
      the stems of all.
    """
    import importlib
    from importlib.util import find_spec

    import ml_collections

    from majl_jax.training import restore

    manifest = run / "config.json"
    if not manifest.is_file() and (runs := sorted(run.glob("*/config.json"))):
        found = [load_run(one.parent, stage=stage, which=which, recipe=recipe) for one in runs]
        return _together(run, found) if len(found) > 1 else found[0]
    if not manifest.is_file():
        raise FileNotFoundError(
            f"{manifest} does not exist; --checkpoint takes the --workdir of a training run"
        )
    said = formats.read(manifest, formats.RUN, needs=("config",))
    config = ml_collections.ConfigDict(_with_tuples(said["config"]))
    name = str(config.get("recipe", ""))
    if not name.isidentifier() or find_spec(f"majl_jax.recipes.{name}") is None:
        raise ValueError(f"{manifest} names the recipe {name!r}, which this version does not have")
    if recipe not in (None, name):
        raise ValueError(
            f"{run} is a run of the recipe {name}, not {recipe}; give another --checkpoint, or "
            "leave --recipe out"
        )
    module = importlib.import_module(f"majl_jax.recipes.{name}")
    give = getattr(module, "segment_model", None) or module.multi_pitch_model
    variables, meta = restore.load_variables(run, stage, which)
    stages: Any = config.get("run", ())
    ran = list(stages)
    if meta["stage"] in ran:  # the model of the run as far as this stage
        config.run = ran[: ran.index(meta["stage"]) + 1]
    label = f"{name}, stage {meta['stage']}, step {meta['step']} ({which}) of {run}"
    # A config of before may lack what would tell it, and so may a recipe of one's own.
    with contextlib.suppress(AttributeError, KeyError):
        label += f", trained on {_in_words(module.data_sets(config))}"
    return give(config), variables, label


def _with_tuples(value: Any) -> Any:
    """A config as it was before it was JSON, which knows no tuples."""
    if isinstance(value, dict):
        return {key: _with_tuples(one) for key, one in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _in_words(names: Sequence[str]) -> str:
    """Data sets, by the names of their folders, and whether they are recordings."""
    from majl_jax.datasets.readers import READERS

    by_sound: dict[str, list[str]] = {}
    for name in names:
        reader = READERS.get(name.rsplit("/", 1)[-1])
        by_sound.setdefault(reader.sound if reader else "of one's own", []).append(name)
    only = " only" if list(by_sound) == ["synthetic"] else ""
    return ", ".join(f"{', '.join(found)} ({kind}{only})" for kind, found in by_sound.items())


def gives(model: "SegmentModel | MultiPitchModel") -> str:
    """What a model makes of a song, and up to where it hears it."""
    stems = getattr(model, "stems", None)
    out = ["all pitches"] if stems is None else [*stems]
    if getattr(model, "bin_cents", None) is not None:
        out.append("pitch")
    rate_hz = model.sample_rate_hz
    return f"gives {', '.join(out)}; at {rate_hz} Hz, so nothing above {rate_hz // 2} Hz"


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


def _together(
    folder: pathlib.Path, runs: Sequence[tuple["SegmentModel | MultiPitchModel", Any, str]]
) -> tuple["SegmentModel", Any, str]:
    """One model that gives the stems of several, which hear the same segments."""
    import dataclasses

    import jax.numpy as jnp

    from majl_jax.inference.segments import SegmentModel

    models: list[Any] = [model for model, _, _ in runs]
    fields = ("sample_rate_hz", "segment_samples", "hop_samples", "channels", "context_samples")
    grids = {tuple(getattr(model, field, None) for field in fields) for model in models}
    stems = [stem for model in models for stem in getattr(model, "stems", ())]
    fits = all(isinstance(model, SegmentModel) and model.for_song is None for model in models)
    if not fits or len(grids) > 1 or len(set(stems)) < len(stems):
        raise ValueError(
            f"{folder} holds the runs {', '.join(label for _, _, label in runs)}, with the stems"
            f" {', '.join(stems)}; expected runs that separate different stems at the same rate and"
            " in the same segments. Give one of them"
        )

    def apply(variables: Any, audio: Any) -> dict[str, Any]:
        parts = [m.apply(v, audio)["stems"] for m, v in zip(models, variables, strict=True)]
        return {"stems": jnp.concatenate(parts, axis=2)}

    label = "; ".join(label for _, _, label in runs)
    if any(model.bin_cents is not None for model in models):
        label += "; no pitch, which one run alone gives"
    model = dataclasses.replace(models[0], apply=apply, stems=tuple(stems), bin_cents=None)
    return model, [variables for _, variables, _ in runs], label


def published_pitch(*, hop_samples: int = 160) -> tuple["SegmentModel", Any, str]:
    """Returns CREPE (tiny) with its published weights, a model of pitch alone."""
    import jax

    from majl_jax import weights
    from majl_jax.audio.pitch import CREPE_BIN_CENTS
    from majl_jax.inference.segments import SegmentModel
    from majl_jax.models.crepe import Crepe

    crepe = Crepe(capacity="tiny", hop_samples=hop_samples, frame_floor=1e-8)
    variables = weights.load_crepe("tiny")

    def apply(variables: Any, audio: Any) -> dict[str, Any]:
        logits: Any = crepe.apply(variables, audio[..., 0])
        return {"salience": jax.nn.sigmoid(logits)}

    model = SegmentModel(
        apply=apply,
        sample_rate_hz=16_000,
        segment_samples=40_960,
        hop_samples=hop_samples,
        bin_cents=CREPE_BIN_CENTS,
    )
    label = "published CREPE (tiny) weights, trained on single voices (real, synthetic)"
    return model, variables, label
