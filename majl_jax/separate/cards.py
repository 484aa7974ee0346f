"""What is known about a model: where it is from, what it learnt from, and what it scored."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import majl_jax
from majl_jax import formats
from majl_jax.datasets import sounds


@dataclasses.dataclass(frozen=True)
class Info:
    """A model's card; as text, one line: what the model is, and what it was trained on."""

    about: str
    """As "majl, stage student, step 700 (best by sdr_db, last) of runs/majl"."""
    recipe: str = ""
    """The paper's, as "majl"; "" of published weights."""
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    """Its fields, as JSON has them, of the run as far as this stage."""
    stage: str = ""
    step: int = 0
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The data sets it was trained on, each "real", "synthetic", "own" files, or "unknown"."""
    sample_rate_hz: int = 0
    """Of the audio it hears: nothing above half of it."""
    channels: int = 1
    stems: tuple[str, ...] = ()
    pitch: str | None = None
    """"one" per frame, "several", or "" for none; None where the model's config tells it."""
    scores: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    """Of its stage on held-out tracks, by the names of result.json; None where undefined."""
    note: str = ""
    """What else there is to say, as "; no pitch, which one run alone gives"."""
    licence: str = ""
    """Of the parameters; "" where nobody has said."""
    commit: str = ""
    """Of the code that trained it; "" where it is not known."""
    version: str = ""
    """Of majl_jax."""
    cite: str = ""

    def __str__(self) -> str:
        trained = f", trained on {sounds.in_words(self.data)}" if self.data else ""
        return f"{self.about}{trained}{self.note}"

    @property
    def synthetic(self) -> bool:
        """Whether it has learnt from rendered sound only."""
        return bool(self.data) and set(self.data.values()) == {"synthetic"}

    def of_file(self, path: pathlib.Path) -> "Info":
        """The same model, found in a file."""
        return dataclasses.replace(self, about=f"{self.about.partition(' of ')[0]} of {path}")


def from_json(said: Mapping[str, Any]) -> Info:
    """A card as `dataclasses.asdict` and JSON left it; keys that are not known are left out."""
    known = {field.name for field in dataclasses.fields(Info)}
    card = {key: value for key, value in said.items() if key in known}
    scores = _as_scores(card.get("scores", {}))
    return Info(**{**card, "stems": tuple(card.get("stems", ())), "scores": scores})


def markdown(info: Info, address: str) -> str:
    """A card as a page, with what it takes to use the model at this address."""
    scores = {name: value for name, value in info.scores.items() if value is not None}
    rows = [f"| {name} | {value:.4g} |" for name, value in scores.items()]
    heard = f"{info.sample_rate_hz} Hz, so it hears nothing above {info.sample_rate_hz // 2} Hz"
    lines = [
        "---",
        f"license: {info.licence.lower() or 'unknown'}",
        "library_name: majl_jax",
        "---",
        "",
        f"# {info.recipe or 'majl_jax'}: {', '.join(info.stems) or 'pitch'}",
        "",
        f"- trained on: {sounds.in_words(info.data) or 'unknown'}",
        f"- gives: {', '.join([*info.stems, *['pitch'] * bool(info.pitch)])}; at {heard}",
        f"- stage {info.stage}, step {info.step}; commit {info.commit or 'unknown'}",
        f"- cite: {info.cite}",
        "",
        "```python",
        "import majl_jax",
        "",
        f'model = majl_jax.load("{address}")',
        "```",
        "",
    ]
    if rows:
        lines += ["| score on held-out tracks | |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def of_run(
    run: pathlib.Path, said: Mapping[str, Any], meta: Mapping[str, Any], *, which: str, paper: str
) -> Info:
    """The card of a run without what its model gives.

    Args:
        run: its folder.
        said: its config.json.
        meta: of the checkpoint.
        which: "best", what the stage hands over, or "last".
        paper: the first sentence about its recipe.
    """
    config, recipe = said["config"], str(said["config"]["recipe"])
    stage, step = str(meta["stage"]), int(meta["step"])
    ran = list(config.get("run", ()))
    if stage in ran:  # the model of the run as far as this stage
        config = {**config, "run": ran[: ran.index(stage) + 1]}
    path, scores = run / stage / "result.json", {}
    there, loaded = _steps(run, meta), [step]
    if path.is_file():
        result = formats.read(path, formats.RUN)
        handed_over = result.get("steps", [])
        if which == "best" and handed_over and set(handed_over) <= set(there):
            loaded = handed_over
        # Those of another checkpoint, or of a mean that this one is a part of, would be wrong here.
        scores = result.get("metrics", {}) if loaded == handed_over else {}
    start = (said.get("starts") or [{}])[-1]
    version = start.get("versions", {}).get("majl_jax", majl_jax.__version__)
    return Info(
        about=f"{recipe}, stage {stage}, {_checkpoint(run, meta, loaded)} of {run}",
        recipe=recipe,
        config=config,
        stage=stage,
        step=step,
        scores=_as_scores(scores),
        commit=start.get("commit") or "",
        version=version,
        cite=f"majl_jax {version} (CITATION.cff); {paper}",
    )


def _checkpoint(run: pathlib.Path, meta: Mapping[str, Any], steps: Sequence[int]) -> str:
    """What a checkpoint, or the mean of several, is among those of its stage."""
    from majl_jax.training import restore, run_log

    stage, step, metric = str(meta["stage"]), int(meta["step"]), meta.get("best")
    there = _steps(run, meta)
    if len(steps) > 1:
        return f"steps {'+'.join(map(str, steps))} (their mean)"
    scores = run_log.scores(run, stage, metric) if metric else {}
    names = [f"best by {metric}"] * (restore.ranked(scores, there)[:1] == [step])
    names += ["last"] * (there[-1] == step)
    return f"step {step}" + f" ({', '.join(names)})" * bool(names)


def _steps(run: pathlib.Path, meta: Mapping[str, Any]) -> list[int]:
    """The checkpoints of the stage of one of them."""
    from majl_jax.training import restore

    return restore.complete_steps(run / str(meta["stage"]) / "checkpoints") or [int(meta["step"])]


def _as_scores(said: Mapping[str, Any]) -> dict[str, Any]:
    """Scores as JSON has them, in numbers."""
    return {name: formats.score_from_json(value) for name, value in said.items()}


def without_pitch(info: Info, why: str) -> Info:
    """The card of a model that is not to give the pitch that its config speaks of."""
    return dataclasses.replace(info, pitch="", note=f"; no pitch, {why}")


def with_model(info: Info, model: Any) -> Info:
    """The card with what the model hears and gives."""
    several = not hasattr(model, "stems")
    one = getattr(model, "bin_cents", None) is not None
    return dataclasses.replace(
        info,
        sample_rate_hz=model.sample_rate_hz,
        channels=getattr(model, "channels", 1),
        stems=tuple(getattr(model, "stems", ())),
        pitch="several" if several else "one" if one else "",
    )
