"""`majl_jax.models.band_split` as one would write it in PyTorch; for `benchmarks.locoformer`.

Modules are named as in merlresearch/tf-locoformer, so that `majl_jax.weights.bs_locoformer`
converts the state dictionary. The decoder's tanh is after its first linear layer, there are no
positions and no dropout.
"""

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


class BandSplitLocoformer(nn.Module):
    """[batch, channel, frame, frequency] complex to [batch, source, channel, frame, frequency]."""

    def __init__(
        self, sources: int, channels: int, bands: tuple[int, ...], layers: int, sizes: dict
    ) -> None:
        super().__init__()
        self.sources, self.bands, self.remat = sources, bands, False
        values = [2 * channels * width for width in bands]
        features = sizes["features"]
        self.band_split_module = nn.Module()
        self.band_split_module.band_split_module = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(1, count), nn.Conv1d(count, features, 1)) for count in values
        )
        self.band_split_module.bandwise_decoding_module = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, features),
                nn.Conv1d(features, 4 * features, 1),
                nn.Tanh(),
                nn.Conv1d(4 * features, 4 * features, 1),
                nn.Conv1d(4 * features, 2 * sources * count, 1),
                nn.GLU(dim=1),
            )
            for count in values
        )
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(layers))

    def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Estimates; with `remat` the insides of blocks are computed anew going back."""
        batch, channels, frames, _ = spectrum.shape
        parts = torch.cat([spectrum.real, spectrum.imag], 1).permute(0, 3, 1, 2)
        encoders = self.band_split_module.band_split_module
        split = parts.split(self.bands, dim=1)
        hidden = torch.stack(
            [
                encode(x.reshape(batch, -1, frames))
                for encode, x in zip(encoders, split, strict=True)
            ],
            -1,
        ).permute(0, 2, 3, 1)
        for block in self.blocks:
            hidden = checkpoint(block, hidden, use_reentrant=False) if self.remat else block(hidden)
        decoders = self.band_split_module.bandwise_decoding_module
        shape = batch, 2, self.sources, channels, -1, frames
        masks = [
            decode(x).reshape(shape)
            for decode, x in zip(decoders, hidden.permute(2, 0, 3, 1), strict=True)
        ]
        mask = torch.cat(masks, -2).transpose(-1, -2)
        return torch.complex(mask[:, 0], mask[:, 1]) * spectrum[:, None]


class Block(nn.Module):
    """Along the bands, then along the frames."""

    def __init__(self, sizes: dict) -> None:
        super().__init__()
        self.freq_path, self.frame_path = Path(sizes), Path(sizes)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[batch, frame, band, feature], same shape."""
        hidden = self.freq_path(hidden.flatten(0, 1)).view(hidden.shape).transpose(1, 2)
        return self.frame_path(hidden.flatten(0, 1)).view(hidden.shape).transpose(1, 2)


class Path(nn.Module):
    """A feed-forward network, attention and another feed-forward network."""

    def __init__(self, sizes: dict) -> None:
        super().__init__()
        features, groups = sizes["features"], sizes["norm_groups"]
        self.ffn_norm = nn.ModuleList(Norm(groups, features) for _ in range(2))
        self.ffn = nn.ModuleList(FeedForward(features, sizes["hidden"], 8) for _ in range(2))
        self.attn_norm = Norm(groups, features)
        self.attn = Attention(features, sizes["attention_features"], sizes["heads"])

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[sequence, position, feature], same shape."""
        hidden = hidden + self.ffn[1](self.ffn_norm[1](hidden))
        hidden = hidden + self.attn(self.attn_norm(hidden))
        return hidden + self.ffn[0](self.ffn_norm[0](hidden))


class FeedForward(nn.Module):
    """Convolution, gate, transposed convolution."""

    def __init__(self, features: int, hidden: int, taps: int) -> None:
        super().__init__()
        self.conv1d = nn.Conv1d(features, 2 * hidden, taps, padding=taps - 1)
        self.deconv1d = nn.ConvTranspose1d(hidden, features, taps, padding=taps - 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[sequence, position, feature], same shape."""
        value, gate = self.conv1d(hidden.transpose(1, 2)).chunk(2, 1)
        padded = value * functional.silu(gate)
        # The padding of the transposed convolution cuts off what the first one's has added.
        return self.deconv1d(padded).transpose(1, 2)


class Attention(nn.Module):
    """PyTorch's fused attention."""

    def __init__(self, features: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(features, 3 * width, bias=False)
        self.aggregate_heads = nn.Sequential(nn.Linear(width, features, bias=False))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[sequence, position, feature], same shape."""
        both = self.qkv(hidden).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(*both)
        return self.aggregate_heads(attended.transpose(1, 2).flatten(2))


class Norm(nn.Module):
    """Divides groups of features by their level."""

    def __init__(self, groups: int, features: int) -> None:
        super().__init__()
        self.groups, self.gamma = groups, nn.Parameter(torch.ones(features))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Same shape."""
        grouped = hidden.unflatten(-1, (self.groups, -1))
        level = grouped.square().mean(-1, keepdim=True).clamp_min(1e-24).sqrt() + 1e-5
        return (grouped / level).flatten(-2) * self.gamma
