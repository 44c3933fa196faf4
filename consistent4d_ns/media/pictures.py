"""Images of a trained object: rendered views, several side by side, contact sheets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from itertools import product
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
from consistent4d_ns.media.camera_paths import InputVideo
from consistent4d_ns.media.nerfstudio_paths import with_times
from consistent4d_ns.media.tiles import INPUT, Tile
from consistent4d_ns.model import Consistent4DModel

DEPTH_CAMERAS = 12
"""Cameras of a path, evenly chosen, in which the range of depths is measured."""
DEPTH_SIZE = 64
"""Height in pixels of the images in which it is measured."""
DEPTH_QUANTILES = (0.01, 0.99)
"""Shares of the opaque pixels that are nearer than the two ends of the range; stray samples lie outside."""
SHEET_TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Times of a contact sheet's rows."""
SHEET_AZIMUTHS = (0.0, 60.0, 120.0, 180.0, 240.0, 300.0)
"""Degrees from the input view of a contact sheet's columns; the first column shows the input itself."""
SHEET_SIZE = 256
"""Largest side of a contact sheet's pictures in pixels."""
LABEL_SIZE = 14
"""Height of a contact sheet's labels in pixels."""

BAND_PIXELS = 1 << 20
"""Pixels that are rendered at once: all outputs of one take 300 bytes. Larger images are rendered in bands of rows."""
INVISIBLE = 1 / 255
"""Opacity below which a pixel's colour does not show."""

Picture = UInt8[np.ndarray, "height width 3"]


def nerfstudio_path(path: dict[str, Any]) -> tuple[Cameras, OrientedBox | None]:
    """Cameras of a camera path as `read_path` and `path_json` give it, with times, and the viewer's crop box.

    Time passes evenly along a path without times.
    """
    cameras = with_times(get_path_from_json(path))
    assert cameras.times is not None
    cameras.times = cameras.times.clamp(0.0, 1.0)
    crop = path.get("crop")
    if crop is None:
        return cameras, None
    return cameras, OrientedBox.from_params(crop["crop_center"], crop["crop_rot"], crop["crop_scale"])


@torch.no_grad()
def render_rows(
    model: Consistent4DModel,
    data: Consistent4DDataManager,
    cameras: Cameras,
    tiles: Sequence[Tile],
    box: OrientedBox | None = None,
) -> Iterator[UInt8[np.ndarray, "height width 4"]]:
    """The tiles side by side as straight-alpha RGBA, for each camera of a path.

    Args:
        model: What is rendered.
        data: Where the input's frames come from.
        cameras: The path, with times.
        tiles: What is shown, from left to right.
        box: What lies outside is left out; None shows everything.
    """
    depths = depth_range(model, cameras, tiles, box)
    for index in range(len(cameras)):
        camera = cameras[index : index + 1].to(model.device)
        height, width = int(camera.height[0]), int(camera.width[0])
        row = np.empty((height, len(tiles) * width, 4), np.uint8)
        images = [FilledBytes(part) for part in np.split(row, len(tiles), axis=1)]
        add_rendered(model, camera, tiles, images, depths, box)
        for tile, image in zip(tiles, images, strict=True):
            if tile.output == INPUT:
                add_input(data, camera, image)
            image.fill()
        yield row


def add_rendered(
    model: Consistent4DModel,
    camera: Cameras,
    tiles: Sequence[Tile],
    images: Sequence[FilledBytes],
    depths: tuple[float, float],
    box: OrientedBox | None,
) -> None:
    """Render what tiles show of the model for one camera into their images (see `render_rows`)."""
    turns = {tile.turn for tile in tiles if tile.output != INPUT}
    for band in bands(camera) if turns else ():
        outputs = {turn: model.get_outputs_for_camera(turned(band, turn), box) for turn in turns}
        for tile, image in zip(tiles, images, strict=True):
            if tile.output != INPUT:
                image.add(unfilled_image(model, tile.output, outputs[tile.turn], depths))


def bands(camera: Cameras) -> Iterator[Cameras]:
    """A camera as cameras of some of its rows each, from top to bottom, with at most `BAND_PIXELS` pixels."""
    height, width = int(camera.height[0]), int(camera.width[0])
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = copy(camera)
        band.height = torch.full_like(camera.height, min(rows, height - top))
        band.cy = camera.cy - top
        yield band


