"""`consistent4d export`: meshes and points of a finished run, for other programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.extras import SubcommandApp

from consistent4d_ns.cli.help_texts import OutArgument, RunArgument
from consistent4d_ns.cli.progress import announce, progress
from consistent4d_ns.errors import InputError
from consistent4d_ns.export.options import Colouring, Format, MeshOptions, SolidOptions, Timeline, TimeOptions, in_range
from consistent4d_ns.files.config_files import config_file
from consistent4d_ns.files.outputs import check_new_file, new_file, new_folder

if TYPE_CHECKING:
    from consistent4d_ns.export.moving import MovingMesh
    from consistent4d_ns.export.sequence import Exporter, Mesh
    from consistent4d_ns.runs import Run

Flat = tyro.conf.arg(name="", prefix_name=False)
"""Annotation of a group of options whose names have no prefix."""
USD_SUFFIXES = (".usd", ".usda", ".usdc", ".usdz")

export = SubcommandApp()


@dataclass(frozen=True)
class RunOptions:
    """How a run is opened."""

    step: int | None = None
    """Training step of the checkpoint; default: the latest."""
    data: Path | None = None
    """Where the run's frames are now, if they were moved."""
    device: Literal["cuda", "cpu"] | None = None
    """Where to compute; default: CUDA if available."""

    def load(self, config: Path, out: Path | None = None) -> Run:
        """Load a run, from which `out` is written.

        Raises:
            InputError: it cannot be used, or `out` has the name of a run's file.
        """
        config = config_file(config, out)
        announce(f"Loading {config}")
        # Imported only now, because it takes seconds: options and the output path have been checked.
        from consistent4d_ns.runs import load_run

        return load_run(config, self.step, self.data, self.device)


@dataclass(frozen=True)
class Common:
    """Options of all exports."""

    run: Annotated[RunOptions, Flat] = field(default_factory=RunOptions)
    """The run to export."""
    times: Annotated[TimeOptions, Flat] = field(default_factory=TimeOptions)
    """The times to export."""
    solid: Annotated[SolidOptions, Flat] = field(default_factory=SolidOptions)
    """What counts as the object."""
    overwrite: bool = False
    """Replace existing output."""

    def check(self) -> None:
        """Check the values.

        Raises:
            InputError: a value is out of range.
        """
        self.times.check()
        self.solid.check()

    def open(self, config: Path, out: Path) -> Exporter:
        """Load a run, from which `out` is written, and calibrate the object's density threshold.

        Raises:
            InputError: the run cannot be used, `out` has the name of a run's file, or the object is transparent.
        """
        return self.exporter(self.run.load(config, out))

    def exporter(self, run: Run) -> Exporter:
        """Calibrate the density threshold of a run's object.

        Raises:
            InputError: the object is transparent.
        """
        from consistent4d_ns.export.sequence import exporter

        announce("Finding the density from which on a point belongs to the object")
        source = exporter(run, self.solid, self.times)
        chosen = source.solid.threshold
        print(f"Object: density at least {chosen.density:.3g}, opacity of lines of sight at least {chosen.opacity:g}.")
        return source


@export.command
def mesh(
    config: RunArgument,
    out: OutArgument,
    /,
    format: Format | None = None,
    colouring: Colouring | None = None,
    lit: bool = False,
    compress: bool = True,
    options: Annotated[MeshOptions, Flat] = MeshOptions(),  # noqa: B008
    common: Annotated[Common, Flat] = Common(),
) -> None:
    """Write a mesh that moves: one animated GLB, or a folder of numbered files.

    One mesh follows the object through all frames, if it comes close to it everywhere; else every frame has a mesh of
    its own (--topology). Lengths are world units: the object's box is [-1, 1]^3. OBJ and PLY have z up and the front
    towards +x, where the input camera stands; GLB has y up and the front towards +z.

    Args:
        config: The run's config.yml, or its folder.
        out: NAME.glb for one animated file, else the folder to write.
        format: Format of the numbered files: glb, obj (with .mtl and .png) or ply; default: glb.
        colouring: A texture, or a colour per vertex; default: texture, for PLY vertex.
        lit: Shade GLB meshes; by default they are unlit, because their colours already contain the video's lighting.
        compress: Write GLB files with quantised vertices and WebP textures, which three.js and Blender read;
            --no-compress writes 32-bit floats and PNG, for programs that read glTF 2.0 without extensions only.
        options: How the surface is triangulated and textured.
        common: Options of all exports.
    """
    common.check()
    options.check()
    if out.suffix.lower() == ".glb":
        if format not in (None, "glb"):
            raise InputError(f"{out} is one file, --format {format} is for numbered files: give a folder.")
        with new_file(out, common.overwrite) as path:
            source = common.open(config, out)
            found = meshes_of(source, options, colouring or "texture")
            path.write_bytes(animated(found, source.timeline.fps, lit, compress))
        report(out, source.timeline, found)
        return
    format = numbered_format(out, format)
    if format == "ply" and colouring == "texture":
        raise InputError("PLY files hold no texture: give --colouring vertex, or --format obj or glb.")
    colouring = colouring or ("vertex" if format == "ply" else "texture")
    with new_folder(out, "export mesh", common.overwrite) as folder:
        source = common.open(config, out)
        from consistent4d_ns.export.files import write_meshes

        found = meshes_of(source, options, colouring)
        write_meshes(folder, found, format, source.timeline, lit, compress)
    report(out, source.timeline, found)


