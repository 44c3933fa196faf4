"""Pictures of a trained object: rendered views, several side by side, contact sheets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from nerfstudio.cameras.camera_paths import get_path_from_json
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.utils.colormaps import apply_depth_colormap
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.datamanager import Consistent4DDataManager
from consistent4d_ns.data.images import composite_white, resized, straight_colour
from consistent4d_ns.data.rays import view_rays
from consistent4d_ns.data.times import even_times
from consistent4d_ns.errors import InputError
from consistent4d_ns.media.camera_paths import InputVideo
from consistent4d_ns.model import Consistent4DModel

INPUT = "input"
"""Name of the panel that shows the frame filmed at that time."""
SHEET_TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Moments of a contact sheet: its rows."""
SHEET_AZIMUTHS = (0.0, 60.0, 120.0, 180.0, 240.0, 300.0)
"""Degrees from the input view of a contact sheet's columns, which follow that of the input."""
SHEET_SIZE = 256
"""Largest side of a contact sheet's pictures in pixels."""
LABEL_SIZE = 14
"""Height of a contact sheet's labels in pixels."""

Picture = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class Panel:
    """One of several pictures side by side."""

    output: str
    """The input, or an output of the model."""
    turn: float = 0.0
    """Degrees by which the camera of the path is turned about the object's vertical axis, towards larger azimuths."""


def parse_panels(names: Sequence[str], model: Consistent4DModel) -> list[Panel]:
    """Panels from `NAME` or `NAME@DEGREES`, such as `rgb@90`.

    Raises:
        InputError: The model has no such output, or the degrees are not a number.
    """
    known = panel_names(model.field.num_levels)
    panels = []
    for name in names:
        output, at, degrees = name.partition("@")
        turn = _degrees(degrees) if at else 0.0
        if turn is None:
            raise InputError(f"output {name}: write degrees after the @, as in rgb@90.")
        if output not in known:
            raise InputError(f"there is no output {output}: choose from {', '.join(known)}.")
        if at and output == INPUT:
            raise InputError(f"output {name}: the input was filmed from one side only; leave out @{degrees}.")
        panels.append(Panel(output, turn))
    if not panels:
        raise InputError(f"--outputs names nothing: choose from {', '.join(known)}.")
    return panels


def _degrees(text: str) -> float | None:
    """A finite number, if the text is one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def panel_names(levels: int) -> list[str]:
    """What a panel can show of a model with so many levels."""
    per_level = [f"{name}_{level}" for name in ("rgb", "depth", "accumulation") for level in range(levels)]
    return [INPUT, "rgb", "depth", "normals", "accumulation", *per_level]


def nerfstudio_path(path: dict[str, Any]) -> tuple[Cameras, OrientedBox | None]:
    """Cameras of a camera path (see `camera_paths`), with times, and the box that the viewer cropped the scene to.

    A path without times sweeps them.
    """
    from nerfstudio.scripts.render import get_crop_from_json

    cameras, crop = get_path_from_json(path), get_crop_from_json(path)
    times = even_times(len(cameras))[:, None] if cameras.times is None else cameras.times
    cameras.times = times.clamp(0.0, 1.0)
    return cameras, crop and crop.obb


@torch.no_grad()
def render_rows(
    model: Consistent4DModel,
    data: Consistent4DDataManager,
    cameras: Cameras,
    panels: Sequence[Panel],
    box: OrientedBox | None = None,
) -> Iterator[UInt8[np.ndarray, "height width 4"]]:
    """The panels side by side as straight RGBA, for one camera of a path after the other.

    Args:
        model: What is rendered.
        data: Where the input's frames come from.
        cameras: The path, with times.
        panels: What is shown, from left to right.
        box: What lies outside of it is left out; everything is shown when there is none.
    """
    turns = {panel.turn for panel in panels if panel.output != INPUT}
    for index in range(len(cameras)):
        camera = cameras[index : index + 1].to(model.device)
        outputs = {turn: model.get_outputs_for_camera(turned(camera, turn), box) for turn in turns}
        images = [
            input_image(data, camera) if name == INPUT else paint(model, name, outputs[turn], camera)
            for name, turn in ((panel.output, panel.turn) for panel in panels)
        ]
        yield to_bytes(torch.cat(images, dim=1))


def turned(camera: Cameras, degrees: float) -> Cameras:
    """A camera turned about the world's z axis, on which the object stands."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    cos, sin = float(angle.cos()), float(angle.sin())
    rotation = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]], device=camera.device)
    moved = copy(camera)
    moved.camera_to_worlds = rotation @ camera.camera_to_worlds
    return moved


def paint(
    model: Consistent4DModel, name: str, outputs: dict[str, Tensor], camera: Cameras
) -> Float[Tensor, "height width 4"]:
    """One output as a picture, straight RGBA in [0, 1]; accumulation is grey and opaque."""
    if name.startswith("accumulation"):
        return F.pad(outputs[name].expand(-1, -1, 3), (0, 1), value=1.0)
    if name.startswith("rgb"):
        return filled(model.get_rgba_image(outputs, name))
    alpha = outputs[name.replace("depth", "accumulation") if name.startswith("depth") else "accumulation"]
    if name == "normals":
        # The model's are (n + 1) / 2 times the accumulation.
        return filled(torch.cat((straight_colour(outputs[name], alpha), alpha), dim=-1))
    # The object fits in the unit ball. A range of its own for each frame would flicker.
    middle = float(camera.camera_to_worlds[0, :, 3].norm())
    colour = apply_depth_colormap(outputs[name], None, max(0.0, middle - 1.0), middle + 1.0)
    return filled(torch.cat((colour, alpha), dim=-1))


