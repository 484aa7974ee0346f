"""What steps report: on the device until a log line or a checkpoint asks, then checked."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from majl_jax import console, parallel

_MOST_SKIPS_IN_A_ROW = 100
_LAST = ("grad_norm", "clip_norm", "learning_rate")  # shown after the recipe's own terms


class NonFiniteError(FloatingPointError):
    """A loss, a gradient, an update or a statistic was not finite."""


class StepMetrics:
    """The metrics of the steps since the last log line.

    `carried` is what an earlier run of this stage left in its checkpoint: with it a resumed run
    logs the same lines.
    """

    def __init__(self, stage: str, *, skip: bool, carried: Mapping[str, Any]):
        self.stage, self.skip = stage, skip
        self.rows: list[dict[str, float]] = list(carried.get("rows", []))
        self.skipped, self.in_a_row = carried.get("skipped", 0), carried.get("in_a_row", 0)
        self._waiting: list[tuple[int, Any]] = []

    def add(self, step: int, metrics: Any) -> None:
        """Keep a step's {"terms": {name: scalar}, "checks": {name: scalar}}; waits for nothing."""
        self._waiting.append((step, metrics))

    def fetch(self) -> None:
        """Bring the metrics to the host; stop, or count, where a check was not finite."""
        waiting, self._waiting = self._waiting, []
        host = parallel.on_host([metrics for _, metrics in waiting])
        for (step, _), metrics in zip(waiting, host, strict=True):
            terms, checks = metrics["terms"], metrics["checks"]
            if all(np.isfinite(x) for x in checks.values()):
                self.in_a_row = 0
                self.rows.append({name: float(terms[name]) for name in sorted(terms, key=_rank)})
                continue
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
            bad = {n for n, x in {**checks, **terms}.items() if not np.isfinite(x)}
            if "grad_norm" in bad:
                bad.discard("update")  # it only follows
            self._complain(step, sorted(bad, key=_rank), terms)

    def _complain(self, step: int, bad: Sequence[str], terms: Mapping[str, Any]) -> None:
        shown = ", ".join(f"{n} {float(terms[n]):.4g}" for n in sorted(terms, key=_rank))
        text = f"stage {self.stage!r}, step {step}: not finite: {', '.join(bad)} ({shown})."
        if self.skip and self.in_a_row <= _MOST_SKIPS_IN_A_ROW:
            return console.say(f"{text} Skipped ({self.skipped} so far).")
        raise NonFiniteError(
            f"{text} That step changed nothing, and no later one was saved. Look at its data; "
            "a lower learning rate, clipping, or a larger epsilon in the term usually helps. "
            + (
                f"{self.in_a_row} steps in a row were bad."
                if self.skip
                else "on_nonfinite='skip' leaves such steps out."
            )
        )

    def means(self) -> dict[str, float]:
        """The mean of every term since the last call, and the count of skipped steps.

        A term that is NaN in a step with a finite loss does not exist there (a mean over no
        example).
        """
        names = self.rows[-1] if self.rows else {}
        values = {name: [r[name] for r in self.rows if not np.isnan(r[name])] for name in names}
        means = {name: float(np.mean(found)) for name, found in values.items() if found}
        self.rows = []
        return {**means, **({"skipped": float(self.skipped)} if self.skip else {})}

    def carried(self) -> dict[str, Any]:
        """What a checkpoint has to remember."""
        return {"rows": self.rows, "skipped": self.skipped, "in_a_row": self.in_a_row}


def _rank(name: str) -> tuple[bool, bool, str]:
    return name != "loss", name in _LAST, name
