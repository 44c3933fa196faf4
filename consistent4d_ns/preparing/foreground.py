"""Where the knowledge about the object comes from: alpha, masks, a key colour, or a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import UInt8

from consistent4d_ns.data.files import by
from consistent4d_ns.errors import InputError
from consistent4d_ns.preparing.clip import Clip
from consistent4d_ns.preparing.keying import key_matte, parse_colour
from consistent4d_ns.preparing.layouts import Layout
from consistent4d_ns.preparing.masks import Masks, are_numbered, chosen_number, open_masks
from consistent4d_ns.preparing.objects import Hint
from consistent4d_ns.preparing.options import ObjectOptions

Kind: TypeAlias = Literal["alpha", "masks", "key", "network"]
"""What tells the object from the background."""
PREVIEW_SIDE = 256
"""Masks are thinned out to about this side when objects are counted."""


@dataclass(frozen=True)
class Foreground:
    """Frames with what files tell about their foreground."""

    kind: Kind
    clip: Clip
    masks: Masks | None = None
    number: int | None = None
    """The number of the object in numbered masks."""
    key: tuple[int, int, int] | None = None

    def layers(self) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"] | None]]:
        """Each chosen frame as RGB with its foreground from 0 to 255; None where a network has to find it.

        Raises:
            InputError: A frame or mask is damaged, or a mask has another size than its frame.
        """
        masks = self.masks.read() if self.masks else None
        for image in self.clip.images():
            rgb = np.ascontiguousarray(image[..., :3])
            if masks is not None:
                yield rgb, self._mask(next(masks))
            elif self.key is not None:
                yield rgb, key_matte(rgb, self.key)
            else:
                yield rgb, image[..., 3] if self.kind == "alpha" else None

    def _mask(self, mask: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
        """One mask, brought to brightness and to the size of the frames."""
        import cv2

        assert self.masks is not None
        height, width = self.clip.size
        if abs(mask.shape[0] * width - mask.shape[1] * height) > max(height, width) * max(4, mask.shape[0] // 100):
            raise InputError(
                f"{self.masks.source} has masks of {by(mask.shape)} but frames are {by(self.clip.size)}: "
                "give masks of the same shape"
            )
        if self.number is not None:
            mask = (mask == self.number).astype(np.uint8) * 255
        return (
            mask if mask.shape == self.clip.size else cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        )

    def only(self, places: Sequence[int]) -> Foreground:
        """The same for some of the chosen frames."""
        masks = self.masks.only(places) if self.masks else None
        return replace(self, clip=self.clip.only(places), masks=masks)


def find_foreground(clip: Clip, layout: Layout, options: ObjectOptions) -> Foreground:
    """The first source of knowledge that there is: what the user gives, then alpha, masks beside the frames, a network.

    Raises:
        InputError: Masks do not fit, or an option needs masks that are not there.
    """
    masks = options.masks or (None if clip.alpha or options.key else layout.masks)
    if masks is not None:
        return _numbered(Foreground("masks", clip, open_masks(masks, clip)), options)
    if options.object is not None:
        raise InputError("--object picks an object from numbered masks, and there are none: give --masks.")
    if options.key is not None:
        return Foreground("key", clip, key=parse_colour(options.key))
    return Foreground("alpha" if clip.alpha else "network", clip)


def _numbered(foreground: Foreground, options: ObjectOptions) -> Foreground:
    """With the number of the object that is meant, where masks number several.

    Raises:
        InputError: There is no such object, or masks are not numbered though a number is given.
    """
    masks = foreground.masks
    assert masks is not None
    step = max(1, max(foreground.clip.size) // PREVIEW_SIDE)
    thinned = [mask[::step, ::step] for mask in masks.read()]
    if not are_numbered(thinned):
        if options.object is not None:
            raise InputError(f"{masks.source} holds masks of brightness, not of numbers: leave out --object")
        return foreground
    hint = Hint(options.point, options.box).scaled(max(thinned[0].shape) / max(foreground.clip.size))
    return replace(foreground, number=chosen_number(thinned, options.object, hint, masks.source))
