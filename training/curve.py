"""Draw the training curve of the denoiser.

python -m training.curve training/curves/denoiser.jsonl curve.png
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import tyro

from consistent4d_ns.errors import InputError, show_input_errors_in_one_line

LEVELS = {"low": "weak noise, timesteps 0 to 332", "middle": "333 to 665", "high": "strong noise, 666 to 999"}
"""The three ranges of timesteps whose errors the curve holds."""


def main(
    curve: Annotated[Path, tyro.conf.Positional],
    picture: Annotated[Path, tyro.conf.Positional],
    /,
) -> None:
    """Plot the errors in training and on held-out objects against the samples seen.

    Args:
        curve: What `python -m training.denoiser` wrote.
        picture: PNG to write.
    """
    from matplotlib.figure import Figure

    try:
        rows = [json.loads(line) for line in curve.read_text().splitlines()]
        samples = [row["samples"] / 1e6 for row in rows]
        figure = Figure(figsize=(9, 3), layout="constrained")
        for axes, (level, title) in zip(figure.subplots(1, len(LEVELS)), LEVELS.items()):
            for name, colour in (("train", "tab:gray"), ("held_out", "tab:blue")):
                axes.plot(samples, [row[f"{name}_{level}"] for row in rows], color=colour, label=name.replace("_", " "))
            axes.set(title=title, xlabel="million samples", yscale="log")
            axes.legend()
        figure.supylabel("error of the noise")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"not a training curve of the denoiser ({error})"
        raise InputError(f"{curve}: {reason}; give the denoiser.jsonl of a training.") from error
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    show_input_errors_in_one_line()
    tyro.cli(main)
