"""From a trained object to one mesh that moves, or to a mesh per frame where one is not enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from consistent4d_ns.errors import InputError
from consistent4d_ns.export.deforming.comparing import MOST_LEFT, Progress, shortfall, worst_look
from consistent4d_ns.export.deforming.following import Follower
from consistent4d_ns.export.deforming.keeping import Outcome, kept_or_made
from consistent4d_ns.export.deforming.moments import Moment, best_moment, moment_of, surface_at, without_specks
from consistent4d_ns.export.deforming.painting import MOST_MOMENTS, RENDERED_MOMENTS, texel_colours, vertex_colours
from consistent4d_ns.export.deforming.quality import broken
from consistent4d_ns.export.deforming.residual import FAR, MOST_MISSED, Residual, residual
from consistent4d_ns.export.deforming.template import template_of
from consistent4d_ns.export.deforming.tracking import finished, smooth_in_time, track
from consistent4d_ns.export.looks import likeness
from consistent4d_ns.export.moving import MovingMesh, originals_first
from consistent4d_ns.export.options import (
    MOST_SHARED_FACES,
    Colouring,
    MeshOptions,
    TimedFrame,
    Timeline,
    spread_moments,
)
from consistent4d_ns.export.refining import AROUND, Mix, refined, vertex_mix
from consistent4d_ns.export.sequence import Exporter, Mesh
from consistent4d_ns.export.surface import Surface, decimate, extract, with_normals
from consistent4d_ns.export.texture import ColourFunction, texels_of, unwrap

INSTEAD = "a mesh per frame is written instead (--topology shared insists on one)"
"""What follows where one mesh is given up."""


@dataclass(frozen=True)
class Motion:
    """A mesh and where its vertices are at every frame."""

    template: Surface
    """The mesh at one moment."""
    positions: Float32[np.ndarray, "frames vertices 3"]
    """In world units."""
    residuals: tuple[Residual, ...]
    """How it differs from the surface of each frame."""
    broken: tuple[int, ...]
    """Its triangles that are turned over, collapsed or stretched too much at each frame."""
    surfaces: tuple[Surface, ...]
    """The surface of each frame as a mesh of its own (see `Exporter.surfaces`)."""

    @property
    def fits(self) -> bool:
        """Whether it comes close enough to the surface of every frame, with whole triangles."""
        return max(found.missed for found in self.residuals) <= MOST_MISSED and not any(self.broken)

    def report(self, timeline: Timeline) -> str:
        """The frame that fits worst, in words."""
        missed = [found.missed for found in self.residuals]
        worst = int(np.argmax(missed if max(missed) > MOST_MISSED else self.broken))
        frame = TimedFrame(worst, timeline.times[worst])
        if missed[worst] <= MOST_MISSED:
            return f"at {frame}, {self.broken[worst]} of its triangles are turned over, collapsed or stretched too much"
        share = f"{missed[worst]:.1%} of the surface (at most {MOST_MISSED:.0%})"
        return f"at {frame}, {share} is {FAR:g} or more away from it"


def meshes_for(
    source: Exporter,
    options: MeshOptions,
    colourings: tuple[Colouring, Colouring],
    progress: Progress,
    say: Callable[[str], None],
) -> MovingMesh | Iterator[Mesh]:
    """One mesh that moves or a mesh of every frame, as `options.topology` asks for.

    What came of fitting one mesh is kept in the run's folder, and used where the same is asked for again.

    Args:
        source: The trained object.
        options: How it is meshed.
        colourings: A texture or a colour per vertex: of one mesh that moves, and of a mesh per frame.
        progress: Shows what is done.
        say: Is given a sentence where one mesh does not come close enough to every frame, and where one was fitted
            before.

    Raises:
        InputError: nothing is visible at a time.
    """
    shared, single = colourings

    def one_per_frame(surfaces: Iterable[Surface] | None = None) -> Iterator[Mesh]:
        return progress(source.meshes(options, single, surfaces), "Exporting", len(source.timeline))

    still = source.timeline.is_still
    useless = (still and shared == single) or options.faces > MOST_SHARED_FACES
    if options.topology == "frames" or (options.topology == "auto" and useless):
        if options.topology == "auto" and not still:
            say(f"A mesh per frame is written, as one mesh has at most {MOST_SHARED_FACES} triangles.")
        return one_per_frame()
    found = kept_or_made(lambda: one_mesh(source, options, shared, progress), source, options, shared, say)
    for sentence in found.said:
        say(sentence)
    return one_per_frame(found.surfaces) if found.mesh is None else found.mesh


def one_mesh(source: Exporter, options: MeshOptions, colouring: Colouring, progress: Progress) -> Outcome:
    """Fit one mesh, and see whether it does; arguments and errors are those of `meshes_for`."""
    motion = motion_of(source, options.faces, progress)
    trouble = "" if motion.fits else f"One mesh does not follow the object: {motion.report(source.timeline)}"
    if trouble and options.topology == "auto":
        return Outcome(None, (f"{trouble}; {INSTEAD}.",), motion.surfaces)
    mesh = painted(motion, source, options, colouring, progress)
    if options.topology == "auto":
        return compared(mesh, motion, source, options, colouring, progress)
    insisted = f"{trouble}; it is written all the same, because of --topology shared."
    return Outcome(mesh, (insisted,) if trouble else ())


def compared(
    mesh: MovingMesh, motion: Motion, source: Exporter, options: MeshOptions, colouring: Colouring, progress: Progress
) -> Outcome:
    """The mesh, unless it looks less like the volume render than a mesh per frame would."""
    missed = [found.missed for found in motion.residuals]
    look = None if source.timeline.is_still else worst_look(mesh, missed, source, progress)
    if look is None:
        return Outcome(mesh)
    own = source.coloured(motion.surfaces[look.frame.index], look.frame, colouring, options.texture_size)
    if shortfall(likeness(source, own, look.frame.time)) > MOST_LEFT * look.shortfall:
        said = f"{look}, but a mesh per frame would not look much closer, so that one mesh is written."
        return Outcome(mesh, (said,))
    return Outcome(None, (f"{look}; {INSTEAD}.",), motion.surfaces, given_up=mesh)


def motion_of(source: Exporter, faces: int, progress: Progress) -> Motion:
    """Fit one mesh of about `faces` triangles to the surface of every frame.

    Raises:
        InputError: nothing is visible at a time.
    """
    times, moments, own = moments_of(source, faces, progress)
    start = best_moment(moments)
    template = template_of(surface_at(source.solid, TimedFrame(start, times[start]), source.min_part), faces)
    found = np.empty((len(times), *template.vertices.shape), np.float32)
    tracked = track(template, moments, times, start, follower_of(template, source, times[start]))
    for index, vertices in progress(tracked, "Fitting one mesh", len(times)):
        found[index] = vertices
    closest = finished(smooth_in_time(found, template), template, moments, source.model.device)
    found = np.stack(list(progress(closest, "Fitting it closer", len(times))))
    chosen = [times.index(time) for time in source.timeline.times]
    left = tuple(residual(found[index], template.faces, moments[index]) for index in chosen)
    bad = tuple(broken(found[index], template.vertices, template.faces) for index in chosen)
    return Motion(template, found[chosen], left, bad, tuple(own[time] for time in source.timeline.times))


def follower_of(template: Surface, source: Exporter, time: float) -> Follower:
    """Follows a mesh that looks as it does at the time of the template, in [0, 1]."""
    device = source.model.device
    colours = source.coloured(template, TimedFrame(-1, time), "vertex", 0).colours
    assert colours is not None
    faces = torch.from_numpy(template.faces).long().to(device)
    return Follower(source.model, source.view, faces, torch.from_numpy(colours).to(device))


def moments_of(
    source: Exporter, faces: int, progress: Progress
) -> tuple[list[float], list[Moment], dict[float, Surface]]:
    """Times of the exported frames, and between them, in order; the surface at each; and that of exported ones as about
    `faces` triangles.

    Raises:
        InputError: nothing is visible at an exported time.
    """
    exported = {frame.time: frame for frame in source.timeline}
    every = stepping_stones(sorted(exported), source.spacing)
    times, moments, own = [], [], {}
    for time in progress(every, "Finding surfaces", len(every)):
        # A moment between exported ones, which only makes the way shorter, may be empty.
        with suppress(*(() if time in exported else (InputError,))):
            surface = extract(source.solid, exported.get(time, TimedFrame(-1, time)), None, source.min_part)
            moments.append(moment_of(without_specks(surface)))
            times.append(time)
            if time in exported:
                own[time] = decimate(surface.vertices, surface.faces, faces)
    return times, moments, own


def stepping_stones(times: list[float], spacing: float) -> list[float]:
    """Increasing times with others added, evenly spaced, so that no step is much longer than `spacing`."""
    found = times[:1]
    for time in times[1:]:
        steps = max(1, round((time - found[-1]) / spacing))
        found = [*found, *np.linspace(found[-1], time, steps + 1)[1:-1].tolist(), time]
    return found


def painted(
    motion: Motion, source: Exporter, options: MeshOptions, colouring: Colouring, progress: Progress
) -> MovingMesh:
    """The mesh with colours that are seen at all frames, corrected by volume renders of some."""
    frames = list(source.timeline)
    chosen = spread_moments(len(frames), MOST_MOMENTS)
    faces, device = motion.template.faces, source.model.device

    def looks() -> Iterator[tuple[Surface, ColourFunction]]:
        for index in progress(chosen, "Painting", len(chosen)):
            yield with_normals(motion.positions[index], faces), source.colours(frames[index])

    def corrected(colours: Float[Tensor, "colours 3"], mix: Mix) -> Float[Tensor, "colours 3"]:
        few = spread_moments(len(frames), RENDERED_MOMENTS)
        places = ((frames[index], with_normals(motion.positions[index], faces)) for index in few)
        return refined(
            colours, (s for turn, (at, now) in enumerate(places) for s in source.sights(now, at, turn, AROUND, mix))
        )

    if colouring == "vertex":
        colours = corrected(vertex_colours(looks(), device), vertex_mix(motion.template, device))
        return MovingMesh(motion.positions, faces, colours=colours.cpu().numpy())
    atlas = originals_first(unwrap(motion.template, options.texture_size), len(motion.template.vertices))
    texels = texels_of(atlas, options.texture_size, device)
    picture = texels.picture(corrected(texel_colours(looks(), texels), texels.mix))
    return MovingMesh(motion.positions, faces, atlas=atlas, texture=picture)
