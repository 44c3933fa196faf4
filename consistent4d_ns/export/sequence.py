"""Coloured meshes and points of all frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.export.colours import seen_colours
from consistent4d_ns.export.options import (
    Colouring,
    MeshOptions,
    SolidOptions,
    TimedFrame,
    Timeline,
    TimeOptions,
    spread_moments,
)
from consistent4d_ns.export.refining import AROUND_ONE, Mix, Sight, refined, sights, vertex_mix, views_around
from consistent4d_ns.export.solid import Solid, calibrate, lines_of_sight, occupied_lattice
from consistent4d_ns.export.surface import Surface, extract, sample_evenly
from consistent4d_ns.export.texture import ColourFunction, evaluate, texels_of, unwrap
from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.runs import Run

CALIBRATION_TIMES = 3
"""Times at which silhouettes are compared to find the threshold."""


@dataclass(frozen=True)
class Mesh:
    """A coloured triangle mesh in world units, z up; has either `colours` or both `uvs` and `texture`."""

    surface: Surface
    """Its shape; cut along the texture's seams if there is one."""
    colours: Float32[np.ndarray, "vertices 3"] | None = None
    """Colour of each vertex in [0, 1], as displayed (sRGB)."""
    uvs: Float32[np.ndarray, "vertices 2"] | None = None
    """Position of each vertex in the texture as (column, row) fractions; (0, 0) is the top left corner."""
    texture: UInt8[np.ndarray, "size size 3"] | None = None
    """Texture, as displayed (sRGB)."""


@dataclass(frozen=True)
class Points:
    """Points of a surface in world units, z up."""

    positions: Float32[np.ndarray, "points 3"]
    """Evenly spread over the surface."""
    normals: Float32[np.ndarray, "points 3"]
    """Unit vectors that point outwards."""
    colours: Float32[np.ndarray, "points 3"]
    """Colours in [0, 1], as displayed (sRGB)."""


@dataclass(frozen=True)
class Exporter:
    """Extracts meshes and points of a trained object."""

    solid: Solid
    """What counts as the object."""
    timeline: Timeline
    """The frames to extract."""
    view: OrbitViews
    """The input view."""
    min_part: float
    """Parts smaller than this share of the largest one are left out."""
    spacing: float = 1.0
    """Time between two frames of the input."""
    folder: Path | None = None
    """The run's folder, in which a fitted mesh is kept for further exports; None keeps none."""

    @property
    def model(self) -> Consistent4DModel:
        """The trained field."""
        return self.solid.model

    def meshes(
        self, options: MeshOptions, colouring: Colouring, surfaces: Iterable[Surface] | None = None
    ) -> Iterator[Mesh]:
        """The mesh of each frame.

        Args:
            options: How it is meshed.
            colouring: A texture or a colour per vertex.
            surfaces: What `surfaces` yields, if it has been found before.

        Raises:
            InputError: nothing is visible at a time.
        """
        found = self.surfaces(options.faces) if surfaces is None else surfaces
        for frame, surface in zip(self.timeline, found, strict=True):
            yield self.coloured(surface, frame, colouring, options.texture_size)

    def surfaces(self, faces: int) -> Iterator[Surface]:
        """The surface of each frame as about `faces` triangles.

        Raises:
            InputError: nothing is visible at a time.
        """
        return (extract(self.solid, frame, faces, self.min_part) for frame in self.timeline)

    def coloured(self, surface: Surface, frame: TimedFrame, colouring: Colouring, texture_size: int) -> Mesh:
        """The surface at a frame with a colour per vertex, or with a texture of `texture_size` texels a side."""
        colours, device = self.colours(frame), self.model.device
        if colouring == "vertex":
            seen = evaluate(colours, surface.vertices, surface.normals, device)
            return Mesh(surface, colours=self.refined(seen, surface, frame, vertex_mix(surface, device)).cpu().numpy())
        atlas = unwrap(surface, texture_size)
        texels = texels_of(atlas, texture_size, device)
        texture = texels.picture(self.refined(texels.seen(surface, colours), surface, frame, texels.mix))
        cut = Surface(surface.vertices[atlas.vertex], atlas.faces, surface.normals[atlas.vertex])
        return Mesh(cut, uvs=atlas.uvs, texture=texture)

    def refined(
        self, colours: Float[Tensor, "colours 3"], surface: Surface, frame: TimedFrame, mix: Mix
    ) -> Float[Tensor, "colours 3"]:
        """Colours of one frame's mesh with which it looks more like the volume render."""
        return refined(colours, self.sights(surface, frame, 0, AROUND_ONE, mix))

    def sights(self, surface: Surface, frame: TimedFrame, turn: int, count: int, mix: Mix) -> Iterator[Sight]:
        """A frame's mesh seen from the input view and from `count` views around the object; see `views_around`."""
        views = (self.view, *views_around(self.view, turn, count))
        return sights(self.model, views, frame.time, surface, mix)

    def points(self, count: int) -> Iterator[Points]:
        """`count` points of each frame.

        Raises:
            InputError: nothing is visible at a time.
        """
        for frame in self.timeline:
            surface = extract(self.solid, frame, None, self.min_part)
            positions, normals = sample_evenly(surface, count)
            colours = evaluate(self.colours(frame), positions, normals, self.model.device)
            yield Points(positions, normals, colours.cpu().numpy())

    def colours(self, frame: TimedFrame) -> ColourFunction:
        """Colours of the surface at a frame's time."""
        return partial(seen_colours, self.model, time=frame.time)


def exporter(run: Run, options: SolidOptions, times: TimeOptions) -> Exporter:
    """Prepare the export of a run: choose its frames, and the threshold at which silhouettes agree.

    Raises:
        InputError: the object is transparent.
    """
    model, data = run.pipeline.model, run.pipeline.datamanager
    timeline = times.choose(data.num_frames, data.fps)
    lattice = occupied_lattice(model.occupancy, options.resolution)
    directions = lines_of_sight(data.input_view).to(model.device)
    chosen = tuple(timeline.times[i] for i in spread_moments(len(timeline), CALIBRATION_TIMES))
    threshold = calibrate(model, lattice, data.input_view, chosen, options.density, options.opacity)
    solid, folder = Solid(model, lattice, directions, threshold), run.config.get_base_dir()
    return Exporter(
        solid,
        timeline,
        data.input_view,
        options.min_part,
        spacing=1.0 / max(1, data.num_frames - 1),
        folder=folder if folder.is_dir() else None,
    )