def filled(rgba: Float[Tensor, "height width 4"]) -> Float[Tensor, "height width 4"]:
    """Straight RGBA with the mean visible colour where nothing is seen.

    A lossy video mixes the colours of neighbouring pixels, so black there would make the object's edge dark.
    """
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    mean = (colour * alpha).sum((0, 1)) / alpha.sum().clamp(min=1e-6)
    return torch.cat((torch.where(alpha < 1 / 255, mean, colour), alpha), dim=-1)


def input_image(data: Consistent4DDataManager, camera: Cameras) -> Float[Tensor, "height width 4"]:
    """The frame filmed at a camera's time, straight RGBA, fitted into a picture of the camera's size."""
    assert camera.times is not None
    height, width = int(camera.height[0]), int(camera.width[0])
    moment = float(camera.times[0].clamp(0.0, 1.0))
    side = min(height, width)
    rgba = resized(data.frames[None, data.frame_times.nearest(moment)].float(), side)[0].movedim(0, -1)
    left, top = (width - side) // 2, (height - side) // 2
    rgba = F.pad(rgba, (0, 0, left, width - side - left, top, height - side - top))
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    return filled(torch.cat((straight_colour(colour, alpha), alpha), dim=-1))


def source_of(data: Consistent4DDataManager) -> InputVideo:
    """What camera paths take from a run's video."""
    view = data.input_view
    camera = {name: float(value[0]) for name, value in vars(view).items()}
    return InputVideo(data.num_frames, data.fps, camera, data.frames.shape[-1])


@torch.no_grad()
def render_image(
    model: Consistent4DModel, view: OrbitViews, time: float, image_size: int
) -> dict[str, Float[Tensor, "height width channels"]]:
    """All outputs of the model for one view (an `OrbitViews` of length 1) at one time in [0, 1]."""
    rays = view_rays(view.to(model.device), torch.tensor([time], device=model.device), image_size)
    return model.get_outputs_for_camera_ray_bundle(rays.reshape((image_size, image_size)))


@torch.no_grad()
def render_colour(
    model: Consistent4DModel, view: OrbitViews, time: float, image_size: int
) -> Float[Tensor, "size size 3"]:
    """Only the colour of one view at one time; several times faster than all outputs, of which normals cost most."""
    rays = view_rays(view.to(model.device), torch.tensor([time], device=model.device), image_size)
    chunk = model.rays_at_once
    parts = [model.render(rays[i : i + chunk], None, with_normals=False).rgb[-1] for i in range(0, len(rays), chunk)]
    return torch.cat(parts).view(image_size, image_size, 3)


def to_bytes(image: Float[Tensor, "height width channels"]) -> UInt8[np.ndarray, "height width channels"]:
    """Values in [0, 1] as rounded 8-bit values."""
    return (image.clamp(0.0, 1.0) * 255.0).round().byte().cpu().numpy()


def input_and_novel_views(
    model: Consistent4DModel, data: Consistent4DDataManager, times: Sequence[float], image_size: int
) -> list[list[Picture]]:
    """A row per time: the input's frame, then the object from each of `SHEET_AZIMUTHS`."""
    view = data.input_view
    rows = []
    for time in times:
        frame = resized(data.frames[None, data.frame_times.nearest(time)].float(), image_size)
        row = [to_bytes(composite_white(frame)[0].movedim(0, -1))]
        for azimuth in SHEET_AZIMUTHS:
            around = OrbitViews(view.elevation, view.azimuth + azimuth, view.distance, view.fovy)
            row.append(to_bytes(render_colour(model, around, time, image_size)))
        rows.append(row)
    return rows


def contact_sheet(rows: Sequence[Sequence[Picture]], gap: int = 4) -> Picture:
    """Images of equal size in rows, on white with a small gap."""
    padded = [
        np.concatenate([np.pad(image, ((gap, gap), (gap, gap), (0, 0)), constant_values=255) for image in row], axis=1)
        for row in rows
    ]
    return np.concatenate(padded, axis=0)


def labelled_sheet(rows: Sequence[Sequence[Picture]], columns: Sequence[str], moments: Sequence[str]) -> Picture:
    """A contact sheet with a name above each column and in front of each row."""
    from PIL import Image, ImageDraw, ImageFont

    sheet = contact_sheet(rows)
    font = ImageFont.load_default(LABEL_SIZE)
    top, left = LABEL_SIZE + 8, 8 + max(round(font.getlength(moment)) for moment in moments)
    canvas = Image.new("RGB", (left + sheet.shape[1], top + sheet.shape[0]), "white")
    canvas.paste(Image.fromarray(sheet), (left, top))
    draw = ImageDraw.Draw(canvas)
    width, height = sheet.shape[1] / len(columns), sheet.shape[0] / len(moments)
    for index, name in enumerate(columns):
        draw.text((left + width * (index + 0.5), top / 2), name, "black", font, anchor="mm")
    for index, name in enumerate(moments):
        draw.text((left / 2, top + height * (index + 0.5)), name, "black", font, anchor="mm")
    return np.asarray(canvas)


def run_sheet(model: Consistent4DModel, data: Consistent4DDataManager) -> Picture:
    """The contact sheet of a run: the input and novel views at `SHEET_TIMES`."""
    rows = input_and_novel_views(model, data, SHEET_TIMES, min(SHEET_SIZE, data.frames.shape[-1]))
    columns = [INPUT, *(f"{azimuth:g}°" for azimuth in SHEET_AZIMUTHS)]
    return labelled_sheet(rows, columns, [f"t = {time:g}" for time in SHEET_TIMES])
