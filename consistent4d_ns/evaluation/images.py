"""What the metrics see of an image: on white, at the sizes of the original's scripts (method.md section 10)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from consistent4d_ns.evaluation.i3d import IMAGE_SIZE

SIDE = 512
"""Side in pixels at which images are compared."""
CLIP_SIDE = 224
"""Side in pixels of what CLIP sees."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of CLIP's training images, red, green and blue."""

Picture = UInt8[np.ndarray, "height width 3"]
"""An image on white."""


def on_white(image: UInt8[np.ndarray, "height width channels"]) -> Picture:
    """An RGB image as it is, or a straight-alpha RGBA image composited on white."""
    if image.shape[2] == 3:
        return image
    alpha = image[..., 3:].astype(np.float32) / 255.0
    return np.round(image[..., :3] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)


def resized(picture: Picture, side: int) -> Picture:
    """A picture as a square: Pillow's bicubic filter, rounded to 8 bit."""
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


def as_tensor(picture: Picture) -> Float[Tensor, "1 3 height width"]:
    """A picture in 0 to 255."""
    return torch.from_numpy(picture.copy()).float().permute(2, 0, 1)[None]


def clip_input(picture: Picture) -> Float[Tensor, "1 3 224 224"]:
    """What CLIP sees of a picture of `SIDE` pixels: made smaller with a bicubic filter, and normalised."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return (as_tensor(resized(picture, CLIP_SIDE)) / 255.0 - mean) / std


def i3d_input(picture: Picture) -> Float[Tensor, "3 224 224"]:
    """What I3D sees of a picture, about in [-1, 1]: resized with a bicubic filter whose overshoot is kept."""
    size, filter = (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC
    channels = [Image.fromarray(picture[..., i].astype(np.float32)).resize(size, filter) for i in range(3)]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels])) / 127.5 - 1.0


def held(clip: Sequence[Tensor], shortest: int) -> Float[Tensor, "3 frames height width"]:
    """The images of a clip, each repeated equally often, so that there are at least `shortest`."""
    times = -(-shortest // len(clip))
    return torch.stack([image for image in clip for _ in range(times)], dim=1)
