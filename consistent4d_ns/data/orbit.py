"""Nerfstudio data parser for an object of which nothing was filmed: cameras around it, and no frames.

Only leaf modules are imported here: Nerfstudio loads this module while its own import is still in progress.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox

from consistent4d_ns.data.cameras import DEFAULT_CAMERA, OrbitViews, full_circle, orbit_camera
from consistent4d_ns.data.dataparser import (
    CAMERA,
    ObjectDataParserConfig,
    checked_image_size,
    object_box,
    perspective_cameras,
)
from consistent4d_ns.data.times import FrameTimes
from consistent4d_ns.errors import show_input_errors_in_one_line

CAMERAS = 8
"""Cameras around the object, between which `ns-render interpolate` moves; training draws its own."""


@dataclass
class OrbitDataParserConfig(ObjectDataParserConfig):
    """Cameras around an object that does not move, and of which there are no frames."""

    _target: type = field(default_factory=lambda: Orbit)
    """Target class to instantiate."""
    has_frames: ClassVar[bool] = False
    """Whether there are frames to train on."""


class Orbit(DataParser):
    """Places cameras around the object, the first in front of it.

    Metadata of the outputs is that of `FrameSequence`, with no "frames"; "input_view" is the front view.
    """

    config: OrbitDataParserConfig
    includes_time: bool = False

    def __init__(self, config: OrbitDataParserConfig) -> None:
        super().__init__(config)
        self.source = config.data
        show_input_errors_in_one_line()

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs: Any) -> DataparserOutputs:
        """Outputs of any split: the same cameras, without images.

        Raises:
            InputError: An option is out of range.
        """
        size = checked_image_size(round(self.config.image_size / (self.config.downscale_factor or 1.0)))
        return DataparserOutputs(
            image_filenames=[],
            cameras=self._cameras(size),
            scene_box=SceneBox(aabb=object_box()),
            metadata={
                "frames": (),
                "input_view": self.input_camera,
                "ground_truth": False,
                "frame_times": self.frame_times,
            },
        )

    @cached_property
    def input_camera(self) -> OrbitViews:
        """The front view."""
        options = {name: getattr(self.config, name) for name in CAMERA}
        given = {name: value for name, value in options.items() if value is not None}
        return orbit_camera("the front view", {**DEFAULT_CAMERA, **given})

    @property
    def frame_times(self) -> FrameTimes:
        """One moment, at which the object is as it always is."""
        return FrameTimes.even(1)

    @property
    def unseen_views(self) -> list[Any]:
        """No view was filmed."""
        return []

    def _cameras(self, size: int) -> Cameras:
        views = self.input_camera[torch.zeros(CAMERAS, dtype=torch.int64)]
        turned = OrbitViews(views.elevation, torch.tensor(full_circle(CAMERAS)), views.distance, views.fovy)
        return perspective_cameras(turned.poses(), turned.fovy, torch.zeros(CAMERAS), size)
