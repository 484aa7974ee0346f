"""Variables that a stage starts from: those of another run, a model file or published weights, for
the whole network or for a part of it.

`config.stages.X.start` lists them, `SOURCE` or `PART=SOURCE`, several with commas between:

    runs/voice            the last stage of a run, what it hands over
    runs/voice:teacher    a stage of it
    voice.safetensors     a model of majl_jax.export
    crepe.npz             weights of majl_jax.weights
    crepe-tiny            CREPE's published weights, of a package (tiny, small, …, full)
    previous              what the stage before this one handed over

A part is the name of one of the network's own ("pitch", "separator", "separator/encoder"): of a
source that has it, or its last name, that part is taken, and else the source is the part.
"""

import functools
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from majl_jax import console, weights
from majl_jax.batch import Variables
from majl_jax.models.crepe import CAPACITY
from majl_jax.training import restore
from majl_jax.weights.files import read_tensors
from majl_jax.weights.filling import flat, nest

SUFFIXES = (".npz", ".safetensors")
_PUBLISHED = {f"crepe-{capacity}": capacity for capacity in CAPACITY}
PREVIOUS = "previous"
_SHOWN = 4  # paths that a message names


def check_all(config: Any, *, previous: bool = False) -> None:
    """`check` for every stage that `config.run` names.

    previous: whether the recipe's stages may ask for what the one before handed over; the first of
      a run never may.
    """
    for number, name in enumerate(config.run):
        field = f"config.stages.{name}.start"
        check(config.stages[name].start, field=field, previous=previous and number > 0)


def check(start: str, *, field: str, previous: bool = False) -> None:
    """A ValueError or FileNotFoundError if a source of `start` is not there.

    Args:
        start: the sources.
        field: its name.
        previous: whether there is a stage before, of which the recipe hands something over.
    """
    for part, source in listed(start):
        if source == PREVIOUS and not previous:
            raise ValueError(
                f"{field} is {start!r}, and there is nothing to go on from: only a stage of majl"
                " with another one before it in config.run can start from the previous one"
            )
        if source == PREVIOUS:
            continue
        if source in _PUBLISHED:
            weights.load_crepe(_PUBLISHED[source])
        elif pathlib.Path(source).suffix in SUFFIXES:
            if not pathlib.Path(source).is_file():
                raise FileNotFoundError(f"{field} names {source}, which is no file")
        elif not pathlib.Path(source.rpartition(":")[0] or source).is_dir():
            raise FileNotFoundError(
                f"{field} names {source!r}{f' for {part}' * bool(part)}; expected the folder of a"
                f" run (RUN or RUN:STAGE), a file {' or '.join(SUFFIXES)}, or crepe-tiny …"
                " crepe-full"
            )


def started(
    fresh: Variables,
    start: str,
    *,
    field: str,
    anew: str = "",
    previous: Variables | None = None,
) -> dict[str, Any]:
    """`fresh` with what the sources of `start` have of it, and a line that counts what was taken,
    what of a source was left and what of the network is new.

    A part that the network lacks, a source of which nothing is taken, and an array of another
    shape are ValueErrors.

    Args:
        fresh: variables of the whole network.
        start: the sources; "" leaves `fresh` as it is.
        field: the name of `start`.
        anew: paths that stay fresh whatever a source has, as a regular expression.
        previous: what the stage before handed over; None: there is none yet.
    """
    found = flat(fresh)
    for part, source in listed(start):
        wanted = _within(fresh, part)
        if not wanted:
            raise ValueError(
                f"{field} names a part {part!r}; expected one of"
                f" {', '.join(sorted(fresh['params']))}"
            )
        if source == PREVIOUS and previous is None:  # only shapes are asked for
            continue
        loaded = previous if source == PREVIOUS else load(source)
        given = flat(_only(loaded or {}, part))
        taken = [path for path in sorted(set(given) & set(wanted)) if not _matches(anew, path)]
        for path in taken:
            if np.shape(given[path]) != np.shape(wanted[path]):
                raise ValueError(
                    f"{field}: {source} has the shape {np.shape(given[path])} for {path}, the"
                    f" network {np.shape(wanted[path])}; change the config's sizes, or start from"
                    " other weights"
                )
        if not taken:
            raise ValueError(
                f"{field}: {source} has nothing that the network's {part or 'variables'} have: it"
                f" begins with {', '.join(sorted(given)[:_SHOWN])}"
            )
        left, new = sorted(set(given) - set(taken)), sorted(set(wanted) - set(taken))
        _say(source, part, len(taken), tuple(left), tuple(new))
        for path in taken:
            collection, _, rest = path.partition("/")
            whole = f"{collection}/{part}/{rest}" if part else path
            found[whole] = np.asarray(given[path], found[whole].dtype)
    return nest(found)


def listed(start: str) -> list[tuple[str, str]]:
    """(part or "", source) of each entry."""
    entries = (entry.rpartition("=") for entry in start.split(",") if entry.strip())
    return [(part.strip(), source.strip()) for part, _, source in entries]


def _matches(pattern: str, path: str) -> bool:
    return bool(pattern) and re.fullmatch(pattern, path) is not None


def load(source: str) -> Mapping[str, Any]:
    """The variables of one source: where it has a moving average of its parameters, that."""
    variables = dict(_read(source))
    if "averaged" in variables:
        variables["params"] = variables.pop("averaged")
    return variables


def _read(source: str) -> Mapping[str, Any]:
    if source in _PUBLISHED:
        return weights.load_crepe(_PUBLISHED[source])
    if pathlib.Path(source).suffix in SUFFIXES:
        return nest(read_tensors(pathlib.Path(source)))
    if pathlib.Path(source).is_dir():
        return restore.load_variables(source)[0]
    run, _, stage = source.rpartition(":")
    return restore.load_variables(run, stage)[0]


def _only(variables: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The part of each collection, or what has its last name, where the parameters have it; else
    all.
    """
    for path in filter(None, dict.fromkeys((part, part.rpartition("/")[2]))):
        found = {name: _at(tree, path) for name, tree in variables.items()}
        if found.get("params"):
            return {name: tree for name, tree in found.items() if tree}
    return dict(variables)


def _at(tree: Any, path: str) -> Any:
    """What stands at a/b of a tree, None if nothing does."""
    for name in path.split("/"):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def _within(variables: Mapping[str, Any], part: str) -> dict[str, Any]:
    """{path: array} of a network or of a part of it."""
    if part and _at(variables["params"], part) is None:
        return {}
    return flat(_only(variables, part))


@functools.cache  # a network is also made to look at its shapes: said once
def _say(source: str, part: str, taken: int, left: tuple[str, ...], new: tuple[str, ...]) -> None:
    text = f"{part or 'network'}: {taken} arrays of {source}"
    for word, paths in (("left in it", left), ("new", new)):
        if paths:
            more = ", …" * (len(paths) > _SHOWN)
            text += f"; {len(paths)} {word} ({', '.join(paths[:_SHOWN])}{more})"
    console.say(text)
