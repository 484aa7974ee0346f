"""`majl_jax.models.vqvae` and its loss as one would write them in PyTorch; for `benchmarks.vqvae`.

Modules are named as in openai/jukebox, so that `majl_jax.weights.jukebox_vqvae` converts the state
dictionary. One section and a stride of 2, as at Jukebox's finest level.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class AutoEncoder(nn.Module):
    """[batch, channel, time] to the same, through a codebook of moving averages of latents."""

    def __init__(
        self, hidden: int, dilations: Sequence[int], halvings: int, latent: int, codes: int
    ) -> None:
        super().__init__()
        sizes = hidden, dilations, halvings, latent
        self.encoders = nn.ModuleList([_level(Encoder(*sizes))])
        self.decoders = nn.ModuleList([_level(Decoder(*sizes))])
        self.decoders[0].out = nn.Conv1d(latent, 1, 3, padding=1)
        self.bottleneck = _level(Codebook(codes, latent))
        self.remat = False

    def encode(self, audio: torch.Tensor) -> torch.Tensor:
        """Latents before quantisation [batch, latent, frame]."""
        return self.encoders[0].level_blocks[0](audio, self.remat)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Audio [batch, 1, time]."""
        return self.decoders[0].out(self.decoders[0].level_blocks[0](latents, self.remat))


def _level(block: nn.Module) -> nn.Module:
    level = nn.Module()
    level.level_blocks = nn.ModuleList([block])
    return level


class Block(nn.Module):
    """A residual block."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.ReLU(),
            nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[batch, channel, position], same shape."""
        return hidden + self.model(hidden)


class Stack(nn.Module):
    """Residual blocks; with `remat` their insides are computed anew in the backward pass."""

    def __init__(self, channels: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.model = nn.Sequential(*(Block(channels, dilation) for dilation in dilations))

    def forward(self, hidden: torch.Tensor, remat: bool) -> torch.Tensor:
        """[batch, channel, position], same shape."""
        if remat:
            return checkpoint(self.model, hidden, use_reentrant=False)
        return self.model(hidden)


class Encoder(nn.Module):
    """Strided convolutions with a stack after each, and a last convolution."""

    def __init__(self, hidden: int, dilations: Sequence[int], halvings: int, latent: int) -> None:
        super().__init__()
        stages = [
            nn.Sequential(
                nn.Conv1d(hidden if i else 1, hidden, 4, 2, padding=1), Stack(hidden, dilations)
            )
            for i in range(halvings)
        ]
        self.model = nn.Sequential(*stages, nn.Conv1d(hidden, latent, 3, padding=1))

    def forward(self, audio: torch.Tensor, remat: bool) -> torch.Tensor:
        """[batch, 1, time] to [batch, latent, frame]."""
        *stages, last = self.model
        for down, stack in stages:
            audio = stack(down(audio), remat)
        return last(audio)


class Decoder(nn.Module):
    """A convolution, and stacks with a transposed convolution after each."""

    def __init__(self, hidden: int, dilations: Sequence[int], halvings: int, latent: int) -> None:
        super().__init__()
        stages = [
            nn.Sequential(
                Stack(hidden, dilations[::-1]),
                nn.ConvTranspose1d(
                    hidden, latent if i == halvings - 1 else hidden, 4, 2, padding=1
                ),
            )
            for i in range(halvings)
        ]
        self.model = nn.Sequential(nn.Conv1d(latent, hidden, 3, padding=1), *stages)

    def forward(self, latents: torch.Tensor, remat: bool) -> torch.Tensor:
        """[batch, latent, frame] to [batch, latent, time]."""
        first, *stages = self.model
        latents = first(latents)
        for stack, up in stages:
            latents = up(stack(latents, remat))
        return latents


class Codebook(nn.Module):
    """The nearest rows, and their moving averages; rare rows become random latents."""

    k: torch.Tensor

    def __init__(self, codes: int, latent: int) -> None:
        super().__init__()
        self.register_buffer("k", torch.zeros(codes, latent))
        self.k_sum, self.k_elem = torch.zeros(codes, latent), torch.zeros(codes)

    @torch.no_grad()
    def fill(self, tokens: torch.Tensor) -> None:
        """Random rows of latents [token, latent], with the uses per step to be expected."""
        self.k.copy_(tokens[torch.randperm(len(tokens))[: len(self.k)]])
        usage = len(tokens) / len(self.k)
        self.k_sum, self.k_elem = usage * self.k, torch.full_like(self.k_elem, usage)

    @torch.no_grad()
    def codes(self, tokens: torch.Tensor) -> torch.Tensor:
        """The nearest row of every latent [token, latent]."""
        distances = tokens.square().sum(1, keepdim=True) - 2 * tokens @ self.k.T
        return (distances + self.k.square().sum(1)).argmin(1)

    @torch.no_grad()
    def update(self, tokens: torch.Tensor, codes: torch.Tensor) -> None:
        """Moves the rows towards the latents that took them."""
        counts = torch.bincount(codes, minlength=len(self.k)).float()
        sums = torch.zeros_like(self.k).index_add_(0, codes, tokens)
        self.k_sum = 0.99 * self.k_sum + 0.01 * sums
        self.k_elem = 0.99 * self.k_elem + 0.01 * counts
        used = (self.k_elem >= 1).unsqueeze(1)
        drawn = tokens[torch.randperm(len(tokens))[: len(self.k)]]
        self.k.copy_(torch.where(used, self.k_sum / self.k_elem.unsqueeze(1), drawn))


def loss(
    model: AutoEncoder,
    audio: torch.Tensor,
    *,
    variance: float,
    spectral_norm: float,
    largest: int,
    resolutions: Sequence[tuple[int, int, int]],
) -> torch.Tensor:
    """L2 + 0.02 Linf + multi-resolution spectral distance + 0.02 commitment; moves the codebook."""
    codebook = model.bottleneck.level_blocks[0]
    latents = model.encode(audio)
    tokens = latents.transpose(1, 2).flatten(0, 1)
    codes = codebook.codes(tokens)
    rows = codebook.k[codes].view(len(audio), -1, latents.shape[1]).transpose(1, 2)
    commitment = (rows - latents).square().mean()
    estimate = model.decode(latents + (rows - latents).detach())
    codebook.update(tokens.detach(), codes)
    squares = (estimate - audio).square().flatten(1)
    linf = squares.topk(min(largest, squares.shape[1])).values.mean()
    distances = [
        (_magnitudes(audio.mean(1), *one) - _magnitudes(estimate.mean(1), *one)).norm(dim=(1, 2))
        for one in resolutions
    ]
    spectral = torch.stack(distances).mean() / spectral_norm
    return (squares.mean() + 0.02 * linf) / variance + spectral + 0.02 * commitment


def _magnitudes(x: torch.Tensor, fft_samples: int, hop: int, window: int) -> torch.Tensor:
    hann = torch.hann_window(window)
    spectrum = torch.stft(x, fft_samples, hop, window, hann, return_complex=True)
    return torch.view_as_real(spectrum).norm(dim=-1)
