"""The frames as a Nerfstudio dataset: composited on white, with alpha beside them (method.md section 2)."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any, Literal
from weakref import WeakValueDictionary

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt8
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from consistent4d_ns.data.frames import decode_frames
from consistent4d_ns.data.images import composite_white
from consistent4d_ns.data.listing import FrameList
from consistent4d_ns.device.limits import memory_limit
from consistent4d_ns.errors import InputError
from consistent4d_ns.messages import say

_decoded: WeakValueDictionary[tuple[tuple[FrameList, ...], int], Tensor] = WeakValueDictionary()
_decoding = threading.Lock()


class FrameDataset(InputDataset):
    """All frames of one split, decoded once, on first use.

    `metadata["frames"]` of the dataparser says which frames, the cameras (after `scale_factor`) at which size.
    """

    @cached_property
    def rgba(self) -> Float16[Tensor, "frames 4 size size"]:
        """Premultiplied RGBA of all frames, on the CPU; shared by datasets of the same frames, so not to be modified.

        Raises:
            InputError: A frame cannot be used (see `decode_frames`).
        """
        return shared_frames(self.metadata["frames"], int(self.cameras.height[0]))

    def __bool__(self) -> bool:
        """True also without frames: Nerfstudio takes an empty dataset for a missing one."""
        return True

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict[str, Any]:
        """A frame; without frames only its index, because Nerfstudio asks for it where it wants a camera."""
        return super().get_data(image_idx, image_type) if len(self) else {"image_idx": image_idx}

    def get_image_float32(self, image_idx: int) -> Float[Tensor, "size size 3"]:
        """One frame on white, in [0, 1]."""
        return composite_white(self.rgba[image_idx].float()).permute(1, 2, 0)

    def get_numpy_image(self, image_idx: int) -> UInt8[np.ndarray, "size size 3"]:
        """One frame on white, in 0..255."""
        return (self.get_image_float32(image_idx) * 255).round().byte().numpy()

    def get_metadata(self, data: dict[str, Any]) -> dict[str, Float[Tensor, "size size 1"]]:
        """The frame's soft mask under "alpha", in [0, 1]."""
        return {"alpha": self.rgba[data["image_idx"], 3, :, :, None].float()}


def shared_frames(frames: tuple[FrameList, ...], image_size: int) -> Float16[Tensor, "frames 4 size size"]:
    """Decoded frames of several lists, concatenated; cached while a reference to them exists.

    Without ground truth, training and evaluation use the same frames, which are decoded and stored once. The lock is
    for Nerfstudio's image cache, which calls from several threads.

    Raises:
        InputError: A frame cannot be used (see `decode_frames`), or all together take more memory than there is.
    """
    with _decoding:
        rgba = _decoded.get((frames, image_size))
        if rgba is None:
            lengths = [len(part) for part in frames]
            check_memory(sum(lengths), image_size)
            rgba = torch.empty(sum(lengths), 4, image_size, image_size, dtype=torch.float16)
            for part, place in zip(frames, rgba.split(lengths), strict=True):
                decode_frames(part, image_size, say, place)
            _decoded[frames, image_size] = rgba
        return rgba


def check_memory(frames: int, image_size: int) -> None:
    """Refuse frames that take more memory than this process may use; the system would end it without a word.

    Raises:
        InputError: They do.
    """
    needed, limit = frames * 4 * image_size**2 * torch.float16.itemsize, memory_limit()
    if limit is not None and needed > limit:
        raise InputError(
            f"{frames} frames of {image_size} x {image_size} pixels take {needed / 2**30:.1f} GiB of memory, and there "
            f"are {limit / 2**30:.1f}: take fewer (frame-stride or frame-count) or smaller ones "
            "(image-size), all options of --pipeline.datamanager.dataparser."
        )