class FilledBytes:
    """An image that comes in bands of rows, as bytes; where alpha is zero it has its mean visible colour.

    Lossy codecs mix the colours of neighbouring pixels, so black there would darken the object's edge.
    """

    def __init__(self, image: UInt8[np.ndarray, "height width 4"]) -> None:
        """
        Args:
            image: Where it is written.
        """
        self._image, self._rows = image, 0
        self._invisible = np.empty(image.shape[:2], bool)
        self._colour, self._alpha = torch.zeros(3), torch.zeros(1)

    def add(self, band: Float[Tensor, "rows width 4"]) -> None:
        """Add the next rows, straight-alpha RGBA in [0, 1]."""
        colour, alpha = band[..., :3], band[..., 3:]
        self._colour += (colour * alpha).sum((0, 1)).cpu()
        self._alpha += alpha.sum().cpu()
        place = slice(self._rows, self._rows + len(band))
        self._image[place], self._invisible[place] = to_bytes(band), (alpha[..., 0] < INVISIBLE).cpu().numpy()
        self._rows = place.stop

    def fill(self) -> None:
        """Fill what does not show, once all rows are there."""
        self._image[self._invisible, :3] = to_bytes(self._colour / self._alpha.clamp(min=1e-6))


def depth_range(
    model: Consistent4DModel, cameras: Cameras, tiles: Sequence[Tile], box: OrientedBox | None = None
) -> tuple[float, float]:
    """Nearest and farthest distance of the visible object over the whole path, in world units.

    One range for all frames, as a range per frame would flicker. Measured in small images of some cameras.
    """
    shown = [tile for tile in tiles if tile.output.startswith("depth")]
    chosen = np.unique(np.linspace(0, len(cameras) - 1, DEPTH_CAMERAS).round().astype(int)).tolist()
    found = [torch.zeros(0)]
    for index, tile in product(chosen, shown):
        camera = turned(cameras[index : index + 1].to(model.device), tile.turn)
        camera.rescale_output_resolution(min(1.0, DEPTH_SIZE / float(camera.height.max())))
        outputs = model.get_outputs_for_camera(camera, box)
        opaque = outputs[accumulation_of(tile.output)] > 0.5
        found.append(outputs[tile.output][opaque].cpu())
    depths = torch.cat(found)
    if not len(depths):
        return 0.0, 1.0  # Nothing is opaque, so no depth shows.
    low, high = torch.quantile(depths, torch.tensor(DEPTH_QUANTILES)).tolist()
    return low, high


def turned(camera: Cameras, degrees: float) -> Cameras:
    """A camera turned about the world's vertical axis, z."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    cos, sin = float(angle.cos()), float(angle.sin())
    rotation = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]], device=camera.device)
    moved = copy(camera)
    moved.camera_to_worlds = rotation @ camera.camera_to_worlds
    return moved


def output_image(
    model: Consistent4DModel, name: str, outputs: dict[str, Tensor], depths: tuple[float, float]
) -> Float[Tensor, "height width 4"]:
    """As `unfilled_image`, with the mean visible colour where alpha is zero."""
    return filled(unfilled_image(model, name, outputs, depths))


def unfilled_image(
    model: Consistent4DModel, name: str, outputs: dict[str, Tensor], depths: tuple[float, float]
) -> Float[Tensor, "height width 4"]:
    """One output as an image, straight-alpha RGBA in [0, 1]; any colour where alpha is 0. Accumulation is opaque.

    Args:
        model: The model of the outputs.
        name: Which output.
        outputs: All outputs of one camera.
        depths: Distances at the two ends of the colour map, in world units.
    """
    if name.startswith("accumulation"):
        return F.pad(outputs[name].expand(-1, -1, 3), (0, 1), value=1.0)
    if name.startswith("rgb"):
        return model.get_rgba_image(outputs, name)
    alpha = outputs[accumulation_of(name)]
    if name == "normals":
        # The model's are (n + 1) / 2 times the accumulation.
        return torch.cat((straight_colour(outputs[name], alpha), alpha), dim=-1)
    return torch.cat((apply_depth_colormap(outputs[name], None, *depths), alpha), dim=-1)


def accumulation_of(name: str) -> str:
    """Name of the opacity that belongs to an output."""
    return name.replace("depth", "accumulation") if name.startswith("depth") else "accumulation"


def filled(rgba: Float[Tensor, "height width 4"]) -> Float[Tensor, "height width 4"]:
    """Straight-alpha RGBA with the mean visible colour where alpha is zero (see `FilledBytes`)."""
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    mean = (colour * alpha).sum((0, 1)) / alpha.sum().clamp(min=1e-6)
    return torch.cat((torch.where(alpha < INVISIBLE, mean, colour), alpha), dim=-1)


def add_input(data: Consistent4DDataManager, camera: Cameras, image: FilledBytes) -> None:
    """Add the input frame of a camera's time to an image of the camera's size, in its centre.

    Raises:
        InputError: there are no frames.
    """
    data.check_frames(f"the image `{INPUT}`")
    assert camera.times is not None
    height, width = int(camera.height[0]), int(camera.width[0])
    time = float(camera.times[0].clamp(0.0, 1.0))
    side = min(height, width)
    rgba = resized(data.frames[None, data.frame_times.nearest(time)].float(), side)[0].movedim(0, -1)
    left, top = (width - side) // 2, (height - side) // 2
    rgba = F.pad(rgba, (0, 0, left, width - side - left, top, height - side - top))
    for band in rgba.split(max(1, BAND_PIXELS // width)):
        image.add(torch.cat((straight_colour(band[..., :3], band[..., 3:]), band[..., 3:]), dim=-1))


def straight_image(rgba: Float[Tensor, "height width 4"]) -> Float[Tensor, "height width 4"]:
    """Premultiplied as straight-alpha RGBA, filled."""
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    return filled(torch.cat((straight_colour(colour, alpha), alpha), dim=-1))


def input_video(data: Consistent4DDataManager) -> InputVideo:
    """The properties of a run's input that camera paths depend on."""
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


