"""Trained runs and published weights as models that can be applied."""

import json
import pathlib
from collections.abc import Sequence
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
        return _together(run, found)
    if not manifest.is_file():
        raise FileNotFoundError(
            f"{manifest} does not exist; --checkpoint takes the --workdir of a training run"
        )
    said = json.loads(manifest.read_text())
    formats.check(said, formats.RUN, manifest)
    config = ml_collections.ConfigDict(said["config"])
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
    return give(config), variables, label


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

    model = dataclasses.replace(models[0], apply=apply, stems=tuple(stems), bin_cents=None)
    return model, [variables for _, variables, _ in runs], "; ".join(label for _, _, label in runs)


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
        frame_reach_samples=crepe.reach_samples,
    )
    return model, variables, "published CREPE (tiny) weights"
