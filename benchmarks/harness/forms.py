"""Forms of one computation in one process: planned memory at full size, times at a smaller one."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.harness import measuring


@dataclasses.dataclass(frozen=True)
class Forms:
    """What the forms took.

    Args:
        planned_mib: what XLA plans at full size, by form.
        ms: median of a step, by form; empty: nothing has run.
        errors: disagreement of each result with the exact form's, by form.
        base: the form that ratios are to.
    """

    planned_mib: Mapping[str, float]
    ms: Mapping[str, float]
    errors: Mapping[str, Sequence[float]]
    base: str

    def lines(self, results: str) -> list[str]:
        """The table; `results` names what was compared."""
        head = f"{'':<14}{'planned MiB':>12}{'ratio':>8}{'step ms':>9}{'ratio':>7}  {results}"
        out = [head]
        for name, planned in self.planned_mib.items():
            row = f"{name:<14}{planned:>12.0f}{planned / self.planned_mib[self.base]:>8.2f}"
            if self.ms:
                row += f"{self.ms[name]:>9.1f}{self.ms[name] / self.ms[self.base]:>7.2f}"
                row += "".join(f"  {error:.0e}" for error in self.errors[name])
            out.append(row)
        return out


def planned(step: Callable, shapes: Sequence[Any]) -> float:
    """MiB that XLA plans for a step of arrays of these shapes."""
    return measuring.planned_mib(measuring.compiled(step, *shapes)[0])


def run(
    steps: Mapping[str, Callable], arguments: Sequence[Any], calls: int, *, exact: str
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Milliseconds per form, and how far its results are from the exact form's.

    Args:
        steps: compiled functions of the arguments.
        arguments: arrays.
        calls: timed ones per form, in turns after one.
        exact: the form that the others are held against.
    """
    import jax

    results = {
        name: jax.tree.leaves(jax.block_until_ready(step(*arguments)))
        for name, step in steps.items()
    }
    errors = {
        name: [measuring.disagreement(*pair) for pair in zip(found, results[exact], strict=True)]
        for name, found in results.items()
    }
    timed = {
        name: lambda step=step: jax.block_until_ready(step(*arguments))
        for name, step in steps.items()
    }
    times = measuring.in_turns(timed, calls)
    return {name: found["ms"] for name, found in times.items()}, errors
