"""Clocks, memory and distances; the same for every library."""

import ctypes
import gc
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Call = Callable[[], object]


def measure(call: Call, calls: int) -> dict[str, float]:
    """Medians of some calls after one, and the memory of one more.

    Returns `ms` by the clock, `cpu_ms` of all threads, and by how many `mib` a call raises the
    process's resident memory (Linux).
    """
    times = in_turns({"": call}, calls)[""]
    start_peak()
    before = status_mib("VmRSS")
    call()
    return {**times, "mib": status_mib("VmHWM") - before}


def start_peak() -> None:
    """Frees what is free, and has the peak of the process's memory start anew (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def in_turns(calls: Mapping[str, Call], count: int) -> dict[str, dict[str, float]]:
    """Medians `ms` and `cpu_ms` of everybody's calls, in turns after one that is not timed.

    In turns, all see the same neighbours on the machine.
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(count + 1):
        for name, call in calls.items():
            started = time.perf_counter(), time.process_time()
            call()
            ended = time.perf_counter(), time.process_time()
            if turn:
                found[name].append((ended[0] - started[0], ended[1] - started[1]))
    return {
        name: {
            key: 1e3 * statistics.median(pair[place] for pair in pairs)
            for place, key in enumerate(("ms", "cpu_ms"))
        }
        for name, pairs in found.items()
    }


def status_mib(field: str) -> float:
    """A line of Linux' /proc/self/status: VmRSS is the resident memory, VmHWM its peak."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def disagreement(ours: Any, theirs: Any) -> float:
    """Norm of the difference, relative to the norm of theirs; of codes, the share that differs."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if np.issubdtype(theirs.dtype, np.integer):
        return float(np.mean(ours != theirs))
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def compiled(function: Callable, *arguments: Any) -> tuple[Any, float]:
    """A function of arrays, or of their shapes, as a program of XLA, and the seconds it took."""
    import jax

    started = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    return program, time.perf_counter() - started


def planned_mib(program: Any) -> float:
    """What XLA says that a program takes beside its arguments and results.

    Raises:
        RuntimeError: the backend plans no memory.
    """
    analysis = program.memory_analysis()
    if analysis is None:
        raise RuntimeError("XLA plans no memory on this backend; run with JAX_PLATFORMS=cpu")
    return analysis.temp_size_in_bytes / 2**20


def device_peak_mib() -> float | None:
    """Peak memory of the accelerator that JAX uses; None on a CPU."""
    import jax

    found = jax.local_devices()[0].memory_stats()
    return found["peak_bytes_in_use"] / 2**20 if found else None