def animated(found: MovingMesh | Iterator[Mesh], fps: float, lit: bool, compress: bool = True) -> bytes:
    """The contents of one animated GLB file (see `export.gltf`)."""
    from consistent4d_ns.export.gltf import glb, glb_moving
    from consistent4d_ns.export.moving import MovingMesh

    write: Any = glb_moving if isinstance(found, MovingMesh) else glb
    return write(found, fps, lit, compress)


@export.command
def points(
    config: RunArgument,
    out: OutArgument,
    /,
    count: int = 20_000,
    common: Annotated[Common, Flat] = Common(),
) -> None:
    """Write surface points of every frame: a folder of numbered PLY files with colours and normals.

    World units, z up; the front is towards +x, where the input camera stands.

    Args:
        config: The run's config.yml, or its folder.
        out: The folder to write.
        count: Points per frame, evenly distributed; 1 to 5 million.
        common: Options of all exports.
    """
    common.check()
    in_range("--count", count, 1, 5_000_000)
    if out.suffix:
        raise InputError(f"{out} ends in {out.suffix}: points are written as numbered PLY files, give a folder.")
    with new_folder(out, "export points", common.overwrite) as folder:
        source = common.open(config, out)
        from consistent4d_ns.export.files import write_points

        write_points(folder, progress(source.points(count), "Exporting", len(source.timeline)), source.timeline)
    report(out, source.timeline)


@export.command
def usd(
    config: RunArgument,
    out: OutArgument,
    /,
    lit: bool = False,
    options: Annotated[MeshOptions, Flat] = MeshOptions(),  # noqa: B008
    common: Annotated[Common, Flat] = Common(),
) -> None:
    """Write USD: one mesh that changes over time, or a package for phones (.usdz). Needs the extra `usd`.

    Files named .usd, .usda or .usdc hold one mesh, z up and the front towards +x, where the input camera stands; its
    texture is NAME_texture.png next to it; where every frame has its own triangles (--topology), it has a colour per
    vertex. .usdz holds a textured mesh of every frame, y up and the front towards +z. World units.

    Args:
        config: The run's config.yml, or its folder.
        out: NAME.usd, .usda, .usdc or .usdz.
        lit: Shade the mesh; by default it emits its colours, because they already contain the video's lighting.
        options: How the surface is triangulated and textured.
        common: Options of all exports.
    """
    common.check()
    options.check()
    suffix = out.suffix.lower()
    if suffix not in USD_SUFFIXES:
        raise InputError(f"{out} is no name of a USD file: give one that ends in {', '.join(USD_SUFFIXES)}.")
    check_usd(out)
    picture = out.with_name(f"{out.stem}_texture.png")
    if suffix != ".usdz" and options.topology != "frames":
        check_new_file(picture, common.overwrite)
    with ExitStack() as files:
        path = files.enter_context(new_file(out, common.overwrite))
        source = common.open(config, out)
        from consistent4d_ns.export.moving import MovingMesh
        from consistent4d_ns.export.usd import write_moving_usd, write_usd, write_usdz

        found = meshes_of(source, options, "texture", "texture" if suffix == ".usdz" else "vertex")
        fps = source.timeline.fps
        if suffix == ".usdz":
            write_usdz(path, found, fps, lit)
        elif isinstance(found, MovingMesh):
            beside = files.enter_context(new_file(picture, common.overwrite))
            write_moving_usd(path, beside, found, fps, lit)
        else:
            write_usd(path, found, fps, lit)
    report(out, source.timeline, None if suffix == ".usdz" else found)


def meshes_of(
    source: Exporter, options: MeshOptions, shared: Colouring, single: Colouring | None = None
) -> MovingMesh | Iterator[Mesh]:
    """One mesh that moves with `shared` colours, or a mesh for every frame with `single` ones, which are the same
    unless given.

    Raises:
        InputError: nothing is visible at a time.
    """
    from consistent4d_ns.export.deforming.animated import meshes_for

    return meshes_for(source, options, (shared, single or shared), progress, lambda said: print(said, file=sys.stderr))


def check_usd(out: Path) -> None:
    """Check that USD's library is installed, before `out` is written with it.

    Raises:
        InputError: it is not.
    """
    if not find_spec("pxr"):
        raise InputError(
            f"{out} cannot be written, because the package usd-core is not installed: run `pip install usd-core`."
        )


def numbered_format(out: Path, format: Format | None) -> Format:
    """The format of numbered files; default: glb.

    Raises:
        InputError: the name of the folder `out` has a suffix, as if it were a file.
    """
    if out.suffix and not out.is_dir():
        raise InputError(
            f"{out} ends in {out.suffix}: give NAME.glb for one animated file, "
            "or a folder and --format glb, obj or ply."
        )
    return format or "glb"


def report(out: Path, timeline: Timeline, found: object = None) -> None:
    """Print what was written: `found`, a mesh that moves, or one thing after the other."""
    from consistent4d_ns.export.moving import MovingMesh

    if len(timeline) == 1:
        print(f"{out}: 1 frame.")
        return
    frames = f"{len(timeline)} frames, {timeline.fps:g} per second"
    print(f"{out}: {frames}{', one mesh that moves' if isinstance(found, MovingMesh) else ''}.")
