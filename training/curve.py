"""Plot the training curve of the denoiser.

python -m training.curve training/curves/denoiser.jsonl curve.png
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import tyro

from consistent4d_ns.errors import InputError, show_input_errors_in_one_line

LEVELS = {"low": "weak noise, timesteps 0 to 332", "middle": "333 to 665", "high": "strong noise, 666 to 999"}
"""The three ranges of timesteps for which the curve has errors, with the titles of their plots."""


def main(
    curve: Annotated[Path, tyro.conf.Positional],
    picture: Annotated[Path, tyro.conf.Positional],
    /,
) -> None:
    """Plot the errors on training and on held-out objects against the number of training samples.

    Args:
        curve: Training curve written by `python -m training.denoiser`.
        picture: PNG file to write.
    """
    from matplotlib.figure import Figure

    columns = read_curve(curve)
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, (level, title) in zip(figure.subplots(1, len(LEVELS)), LEVELS.items(), strict=True):
        for name, colour in (("train", "tab:gray"), ("held_out", "tab:blue")):
            errors = columns[f"{name}_{level}"]
            axes.plot([samples / 1e6 for samples in columns["samples"]], errors, color=colour, label=name)
        axes.set(title=title, xlabel="million samples", yscale="log")
        axes.legend()
    figure.supylabel("error of the noise")
    figure.savefig(picture, dpi=100)


def read_curve(curve: Path) -> dict[str, list[float]]:
    """The columns of a training curve that are plotted: `samples`, and mean squared errors of the predicted noise.

    Raises:
        InputError: the file cannot be read, or is not a training curve of the denoiser.
    """
    names = ["samples", *(f"{name}_{level}" for name in ("train", "held_out") for level in LEVELS)]
    try:
        rows = [json.loads(line) for line in curve.read_text().splitlines()]
        columns = {name: [float(row[name]) for row in rows] for name in names}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"not a training curve of the denoiser ({error})"
        raise InputError(f"{curve}: {reason}; give the denoiser.jsonl of a training run.") from error
    if not rows:
        raise InputError(f"{curve}: is empty; give the denoiser.jsonl of a training run.")
    return columns


if __name__ == "__main__":
    show_input_errors_in_one_line()
    tyro.cli(main)
