"""Does a prompt become an object with one front? consistent4d-text on the toy, with a prior that is known exactly.

    python -m benchmarks.text_to_3d text.json [--steps 1500] [--size 48]

The prior knows what a prompt tells, and no more: for "front view" the true images of the toy from all cameras in front
of it are possible, all of them equally, and likewise for side, back and overhead (`ExactPromptGuidance`). Trained are
the variants `plain`, `icl` (with the consistency loss of clips in space, which needs RIFE's weights), and `one prompt`,
in which every view gets the prompt of the front, as without view-dependent prompts. Printed are

- PSNR and IoU with the truth in the 24 views around the object, and PSNR in those of each kind;
- own kind: the share of these views whose most similar true view, out of all 24, is of the same kind. An object with a
  face on every side (the Janus problem) has the share of the front views;
- neighbours: PSNR between each of 36 views around the object and the next one, whose colours are moved to where the
  rendered depth says that they are; pixels that the next view does not see, or sees another surface at, do not count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from benchmarks.exact_score import train
from consistent4d_ns.data.cameras import OrbitViews, full_circle, orbit_views
from consistent4d_ns.data.rays import focal_length, view_rays
from consistent4d_ns.errors import InputError, show_input_errors_in_one_line
from consistent4d_ns.guidance.config import TextGuidanceConfig
from consistent4d_ns.guidance.exact import ExactPromptGuidance
from consistent4d_ns.guidance.view_prompts import BACK, FRONT, SIDE, view_kinds
from consistent4d_ns.media.pictures import contact_sheet, render_image, to_bytes
from consistent4d_ns.method_configs import consistent4d_text, mini_model, preset
from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.rendering.losses import peak_signal_noise_ratio
from consistent4d_ns.rendering.metrics import silhouette_iou
from consistent4d_ns.toy import ToyTruth

VARIANTS = ("plain", "icl", "one prompt")
"""All variants."""
AROUND = 24
"""Views around the object that are compared with the truth, and azimuths of the images that are possible."""
ELEVATIONS = (-5.0, 15.0, 35.0, 55.0, 75.0)
"""Elevations of the images that are possible, in degrees."""
NEIGHBOURS = 36
"""Views around the object that are compared with their neighbours."""
SHOWN = 6
"""Views of a row of the contact sheet."""
SAME_SURFACE = 0.05
"""Largest difference of two depths of one surface, in world units."""


@dataclass
class Options:
    """Options of the benchmark."""

    out: Annotated[Path, tyro.conf.Positional]
    """New JSON file for the figures; beside it, a contact sheet."""
    steps: int = 1500
    """Training steps."""
    size: int = 48
    """Side of the images in pixels; the prior's have two thirds of it."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the trainings."""
    variants: tuple[str, ...] = VARIANTS
    """Names out of plain, icl and "one prompt"."""
    scale: float = 1.0
    """Classifier-free guidance scale; 1: the prior's own prediction, as an exact prior needs no more."""
    sds_weight: float = 1.0
    """Weight of distillation."""
    consistency_weight: float = 100.0
    """Weight of the consistency loss of `icl`."""
    device: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
    """Device type."""

    def check(self) -> None:
        """Raises: InputError: there is no such variant, or the results file exists."""
        for variant in self.variants:
            if variant not in VARIANTS:
                raise InputError(f"--variants {variant}: there is no such variant; choose from {', '.join(VARIANTS)}.")
        if self.out.exists():
            raise InputError(f"{self.out} exists; name a new file.")


