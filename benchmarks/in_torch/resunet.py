"""ResUNetDecouple+ of majl_jax as one would write it in PyTorch, mono; for `large_separator`."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

EPSILON = 1e-5


class Separator(nn.Module):
    """Waveform to waveform, one target."""

    def __init__(
        self, channels: tuple[int, ...], blocks: int, window_samples: int, hop_samples: int
    ) -> None:
        super().__init__()
        self.sizes = {"n_fft": window_samples, "hop_length": hop_samples}
        self.register_buffer("window", torch.hann_window(window_samples))
        self.remat = False
        depth = len(channels)
        self.factors = [(2, 2)] * (depth - 1) + [(1, 2)]
        self.input_norm = nn.BatchNorm1d(window_samples // 2 + 1, momentum=0.01)
        self.encoder, width = nn.ModuleList(), 1
        for features in channels:
            self.encoder.append(stage(width, features, blocks))
            width = features
        self.centre = nn.ModuleList(stage(width, width, blocks) for _ in range(4))
        self.decoder, self.up, self.up_norm = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for features, factor in zip(reversed(channels), reversed(self.factors), strict=True):
            self.up_norm.append(nn.BatchNorm2d(width, momentum=0.01))
            self.up.append(nn.ConvTranspose2d(width, features, factor, factor, bias=False))
            self.decoder.append(stage(2 * features, features, blocks))
            width = features
        self.last = stage(width, width, blocks)
        self.maps = nn.Conv2d(width, 4, 1)

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        """[batch, time] to [batch, time]."""
        frames = mixture.shape[1] // self.sizes["hop_length"]
        spectrum = torch.stft(mixture, **self.sizes, window=self.window, return_complex=True)
        spectrum = spectrum[..., :frames]
        power = spectrum.real**2 + spectrum.imag**2
        level = torch.sqrt(torch.clamp(power, min=1e-10))
        hidden = self.input_norm(level)[:, :-1].transpose(1, 2)[:, None]
        mask, real, imaginary, residual = functional.pad(
            self.spread(hidden).float().transpose(2, 3), (0, 0, 0, 1)
        ).unbind(1)
        real, imaginary = torch.tanh(real), torch.tanh(imaginary)
        norm = torch.sqrt(torch.clamp(real**2 + imaginary**2, min=1e-20))
        turn = torch.complex(real / norm, imaginary / norm)
        estimate = torch.relu(level * torch.sigmoid(mask) + residual)
        return torch.istft(
            estimate * (spectrum / level) * turn,
            **self.sizes,
            window=self.window,
            length=mixture.shape[1],
        )

    def spread(self, hidden: torch.Tensor) -> torch.Tensor:
        """[batch, 1, frame, frequency] to [batch, 4, frame, frequency]."""
        skips = []
        for layers, factor in zip(self.encoder, self.factors, strict=True):
            hidden = self.run(layers, hidden)
            skips.append(hidden)
            hidden = functional.avg_pool2d(hidden, factor)
        for layers in self.centre:
            hidden = self.run(layers, hidden)
        for layers, up, norm in zip(self.decoder, self.up, self.up_norm, strict=True):
            hidden = up(functional.relu_(norm(hidden)))
            hidden = self.run(layers, torch.cat([hidden, skips.pop()], 1))
        return self.maps(self.run(self.last, hidden))

    def run(self, layers: nn.Sequential, hidden: torch.Tensor) -> torch.Tensor:
        """The blocks of a stage; with `remat` their insides are computed anew going back."""
        for layer in layers:
            hidden = checkpoint(layer, hidden, use_reentrant=False) if self.remat else layer(hidden)
        return hidden

    def load(self, weights: dict[str, np.ndarray]) -> None:
        """Takes our arrays, named by their paths below `network`."""
        modules = {"input_norm": self.input_norm, "maps": self.maps}
        stages = {f"encoder{i}": layers for i, layers in enumerate(self.encoder, 1)}
        stages |= {f"centre{i}": layers for i, layers in enumerate(self.centre, 1)}
        stages |= {f"decoder{i}": layers for i, layers in enumerate(self.decoder, 1)}
        for name, layers in {**stages, "last": self.last}.items():
            for i, layer in enumerate(layers, 1):
                modules |= {f"{name}_block{i}/{part}": m for part, m in layer.named_children()}
        for i, (up, norm) in enumerate(zip(self.up, self.up_norm, strict=True), 1):
            modules |= {f"decoder{i}_up": up, f"decoder{i}_norm": norm}
        with torch.no_grad():
            for path, values in weights.items():
                name, leaf = path.rsplit("/", 1)
                if leaf == "kernel":
                    order = (2, 3, 0, 1) if name.endswith("_up") else (3, 2, 0, 1)
                    values = values.transpose(order)
                place = modules[name].bias if leaf == "bias" else modules[name].weight
                place.copy_(torch.from_numpy(np.ascontiguousarray(values)))


class Block(nn.Module):
    """Two convolutions behind normalisations and the way past them."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width, momentum=0.01)
        self.conv1 = nn.Conv2d(width, features, 3, padding=1, bias=False)
        self.norm2 = InPlaceNorm(features, momentum=0.01)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        if width != features:
            self.shortcut = nn.Conv2d(width, features, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[batch, width, frame, frequency] to [batch, features, frame, frequency]."""
        hidden = self.conv1(functional.leaky_relu_(self.norm1(inputs), 0.01))
        hidden = self.conv2(functional.leaky_relu_(self.norm2(hidden), 0.01))
        return hidden + (self.shortcut(inputs) if hasattr(self, "shortcut") else inputs)


class InPlaceNorm(nn.BatchNorm2d):
    """Batch normalisation with |weight| + epsilon as its scale."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Same shape."""
        statistics = self.running_mean, self.running_var
        scale = self.weight.abs() + EPSILON
        return functional.batch_norm(
            inputs, *statistics, scale, self.bias, self.training, self.momentum, EPSILON
        )


def stage(width: int, features: int, blocks: int) -> nn.Sequential:
    """Residual blocks in a row, the first of which changes the width."""
    first = [Block(width, features)]
    return nn.Sequential(*first, *(Block(features, features) for _ in range(blocks - 1)))
