"""`consistent4d export`: a finished run as meshes or points for other programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.extras import SubcommandApp

from consistent4d_ns.cli.progress import progress
from consistent4d_ns.errors import InputError
from consistent4d_ns.export.options import Colouring, Format, MeshOptions, MomentOptions, SolidOptions, in_range
from consistent4d_ns.outputs import new_file, new_folder

if TYPE_CHECKING:
    from consistent4d_ns.export.sequence import Exporter

Flat = tyro.conf.arg(name="", prefix_name=False)
"""Marks a group of options whose names are not prefixed."""
USD_SUFFIXES = (".usd", ".usda", ".usdc")

export = SubcommandApp()


@dataclass(frozen=True)
class RunOptions:
    """Which run."""

    step: int | None = None
    """Training step of the checkpoint; default: the latest."""
    data: Path | None = None
    """Where the run's frames are now, if they were moved."""
    device: Literal["cuda", "cpu"] | None = None
    """Where to compute; default: CUDA if there is one."""


@dataclass(frozen=True)
class Common:
    """What all exports share."""

    run: Annotated[RunOptions, Flat] = field(default_factory=RunOptions)
    """Which run."""
    moments: Annotated[MomentOptions, Flat] = field(default_factory=MomentOptions)
    """Which moments."""
    solid: Annotated[SolidOptions, Flat] = field(default_factory=SolidOptions)
    """What counts as the object."""
    overwrite: bool = False
    """Replace what an earlier export wrote there."""

    def check(self) -> None:
        """Raises: InputError: a value out of range."""
        self.moments.check()
        self.solid.check()

    def open(self, config: Path) -> Exporter:
        """Open a run.

        Raises:
            InputError: it cannot be used, or there is nothing to see.
        """
        from consistent4d_ns.export.sequence import exporter
        from consistent4d_ns.runs import load_run

        opened = load_run(config, self.run.step, self.run.data, self.run.device)
        made = exporter(opened, self.solid, self.moments)
        chosen = made.solid.threshold
        print(f"The object: density of at least {chosen.density:.3g}, lines of opacity of at least {chosen.opacity:g}.")
        return made


Config = Annotated[Path, tyro.conf.Positional]


@export.command
def mesh(
    config: Config,
    out: Config,
    /,
    format: Format | None = None,
    colouring: Colouring | None = None,
    lit: bool = False,
    options: Annotated[MeshOptions, Flat] = MeshOptions(),  # noqa: B008
    common: Annotated[Common, Flat] = Common(),
) -> None:
    """A mesh of every frame: one animated GLB, or a folder of numbered files.

    Lengths are world units: the object's box is [-1, 1]^3. OBJ and PLY have z up and the front towards +x, where the
    input camera stands; GLB has y up and the front towards +z.

    Args:
        config: The run's config.yml, or its folder.
        out: NAME.glb for one animated file, else a folder to make.
        format: Of the numbered files: glb, obj (with .mtl and .png) or ply; default: glb.
        colouring: A texture, or a colour per vertex; default: texture, in PLY vertex.
        lit: Let light fall on GLB meshes; otherwise they show their colours as they are, which contain the light of the
            video.
        options: How the object is made into triangles.
        common: What all exports share.
    """
    from consistent4d_ns.export.files import write_meshes
    from consistent4d_ns.export.gltf import glb

    common.check()
    options.check()
    if out.suffix.lower() == ".glb":
        if format not in (None, "glb"):
            raise InputError(f"{out} is one file, --format {format} is for numbered files: give a folder.")
        with new_file(out, common.overwrite) as path:
            made = common.open(config)
            meshes = made.meshes(options, colouring or "texture")
            path.write_bytes(glb(progress(meshes, "Exporting", len(made.moments)), made.moments.fps, lit))
            print(told(out, made))
            return
    format = numbered_format(out, format)
    if format == "ply" and colouring == "texture":
        raise InputError("PLY files hold no texture: give --colouring vertex, or --format obj or glb.")
    colouring = colouring or ("vertex" if format == "ply" else "texture")
    with new_folder(out, common.overwrite) as folder:
        made = common.open(config)
        meshes = progress(made.meshes(options, colouring), "Exporting", len(made.moments))
        write_meshes(folder, meshes, format, made.moments, lit)
    print(told(out, made))


@export.command
def points(
    config: Config,
    out: Config,
    /,
    count: int = 20_000,
    common: Annotated[Common, Flat] = Common(),
) -> None:
    """Points of the surface of every frame: a folder of numbered PLY files with colours and normals.

    World units, z up; the front is towards +x, where the input camera stands.

    Args:
        config: The run's config.yml, or its folder.
        out: Folder to make.
        count: Points of each frame, evenly spread; 1 to 5 million.
        common: What all exports share.
    """
    from consistent4d_ns.export.files import write_points

    common.check()
    in_range("--count", count, 1, 5_000_000)
    if out.suffix:
        raise InputError(f"{out} ends in {out.suffix}: points are written as numbered PLY files, give a folder.")
    with new_folder(out, common.overwrite) as folder:
        made = common.open(config)
        write_points(folder, progress(made.points(count), "Exporting", len(made.moments)), made.moments)
    print(told(out, made))


@export.command
def usd(
    config: Config,
    out: Config,
    /,
    faces: int = MeshOptions.faces,
    common: Annotated[Common, Flat] = Common(),
) -> None:
    """One USD file whose mesh changes over time, with a colour per vertex. Needs the extra `usd`.

    World units, z up; the front is towards +x, where the input camera stands.

    Args:
        config: The run's config.yml, or its folder.
        out: NAME.usd, .usda or .usdc.
        faces: Triangles of each mesh, where the surface has as many; 100 to 5 million.
        common: What all exports share.
    """
    from consistent4d_ns.export.usd import check_usd, write_usd

    common.check()
    options = MeshOptions(faces)
    options.check()
    if out.suffix.lower() not in USD_SUFFIXES:
        raise InputError(f"{out}: give a name that ends in {', '.join(USD_SUFFIXES)}.")
    check_usd()
    with new_file(out, common.overwrite) as path:
        made = common.open(config)
        write_usd(path, progress(made.meshes(options, "vertex"), "Exporting", len(made.moments)), made.moments.fps)
    print(told(out, made))


def numbered_format(out: Path, format: Format | None) -> Format:
    """The format of files in a folder.

    Raises:
        InputError: the folder's name looks like that of a file.
    """
    if out.suffix and not out.is_dir():
        raise InputError(
            f"{out} ends in {out.suffix}: give NAME.glb for one animated file, "
            "or a folder and --format glb, obj or ply."
        )
    return format or "glb"


def told(out: Path, made: Exporter) -> str:
    """What was written where."""
    moments = made.moments
    return f"{out}: {len(moments)} frames, {moments.fps:g} a second."
