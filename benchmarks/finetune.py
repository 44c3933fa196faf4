"""What `consistent4d finetune` gains: finished runs on sequences with ground truth, measured before and after.

    python -m benchmarks.finetune --runs outputs/Fox/consistent4d-mini/TIME --out finetune.json \\
        --perceptual alex_shift_tolerant.pth --methods hold reweight

Run it in the root of the repository. Every run is trained further by each method, below a temporary folder, and left as
it is. All evaluation views are compared at all times, as in `benchmarks.four_d`. The results file is updated after each
training; a Markdown table is printed at the end.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.four_d import input_psnr, measure, overall, render_clips, true_clips
from benchmarks.perceptual import PerceptualDistance, load_perceptual
from consistent4d_ns.cli.finetune import train_further
from consistent4d_ns.errors import InputError, show_input_errors_in_one_line
from consistent4d_ns.finetuning import FinetuneOptions, Method, finetune_config
from consistent4d_ns.runs import load_run

COLUMNS = {"input_psnr": 2, "psnr": 2, "ssim": 3, "iou": 3, "st_lpips": 4, "seconds": 0}
"""Scores in the table, and their decimals."""


@dataclass
class Options:
    """Options of the benchmark."""

    runs: tuple[Path, ...]
    """Finished runs, their folders."""
    out: Path
    """New JSON file for the results."""
    methods: tuple[Method, ...] = ("hold",)
    """Methods to compare."""
    steps: tuple[int, ...] = (1500,)
    """Numbers of steps to compare."""
    perceptual: Path | None = None
    """Weights of the perceptual distance (see `benchmarks.four_d`), which is omitted without them."""


def scores(run: Path, perceptual: PerceptualDistance | None) -> dict[str, float]:
    """Scores of a run over all evaluation views and times."""
    pipeline = load_run(run).pipeline
    pipeline.model.config.render_normals = False
    views, truth = true_clips(pipeline)
    if perceptual is not None:
        perceptual = perceptual.to(pipeline.device)
    by_view = measure(render_clips(pipeline, [view.camera for view in views]), truth, perceptual)
    return overall(by_view) | {"input_psnr": input_psnr(pipeline)}


def compare(options: Options) -> list[dict[str, str | float]]:
    """Scores of all runs before and after; written to the results file after each training.

    Raises:
        InputError: the results file exists, or a run cannot be trained further.
    """
    if options.out.exists():
        raise InputError(f"--out {options.out} exists; name a new file.")
    perceptual = None if options.perceptual is None else load_perceptual(options.perceptual)
    rows: list[dict[str, str | float]] = []
    for run in options.runs:
        rows.append({"run": str(run), "stage": "before", **scores(run, perceptual)})
        for method in options.methods:
            for steps in options.steps:
                with tempfile.TemporaryDirectory() as scratch:
                    begin = time.monotonic()
                    config = finetune_config(run, FinetuneOptions(method, steps), out=Path(scratch))
                    train_further(config)
                    seconds = time.monotonic() - begin
                    found = scores(config.get_base_dir(), perceptual)
                rows.append({"run": str(run), "stage": f"{method}, {steps} steps", **found, "seconds": seconds})
                options.out.write_text(json.dumps(rows, indent=1))
    return rows


def table(rows: list[dict[str, str | float]]) -> str:
    """The scores in Markdown."""
    lines = [["run", "stage", *COLUMNS], ["---"] * (2 + len(COLUMNS))]
    for row in rows:
        values = [f"{row[name]:.{decimals}f}" if name in row else "-" for name, decimals in COLUMNS.items()]
        lines.append([str(row["run"]), str(row["stage"]), *values])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure, and print the table."""
    show_input_errors_in_one_line()
    print(table(compare(tyro.cli(Options, description=__doc__))))


if __name__ == "__main__":
    main()
