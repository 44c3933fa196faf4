"""`consistent4d export web`: a page that shows the object, to be sent to others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from consistent4d_ns.cli.export import Common, Flat, animated, meshes_of
from consistent4d_ns.cli.help_texts import OutArgument, RunArgument
from consistent4d_ns.export.options import Colouring, MeshOptions
from consistent4d_ns.files.outputs import new_file
from consistent4d_ns.media.pages import check_page_name

if TYPE_CHECKING:
    from consistent4d_ns.export.sequence import Exporter
    from consistent4d_ns.runs import Run


def web(
    config: RunArgument,
    out: OutArgument,
    /,
    title: str | None = None,
    colouring: Colouring = "texture",
    lit: bool = False,
    options: Annotated[MeshOptions, Flat] = MeshOptions(),  # noqa: B008
    common: Annotated[Common, Flat] = Common(),  # noqa: B008
) -> None:
    """Write a page on which the object moves and can be turned, next to the input video: one file that loads nothing.

    It opens by a double click, and offers the animated mesh as a download. It needs a browser with WebGL.

    Args:
        config: The run's config.yml, or its folder.
        out: The page, a .html file.
        title: Its heading; default: the name of the frames.
        colouring: A texture, or a colour per vertex.
        lit: Shade the mesh; by default it is unlit, because its colours already contain the video's lighting.
        options: How the surface is triangulated and textured.
        common: Options of all exports.
    """
    check_page_name(out)
    common.check()
    options.check()
    with new_file(out, common.overwrite) as path:
        run = common.run.load(config, out)
        text = page_of(run, common.exporter(run), options, title, colouring, lit)
        path.write_text(text, encoding="utf-8")
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB; open it in a browser.")


def page_of(
    run: Run,
    source: Exporter,
    options: MeshOptions,
    title: str | None = None,
    colouring: Colouring = "texture",
    lit: bool = False,
) -> str:
    """The page of a run as HTML; arguments are those of the command.

    Raises:
        InputError: nothing is visible at a time.
    """
    from consistent4d_ns.export.web.content import content_of
    from consistent4d_ns.export.web.page import web_page

    mesh = animated(meshes_of(source, options, colouring), source.timeline.fps, lit)
    return web_page(content_of(run, source.timeline, mesh, title))
