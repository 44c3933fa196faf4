"""Writes the toy as a folder: an input video and evaluation views with their cameras.

OUT/input/0.png ... N-1.png     RGBA, straight alpha: what a user's own video looks like
OUT/eval_0/ ... OUT/eval_5/     the same frames seen from elsewhere
OUT/meta.json                   cameras, number of frames, resolution
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.rays import focal_length
from consistent4d_ns.data.times import even_times
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.outputs import holds_something, scratch_beside
from consistent4d_ns.toy.render import render

VIEWS: dict[str, tuple[float, float]] = {
    "input": (0.0, 0.0),
    "eval_0": (-75.0, 0.0),
    "eval_1": (15.0, 0.0),
    "eval_2": (105.0, 0.0),
    "eval_3": (195.0, 0.0),
    "eval_4": (60.0, 30.0),
    "eval_5": (240.0, 30.0),
}
"""Azimuth and elevation in degrees of each folder's camera."""
DISTANCE = 2.0
"""Distance of all cameras from the origin in world units."""
FOVY = 49.1
"""Vertical field of view of all cameras in degrees."""
SIZES = range(8, 4097)
"""Accepted image sizes in pixels."""
FRAMES = range(2, 10_001)
"""Accepted numbers of frames."""
Progress = Callable[[list[tuple[str, Tensor, int]]], Iterable[tuple[str, Tensor, int]]]
"""Iterates over the images to render: folder, camera pose and frame of each."""
NAME = "toy"
"""Value of `name` in meta.json, which distinguishes the toy from a user's own folder."""
CONVENTION = (
    "world z up; camera at d*(cos e cos a, cos e sin a, sin e) looks at the origin, up +z; camera axes as in OpenGL; "
    "square images, vertical field of view"
)


def layout_views() -> OrbitViews:
    """The cameras of all folders, in the order of `VIEWS`."""
    azimuth, elevation = torch.tensor(list(VIEWS.values()), dtype=torch.float64).T
    return OrbitViews(elevation, azimuth, torch.full_like(azimuth, DISTANCE), torch.full_like(azimuth, FOVY))


def write_sequence(
    out: Path,
    size: int = 256,
    frames: int = 32,
    *,
    samples_per_side: int = 3,
    overwrite: bool = False,
    progress: Progress = iter,
) -> None:
    """Write the toy's input video, evaluation views and meta.json.

    Nothing appears in `out` before everything is rendered; meta.json comes last.

    Args:
        out: Folder to create.
        size: Width and height of the images in pixels.
        frames: Number of frames.
        samples_per_side: Rays per pixel and axis.
        overwrite: Replace a toy written earlier; other files in the folder are kept.
        progress: Iterates over the list of images while they are rendered, for example showing a bar.

    Raises:
        InputError: `size` or `frames` out of range; `out` is a file, a dangling link, or not empty and not an
            earlier toy to overwrite, or cannot be written (no permission, disk full).
    """
    if size not in SIZES:
        raise InputError(f"size {size}: give a number of pixels from {SIZES.start} to {SIZES.stop - 1}.")
    if frames < FRAMES.start:
        raise InputError(f"frames {frames}: a moving object needs at least {FRAMES.start} frames.")
    if frames not in FRAMES:
        raise InputError(f"frames {frames}: give at most {FRAMES.stop - 1}.")
    _check_free(out, overwrite)
    with scratch_beside(out) as scratch:
        _write_views(scratch, size, frames, samples_per_side, progress)
        (scratch / "meta.json").write_text(json.dumps(metadata(size, frames), indent=1) + "\n")
        out.mkdir(exist_ok=True)
        # Until all views are there, meta.json names no cameras, so that views of two toys cannot be taken for one.
        (scratch / "meanwhile.json").write_text(json.dumps({"name": NAME}) + "\n")
        _replace(scratch / "meanwhile.json", out / "meta.json")
        for name in (*VIEWS, "meta.json"):
            _replace(scratch / name, out / name)


def metadata(size: int, frames: int) -> dict[str, Any]:
    """Contents of meta.json."""
    views = layout_views()
    last_row = torch.tensor([[[0.0, 0.0, 0.0, 1.0]]], dtype=torch.float64).expand(len(views), -1, -1)
    matrices = torch.cat((views.poses(), last_row), dim=1)
    cameras = {
        name: {
            "azimuth_deg": azimuth,
            "elevation_deg": elevation,
            "distance": DISTANCE,
            "fov_y_deg": FOVY,
            "position": matrix[:3, 3].tolist(),
            "camera_to_world_opengl": matrix.tolist(),
        }
        for (name, (azimuth, elevation)), matrix in zip(VIEWS.items(), matrices, strict=True)
    }
    return {
        "name": NAME,
        "frames": frames,
        "resolution": [size, size],
        "fov_y_deg": FOVY,
        "distance": DISTANCE,
        "focal_px": focal_length(views.fovy[:1], size).item(),
        "loop": True,
        "convention": CONVENTION,
        "cameras": cameras,
    }


def straight_bytes(rgba: Float[Tensor, "4 height width"]) -> UInt8[Tensor, "height width 4"]:
    """Premultiplied RGBA in [0, 1] to straight 8-bit RGBA; transparent pixels are black."""
    colour, alpha = rgba[:3], rgba[3:]
    straight = torch.where(alpha > 0, colour / alpha, 0.0).clamp(0, 1)
    return (torch.cat((straight, alpha)) * 255).round().to(torch.uint8).permute(1, 2, 0)


def _write_views(out: Path, size: int, frames: int, samples_per_side: int, progress: Progress) -> None:
    from PIL import Image

    times = even_times(frames)
    for name in VIEWS:
        (out / name).mkdir()
    poses = zip(VIEWS, layout_views().poses().float(), strict=True)
    for name, pose, i in progress([(name, pose, i) for name, pose in poses for i in range(frames)]):
        rgba = render(pose[None], FOVY, size, times[i, None], samples_per_side)[0]
        Image.fromarray(straight_bytes(rgba).contiguous().numpy()).save(out / name / f"{i}.png")


def is_toy(folder: Path, size: int, frames: int) -> bool:
    """Whether a folder holds a whole toy of this size and number of frames."""
    meta = _metadata_of(folder)
    is_same = meta.get("frames") == frames and meta.get("resolution") == [size, size]
    return is_same and all((folder / view / f"{frames - 1}.png").is_file() for view in VIEWS)


def _check_free(out: Path, overwrite: bool) -> None:
    if not holds_something(out):
        return
    if not overwrite:
        raise InputError(f"{out} is not empty: give another folder, or --overwrite to replace an earlier toy.")
    if not _metadata_of(out):
        raise InputError(f"{out} holds files that are not an earlier toy, so nothing is replaced: give another folder.")


def _metadata_of(folder: Path) -> dict[str, Any]:
    """Contents of the meta.json of a toy; empty where there is none, or it is something else's."""
    file = folder / "meta.json"
    try:
        meta = json.loads(file.read_text()) if file.is_file() else None  # Reading a named pipe would wait for ever.
    except (OSError, ValueError):
        return {}
    return meta if isinstance(meta, dict) and meta.get("name") == NAME else {}


def _replace(source: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    source.replace(target)