def render_colour(
    model: Consistent4DModel, view: OrbitViews, time: float, image_size: int
) -> Float[Tensor, "size size 3"]:
    """Only the colour of one view at one time; several times faster than all outputs, of which normals cost most."""
    return render_colour_and_opacity(model, view, time, image_size)[0]


@torch.no_grad()
def render_colour_and_opacity(
    model: Consistent4DModel, view: OrbitViews, time: float, image_size: int
) -> tuple[Float[Tensor, "size size 3"], Float[Tensor, "size size"]]:
    """The colour on white of one view at one time in [0, 1], and its opacity."""
    rays = view_rays(view.to(model.device), torch.tensor([time], device=model.device), image_size)
    chunk = model.rays_at_once
    parts = [model.render(rays[i : i + chunk], None, with_normals=False) for i in range(0, len(rays), chunk)]
    rgb, opacity = (torch.cat(values) for values in zip(*((p.rgb[-1], p.accumulation[-1]) for p in parts), strict=True))
    return rgb.view(image_size, image_size, 3), opacity.view(image_size, image_size)


def to_bytes(image: Float[Tensor, "height width channels"]) -> UInt8[np.ndarray, "height width channels"]:
    """Values in [0, 1] as rounded 8-bit values."""
    return (image.clamp(0.0, 1.0) * 255.0).round().byte().cpu().numpy()


def shown_times(data: Consistent4DDataManager, times: Sequence[float]) -> Sequence[float]:
    """Times at which an object is to be shown: these, or that of the only frame."""
    return times if data.num_frames > 1 else data.frame_times.times


def input_and_novel_views(
    model: Consistent4DModel, data: Consistent4DDataManager, times: Sequence[float], image_size: int
) -> list[list[Picture]]:
    """A row per time: the input's frame, if there is one, then the object from each of `SHEET_AZIMUTHS`."""
    view = data.input_view
    rows = []
    for time in times:
        row = []
        if data.has_frames:
            frame = resized(data.frames[None, data.frame_times.nearest(time)].float(), image_size)
            row.append(to_bytes(composite_white(frame)[0].movedim(0, -1)))
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


def labelled_sheet(rows: Sequence[Sequence[Picture]], columns: Sequence[str], labels: Sequence[str]) -> Picture:
    """A contact sheet with a label above each column and in front of each row."""
    from PIL import Image, ImageDraw, ImageFont

    sheet = contact_sheet(rows)
    font = ImageFont.load_default(LABEL_SIZE)
    top, left = LABEL_SIZE + 8, 8 + max(round(font.getlength(label)) for label in labels)
    canvas = Image.new("RGB", (left + sheet.shape[1], top + sheet.shape[0]), "white")
    canvas.paste(Image.fromarray(sheet), (left, top))
    draw = ImageDraw.Draw(canvas)
    width, height = sheet.shape[1] / len(columns), sheet.shape[0] / len(labels)
    for index, name in enumerate(columns):
        draw.text((left + width * (index + 0.5), top / 2), name, "black", font, anchor="mm")
    for index, name in enumerate(labels):
        draw.text((left / 2, top + height * (index + 0.5)), name, "black", font, anchor="mm")
    return np.asarray(canvas)


def run_sheet(model: Consistent4DModel, data: Consistent4DDataManager) -> Picture:
    """The contact sheet of a run: the input and novel views at `SHEET_TIMES`, or at that of the only frame."""
    times = shown_times(data, SHEET_TIMES)
    rows = input_and_novel_views(model, data, times, min(SHEET_SIZE, data.frames.shape[-1]))
    columns = [*([INPUT] if data.has_frames else []), *(f"{azimuth:g}°" for azimuth in SHEET_AZIMUTHS)]
    return labelled_sheet(rows, columns, [f"t = {time:g}" for time in times] if len(times) > 1 else [""])
