"""Time of the harmonic CQT and its gradient: the fast method, the direct one, and librosa excerpt by excerpt.

    python benchmarks/harmonic_cqt.py

Prints, for 8 excerpts of 4 s, milliseconds (median of the calls, all in turns) and how many times as long as the fast method
each takes, by the clock and in processor time of all threads. The processor time also compares when other programs run.
librosa computes one `vqt` per excerpt and harmonic, without the bins at and above the Nyquist frequency, which it refuses.
The gradient is that of sum |features|^2 with respect to the audio.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from majl_jax.audio.cqt import equal_temperament_hz
from majl_jax.audio.harmonic_cqt import HarmonicCqt, unit_decibels

SAMPLES = 4 * 22050
Times = dict[str, list[tuple[float, float]]]


def main() -> int:
    """Compiles, times and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=5, help="timed calls of each")
    parser.add_argument("--batch", type=int, default=8, help="excerpts of 4 s")
    options = parser.parse_args()
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
        calls[name] = compiled(name, function, signal)
    error = jnp.abs(calls["fast"]() - calls["direct"]()).max() / calls["direct"]().max()
    print(f"fast against direct: {float(error):.1e} of the largest magnitude")
    calls["librosa"] = with_librosa(audio, transform)
    measured = times(calls, options.calls)
    clock, processor = ({k: median(v, i) for k, v in measured.items()} for i in (0, 1))
    for name in calls:
        ratios = clock[name] / clock["fast"], processor[name] / processor["fast"]
        print(
            f"{name:<15} {clock[name]:9.1f} ms ({ratios[0]:6.2f})"
            f"   processor {processor[name]:9.1f} ms ({ratios[1]:6.2f})"
        )
    return 0


def compiled(name: str, function: Callable, signal: jax.Array) -> Callable[[], jax.Array]:
    """The function on the signal, compiled; prints how long that took."""
    start, used = time.perf_counter(), time.process_time()
    program = jax.jit(function).lower(signal).compile()
    start, used = time.perf_counter() - start, time.process_time() - used
    print(f"{name:<15} compiled in {start:6.1f} s, processor {used:6.1f} s", flush=True)
    return lambda: jax.block_until_ready(program(signal))


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


def times(calls: dict[str, Callable[[], object]], count: int) -> Times:
    """(clock, processor) milliseconds, everybody in turns after one call that is not timed."""
    found: Times = {name: [] for name in calls}
    for i in range(count + 1):
        for name, call in calls.items():
            start, used = time.perf_counter(), time.process_time()
            call()
            if i:
                passed = time.perf_counter() - start, time.process_time() - used
                found[name].append((passed[0] * 1e3, passed[1] * 1e3))
    return found


def median(values: list[tuple[float, float]], place: int) -> float:
    """Median of the clock (0) or processor (1) times."""
    return statistics.median(value[place] for value in values)


if __name__ == "__main__":
    sys.exit(main())
