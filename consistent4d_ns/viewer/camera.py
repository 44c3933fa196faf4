"""Camera poses in the conventions of the viewer."""

from __future__ import annotations

import math

import numpy as np
import torch
import viser
from jaxtyping import Float
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews, view_from

MAX_ELEVATION = 89.9
"""Maximum elevation in degrees: straight above, the camera's up direction is undefined."""


def look_from(client: viser.ClientHandle, view: OrbitViews) -> None:
    """Move a client's camera to a view, upright and with the whole image visible."""
    elevation = view.elevation.clamp(-MAX_ELEVATION, MAX_ELEVATION)
    pose = OrbitViews(elevation, view.azimuth, view.distance, view.fovy).poses()[0]
    with client.atomic():
        client.camera.up_direction = (0.0, 0.0, 1.0)
        client.camera.position = to_scene(pose[:, 3])
        client.camera.look_at = (0.0, 0.0, 0.0)
        client.camera.fov = fitting_fov(math.radians(float(view.fovy)), client.camera.aspect)


def fitting_fov(fovy: float, aspect: float) -> float:
    """Vertical field of view in radians that fits a square image of field of view `fovy` into a window.

    Args:
        fovy: Vertical field of view of the image in radians.
        aspect: Width of the window divided by its height.
    """
    return fovy if aspect >= 1.0 else 2.0 * math.atan(math.tan(fovy / 2.0) / aspect)


def to_scene(points: Float[Tensor, "*points 3"]) -> Float[np.ndarray, "*points 3"]:
    """World coordinates converted to the units of the viewer's scene."""
    return points.cpu().numpy() * VISER_NERFSTUDIO_SCALE_RATIO


def view_of(client: viser.ClientHandle, fovy: float) -> OrbitViews:
    """The view of the origin from the position of a client's camera, whatever its direction; `fovy` in degrees."""
    position = torch.from_numpy(client.camera.position).float() / VISER_NERFSTUDIO_SCALE_RATIO
    return view_from(position, fovy)
