"""Networks of the video enhancer (method.md section 9): a U-Net with cross-frame attention, and a PatchGAN."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

HEADS = 4
"""Attention heads."""
SLOPE = 0.2
"""Negative slope of the leaky rectifiers."""
INITIAL_DEVIATION = 0.02
"""Standard deviation of initial weights."""


class Generator(nn.Module):
    """Enhances consecutive frames: four levels down to a sixteenth of the size, attention between frames, and up.

    Args:
        channels: Channels of the first level; the others have twice, four times and four times as many.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        one, two, four = channels, 2 * channels, 4 * channels
        self.channels = channels
        self.down = nn.ModuleList((_conv(3, one), _down(one, two), _down(two, four), _down(four, four, norm=False)))
        self.attention = CrossFrameAttention(four)
        # Each level but the deepest gets the features of its size from the way down besides those from below.
        outermost = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * one, 3, 4, 2, 1), nn.Tanh())
        self.up = nn.ModuleList((outermost, _up(2 * two, one), _up(2 * four, two), _up(four, four)))

    def forward(self, frames: Float[Tensor, "frames 3 h w"]) -> Float[Tensor, "frames 3 h w"]:
        """Enhanced frames.

        Args:
            frames: Consecutive frames in [-1, 1]; both sides are multiples of 16.
        """
        skips, hidden = [], frames
        for level in self.down:
            hidden = level(hidden)
            skips.append(hidden)
        hidden = self.up[3](self.attention(skips.pop()))
        for level in (self.up[2], self.up[1], self.up[0]):
            hidden = level(torch.cat((skips.pop(), hidden), dim=1))
        return hidden


class CrossFrameAttention(nn.Module):
    """Replaces the features of each frame by what it finds in the next and the previous one; ends repeat themselves.

    Neighbours pass no gradient.
    """

    frequencies: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, HEADS, batch_first=True)
        self.register_buffer("frequencies", encoding_frequencies(channels), persistent=False)

    def forward(self, features: Float[Tensor, "frames c h w"]) -> Float[Tensor, "frames c h w"]:
        """New features of the same shape."""
        following = torch.cat((features[1:], features[-1:]))
        previous = torch.cat((features[:1], features[:-1]))
        beside = torch.cat((following, previous), dim=-1).detach()
        queries, keys = (self.tokens(maps) for maps in (features, beside))
        found, _ = self.attention(queries, keys, keys, need_weights=False)
        return found.mT.reshape(features.shape)

    def tokens(self, maps: Float[Tensor, "frames c h w"]) -> Float[Tensor, "frames h*w c"]:
        """Features with their places, one token for each pixel."""
        return (maps + position_encoding(self.frequencies, *maps.shape[-2:])).flatten(2).mT


class Discriminator(nn.Module):
    """Tells enhanced from true frames, patch by patch (70 x 70 pixels), given the rendered ones.

    Args:
        channels: Channels of the first layer; the others have twice, four and eight times as many.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(6, channels, 4, 2, 1), nn.LeakyReLU(SLOPE)]
        for width, stride in ((channels, 2), (2 * channels, 2), (4 * channels, 1)):
            convolution = nn.Conv2d(width, 2 * width, 4, stride, 1, bias=False)
            layers += [convolution, nn.BatchNorm2d(2 * width), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * channels, 1, 4, 1, 1))

    def forward(
        self, rendered: Float[Tensor, "frames 3 h w"], frames: Float[Tensor, "frames 3 h w"]
    ) -> Float[Tensor, "frames 1 rows columns"]:
        """Logits, one for each patch: greater where `frames` look true."""
        return self.layers(torch.cat((rendered, frames), dim=1))


def encoding_frequencies(channels: int) -> Float[Tensor, " quarter"]:
    """Frequencies of the sinusoids that encode a place in one direction, in radians per pixel, from 1 downwards."""
    half = channels // 2
    return 1.0 / 10_000 ** (torch.arange(0, half, 2).float() / half)


def position_encoding(
    frequencies: Float[Tensor, " quarter"], height: int, width: int
) -> Float[Tensor, "channels height width"]:
    """Sinusoidal encoding of each pixel: rows in the first half of the channels, columns in the second; sines and
    cosines take turns."""

    def encoded(length: int) -> Float[Tensor, "half length"]:
        angles = torch.arange(length, device=frequencies.device) * frequencies[:, None]
        return torch.stack((angles.sin(), angles.cos()), dim=1).flatten(0, 1)

    rows, columns = encoded(height)[:, :, None], encoded(width)[:, None]
    return torch.cat((rows.expand(-1, -1, width), columns.expand(-1, height, -1)))


def initialise(network: nn.Module) -> None:
    """Draw initial weights from the global generator: those of convolutions, norms and linear layers."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.Linear)):
            nn.init.normal_(layer.weight, float(isinstance(layer, nn.BatchNorm2d)), INITIAL_DEVIATION)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    """A convolution that halves the size."""
    return nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)


def _down(inputs: int, outputs: int, norm: bool = True) -> nn.Sequential:
    """One level down: half the size."""
    norms = [nn.BatchNorm2d(outputs)] if norm else []
    return nn.Sequential(nn.LeakyReLU(SLOPE), _conv(inputs, outputs), *norms)


def _up(inputs: int, outputs: int) -> nn.Sequential:
    """One level up: twice the size."""
    enlarge = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
    return nn.Sequential(nn.ReLU(), enlarge, nn.BatchNorm2d(outputs))
