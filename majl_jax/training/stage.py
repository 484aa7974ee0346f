"""The contract between a recipe and the loop."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import optax

from majl_jax.training import schedules


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of training: plain functions and an optimiser.

    `variables` are {"params": ..., **mutables}. `evaluate` and `test` run in the first process, on
    one device. `batches` gives an endless iterator of this process's share; `save() -> bytes` and
    `restore(bytes)` on it make a resumed run start where it was, without them it is read again from
    its start. Parameters that `trainable` freezes do not move; that the statistics of their layers
    do not move either is for `loss` to see to.
    """

    name: str
    init: Callable  # (key, previous) -> variables; previous: the stage before's, or None
    batches: Callable  # (previous) -> iterator of Batch
    loss: Callable  # (params, mutables, batch, key) -> (scalar, (mutables, {term: scalar}))
    evaluate: Callable | None  # (variables) -> {metric: float}
    optimizer: optax.GradientTransformation
    steps: int
    trainable: tuple[tuple[str, bool], ...] = ((".*", True),)
    plateau: schedules.Plateau | None = None  # lowers the learning rate by a metric of `evaluate`
    best: str | None = None  # the metric of `evaluate`, higher is better, that picks the checkpoint
    average: int = 1  # the mean of so many best checkpoints is tested and handed over
    test: Callable | None = None  # (variables, folder) -> {metric: float}: once, at the end


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
