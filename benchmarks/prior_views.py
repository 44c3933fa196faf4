"""Novel views that a prior samples of held-out objects, compared with the ground truth and two simple baselines.

    python -m benchmarks.prior_views VIEWS/held-out.safetensors --training VIEWS/train-0-000.safetensors --out DIR

The views come from `python -m training.views`. Each scene's first view is the input, all others are targets, sampled
with DDIM, with each guidance scale and each temperature of the initial noise. The baselines are the input view
itself and the mean of the training views. Writes DIR/prior_views.json and DIR/prior_views_SCALE_TEMPERATURE.png (input,
then truth and sample alternately) and prints a table by azimuth distance.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import tyro
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from benchmarks.measures import foreground_psnr, psnr, silhouettes, ssim
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.guidance.loading import build_guidance
from consistent4d_ns.guidance.zero123 import Zero123Guidance
from consistent4d_ns.media.pictures import contact_sheet, to_bytes
from training.viewset import ViewSet, load_views

BINS = ((0, 45), (45, 90), (90, 135), (135, 180), (45, 180))
"""Bins of azimuth distance in degrees; the last covers all views of another side."""
BATCH = 512
SHEET_ROWS = 16
SHEET_PAIRS = 4


@dataclass
class Options:
    """Options of the benchmark."""

    held_out: Annotated[Path, tyro.conf.Positional]
    """File of views of unseen objects."""
    training: Path
    """File of training views, for their mean."""
    out: Path
    """Folder for the results."""
    prior: str = "bundled"
    """The prior (see `GuidanceConfig.prior`)."""
    scales: tuple[float, ...] = (1.0, 3.0)
    """Classifier-free guidance scales to compare."""
    temperatures: tuple[float, ...] = (1.0, 0.0)
    """Standard deviations of the initial noise to compare."""
    scenes: int | None = None
    """How many of the scenes, at random; all by default."""
    steps: int = 50
    """DDIM steps."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to sample."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of input and target views; the input is the first view of the scene."""

    scenes: Int64[Tensor, " pairs"]
    targets: Int64[Tensor, " pairs"]
    azimuth: Float[Tensor, " pairs"]
    """Azimuth distance between input and target in degrees, 0 to 180."""


def shuffled(count: int) -> Int64[Tensor, " count"]:
    """Numbers below `count` in an order that is random but always the same."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def some_scenes(views: ViewSet, count: int | None) -> ViewSet:
    """`count` of the scenes; all of them if it is None or there are not more."""
    chosen = shuffled(len(views))[:count].sort().values.to(views.images.device)
    return ViewSet(views.images[chosen], views.cameras[:, chosen])


def all_pairs(views: ViewSet) -> Pairs:
    """The first view of every scene with each of its other views."""
    scenes, targets = torch.meshgrid(torch.arange(len(views)), torch.arange(1, views.images.shape[1]), indexing="ij")
    scenes, targets = scenes.flatten().to(views.images.device), targets.flatten().to(views.images.device)
    difference = views.cameras[1, scenes, targets] - views.cameras[1, scenes, torch.zeros_like(targets)]
    return Pairs(scenes, targets, ((difference + 180) % 360 - 180).abs())


def sample_pairs(
    guidance: Zero123Guidance, views: ViewSet, pairs: Pairs, scale: float, steps: int, temperature: float
) -> Float[Tensor, "pairs 3 size size"]:
    """One sample of every target view; the noise depends on the pair's index only."""
    generator = torch.Generator(guidance.device).manual_seed(0)
    poses = views.poses(pairs.scenes, torch.zeros_like(pairs.targets), pairs.targets)
    samples = [
        guidance.sample(pose, scenes, scale=scale, generator=generator, steps=steps, temperature=temperature)
        for pose, scenes in zip(poses.split(BATCH), pairs.scenes.split(BATCH), strict=True)
    ]
    return torch.cat(samples)


def judge(answers: Float[Tensor, "pairs 3 size size"], views: ViewSet, pairs: Pairs) -> list[dict[str, float]]:
    """PSNR and SSIM on white and PSNR of the true foreground, per azimuth bin."""
    truth = views.images[pairs.scenes, pairs.targets].float() / 255
    values = {
        "psnr": psnr(answers, truth[:, :3]),
        "ssim": ssim(answers, truth[:, :3]),
        "foreground_psnr": foreground_psnr(answers, truth[:, :3], silhouettes(truth[:, 3])),
    }
    table = []
    for low, high in BINS:
        inside = (pairs.azimuth >= low) & (pairs.azimuth < high) if high < 180 else pairs.azimuth >= low
        row = {name: round(float(value[inside].nanmean()), 3) for name, value in values.items()}
        table.append({"azimuth_from": low, "azimuth_to": high, "pairs": int(inside.sum())} | row)
    return table


def sheet(samples: Float[Tensor, "pairs 3 size size"], views: ViewSet, rows: Sequence[int]) -> Image.Image:
    """Some scenes: the input, then truth and sample of four targets."""
    per_scene = samples.unflatten(0, (len(views), -1))
    pictures = []
    for scene in rows:
        true = views.images[scene, :, :3].float() / 255
        row = [true[0]]
        for target in range(SHEET_PAIRS):
            row += [true[1 + target], per_scene[scene, target]]
        pictures.append([to_bytes(image.movedim(0, -1)) for image in row])
    return Image.fromarray(contact_sheet(pictures))


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """The figures as markdown: PSNR / SSIM / foreground PSNR."""
    header = " | ".join(f"{low}-{high} degrees" for low, high in BINS)
    lines = [f"| answer | {header} |", "|---" * (1 + len(BINS)) + "|"]
    for name, rows in results.items():
        cells = (f"{row['psnr']:.2f} / {row['ssim']:.3f} / {row['foreground_psnr']:.2f}" for row in rows)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(options: Options) -> None:
    """Sample, measure, and write the results."""
    out, device = options.out, options.device
    out.mkdir(parents=True, exist_ok=True)
    views = some_scenes(load_views([options.held_out], device), options.scenes)
    guidance = build_guidance(GuidanceConfig(prior=options.prior, previews=True, condition_batch=256), 0.0, device)
    assert guidance is not None
    guidance.prepare(views.images[:, 0, :3].float() / 255)
    pairs = all_pairs(views)
    mean = load_views([options.training], device).images[:, :, :3].flatten(0, 1).float().mean(0) / 255
    inputs = views.images[pairs.scenes, 0, :3].float() / 255
    results = {"repeat the input": judge(inputs, views, pairs)}
    results["mean training view"] = judge(mean.expand_as(inputs), views, pairs)
    rows = shuffled(len(views))[:SHEET_ROWS].tolist()
    for scale, temperature in product(options.scales, options.temperatures):
        samples = sample_pairs(guidance, views, pairs, scale, options.steps, temperature)
        results[f"prior, scale {scale:g}, temperature {temperature:g}"] = judge(samples, views, pairs)
        sheet(samples, views, rows).save(out / f"prior_views_{scale:g}_{temperature:g}.png")
    (out / "prior_views.json").write_text(json.dumps({"scenes": len(views), "results": results}, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
