"""Time of the STFT and its inverse, forwards and with gradient, against scipy, NumPy and PyTorch.

    python benchmarks/stft.py            # PyTorch is included when it is installed

Prints milliseconds (median of the calls, all libraries in turns) and our time over theirs: below
1 we are faster. The gradient is that of sum |iSTFT(STFT(x))|^2 with respect to x.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal

from majl_jax.audio.stft import hann_window, istft, stft

CASES = {  # batch, samples, window, hop
    "16 kHz, 2.56 s x 8, 1024 / 320": (8, 40960, 1024, 320),
    "16 kHz, 2.56 s x 8, 2048 / 320": (8, 40960, 2048, 320),
    "44.1 kHz, 6 s x 4, 2048 / 512": (4, 264600, 2048, 512),
}
Calls = dict[str, Callable[[], object]]


def main() -> int:
    """Runs all cases and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=21, help="timed calls per library")
    options = parser.parse_args()
    for name, (batch, samples, window, hop) in CASES.items():
        print(name)
        x = np.random.default_rng(0).standard_normal((batch, samples)).astype(np.float32)
        libraries = [ours(x, window, hop), with_scipy(x, window, hop), with_numpy(x, window, hop)]
        if importlib.util.find_spec("torch"):
            libraries.append(with_torch(x, window, hop))
        for kind in ("stft", "istft", "both", "gradient"):
            calls = {k: v for library in libraries for k, v in library.get(kind, {}).items()}
            print(row(kind, median_ms(calls, options.calls)), flush=True)
    return 0


def row(kind: str, times: dict[str, float]) -> str:
    """One line of the table."""
    base = times["ours"]
    others = [f"{k} {v:8.1f} ({base / v:4.2f})" for k, v in times.items() if k != "ours"]
    return f"  {kind:<9} ours {base:8.1f}   " + "   ".join(others)


def median_ms(calls: Calls, count: int) -> dict[str, float]:
    """Calls everybody in turns, so that all see the same neighbours on the machine."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(count + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if i >= 2:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def ours(x: np.ndarray, window: int, hop: int) -> dict[str, Calls]:
    """majl_jax.audio.stft, compiled."""
    sizes, length = {"window_samples": window, "hop_samples": hop}, x.shape[-1]
    forward = jax.jit(lambda x: stft(x, **sizes))
    inverse = jax.jit(lambda spectrum: istft(spectrum, **sizes, length_samples=length))
    both = jax.jit(lambda x: inverse(forward(x)))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(inverse(forward(x)) ** 2)))
    signal = jnp.asarray(x)
    spectrum = forward(signal)
    error = float(jnp.abs(both(signal) - signal).max())
    assert error < 1e-5, f"the round trip is off by {error}"
    pairs = {"stft": (forward, signal), "istft": (inverse, spectrum)}
    pairs |= {"both": (both, signal), "gradient": (gradient, signal)}
    return {
        kind: {"ours": lambda f=function, a=argument: jax.block_until_ready(f(a))}
        for kind, (function, argument) in pairs.items()
    }


def with_scipy(x: np.ndarray, window: int, hop: int) -> dict[str, Calls]:
    """scipy.signal.stft and istft in float32."""
    sizes = {"window": hann_window(window), "nperseg": window, "noverlap": window - hop}

    def forward():
        return scipy.signal.stft(x, **sizes, boundary="even")[2]

    def inverse(spectrum):
        return scipy.signal.istft(spectrum, **sizes)[1]

    spectrum = forward()
    return {
        "stft": {"scipy": forward},
        "istft": {"scipy": lambda: inverse(spectrum)},
        "both": {"scipy": lambda: inverse(forward())},
    }


def with_numpy(x: np.ndarray, window: int, hop: int) -> dict[str, Calls]:
    """Strided frames and numpy.fft.rfft; the inverse adds frame by frame."""
    weights = hann_window(window)

    def forward():
        padded = np.pad(x, ((0, 0), (window // 2,) * 2), mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, window, axis=1)[:, ::hop]
        return np.fft.rfft(frames * weights)

    def inverse(spectrum):
        frames = np.fft.irfft(spectrum, n=window) * weights
        total = np.zeros((len(x), (frames.shape[1] - 1) * hop + window), np.float32)
        norm = np.zeros(total.shape[1], np.float32)
        for k in range(frames.shape[1]):
            total[:, k * hop : k * hop + window] += frames[:, k]
            norm[k * hop : k * hop + window] += weights**2
        middle = slice(window // 2, window // 2 + x.shape[1])
        return total[:, middle] / np.maximum(norm[middle], 1e-11)

    spectrum = forward()
    return {
        "stft": {"numpy": forward},
        "istft": {"numpy": lambda: inverse(spectrum)},
        "both": {"numpy": lambda: inverse(forward())},
    }


def with_torch(x: np.ndarray, window: int, hop: int) -> dict[str, Calls]:
    """torch.stft and torch.istft."""
    import torch

    sizes = {"n_fft": window, "hop_length": hop, "window": torch.hann_window(window)}
    signal, length = torch.from_numpy(x), x.shape[1]

    def forward(x):
        return torch.stft(x, **sizes, center=True, return_complex=True)

    def inverse(spectrum):
        return torch.istft(spectrum, **sizes, center=True, length=length)

    def gradient():
        leaf = signal.clone().requires_grad_()
        (inverse(forward(leaf)) ** 2).sum().backward()
        return leaf.grad

    spectrum = forward(signal)
    return {
        "stft": {"torch": lambda: forward(signal)},
        "istft": {"torch": lambda: inverse(spectrum)},
        "both": {"torch": lambda: inverse(forward(signal))},
        "gradient": {"torch": gradient},
    }


if __name__ == "__main__":
    sys.exit(main())
