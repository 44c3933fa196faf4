"""`consistent4d export splats`: Gaussians of a finished run, for viewers and editors of Gaussian splatting."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from consistent4d_ns.cli.export import Flat, RunOptions, report
from consistent4d_ns.cli.help_texts import OutArgument, RunArgument
from consistent4d_ns.cli.progress import progress
from consistent4d_ns.errors import InputError
from consistent4d_ns.export.options import TimeOptions
from consistent4d_ns.export.splats.options import SplatFormat, SplatOptions
from consistent4d_ns.files.config_files import config_file
from consistent4d_ns.files.outputs import new_folder


def splats(
    config: RunArgument,
    out: OutArgument,
    /,
    format: SplatFormat = "ply",
    options: Annotated[SplatOptions, Flat] = SplatOptions(),  # noqa: B008
    run: Annotated[RunOptions, Flat] = RunOptions(),  # noqa: B008
    times: Annotated[TimeOptions, Flat] = TimeOptions(),  # noqa: B008
    overwrite: bool = False,
) -> None:
    """Write 3D Gaussians of every frame: a folder of numbered files for viewers of Gaussian splatting.

    World units. Seen from the input camera's side, x points to the right; in PLY y points down and z forward, as in
    Gaussian splatting's own scenes, in SPZ y points up and z backward, as that format demands.

    Args:
        config: The run's config.yml, or its folder.
        out: The folder to write; its name begins those of the files, as in toy/toy0001.ply.
        format: The PLY of the original implementation, or a compressed file, about a twelfth (spz) or a quarter
            (compressed.ply) as large, which needs the extra `splats`.
        options: How the Gaussians are made.
        run: The run to export.
        times: The times to export.
        overwrite: Replace existing output.
    """
    options.check()
    times.check()
    check_format(out, format)
    config = config_file(config)
    with new_folder(out, "export splats", overwrite) as folder:
        opened = run.load(config, out)
        from consistent4d_ns.export.splats.files import write_splats
        from consistent4d_ns.export.splats.sequence import splatter

        source = splatter(opened, options, times)
        print(f"Gaussians: {source.way}.")
        frames = progress(source.frames(), "Exporting", len(source.timeline))
        begins = write_splats(folder, frames, format, source.timeline, stem(out))
    if source.steps and source.shared:
        print(sets_line(begins))
    report(out, source.timeline)


def check_format(out: Path, format: SplatFormat) -> None:
    """Check that `out` can be a folder, and that what writes the format is installed.

    Raises:
        InputError: one of them is not so.
    """
    if out.suffix and not out.is_dir():
        raise InputError(f"{out} ends in {out.suffix}: Gaussians are written as numbered files, give a folder.")
    if format != "ply" and not find_spec("gaussforge"):
        raise InputError(
            f"--format {format} needs the package gaussforge, which is not installed: run `pip install gaussforge`, "
            "or give --format ply."
        )


def stem(out: Path) -> str:
    """What the names of numbered files begin with: the folder's name, parted from their numbers."""
    name = out.resolve().name
    return f"{name}_" if name[-1:].isdigit() else name


def sets_line(begins: list[int]) -> str:
    """What is said about the sets of Gaussians that begin with these frames."""
    if len(begins) == 1:
        return "The same Gaussians in all frames."
    named = ", ".join(str(begin + 1) for begin in begins)
    return (
        f"{len(begins)} sets of Gaussians, which begin with the files {named}: between them motion is not continuous."
    )
