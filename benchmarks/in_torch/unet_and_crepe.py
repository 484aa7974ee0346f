"""The U-Net and CREPE of majl_jax as one would write them in PyTorch; for `against_torch`."""

import itertools

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class UNet(nn.Module):
    """Waveform to waveform. Time and frequency run backwards, see `load`."""

    def __init__(self, channels: tuple[int, ...], window_samples: int, hop_samples: int) -> None:
        super().__init__()
        self.window_samples, self.hop_samples = window_samples, hop_samples
        self.register_buffer("window", torch.hann_window(window_samples))
        sizes = (1, *channels)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 5, 2, 2) for a, b in itertools.pairwise(sizes))
        self.down_norm = nn.ModuleList(nn.BatchNorm2d(n, momentum=0.01) for n in channels)
        outputs = [*reversed(channels[:-1]), 1]
        inputs = [channels[-1]] + [2 * n for n in outputs[:-1]]
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 5, 2, 2, 1) for a, b in zip(inputs, outputs, strict=True)
        )
        self.up_norm = nn.ModuleList(nn.BatchNorm2d(n, momentum=0.01) for n in outputs[:-1])

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        """[batch, time] to [batch, time]."""
        sizes = {"n_fft": self.window_samples, "hop_length": self.hop_samples}
        spectrum = torch.stft(
            mixture, **sizes, window=self.window, center=True, return_complex=True
        )[..., :-1]
        power = spectrum.real**2 + spectrum.imag**2
        level = torch.sqrt(torch.clamp(power, min=1e-10))[:, 1:].transpose(1, 2)
        level = level / torch.clamp(torch.amax(level, (1, 2), keepdim=True), min=1e-6)
        mask = torch.flip(self.mask(torch.flip(level[:, None], (2, 3))), (2, 3))
        mask = functional.pad(mask[:, 0].transpose(1, 2), (0, 0, 1, 0))
        return torch.istft(
            mask * spectrum, **sizes, window=self.window, center=True, length=mixture.shape[1]
        )

    def mask(self, hidden: torch.Tensor) -> torch.Tensor:
        """[batch, 1, frame, frequency] to the same."""
        skips = []
        for conv, norm in zip(self.down, self.down_norm, strict=True):
            hidden = functional.leaky_relu(norm(conv(hidden)), 0.2)
            skips.append(hidden)
        hidden = skips.pop()
        for conv, norm in zip(self.up, self.up_norm, strict=False):
            hidden = functional.relu(norm(conv(hidden)))
            hidden = torch.cat([hidden, skips.pop()], 1)
        return torch.sigmoid(self.up[-1](hidden))

    def load(self, weights: dict[str, np.ndarray]) -> None:
        """Takes our arrays.

        PyTorch pads a strided convolution alike on both sides, we, as 'SAME' does, one less in
        front. On reversed axes with reversed kernels the two are the same.
        """
        state = {"window": self.window}
        for direction, order in (("down", (3, 2, 0, 1)), ("up", (2, 3, 0, 1))):
            for i in range(len(self.down)):
                kernel = weights[f"{direction}{i + 1}/kernel"]
                # `lax.conv_transpose` correlates, ConvTranspose2d spreads: a second reversal.
                kernel = kernel[::-1, ::-1] if direction == "down" else kernel
                state[f"{direction}.{i}.weight"] = _tensor(kernel.transpose(order))
                state[f"{direction}.{i}.bias"] = _tensor(weights[f"{direction}{i + 1}/bias"])
                if f"{direction}{i + 1}_norm/scale" in weights:
                    for ours, theirs in (("scale", "weight"), ("bias", "bias")):
                        values = weights[f"{direction}{i + 1}_norm/{ours}"]
                        state[f"{direction}_norm.{i}.{theirs}"] = _tensor(values)
        _load(self, state)


class Crepe(nn.Module):
    """Audio to the logits of 360 pitch bins per frame."""

    filters, widths = (32, 4, 4, 4, 8, 16), (512, 64, 64, 64, 64, 64)

    def __init__(self, multiplier: int, hop_samples: int) -> None:
        super().__init__()
        self.hop_samples = hop_samples
        sizes = [1] + [n * multiplier for n in self.filters]
        self.convs = nn.ModuleList(
            nn.Conv1d(a, b, width, 4 if i == 0 else 1)
            for i, (a, b, width) in enumerate(zip(sizes, sizes[1:], self.widths, strict=False))
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(n, eps=1e-3, momentum=0.01) for n in sizes[1:])
        self.dense = nn.Linear(4 * sizes[-1], 360)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """[batch, time] to [batch, frame, 360]."""
        count = audio.shape[1] // self.hop_samples
        frames = functional.pad(audio, (512, 512)).unfold(1, 1024, self.hop_samples)[:, :count]
        frames = frames.reshape(-1, 1024)
        frames = frames - frames.mean(1, keepdim=True)
        deviation = torch.sqrt(torch.clamp((frames**2).mean(1, keepdim=True), min=1e-8))
        hidden = (frames / deviation)[:, None]
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            hidden = functional.pad(hidden, (254, 254) if i == 0 else (31, 32))
            hidden = functional.max_pool1d(norm(functional.relu(conv(hidden))), 2)
        hidden = hidden.transpose(1, 2).reshape(len(hidden), -1)
        return self.dense(hidden).reshape(len(audio), count, -1)

    def load(self, weights: dict[str, np.ndarray]) -> None:
        """Takes our arrays."""
        state = {
            "dense.weight": _tensor(weights["dense/kernel"].T),
            "dense.bias": _tensor(weights["dense/bias"]),
        }
        for i in range(6):
            kernel = weights[f"conv{i + 1}/kernel"]
            state[f"convs.{i}.weight"] = _tensor(kernel.transpose(2, 1, 0))
            state[f"convs.{i}.bias"] = _tensor(weights[f"conv{i + 1}/bias"])
            state[f"norms.{i}.weight"] = _tensor(weights[f"norm{i + 1}/scale"])
            state[f"norms.{i}.bias"] = _tensor(weights[f"norm{i + 1}/bias"])
        _load(self, state)


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def _load(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    missing, unexpected = model.load_state_dict(state, strict=False)
    left = [key for key in missing if "running" not in key and "num_batches" not in key]
    if left or unexpected:
        raise ValueError(f"left unfilled {left}, unexpected {unexpected}")
