"""`consistent4d compare`: runs side by side on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from consistent4d_ns.cli.progress import announce, progress
from consistent4d_ns.comparing.options import CompareOptions
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.config_files import config_file
from consistent4d_ns.files.outputs import check_new_file, new_file, scratch_beside
from consistent4d_ns.media.pages import check_page_name

if TYPE_CHECKING:
    from consistent4d_ns.trainer_config import Consistent4DTrainerConfig


def compare(
    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="")
    ],
    /,
    options: Annotated[CompareOptions, tyro.conf.arg(name="")],
    out: Path = Path("comparison.html"),
    data: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Show finished runs side by side on one page: videos in step, figures, options that differ, losses.

    The page is one file that loads nothing, so that it can be sent to others. No prior is loaded.

    Args:
        runs: Folders of runs, or their config.yml.
        options: What is rendered and measured.
        out: The page, a .html file.
        data: Where the frames of all these runs are now, if they were moved.
        overwrite: Replace an existing file.
    """
    if not runs:
        raise InputError("no run is named: give the folders of one or more runs.")
    check_page_name(out, "--out")
    check_new_file(out, overwrite)
    files = [config_file(run, out) for run in runs]
    announce(f"Loading {len(files)} {'run' if len(files) == 1 else 'runs'}")
    from consistent4d_ns.comparing.film import check_options
    from consistent4d_ns.comparing.looking import labels_of, read_runs

    check_options(options)
    named = dict(zip(labels_of(files), read_runs(files, data), strict=True))
    title = f"Comparison of {len(named)} runs" if len(named) > 1 else f"Run {next(iter(named))}"
    write_page(out, title, named, options, overwrite=overwrite)
    print(out)


def write_page(
    out: Path,
    title: str,
    runs: Mapping[str, Consistent4DTrainerConfig],
    options: CompareOptions,
    notices: Sequence[str] = (),
    author: str = "compare",
    overwrite: bool = False,
) -> None:
    """Render and measure runs, and write their page.

    Args:
        out: The page.
        title: Its heading.
        runs: Configurations of runs, by what to call them.
        options: What is rendered and measured.
        notices: What else the page says.
        author: The subcommand that writes it.
        overwrite: Replace an existing file.

    Raises:
        InputError: a run cannot be opened, or the page cannot be written.
    """
    from consistent4d_ns.comparing.looking import compare_runs
    from consistent4d_ns.comparing.page import page

    with scratch_beside(out) as scratch:
        comparison = compare_runs(runs, options, scratch, progress)
        with new_file(out, overwrite) as file:
            file.write_text(page(comparison, title, notices, author), encoding="utf-8")
