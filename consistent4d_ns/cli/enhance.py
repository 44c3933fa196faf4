"""`consistent4d enhance`: trains the video enhancer of a finished run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from consistent4d_ns import __version__
from consistent4d_ns.cli.export import Flat, RunOptions
from consistent4d_ns.cli.help_texts import OutArgument, RunArgument
from consistent4d_ns.cli.progress import announce, progress
from consistent4d_ns.enhancing.options import ClipOptions, PseudoTruthOptions, TrainingOptions
from consistent4d_ns.files.config_files import config_file
from consistent4d_ns.files.outputs import new_folder

if TYPE_CHECKING:
    import numpy as np

    from consistent4d_ns.enhancing.enhancer import Enhancer
    from consistent4d_ns.enhancing.training import Clips

COMMAND = "enhance"
"""The subcommand that writes enhancers, and replaces nothing else."""
SHEET = "before_and_after.png"
"""Contact sheet of rendered frames, their pseudo-truth, and what the enhancer makes of them."""
SHOWN = 6
"""Frames on that sheet."""


def enhance(
    config: RunArgument,
    out: OutArgument,
    /,
    diffusion: Annotated[PseudoTruthOptions, Flat] = PseudoTruthOptions(),  # noqa: B008
    training: Annotated[TrainingOptions, Flat] = TrainingOptions(),  # noqa: B008
    clips: Annotated[ClipOptions, Flat] = ClipOptions(),  # noqa: B008
    run: Annotated[RunOptions, Flat] = RunOptions(),  # noqa: B008
    overwrite: bool = False,
) -> None:
    """Train an enhancer for the videos of a finished run, which `consistent4d render --enhance OUT` applies.

    Renders orbits of the run, lets a diffusion model improve their frames one by one, and trains a small network to do
    the same in a way that is consistent over time. Nothing is downloaded.

    Args:
        config: The run's config.yml, or its folder.
        out: The folder to write: the enhancer, its settings, and a sheet of frames before and after.
        diffusion: The diffusion model.
        training: How the enhancer is trained.
        clips: What is rendered for it.
        run: How the run is opened.
        overwrite: Replace an earlier enhancer.
    """
    for options in (diffusion, training, clips):
        options.check()
    config = config_file(config)
    with new_folder(out, COMMAND, overwrite) as folder:
        enhancer, about, sheet = _trained(config, diffusion, training, clips, run)
        from PIL import Image

        from consistent4d_ns.enhancing.enhancer import save_enhancer

        save_enhancer(folder, enhancer, about)
        Image.fromarray(sheet).save(folder / SHEET)
    print(f"{out}: an enhancer for videos of {enhancer.size} x {enhancer.size} pixels; see {out / SHEET}.")
    print(f"Next: consistent4d render {config.parent} enhanced.mp4 --outputs input rgb --enhance {out}")


def _trained(
    config: Path,
    diffusion: PseudoTruthOptions,
    training: TrainingOptions,
    clips: ClipOptions,
    opening: RunOptions,
) -> tuple[Enhancer, dict[str, Any], np.ndarray]:
    """An enhancer, how it was trained, and the sheet of frames before and after."""
    from consistent4d_ns.enhancing.model_folder import find_model

    find_model(diffusion)  # first, because it is what is most likely missing
    announce(f"Loading {config}")
    from consistent4d_ns.enhancing.clips import render_clips
    from consistent4d_ns.enhancing.enhancer import Enhancer
    from consistent4d_ns.enhancing.pseudo_truth import pseudo_truth
    from consistent4d_ns.enhancing.training import train_generator
    from consistent4d_ns.runs import load_run

    run = load_run(config, opening.step, opening.data, opening.device)
    model, device = run.pipeline.model, run.pipeline.device
    model.config.render_normals = False
    rendered = render_clips(model, run.pipeline.datamanager, clips.clips, training.size, _shown("Rendering"))
    announce(f"Loading {diffusion.model}")
    truth = pseudo_truth(rendered, diffusion, training.seed, device, _shown("Pseudo-truth"))
    generator = train_generator(rendered, truth, training, device, _shown("Training"))
    enhancer = Enhancer(generator, training.size)
    about = {"run": str(config.parent.resolve()), "step": run.step, "written_by": f"consistent4d_ns {__version__}"}
    about |= asdict(diffusion) | asdict(clips) | {"epochs": training.epochs, "seed": training.seed}
    return enhancer, about, _sheet(rendered, truth, enhancer)


def _shown(what: str) -> Any:
    """Shows under a name how much of something is done."""

    def shown(items: Iterable[Any], total: int) -> Iterable[Any]:
        return progress(items, what, total)

    return shown


def _sheet(rendered: Clips, truth: Clips, enhancer: Enhancer) -> np.ndarray:
    """Frames of the first clip: rendered, improved by the diffusion model, and enhanced."""
    import torch

    from consistent4d_ns.enhancing.enhancer import enhanced_clip
    from consistent4d_ns.media.pictures import labelled_sheet, to_bytes

    frames = torch.linspace(0, rendered.shape[1] - 1, min(SHOWN, rendered.shape[1])).round().long()
    after = torch.stack(list(enhanced_clip(rendered[0], enhancer)))
    rows = [[image.movedim(0, -1).numpy() for image in clips[0, frames]] for clips in (rendered, truth)]
    rows.append([to_bytes(image.movedim(0, -1)) for image in after[frames]])
    return labelled_sheet(rows, [str(frame) for frame in frames.tolist()], ["rendered", "pseudo-truth", "enhanced"])
