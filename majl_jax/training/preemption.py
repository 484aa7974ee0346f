"""Preemption by SIGTERM or Ctrl-C: stop where nothing is lost."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax
from orbax.checkpoint import multihost


class Preempted(BaseException):
    """The run was asked to stop, and everything worth saving is saved."""


class Preemption:
    """Remembers a signal during a step or a save; raises at once inside `interruptible`.

    Several processes have to stop at the same step: there SIGTERM goes to JAX's own notifier.
    """

    def __init__(self):
        self.seen: int | None = None
        self._open = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "Preemption":
        main = threading.current_thread() is threading.main_thread()
        if main and jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)

    def _handle(self, number: int, frame: Any) -> None:
        del frame
        if self.seen is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second Ctrl-C does not wait for a save
        self.seen = number
        # Not print: a handler may run in the middle of another print.
        os.write(
            2, f"\n{signal.Signals(number).name}: stopping as soon as the state is saved\n".encode()
        )
        if self._open:
            raise Preempted

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """A part that may be given up at any point, because a resumed run does it again."""
        self._open = True
        try:
            if self.seen is not None:
                raise Preempted
            yield
        finally:
            self._open = False

    def reached(self, global_step: int) -> bool:
        """Whether to stop after this step, which grows at each call, equally in every process."""
        if jax.process_count() == 1:
            return self.seen is not None
        return multihost.reached_preemption(global_step)

    def exit_code(self) -> int:
        """0 after SIGTERM (whoever sent it starts the run again), 130 after Ctrl-C."""
        return 130 if self.seen == signal.SIGINT else 0
