"""What a person sees while a run goes on: lines, or a bar on a terminal."""

import datetime
import math
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import tqdm


def say(text: str) -> None:
    """Print a line, from the first process only, without breaking a progress bar."""
    if jax.process_index() == 0:
        tqdm.tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()


def with_progress(
    items: Iterable[Any], label: str | None, *, unit: str = "track", total: int | None = None
) -> Iterable[Any]:
    """The same items under a bar on a terminal; no label, no bar."""
    if label is None:
        return items
    return tqdm.tqdm(
        items, desc=label, unit=unit, total=total, mininterval=1.0, leave=False, disable=None
    )


class Progress:
    """A bar on a terminal, else a line at every `show`: steps, steps/s, time left, main terms."""

    def __init__(self, stage: str, steps: int, start: int):
        self.stage, self.steps = stage, steps
        self.bar = None
        if sys.stderr.isatty() and jax.process_index() == 0:
            self.bar = tqdm.tqdm(total=steps, initial=start, desc=stage, unit="step", leave=True)
        self._step = start
        self._resume()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.close()

    def _resume(self) -> None:
        self._clock, self._steps_timed, self._since = 0.0, 0, time.perf_counter()

    def step(self) -> None:
        """One more step was started."""
        self._step += 1
        self._steps_timed += 1
        if self.bar is not None:
            self.bar.update()

    def restart_clock(self) -> None:
        """Leave out of the rate what was not training: the compilation, an evaluation."""
        self._resume()

    def rate(self) -> float:
        """Steps per second since the clock was last restarted; NaN before the first step."""
        elapsed = time.perf_counter() - self._since
        return self._steps_timed / elapsed if self._steps_timed and elapsed > 0 else math.nan

    def show(self, terms: Mapping[str, float]) -> None:
        """Show the newest means of the terms."""
        main = {k: f"{v:.4g}" for k, v in list(terms.items())[:6]}
        if self.bar is not None:
            self.bar.set_postfix(main)
            return
        rate = self.rate()
        left = "?"
        if rate > 0:
            left = str(datetime.timedelta(seconds=round((self.steps - self._step) / rate)))
        speed = f"{rate:.3g} steps/s" if rate > 0 else "- steps/s"
        say(
            f"{self.stage} {self._step}/{self.steps}  {speed}  {left} left  "
            + "  ".join(f"{k} {v}" for k, v in main.items())
        )
