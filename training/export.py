"""Stage 4: export the trained networks as a prior for `guidance.prior`.

python -m training.export OUT FOLDER
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from consistent4d_ns.errors import show_input_errors_in_one_line
from consistent4d_ns.guidance.networks import Zero123Networks
from consistent4d_ns.guidance.saving import save_folder
from training.denoiser import STATE
from training.networks import Denoiser, load_autoencoder, new_networks
from training.optimise import load_averages


def trained_networks(out: Path) -> Zero123Networks:
    """The averaged networks of a training, in float32 on the CPU.

    Raises:
        InputError: The autoencoder or the denoiser is missing, or belongs to other networks.
    """
    networks = new_networks(seed=0)
    load_averages(Denoiser(networks), out / STATE)
    networks.vae = load_autoencoder(out / "vae")
    return networks


def main(
    out: Annotated[Path, tyro.conf.Positional],
    folder: Annotated[Path, tyro.conf.Positional],
    /,
    overwrite: bool = False,
) -> None:
    """Write the prior in half precision, with checksums.

    Args:
        out: Folder of the training.
        folder: Where to write the prior.
        overwrite: Replace an existing prior.
    """
    save_folder(trained_networks(out), folder, overwrite=overwrite)


if __name__ == "__main__":
    show_input_errors_in_one_line()
    tyro.cli(main)
