"""Time of stretching and pitch shifting a batch with our phase vocoder, and with librosa's.

    python -m benchmarks stretching

Prints, for 24 excerpts of 10 s at 16 kHz, each at a rate of its own, the seconds by the clock and
in processor time of all threads (medians of calls in turns), and how many times as long librosa
takes, excerpt by excerpt. Both use windows of 1024 samples and hops of 256. `plain` does what
librosa does; `locked` keeps neighbouring bins in step. The processor time also compares when other
programs run; on an accelerator only the clock says something.
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import librosa
import numpy as np

from benchmarks.harness import measuring
from majl_jax.audio import stretching

RATE_HZ = 16000
SIZES = {"window_samples": 1024, "hop_samples": 256}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Calls and excerpts."""
    parser.add_argument("--calls", type=int, default=3, help="timed calls of each")
    parser.add_argument("--batch", type=int, default=24, help="excerpts")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of an excerpt")


def run(options: argparse.Namespace) -> int:
    """Compiles, times and prints the table; the exit status."""
    samples = int(options.seconds * RATE_HZ)
    needed = stretching.needed_samples(samples, 1.2)
    noise = np.random.default_rng(0).standard_normal((options.batch, needed))
    audio = (0.1 * noise).astype(np.float32)
    rates = np.linspace(0.8, 1.2, options.batch).astype(np.float32)
    semitones = np.linspace(-3, 3, options.batch).astype(np.float32)
    print(f"{options.batch} excerpts of {options.seconds:g} s, {jax.devices()[0].device_kind}")
    for calls in (stretches(audio, rates, samples), shifts(audio[:, :samples], semitones)):
        times = measuring.in_turns(calls, options.calls)
        *ours, theirs = calls
        for name, found in times.items():
            clock, processor = found["ms"] / 1e3, found["cpu_ms"] / 1e3
            row = f"{name:<20} {clock:8.3f} s   processor {processor:8.3f} s"
            if name in ours:
                ratios = [times[theirs][key] / found[key] for key in ("ms", "cpu_ms")]
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
    program, _ = measuring.compiled(function, *arrays)
    return lambda: jax.block_until_ready(program(*arrays))
