"""Time of the harmonic CQT and its gradient: fast, direct, and librosa excerpt by excerpt.

    python -m benchmarks harmonic_cqt

Prints, for 8 excerpts of 4 s, milliseconds (median of the calls, all in turns) and how many times
as long as the fast method each takes, by the clock and in processor time of all threads. The
processor time also compares when other programs run. librosa computes one `vqt` per excerpt and
harmonic, without the bins at and above the Nyquist frequency, which it refuses. The gradient is
that of sum |features|^2 with respect to the audio.
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import measuring
from majl_jax.audio.cqt import equal_temperament_hz
from majl_jax.audio.harmonic_cqt import HarmonicCqt, unit_decibels

SAMPLES = 4 * 22050


def add_options(parser: argparse.ArgumentParser) -> None:
    """Calls and excerpts."""
    parser.add_argument("--calls", type=int, default=5, help="timed calls of each")
    parser.add_argument("--batch", type=int, default=8, help="excerpts of 4 s")


def run(options: argparse.Namespace) -> int:
    """Compiles, times and prints the table; the exit status."""
    noise = np.random.default_rng(0).standard_normal((options.batch, SAMPLES))
    audio = (0.1 * noise).astype(np.float32)
    transform, direct = HarmonicCqt(), HarmonicCqt(method="direct")
    functions = {
        "fast": transform.magnitudes,
        "fast, features": lambda x: unit_decibels(transform.magnitudes(x)),
        "fast, gradient": jax.grad(
            lambda x: jnp.sum(jnp.square(unit_decibels(transform.magnitudes(x))))
        ),
        "direct": direct.magnitudes,
    }
    signal, calls = jnp.asarray(audio), {}
    for name, function in functions.items():
        program, seconds = measuring.compiled(function, signal)
        print(f"{name:<15} compiled in {seconds:6.1f} s", flush=True)
        calls[name] = lambda program=program: jax.block_until_ready(program(signal))
    error = jnp.abs(calls["fast"]() - calls["direct"]()).max() / calls["direct"]().max()
    print(f"fast against direct: {float(error):.1e} of the largest magnitude")
    calls["librosa"] = with_librosa(audio, transform)
    times = measuring.in_turns(calls, options.calls)
    for name, found in times.items():
        clock, processor = (found[key] / times["fast"][key] for key in ("ms", "cpu_ms"))
        print(
            f"{name:<15} {found['ms']:9.1f} ms ({clock:6.2f})"
            f"   processor {found['cpu_ms']:9.1f} ms ({processor:6.2f})"
        )
    return 0


def with_librosa(audio: np.ndarray, transform: HarmonicCqt) -> Callable[[], object]:
    """librosa.vqt of every excerpt and harmonic, with as many bins as it takes."""
    import librosa

    rate, per_octave = transform.sample_rate_hz, transform.bins_per_octave
    sizes = {"sr": rate, "hop_length": transform.hop_samples, "bins_per_octave": per_octave}
    banks = []
    for harmonic in transform.harmonics:
        lowest = harmonic * transform.fmin_hz
        frequencies = equal_temperament_hz(lowest, transform.bins, per_octave)
        # The cut-off is that of the top filter, so that the bins can be counted one by one.
        cutoffs = [
            librosa.filters.wavelet_lengths(freqs=frequencies[k - 1 : k + 1], sr=rate, gamma=None)
            for k in range(1, len(frequencies))
        ]
        banks.append((lowest, 1 + sum(cutoff <= rate / 2 for _, cutoff in cutoffs)))

    def call():
        for excerpt in audio:
            for lowest, bins in banks:
                librosa.vqt(excerpt, fmin=lowest, n_bins=bins, gamma=None, **sizes)

    return call
