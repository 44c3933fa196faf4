"""A bank of target views: what they show, stored in 8 bits, on the training device and in checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.images import locate_pixels
from consistent4d_ns.targets.planning import Moments


@dataclass(frozen=True)
class TargetBank:
    """Target views of one round of training.

    Images are stored in 8 bits and used as such from the first step on, so that a run that is resumed fits the same
    values as one that is not.
    """

    begin: int
    """First training step of the round."""
    moments: Moments
    """Camera, frame and time of each view, on the CPU."""
    rgb: UInt8[Tensor, "views 3 size size"]
    """Colour on white."""
    opacity: UInt8[Tensor, "views size size"]
    """Opacity, where it is judged."""
    judged: Bool[Tensor, "views size size"]
    """Pixels whose opacity is to be fitted."""

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.rgb.shape[-1]

    @property
    def images(self) -> tuple[Tensor, ...]:
        """All that `batch` reads."""
        return self.rgb, self.opacity, self.judged

    def batch(self, pixels: Int64[Tensor, " rays"]) -> dict[str, Tensor]:
        """What some pixels, counted view after view and row after row, are to show, as float32.

        `image` [rays, 3] and `alpha` [rays] in [0, 1], and `judged` [rays], 1 where the opacity is to be fitted.
        """
        view, row, column = locate_pixels(pixels, self.image_size)
        return {
            "image": self.rgb[view, :, row, column] / 255.0,
            "alpha": self.opacity[view, row, column] / 255.0,
            "judged": self.judged[view, row, column].float(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything as plain values and tensors, for a checkpoint."""
        return {
            "begin": self.begin,
            "views": self.moments.views.stacked(),
            "frames": self.moments.frames,
            "times": self.moments.times,
            "rgb": self.rgb,
            "opacity": self.opacity,
            "judged": self.judged,
        }


def bank_from_images(
    begin: int,
    moments: Moments,
    rgb: Float[Tensor, "views 3 size size"],
    opacity: Float[Tensor, "views size size"],
    judged: Bool[Tensor, "views size size"],
) -> TargetBank:
    """A bank of images in [0, 1], rounded to 8 bits."""
    return TargetBank(begin, moments, _eight_bits(rgb), _eight_bits(opacity), judged)


def bank_from_state(state: dict[str, Any], device: torch.device | str) -> TargetBank:
    """The bank of which `state` is the `state_dict`, with its images on `device`.

    Raises:
        LookupError: something is missing from it.
    """
    images = (state[name].to(device) for name in ("rgb", "opacity", "judged"))
    return TargetBank(state["begin"], Moments(OrbitViews(*state["views"]), state["frames"], state["times"]), *images)


def _eight_bits(values: Float[Tensor, "*image"]) -> UInt8[Tensor, "*image"]:
    return (255.0 * values.clamp(0.0, 1.0)).round().to(torch.uint8)
