"""`consistent4d finetune`: a finished run with a sharper filmed view, as a new run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from consistent4d_ns.cli.help_texts import RunArgument
from consistent4d_ns.cli.progress import announce
from consistent4d_ns.cli.tables import aligned
from consistent4d_ns.files.config_files import config_file

if TYPE_CHECKING:
    from consistent4d_ns.trainer_config import Consistent4DTrainerConfig


def finetune(
    run: RunArgument,
    /,
    method: Literal["hold", "reweight"] = "hold",
    steps: int = 1500,
    data: Path | None = None,
    image_size: int | None = None,
    step: int | None = None,
    out: Path | None = None,
) -> None:
    """Sharpen the filmed view of a finished run without losing the others; the result is a new run.

    Prints the PSNR of the input view and, with ground truth, figures of novel views, before and after. The old run is
    left as it is.

    Args:
        run: The run's folder, or its config.yml.
        method: hold keeps cleaned renderings of the object in place while random pixels of the frames are fitted, and
            needs no prior; reweight goes on with score distillation from the prior, at a tenth of its weight, and fits
            the frames with four times as much.
        steps: Training steps.
        data: Frames in place of the run's: the same moments, perhaps at a higher resolution. Default: the run's.
        image_size: Side in pixels at which frames are fitted, for example 512; default: as the run was trained.
        step: Training step of the checkpoint to begin with; default: the latest, of a finished run.
        out: Folder below which the new run gets a folder of its own; default: where that of RUN is.
    """
    run = config_file(run)
    announce(f"Loading {run}")
    # Imported only now, because this takes seconds.
    from consistent4d_ns.finetuning import FinetuneOptions, finetune_config

    config = finetune_config(run, FinetuneOptions(method, steps, image_size), step, data, out)
    before, after = train_further(config)
    rows = [["", "before", "after"]]
    for name, value in before.items():
        decimals = 2 if "dB" in name else 3
        rows.append([name, f"{value:.{decimals}f}", f"{after[name]:.{decimals}f}"])
    print("\n".join(aligned(rows)))
    print(f"new run: {config.get_base_dir()}")


def train_further(config: Consistent4DTrainerConfig) -> tuple[dict[str, float], dict[str, float]]:
    """Train on from the checkpoint that a configuration names; figures before and after."""
    from consistent4d_ns.cli.demo import seed_everything
    from consistent4d_ns.finetuning import measured

    config.set_timestamp()
    seed_everything(config.machine.seed)
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    announce("Measuring the run as it is")
    before = measured(trainer.pipeline)
    trainer.train()
    announce("Measuring the new run")
    return before, measured(trainer.pipeline)
