"""The contract between a recipe and the loop."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import optax

from majl_jax.batch import Batch, Key, Params, Variables
from majl_jax.training import schedules

Previous = Variables | None
"""What the stage before hands over; None for the first."""
Metrics = Mapping[str, float]
Init = Callable[[Key, Previous], Variables]
OpenBatches = Callable[[Previous], Iterator[Mapping[str, Any]]]
"""Gives an endless iterator of this process's share of batches (batch.py). `save() -> bytes` and
`restore(bytes)` on it make a resumed run start where it was; without them it is read again."""
Terms = Mapping[str, jax.Array]
Loss = Callable[[Params, Variables, Batch, Key], tuple[jax.Array, tuple[Variables, Terms]]]
"""(params, mutables, batch, key) -> (scalar, (mutables, {term: scalar})) of one device's share."""
Evaluate = Callable[[Variables], Metrics]
Test = Callable[[Variables, pathlib.Path], Metrics]
"""(variables, folder of the stage) -> scores; the folder gets tracks.jsonl and examples/."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of training: plain functions and an optimiser.

    `evaluate` and `test` run in the first process, on one device. Parameters that `trainable`
    freezes do not move; that the statistics of their layers do not move either is for `loss` to see
    to.
    """

    name: str
    """Also the folder of its checkpoints."""
    init: Init
    batches: OpenBatches
    loss: Loss
    evaluate: Evaluate | None
    """Once in a while, on the validation split."""
    optimizer: optax.GradientTransformation
    steps: int
    trainable: tuple[tuple[str, bool], ...] = ((".*", True),)
    """(pattern of parameter paths, is it trained); the first that matches decides, none is an
    error.
    """
    plateau: schedules.Plateau | None = None
    """Lowers the learning rate by a metric of `evaluate`."""
    best: str | None = None
    """The metric of `evaluate`, higher is better, that picks the checkpoint."""
    average: int = 1
    """The mean of so many best checkpoints is handed over if it validates better."""
    test: Test | None = None
    """Once, at the end, on the test split."""


def chosen(
    run: Sequence[str],
    known: Sequence[str],
    *,
    field: str,
    follows: Mapping[str, str] | None = None,
    in_order: bool = False,
    advice: str = "",
) -> tuple[str, ...]:
    """The names of the stages that run, after a look at whether they are known and in order.

    Args:
        run: names, one or more.
        known: all names there are.
        field: what the recipe calls `run`, for the error.
        follows: by the name of a stage which one has to come directly before it.
        in_order: whether `run` has to be in the order of `known`.
        advice: what else can be done where a stage does not follow another.
    """
    names = tuple(run)
    unknown = not names or not set(names) <= set(known)
    if unknown or (in_order and list(names) != sorted(names, key=tuple(known).index)):
        order = ", in this order" * in_order
        raise ValueError(f"{field} is {names}; expected some of {', '.join(known)}{order}")
    for name, before in zip(names, (None, *names), strict=False):
        wanted = (follows or {}).get(name)
        if wanted not in (None, before):
            raise ValueError(f"{field} is {names}; {name} has to follow {wanted} directly{advice}")
    return names


def check_stage(stage: Stage) -> None:
    if stage.steps < 1:
        raise ValueError(f"stage {stage.name!r} has {stage.steps} steps; expected at least 1")
    if not re.fullmatch(r"[\w-]+", stage.name) or stage.name == "tensorboard":
        raise ValueError(
            f"a stage cannot be named {stage.name!r}: its name is a folder beside tensorboard/; "
            "use letters, digits, _ and -"
        )
