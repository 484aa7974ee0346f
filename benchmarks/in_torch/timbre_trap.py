"""`majl_jax.models.timbre_trap` as one would write it in PyTorch; for `multi_pitch_step`.

Modules are named as in cwitkowitz/ss-mpe, so that `majl_jax.weights.timbre_trap` converts
the state dictionary.
"""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

DILATIONS = (1, 2, 3)


class TimbreTrap(nn.Module):
    """[batch, harmonic, bin, frame] to logits [batch, bin, frame]."""

    def __init__(self, bins: tuple[int, ...], channels: tuple[int, ...], harmonics: int) -> None:
        super().__init__()
        latent, self.remat = channels[-1], False
        self.encoder = nn.ModuleDict()
        same = nn.Conv2d(harmonics, channels[0], 3, padding=1)
        self.encoder["convin"] = nn.Sequential(same, Norm(channels[0], bins[0]), elu())
        self.encoder["blocks"] = nn.ModuleList(
            Encode(*channels[i : i + 2], bins[i + 1]) for i in range(len(bins) - 1)
        )
        collapse = nn.Conv2d(channels[-1], latent, (bins[-1], 1))
        self.encoder["convlat"] = nn.Sequential(collapse, Norm(latent, 1))
        self.decoder = nn.ModuleDict()
        expand = nn.ConvTranspose2d(latent, channels[-1], (bins[-1], 1))
        self.decoder["convin"] = nn.Sequential(expand, Norm(channels[-1], bins[-1]), elu())
        self.decoder["blocks"] = nn.ModuleList(
            Decode(channels[i + 1], channels[i], bins[i]) for i in reversed(range(len(bins) - 1))
        )
        self.decoder["convout"] = nn.Sequential(nn.Conv2d(channels[0], 1, 3, padding=1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits; with `remat` the insides of the blocks are computed anew in the backward pass."""
        hidden = self.encoder["convin"](features)
        for block in self.encoder["blocks"]:
            hidden = self.run(block, hidden)
        hidden = self.decoder["convin"](self.encoder["convlat"](hidden))
        for block in self.decoder["blocks"]:
            hidden = self.run(block, hidden)
        return self.decoder["convout"](hidden).squeeze(1)

    def run(self, block: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        """One block."""
        return checkpoint(block, hidden, use_reentrant=False) if self.remat else block(hidden)


class Encode(nn.Module):
    """Residual units, then half the bins."""

    def __init__(self, channels: int, features: int, bins: int) -> None:
        super().__init__()
        for i, dilation in enumerate(DILATIONS, 1):
            self.add_module(f"block{i}", Unit(channels, dilation))
        half = nn.Conv2d(channels, features, (4, 1), (2, 1))
        self.sconv = nn.Sequential(half, Norm(features, bins), elu())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[batch, channels, bins, frame] to [batch, features, bins // 2 - 1, frame]."""
        return self.sconv(self.block3(self.block2(self.block1(inputs))))


class Decode(nn.Module):
    """Twice the bins, then residual units."""

    def __init__(self, channels: int, features: int, bins: int) -> None:
        super().__init__()
        double = nn.ConvTranspose2d(
            channels, features, (4, 1), (2, 1), output_padding=(bins % 2, 0)
        )
        self.tconv = nn.Sequential(double, Norm(features, bins), elu())
        for i, dilation in enumerate(DILATIONS, 1):
            self.add_module(f"block{i}", Unit(features, dilation))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[batch, channels, bins // 2 - 1, frame] to [batch, features, bins, frame]."""
        return self.block3(self.block2(self.block1(self.tconv(inputs))))


class Unit(nn.Module):
    """A dilated convolution, a 1 x 1 convolution and the way past them."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        dilated = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.conv1 = nn.Sequential(dilated, elu())
        self.conv2 = nn.Sequential(nn.Conv2d(channels, channels, 1), elu())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Same shape."""
        return inputs + self.conv2(self.conv1(inputs))


class Norm(nn.LayerNorm):
    """Normalises the channels and bins of each frame."""

    def __init__(self, channels: int, bins: int) -> None:
        super().__init__((channels, bins))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[batch, channel, bin, frame], same shape."""
        return super().forward(inputs.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def elu() -> nn.ELU:
    """In place, which saves a copy."""
    return nn.ELU(inplace=True)
