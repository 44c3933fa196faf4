"""Stage 1: render training views and held-out views.

    python -m training.views OUT --meshes library.xz --scenes 60000 --seed 0

writes OUT/train-SEED-000.safetensors and so on; `--held-out` writes OUT/held-out.safetensors, of objects that no
training file shows. Runs with other seeds may run in parallel, one per GPU. Existing files are kept, so that
an interrupted run can be resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import tyro
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from consistent4d_ns.errors import InputError, show_input_errors_in_one_line
from training.meshes import MeshLibrary, load_meshes
from training.networks import IMAGE_SIZE
from training.procedural import procedural_objects
from training.scenes import draw_cameras, draw_scenes, render
from training.soup import Soups, join
from training.viewset import HELD_OUT, VIEWS, ViewSet, save_views

SHARD = 2000
"""Scenes in a file."""
PROCEDURAL_SHARE = 0.5
"""Share of procedural objects; the others come from the mesh library."""
ANIMATED_SHARE = 0.4
"""Share of animated models among the mesh library's objects: creatures in many poses, which videos show."""
SEEDS = SEED_STRIDE = 1 << 20
"""How many seeds there are, and how many files of one seed."""
HELD_OUT_SEED = SEEDS * SEED_STRIDE
"""Seed of the held-out procedural objects; those of all training files lie below."""


def draw_mesh_objects(library: MeshLibrary, count: int, generator: torch.Generator) -> Int64[Tensor, " count"]:
    """Objects of the library for training: a kind, then a model, then one of its poses."""
    weights = library.animated.new_zeros(len(library.names), dtype=torch.float32)
    for kind, share in ((library.animated, ANIMATED_SHARE), (~library.animated, 1 - ANIMATED_SHARE)):
        chosen = kind & ~library.held_out
        weights[chosen] = share / chosen.sum().clamp_min(1)
    poses = torch.bincount(library.models, minlength=len(library.names))
    of_objects = (weights / poses)[library.models]
    return torch.multinomial(of_objects, count, replacement=True, generator=generator)


def draw_objects(library: MeshLibrary, count: int, generator: torch.Generator) -> tuple[Soups, Int64[Tensor, " count"]]:
    """Objects of both sources as one collection, and the index of each of the `count` scenes' object in it."""
    procedural = round(count * PROCEDURAL_SHARE)
    fresh = procedural_objects(procedural, generator)
    meshes = draw_mesh_objects(library, count - procedural, generator)
    both, objects = with_meshes(fresh, library, meshes)
    return both, objects[torch.randperm(count, generator=generator, device=generator.device)]


def with_meshes(
    fresh: Soups, library: MeshLibrary, meshes: Int64[Tensor, " chosen"]
) -> tuple[Soups, Int64[Tensor, " objects"]]:
    """Procedural objects and the whole library as one collection, and where the former and the chosen meshes are."""
    procedural = torch.arange(len(fresh), device=meshes.device)
    return join([fresh, library.soups]), torch.cat((procedural, meshes + len(fresh)))


def render_views(soups: Soups, objects: Int64[Tensor, " scenes"], generator: torch.Generator) -> ViewSet:
    """Random scenes of the objects from random cameras, on the CPU."""
    scenes = draw_scenes(objects, generator)
    cameras = draw_cameras(len(objects), VIEWS, generator)
    images = [on_white(rgba).cpu() for rgba in render(soups, scenes, cameras, IMAGE_SIZE)]
    stacked = torch.stack((cameras.elevation, cameras.azimuth, cameras.distance))
    return ViewSet(torch.cat(images), stacked.cpu())


def on_white(rgba: Float[Tensor, "*batch 4 size size"]) -> UInt8[Tensor, "*batch 4 size size"]:
    """Premultiplied RGBA in [0, 1] as bytes: RGB composited on white, then alpha."""
    rgb, alpha = rgba.split((3, 1), dim=-3)
    return (torch.cat((rgb + 1 - alpha, alpha), dim=-3) * 255).round().clamp(0, 255).to(torch.uint8)


def held_out_objects(library: MeshLibrary, generator: torch.Generator) -> tuple[Soups, Int64[Tensor, " scenes"]]:
    """One pose of every held-out model, and as many procedural objects: a collection and the scenes' objects in it."""
    models = library.held_out.nonzero()[:, 0]
    poses = torch.bincount(library.models, minlength=len(library.names))
    first = poses.cumsum(0) - poses
    draws = torch.rand(len(models), generator=generator, device=generator.device)
    meshes = first[models] + (draws * poses[models]).long()
    return with_meshes(procedural_objects(len(models), generator), library, meshes)


def write_views(
    path: Path,
    draw: Callable[[torch.Generator], tuple[Soups, Int64[Tensor, " scenes"]]],
    seed: int,
    device: torch.device | str,
) -> None:
    """Write a file of views of objects drawn by `draw`; an existing file is kept."""
    if not path.exists():
        generator = torch.Generator(device).manual_seed(seed)
        save_views(render_views(*draw(generator), generator), path)
        print(path, flush=True)


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
        scenes: Number of scenes.
        seed: Seed of everything drawn; no two runs that render into OUT may share one.
        held_out: Render the held-out objects instead.
        device: Where to render.
    """
    if not 0 <= seed < SEEDS:
        raise InputError(f"--seed {seed}: choose one from 0 to {SEEDS - 1}.")
    if scenes % SHARD == 1:
        raise InputError(f"--scenes {scenes}: leaves one for the last file, which needs one of each source; add one.")
    library = load_meshes(meshes, device)
    out.mkdir(parents=True, exist_ok=True)
    if held_out:
        return write_views(out / HELD_OUT, partial(held_out_objects, library), HELD_OUT_SEED, device)
    for shard in range(-(-scenes // SHARD)):
        path, count = out / f"train-{seed}-{shard:03d}.safetensors", min(SHARD, scenes - shard * SHARD)
        write_views(path, partial(draw_objects, library, count), seed * SEED_STRIDE + shard, device)


if __name__ == "__main__":
    show_input_errors_in_one_line()
    tyro.cli(main)
