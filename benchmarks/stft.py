"""Time of the STFT and its inverse, forwards and with gradient, against scipy, NumPy and PyTorch.

    python -m benchmarks stft            # PyTorch is included when it is installed

The gradient is that of sum |iSTFT(STFT(x))|^2 with respect to x. Compared is the round trip.
"""

import argparse
import importlib.util
import pathlib

import numpy as np

from benchmarks.harness import comparison
from benchmarks.harness.comparison import Case, Subject
from benchmarks.harness.measuring import Call

# Batch, samples, window, hop.
SIGNALS = {
    "16 kHz, 2.56 s x 8, 1024 / 320": (8, 40960, 1024, 320),
    "16 kHz, 2.56 s x 8, 2048 / 320": (8, 40960, 2048, 320),
    "44.1 kHz, 6 s x 4, 2048 / 512": (4, 264600, 2048, 512),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The signals, and what all comparisons have."""
    numbers = ",".join(map(str, range(len(SIGNALS))))
    names = "; ".join(f"{number} {name}" for number, name in enumerate(SIGNALS))
    parser.add_argument("--signals", default=numbers, help=f"numbers: {names}")
    comparison.add_options(parser, COMPARISON)
    if importlib.util.find_spec("torch") is None:
        cases = [k for k, name in enumerate(COMPARISON.cases) if name != "torch"]
        parser.set_defaults(cases=",".join(map(str, cases)))


def run(options: argparse.Namespace) -> int:
    """Compares with every signal; the exit status."""
    names = {number: list(SIGNALS)[int(number)] for number in options.signals.split(",")}
    return comparison.run_each(COMPARISON, options, "signals", names)


def signal(options: argparse.Namespace) -> tuple[np.ndarray, int, int]:
    """Noise [batch, time], the window and the hop in samples."""
    batch, samples, window, hop = SIGNALS[list(SIGNALS)[int(options.signals)]]
    return (
        np.random.default_rng(0).standard_normal((batch, samples)).astype(np.float32),
        window,
        hop,
    )


def subject(x: np.ndarray, calls: dict[str, Call]) -> Subject:
    """What is compared and timed; `both` returns the round trip, which may be longer than `x`."""
    return Subject({"both": np.asarray(calls["both"]())[:, : x.shape[1]]}, calls)


def ours(options: argparse.Namespace, case: Case, folder: pathlib.Path) -> Subject:
    """majl_jax.audio.stft, compiled.

    Raises:
        RuntimeError: the round trip does not end where it began.
    """
    import jax
    import jax.numpy as jnp

    from majl_jax.audio.stft import istft, stft

    x, window, hop = signal(options)
    sizes, length = {"window_samples": window, "hop_samples": hop}, x.shape[-1]
    forward = jax.jit(lambda x: stft(x, **sizes))
    inverse = jax.jit(lambda spectrum: istft(spectrum, **sizes, length_samples=length))
    both = jax.jit(lambda x: inverse(forward(x)))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(inverse(forward(x)) ** 2)))
    audio = jnp.asarray(x)
    spectrum = forward(audio)
    error = float(jnp.abs(both(audio) - audio).max())
    if error >= 1e-5:
        raise RuntimeError(f"the round trip is off by {error}; expected less than 1e-5")
    calls: dict[str, Call] = {
        "stft": lambda: jax.block_until_ready(forward(audio)),
        "istft": lambda: jax.block_until_ready(inverse(spectrum)),
        "both": lambda: jax.block_until_ready(both(audio)),
        "gradient": lambda: jax.block_until_ready(gradient(audio)),
    }
    return subject(x, calls)


def with_scipy(options: argparse.Namespace, case: Case, folder: pathlib.Path) -> Subject:
    """scipy.signal.stft and istft in float32."""
    import scipy.signal

    from majl_jax.audio.stft import hann_window

    x, window, hop = signal(options)
    sizes = {"window": hann_window(window), "nperseg": window, "noverlap": window - hop}

    def forward():
        return scipy.signal.stft(x, **sizes, boundary="even")[2]

    def inverse(spectrum):
        return scipy.signal.istft(spectrum, **sizes)[1]

    return subject(x, round_trip(forward, inverse))


def with_numpy(options: argparse.Namespace, case: Case, folder: pathlib.Path) -> Subject:
    """Strided frames and numpy.fft.rfft; the inverse adds frame by frame."""
    from majl_jax.audio.stft import hann_window

    x, window, hop = signal(options)
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

    return subject(x, round_trip(forward, inverse))


def round_trip(forward, inverse) -> dict[str, Call]:
    """The calls of a library without gradients."""
    spectrum = forward()
    return {
        "stft": forward,
        "istft": lambda: inverse(spectrum),
        "both": lambda: inverse(forward()),
    }


def with_torch(options: argparse.Namespace, case: Case, folder: pathlib.Path) -> Subject:
    """torch.stft and torch.istft."""
    import torch

    x, window, hop = signal(options)
    sizes = {"n_fft": window, "hop_length": hop, "window": torch.hann_window(window)}
    audio, length = torch.from_numpy(x), x.shape[1]

    def forward(x=audio):
        return torch.stft(x, **sizes, center=True, return_complex=True)

    def inverse(spectrum):
        return torch.istft(spectrum, **sizes, center=True, length=length)

    def gradient():
        leaf = audio.clone().requires_grad_()
        (inverse(forward(leaf)) ** 2).sum().backward()
        return leaf.grad

    return subject(x, {**round_trip(forward, inverse), "gradient": gradient})


COMPARISON = comparison.Comparison(
    cases={name: Case(name) for name in ("ours", "scipy", "numpy", "torch")},
    workers={"ours": ours, "scipy": with_scipy, "numpy": with_numpy, "torch": with_torch},
    tolerance={"both": 1e-5},
    reference="ours",
    turns=3,
    calls=7,
)
