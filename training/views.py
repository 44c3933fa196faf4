"""Stage 1: render training views and held-out views.

    python -m training.views OUT --meshes library.xz --scenes 60000 --seed 0

writes OUT/train-SEED-000.safetensors and so on; `--held-out` writes OUT/held-out.safetensors, of objects that no
training file shows. Runs with other seeds may go on beside it, one for each GPU. Files that exist are kept, so that
an interrupted run goes on where it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import tyro
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from training.meshes import MeshLibrary, load_meshes
from training.networks import IMAGE_SIZE
from training.procedural import procedural_objects
from training.scenes import draw_cameras, draw_scenes, render
from training.soup import Soups, join
from training.viewset import VIEWS, ViewSet, save_views

SHARD = 2000
"""Scenes in a file."""
PROCEDURAL_SHARE = 0.5
"""Share of procedural objects; the others come from the mesh library."""
ANIMATED_SHARE = 0.4
"""Share of animated models among the mesh library's objects: creatures in many poses, which videos show."""
HELD_OUT_SEED = 1 << 40
"""Seed of the held-out procedural objects; training seeds lie below."""


def draw_mesh_objects(library: MeshLibrary, count: int, generator: torch.Generator) -> Int64[Tensor, "count"]:
    """Objects of the library for training: a kind, then a model, then one of its poses."""
    weights = library.animated.new_zeros(len(library.names), dtype=torch.float32)
    for kind, share in ((library.animated, ANIMATED_SHARE), (~library.animated, 1 - ANIMATED_SHARE)):
        chosen = kind & ~library.held_out
        weights[chosen] = share / chosen.sum().clamp_min(1)
    poses = torch.bincount(library.models, minlength=len(library.names))
    of_objects = (weights / poses)[library.models]
    return torch.multinomial(of_objects, count, replacement=True, generator=generator)


def draw_objects(library: MeshLibrary, count: int, generator: torch.Generator) -> tuple[Soups, Tensor]:
    """Objects of both sources as one collection, and the index of each of the `count` scenes' object in it."""
    procedural = round(count * PROCEDURAL_SHARE)
    fresh = procedural_objects(procedural, generator)
    meshes = draw_mesh_objects(library, count - procedural, generator)
    order = torch.randperm(count, generator=generator, device=generator.device)
    both = join([fresh, library.soups])
    objects = torch.cat((torch.arange(procedural, device=order.device), meshes + procedural))
    return both, objects[order]


def render_views(
    soups: Soups, objects: Int64[Tensor, "scenes"], generator: torch.Generator, views: int = VIEWS
) -> ViewSet:
    """Random scenes of the objects from random cameras, on the CPU."""
    scenes = draw_scenes(objects, generator)
    cameras = draw_cameras(len(objects), views, generator)
    images = [on_white(rgba).cpu() for rgba in render(soups, scenes, cameras, IMAGE_SIZE)]
    stacked = torch.stack((cameras.elevation, cameras.azimuth, cameras.distance))
    return ViewSet(torch.cat(images), stacked.cpu())


def on_white(rgba: Float[Tensor, "*batch 4 size size"]) -> UInt8[Tensor, "*batch 4 size size"]:
    """Premultiplied RGBA in [0, 1] as bytes: RGB composited on white, then alpha."""
    rgb, alpha = rgba.split((3, 1), dim=-3)
    return (torch.cat((rgb + 1 - alpha, alpha), dim=-3) * 255).round().clamp(0, 255).to(torch.uint8)


def held_out_objects(library: MeshLibrary, generator: torch.Generator) -> tuple[Soups, Int64[Tensor, "scenes"]]:
    """One pose of every held-out model, and as many procedural objects."""
    models = library.held_out.nonzero()[:, 0]
    first = torch.stack([(library.models == model).nonzero()[0, 0] for model in models])
    poses = torch.bincount(library.models, minlength=len(library.names))[models]
    draws = torch.rand(len(models), generator=generator, device=generator.device)
    meshes = first + (draws * poses).long()
    fresh = procedural_objects(len(models), generator)
    objects = torch.cat((torch.arange(len(models), device=meshes.device), meshes + len(models)))
    return join([fresh, library.soups]), objects


def main(
    out: Annotated[Path, tyro.conf.Positional],
    /,
    meshes: Path,
    scenes: int = 60_000,
    seed: int = 0,
    held_out: bool = False,
    device: str = "cuda",
) -> None:
    """Render views of random scenes.

    Args:
        out: Folder for the files.
        meshes: Library written by `python -m training.meshes`.
        scenes: How many scenes.
        seed: Seed of everything drawn.
        held_out: Render the held-out objects instead.
        device: Where to render.
    """
    out.mkdir(parents=True, exist_ok=True)
    library = load_meshes(meshes, device)
    if held_out:
        generator = torch.Generator(device).manual_seed(HELD_OUT_SEED)
        save_views(render_views(*held_out_objects(library, generator), generator), out / "held-out.safetensors")
        return
    for shard in range(-(-scenes // SHARD)):
        path = out / f"train-{seed}-{shard:03d}.safetensors"
        if not path.exists():
            generator = torch.Generator(device).manual_seed((seed << 20) + shard)
            objects = draw_objects(library, min(SHARD, scenes - shard * SHARD), generator)
            save_views(render_views(*objects, generator), path)
            print(path, flush=True)


if __name__ == "__main__":
    tyro.cli(main)
