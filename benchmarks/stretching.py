"""Time of stretching and pitch shifting a batch with our phase vocoder and, excerpt by excerpt, with librosa's, on this device.

    python benchmarks/stretching.py

Prints, for 24 excerpts of 10 s at 16 kHz, each at a rate of its own, the seconds by the clock and in processor time of all
threads (medians of calls in turns), and how many times as long librosa takes. Both use windows of 1024 samples and hops of 256.
`plain` does what librosa does; `locked` keeps neighbouring bins in step. The processor time also compares when other programs
run; on an accelerator only the clock says something.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import librosa
import numpy as np

from majl_jax.audio import stretching

RATE_HZ = 16000
SIZES = {"window_samples": 1024, "hop_samples": 256}


def main() -> int:
    """Compiles, times and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=3, help="timed calls of each")
    parser.add_argument("--batch", type=int, default=24, help="excerpts")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of an excerpt")
    options = parser.parse_args()
    samples = int(options.seconds * RATE_HZ)
    needed = stretching.needed_samples(samples, 1.2)
    noise = np.random.default_rng(0).standard_normal((options.batch, needed))
    audio = (0.1 * noise).astype(np.float32)
    rates = np.linspace(0.8, 1.2, options.batch).astype(np.float32)
    semitones = np.linspace(-3, 3, options.batch).astype(np.float32)
    print(f"{options.batch} excerpts of {options.seconds:g} s, {jax.devices()[0].device_kind}")
    for calls in (stretches(audio, rates, samples), shifts(audio[:, :samples], semitones)):
        measured = times(calls, options.calls)
        clock, processor = ({k: median(v, i) for k, v in measured.items()} for i in (0, 1))
        *ours, theirs = calls
        for name in calls:
            row = f"{name:<20} {clock[name]:8.3f} s   processor {processor[name]:8.3f} s"
            if name in ours:
                ratios = clock[theirs] / clock[name], processor[theirs] / processor[name]
                row += f"   librosa takes {ratios[0]:5.2f} and {ratios[1]:5.2f} times as long"
            print(row)
    return 0


def stretches(audio: np.ndarray, rates: np.ndarray, samples: int) -> dict[str, Callable]:
    """Calls that stretch the whole batch, librosa's last."""

    def theirs():
        for excerpt, rate in zip(audio, rates, strict=True):
            needed = stretching.needed_samples(samples, float(rate))
            librosa.effects.time_stretch(
                excerpt[:needed], rate=float(rate), n_fft=1024, hop_length=256
            )

    ours = {
        f"stretch, {name}": compiled(
            lambda x, r, locked=locked: stretching.time_stretch(
                x, r, samples=samples, locked=locked, **SIZES
            ),
            audio,
            rates,
        )
        for name, locked in (("plain", False), ("locked", True))
    }
    return ours | {"stretch, librosa": theirs}


def shifts(audio: np.ndarray, semitones: np.ndarray) -> dict[str, Callable]:
    """Calls that shift the whole batch, librosa's last."""

    def theirs():
        for excerpt, steps in zip(audio, semitones, strict=True):
            librosa.effects.pitch_shift(
                excerpt, sr=RATE_HZ, n_steps=float(steps), n_fft=1024, hop_length=256
            )

    ours = {
        f"shift, {name}": compiled(
            lambda x, n, locked=locked: stretching.pitch_shift(x, n, locked=locked, **SIZES),
            audio,
            semitones,
        )
        for name, locked in (("plain", False), ("locked", True))
    }
    return ours | {"shift, librosa": theirs}


def compiled(function: Callable, audio: np.ndarray, values: np.ndarray) -> Callable:
    """The function of the arrays on the device, compiled."""
    arrays = jnp.asarray(audio), jnp.asarray(values)
    program = jax.jit(function).lower(*arrays).compile()
    return lambda: jax.block_until_ready(program(*arrays))


def times(calls: dict[str, Callable], count: int) -> dict[str, list[tuple[float, float]]]:
    """(clock, processor) seconds, everybody in turns after one call that is not timed."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for i in range(count + 1):
        for name, call in calls.items():
            start, used = time.perf_counter(), time.process_time()
            call()
            if i:
                found[name].append((time.perf_counter() - start, time.process_time() - used))
    return found


def median(values: list[tuple[float, float]], place: int) -> float:
    """Median of the clock (0) or processor (1) times."""
    return statistics.median(value[place] for value in values)


if __name__ == "__main__":
    sys.exit(main())
