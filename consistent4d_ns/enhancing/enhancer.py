"""A trained enhancer: its folder, and what it makes of rendered frames."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from consistent4d_ns.data.images import straight_colour
from consistent4d_ns.enhancing.networks import Generator
from consistent4d_ns.enhancing.options import STRIDE
from consistent4d_ns.enhancing.settings import FORMAT, REMEDY, SETTINGS, read_settings
from consistent4d_ns.enhancing.training import GROUP, as_frames
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.tensors import not_finite
from consistent4d_ns.files.weight_files import damage_of_weights
from consistent4d_ns.media.encoding import on_white
from consistent4d_ns.media.pictures import filled, to_bytes

WEIGHTS = "enhancer.safetensors"
"""The generator's weights."""

ALMOST_WHITE = 4 / 255
"""Distance from white below which a pixel is taken for the background."""

T = TypeVar("T")
Row = UInt8[np.ndarray, "height width 4"]
Image = UInt8[Tensor, "3 h w"]


@dataclass(frozen=True)
class Enhancer:
    """A generator in evaluation mode, and the size that it was trained at."""

    generator: Generator
    """On the device where it computes."""
    size: int
    """Side in pixels of the frames that it was trained on; other sizes work, less well."""


def save_enhancer(folder: Path, enhancer: Enhancer, about: Mapping[str, Any]) -> None:
    """Write an enhancer into a folder.

    Args:
        folder: The folder, which exists.
        enhancer: What to write.
        about: How it was trained, for people.
    """
    from safetensors.torch import save

    (folder / WEIGHTS).write_bytes(save(enhancer.generator.state_dict()))
    settings = {"format": FORMAT, "channels": enhancer.generator.channels, "size": enhancer.size, **about}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def load_enhancer(folder: Path, device: torch.device | str) -> Enhancer:
    """The enhancer in a folder.

    Raises:
        InputError: It is missing or damaged.
    """
    from safetensors.torch import load_file

    settings, file = read_settings(folder), folder / WEIGHTS
    if (damage := damage_of_weights(file)) is not None:
        raise InputError(f"{file} {damage.partition(':')[0]}: {REMEDY}.")
    tensors = load_file(file)
    with torch.device("meta"):
        generator = Generator(settings["channels"])
    wanted = {name: value.shape for name, value in generator.state_dict().items()}
    if {name: value.shape for name, value in tensors.items()} != wanted:
        raise InputError(f"{file} does not hold the weights that {SETTINGS} describes: {REMEDY}.")
    if not_finite(tensors) is not None:
        raise InputError(f"{file} holds numbers that are not finite: {REMEDY}.")
    generator = Generator(settings["channels"])
    generator.load_state_dict(tensors)
    return Enhancer(generator.to(device).eval().requires_grad_(False), settings["size"])


def enhanced_rows(rows: Iterable[Row], chosen: Sequence[bool], enhancer: Enhancer) -> Iterator[Row]:
    """Images of a video, each of several tiles side by side, some of which are enhanced.

    Args:
        rows: The images in order: tiles of equal width, straight-alpha RGBA.
        chosen: For each tile whether it is enhanced.
        enhancer: What enhances them.
    """
    for window, wanted in windows(rows, GROUP):
        tiles = np.split(np.stack(window), len(chosen), axis=2)
        changed = [
            enhanced_tiles(tile, enhancer)[wanted] if choice else tile[wanted]
            for tile, choice in zip(tiles, chosen, strict=True)
        ]
        yield from np.concatenate(changed, axis=2)


def enhanced_clip(frames: Iterable[Image], enhancer: Enhancer) -> Iterator[Float[Tensor, "3 h w"]]:
    """Consecutive frames on white, enhanced; values in [0, 1]."""
    for window, wanted in windows(frames, GROUP):
        yield from enhanced_frames(torch.stack(window), enhancer)[wanted]


def windows(items: Iterable[T], size: int) -> Iterator[tuple[list[T], slice]]:
    """Groups of `size` items, each with the item before it and the one after it where there are such, and the slice
    that leaves these out.

    So the frames of every group have their true neighbours, and results do not depend on how frames are grouped.
    """
    window: list[T] = []
    first = 0
    for item in items:
        window.append(item)
        if len(window) == first + size + 1:
            yield window, slice(first, -1)
            window, first = window[-2:], 1
    if len(window) > first:
        yield window, slice(first, None)


@torch.no_grad()
def enhanced_frames(frames: UInt8[Tensor, "frames 3 h w"], enhancer: Enhancer) -> Float[Tensor, "frames 3 h w"]:
    """Consecutive frames on white, enhanced together; values in [0, 1], on the CPU."""
    device = next(enhancer.generator.parameters()).device
    height, width = frames.shape[-2:]
    padded = F.pad(as_frames(frames.to(device)), (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
    return (enhancer.generator(padded)[..., :height, :width] * 0.5 + 0.5).cpu()


def enhanced_tiles(tiles: UInt8[np.ndarray, "frames h w 4"], enhancer: Enhancer) -> UInt8[np.ndarray, "frames h w 4"]:
    """Consecutive straight-alpha images, enhanced together."""
    frames = torch.from_numpy(on_white(tiles)).movedim(-1, 1)
    colours = enhanced_frames(frames, enhancer).movedim(1, -1)
    alpha = torch.from_numpy(tiles[..., 3:].astype(np.float32)) / 255.0
    return np.stack([to_bytes(filled(image)) for image in with_alpha(colours, alpha)])


def with_alpha(
    colours: Float[Tensor, "frames h w 3"], alpha: Float[Tensor, "frames h w 1"]
) -> Float[Tensor, "frames h w 4"]:
    """Straight-alpha RGBA that looks like `colours` on white.

    The opacity is that of the rendering, or the least at which a pixel can be as dark as it is. Where nothing was
    rendered, what is `ALMOST_WHITE` becomes transparent.
    """
    needed = 1.0 - colours.amin(dim=-1, keepdim=True)
    needed = torch.where(needed < ALMOST_WHITE, 0.0, (255.0 * needed).ceil() / 255.0)
    opacity = torch.maximum(alpha, needed)
    return torch.cat((straight_colour(colours - (1.0 - opacity), opacity), opacity), dim=-1)
