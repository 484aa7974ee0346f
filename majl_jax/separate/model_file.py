"""A model in one file, `.safetensors`: parameters and statistics as tensors, config and card as
JSON in its metadata. Nothing in it is run.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from majl_jax import atomic, formats
from majl_jax.separate import cards

SUFFIX = ".safetensors"
_KEY = "majl_jax"  # of the metadata
_TYPES = {"F32": np.float32, "I32": np.int32, "U32": np.uint32, "BOOL": np.bool_}
_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")


class ModelFileError(ValueError):
    """A file that is no model of ours, is damaged, or does not fit its own config."""


def write(path: pathlib.Path, variables: Mapping[str, Any], info: cards.Info) -> None:
    """Writes a model, whole or not at all; its tensors are called as `params/conv1/kernel`."""
    from safetensors.numpy import save_file

    from majl_jax.weights.filling import flat

    if path.suffix != SUFFIX:
        raise ValueError(f"{path}: a model file is written as {SUFFIX}")
    # As they are, copied only where their memory is not in order.
    tensors = {name: np.asarray(leaf, order="C") for name, leaf in flat(variables).items()}
    for name, tensor in tensors.items():
        _check_tensor(path, name, str(tensor.dtype), {np.dtype(t).name for t in _TYPES.values()})
    card = {formats.KEY: formats.MODEL, **dataclasses.asdict(info)}
    for name, score in info.scores.items():
        card["scores"][name] = None if score is None else formats.score_to_json(score)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.draft(path) as part:
        save_file(tensors, part, metadata={_KEY: json.dumps(card)})


def read(path: pathlib.Path) -> tuple[dict[str, Any], cards.Info]:
    """The variables of a model and its card."""
    from safetensors import SafetensorError, safe_open

    from majl_jax.weights.filling import nest

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such model file")
    try:
        with safe_open(path, framework="numpy") as file:
            card = _card(path, file.metadata() or {})
            for name in file.keys():  # noqa: SIM118, it is no dictionary
                _check_tensor(path, name, file.get_slice(name).get_dtype(), _TYPES)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelFileError(
            f"{path} is damaged or no {SUFFIX} file ({error}): export it again"
        ) from error
    for name, tensor in tensors.items():
        parents = [name[: one.start()] for one in re.finditer("/", name)]
        if any(parent in tensors for parent in parents):
            raise ModelFileError(f"{path} has {name!r} inside of another tensor: export it again")
        if not np.isfinite(tensor).all():
            raise ModelFileError(f"{path} has values in {name!r} that are not finite")
    return nest(tensors), cards.from_json(card).of_file(path)


def _card(path: pathlib.Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if _KEY not in metadata:
        raise ModelFileError(
            f"{path} holds tensors without a card: expected a file of majl_jax.export (weights of "
            "others: python -m majl_jax.weights)"
        )
    try:
        said = json.loads(metadata[_KEY])
    except json.JSONDecodeError as error:
        raise ModelFileError(f"{path} has a card that is not JSON ({error.msg})") from error
    formats.check(said, formats.MODEL, path)
    if lacking := [key for key in ("about", "recipe", "config") if key not in said]:
        raise ModelFileError(f"{path} has a card without {', '.join(lacking)}: export it again")
    return said


def _check_tensor(path: pathlib.Path, name: str, dtype: str, known: Any) -> None:
    if not _NAME.fullmatch(name):
        raise ModelFileError(f"{path}: {name!r} is no name of a tensor; expected a/b/c")
    if dtype not in known:
        raise ModelFileError(f"{path}: {name!r} is {dtype}; expected one of {', '.join(known)}")


def needed(model: Any, variables: Any) -> Any:
    """The variables without the arrays that a model of segments never reads, such as those of a
    module that weighs losses.
    """
    import jax
    import jax.numpy as jnp

    from majl_jax.inference.multi_pitch import MultiPitchModel

    if isinstance(model, MultiPitchModel) or model.for_song is not None:
        return variables
    audio = jax.ShapeDtypeStruct((1, model.segment_samples, model.channels), jnp.float32)
    jaxpr = jax.make_jaxpr(model.apply)(variables, audio).jaxpr
    read = {id(one) for equation in jaxpr.eqns for one in equation.invars}
    read |= {id(one) for one in jaxpr.outvars}
    leaves, tree = jax.tree.flatten(variables)
    pairs = zip(leaves, jaxpr.invars[: len(leaves)], strict=True)
    kept = [leaf if id(one) in read else None for leaf, one in pairs]
    return _without_none(jax.tree.unflatten(tree, kept))


def _without_none(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    found = {name: _without_none(part) for name, part in tree.items()}
    return {k: v for k, v in found.items() if v is not None and not (type(v) is dict and not v)}


def check_fits(model: Any, variables: Any, path: pathlib.Path) -> None:
    """ModelFileError where the network of a model cannot be made of these variables.

    By tracing it on shapes. Of a model that has to hear a song first nothing is known before.
    """
    import jax
    import jax.numpy as jnp

    from majl_jax.inference.multi_pitch import MultiPitchModel

    def shape(*sizes: int) -> Any:
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    try:
        if isinstance(model, MultiPitchModel):
            heard = jax.eval_shape(model.apply_magnitudes, shape(1, model.window_samples))
            mask = jax.ShapeDtypeStruct(heard.shape[:2], jnp.bool_)
            jax.eval_shape(model.apply_features, variables, heard, mask)
        elif model.for_song is None:
            jax.eval_shape(model.apply, variables, shape(1, model.segment_samples, model.channels))
    except Exception as error:  # whatever a network says of parameters that are not its own
        reason = " ".join(str(error).partition("(https://")[0].split())
        raise ModelFileError(
            f"{path} has tensors that do not fit the network of its config "
            f"({type(error).__name__}: {reason}): export it again"
        ) from error