def make_pipeline(options: Options, variant: str, seed: int) -> Consistent4DPipeline:
    """The preset with the field of the mini presets and smaller images, and the prior that is known exactly."""
    config = preset(consistent4d_text)
    config.pipeline.model = mini_model((0, 0), occupancy_times=1)
    weights = preset(consistent4d_text).pipeline.model.loss_weights
    config.pipeline.model.loss_weights = replace(
        weights, sds=(options.sds_weight,), consistency=(options.consistency_weight,)
    )
    config.pipeline.model.render_normals = False
    plan = config.pipeline.datamanager.plan
    plan.stage_steps, plan.image_sizes = (0, options.steps // 2), (options.size * 2 // 3, options.size)
    guidance = config.pipeline.guidance
    assert isinstance(guidance, TextGuidanceConfig)
    guidance.kind, guidance.scale = "none", options.scale
    guidance.max_noise = replace(guidance.max_noise, end_step=max(1, options.steps // 2))
    config.pipeline.interpolation.kind = "rife" if variant == "icl" else "none"
    if variant == "one prompt":
        guidance = replace(guidance, front_angle=180.0, back_angle=0.0, overhead_angle=90.0)
    torch.manual_seed(seed)
    pipeline = config.pipeline.setup(device=options.device, test_mode="val")
    pipeline.guidance = exact_prior(pipeline, guidance, options)
    return pipeline


def exact_prior(pipeline: Consistent4DPipeline, config: TextGuidanceConfig, options: Options) -> ExactPromptGuidance:
    """The prior; with one prompt for all views it knows the front alone, as a prior does that prefers it."""
    front, azimuths = pipeline.datamanager.input_view, torch.tensor(full_circle(AROUND))
    azimuth, elevation = azimuths.repeat(len(ELEVATIONS)), torch.tensor(ELEVATIONS).repeat_interleave(AROUND)
    in_front = view_kinds(elevation, azimuth, TextGuidanceConfig()) == FRONT
    kept = in_front if config.front_angle == 180.0 else torch.ones_like(in_front)
    cameras = orbit_views(0.0, 0.0, float(front.distance), float(front.fovy), int(kept.sum()))
    cameras = replace(cameras, elevation=elevation[kept], azimuth=azimuth[kept])
    truth = ToyTruth(size=options.size, frames=2)
    return ExactPromptGuidance(truth, front, cameras, config, latent_size=options.size * 2 // 3)


def views_around(front: OrbitViews, count: int) -> list[OrbitViews]:
    """Evenly spaced views at the height and distance of the front view."""
    return [replace(front, azimuth=front.azimuth + azimuth) for azimuth in full_circle(count)]


def rendered(model: Consistent4DModel, views: list[OrbitViews], size: int) -> dict[str, Float[Tensor, "views h w c"]]:
    """Outputs of the model for all views, by name."""
    images = [render_image(model, view, 0.0, size) for view in views]
    return {name: torch.stack([image[name] for image in images]).cpu() for name in ("rgb", "depth", "accumulation")}


def true_views(front: OrbitViews, size: int) -> tuple[Float[Tensor, "views h w 3"], Float[Tensor, "views h w 1"]]:
    """The toy in the views around it, on white, and its silhouettes."""
    views = views_around(front, AROUND)
    azimuths, count = torch.cat([view.azimuth for view in views]), len(views)
    frames = torch.zeros(count, dtype=torch.int64)
    images = ToyTruth(size=size, frames=2)(
        front.elevation.expand(count), azimuths, front.distance.expand(count), frames
    )
    images = images.movedim(1, -1)
    return images, (images.amin(dim=-1, keepdim=True) < 0.98).float()


def measure(
    model: Consistent4DModel, front: OrbitViews, size: int
) -> tuple[dict[str, float], Float[Tensor, "v h w 3"]]:
    """The figures of a trained object, and its views around it."""
    truth, silhouettes = true_views(front, size)
    made = rendered(model, views_around(front, AROUND), size)
    azimuths = torch.tensor(full_circle(AROUND))
    kinds = view_kinds(front.elevation.expand(AROUND), azimuths, TextGuidanceConfig())
    errors = (made["rgb"][:, None] - truth[None]).square().mean(dim=(2, 3, 4))
    psnr = -10.0 * torch.log10(errors.diagonal())
    iou = [silhouette_iou(a, b) for a, b in zip(made["accumulation"], silhouettes, strict=True)]
    figures = {"psnr": float(psnr.mean()), "iou": sum(iou) / len(iou)}
    for name, kind in (("front", FRONT), ("side", SIDE), ("back", BACK)):
        figures[f"psnr_{name}"] = float(psnr[kinds == kind].mean())
    figures["own_kind"] = float((kinds[errors.argmin(dim=1)] == kinds).float().mean())
    figures["neighbours"] = neighbours_psnr(model, front, size)
    return figures, made["rgb"]


def neighbours_psnr(model: Consistent4DModel, front: OrbitViews, size: int) -> float:
    """Mean PSNR between views and their next neighbours, moved by the rendered depth."""
    views = views_around(front, NEIGHBOURS)
    images = rendered(model, views, size)
    scores = []
    for index, view in enumerate(views):
        following = (index + 1) % NEIGHBOURS
        here, there = ({name: image[i] for name, image in images.items()} for i in (index, following))
        moved, seen = moved_colours(view, here["depth"], views[following], there["rgb"], there["depth"])
        seen &= here["accumulation"][..., 0] > 0.5
        if seen.any():
            scores.append(peak_signal_noise_ratio(moved[seen], here["rgb"][seen]))
    return float(torch.stack(scores).mean()) if scores else float("nan")


def moved_colours(
    view: OrbitViews,
    depth: Float[Tensor, "h w 1"],
    other: OrbitViews,
    colours: Float[Tensor, "h w 3"],
    other_depth: Float[Tensor, "h w 1"],
) -> tuple[Float[Tensor, "h w 3"], Any]:
    """What another view shows at the points that a view sees, and where it sees the same surface there.

    Args:
        view: The view, one.
        depth: Distance along each of its rays, in world units.
        other: The other view.
        colours: What it shows.
        other_depth: Distance along each of its rays.
    """
    size = len(depth)
    rays = view_rays(view, torch.zeros(1), size)
    points = rays.origins + depth.reshape(-1, 1) * rays.directions
    pose = other.poses()[0]
    local = (points - pose[:, 3]) @ pose[:, :3]  # right, up, backward
    places = focal_length(other.fovy, size) * local[:, :2] / -local[:, 2:] * torch.tensor([1.0, -1.0]) / (size / 2)
    grid = places.view(1, size, size, 2)
    sampled = F.grid_sample(colours.movedim(-1, 0)[None], grid, padding_mode="border", align_corners=False)
    distance = F.grid_sample(other_depth.movedim(-1, 0)[None], grid, padding_mode="border", align_corners=False)
    same = (distance[0, 0] - local.norm(dim=-1).view(size, size)).abs() < SAME_SURFACE
    return sampled[0].movedim(0, -1), same & (grid[0].abs() < 1.0).all(dim=-1)


def all_runs(options: Options) -> Iterator[tuple[dict[str, Any], Float[Tensor, "views h w 3"]]]:
    """Train and measure every variant with every seed."""
    for variant in options.variants:
        for seed in options.seeds:
            pipeline = make_pipeline(options, variant, seed)
            train(pipeline, options.steps)
            pipeline.eval()
            figures, images = measure(pipeline.model, pipeline.datamanager.input_view, options.size)
            yield {"variant": variant, "seed": seed, "figures": figures}, images


def table(results: list[dict[str, Any]]) -> str:
    """The figures, a row for each run."""
    names = list(results[0]["figures"])
    lines = [f"| variant | seed | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for result in results:
        values = (f"{result['figures'][name]:.2f}" for name in names)
        lines.append(f"| {result['variant']} | {result['seed']} | {' | '.join(values)} |")
    return "\n".join(lines)


def main(options: Options) -> None:
    """Run everything, and write and print the results."""
    options.check()
    results: list[dict[str, Any]] = []
    rows = []
    for result, images in all_runs(options):
        results.append(result)
        print(result, flush=True)
        options.out.write_text(json.dumps(results, indent=1))
        front = orbit_views(15.0, 0.0, 2.0, 49.1)
        rows = rows or [[to_bytes(image) for image in true_views(front, options.size)[0][:: AROUND // SHOWN]]]
        rows.append([to_bytes(image) for image in images[:: AROUND // SHOWN]])
        Image.fromarray(contact_sheet(rows)).save(options.out.with_suffix(".png"))
    print("\n" + table(results))


if __name__ == "__main__":
    show_input_errors_in_one_line()
    main(tyro.cli(Options, description=__doc__))
