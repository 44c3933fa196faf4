"""Quality of one image to a static object: consistent4d-image-mini on objects with ground truth, against the 4D preset.

    python -m benchmarks.image_to_3d image_to_3d.json --meshes library.xz --objects 20 --perceptual stlpips*.whl

`python -m training.meshes` packs the library. Its models that the bundled prior was never trained on are rendered in
their first pose, each from an input camera and from the cameras of `VIEWS`; which models and how they are lit is random
but always the same. Every variant is trained on the one input image, and compared with the truth in all other views, at
the side of the frames, without alignment. The 4D preset gets the image `REPEATS` times, as frames of a video in which
nothing moves, and is judged at all of these times. Results are written after each run; tables are printed at the end.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Float
from nerfstudio.plugins.types import MethodSpecification
from PIL import Image
from torch import Tensor

from benchmarks.elevation import clips_of
from benchmarks.four_d import input_psnr, measure_images, tables, trained, written
from benchmarks.perceptual import PerceptualDistance, load_perceptual
from consistent4d_ns.data.cameras import DEFAULT_CAMERA
from consistent4d_ns.errors import InputError, show_input_errors_in_one_line
from consistent4d_ns.media.pictures import contact_sheet, to_bytes
from consistent4d_ns.method_configs import consistent4d_image_mini, consistent4d_mini, preset
from consistent4d_ns.sweeping.assignments import assign
from consistent4d_ns.toy.sequence import straight_bytes
from consistent4d_ns.trainer_config import Consistent4DTrainerConfig
from training.meshes import MeshLibrary, load_meshes

SIZE = 128
"""Side of the images in pixels, that of the mini presets."""
INPUT = (10.0, 0.0)
"""Elevation of the input camera, and its azimuth from itself, in degrees."""
VIEWS = (
    (25.0, 45.0),
    (0.0, 90.0),
    (25.0, 135.0),
    (0.0, 180.0),
    (25.0, 225.0),
    (0.0, 270.0),
    (25.0, 315.0),
    (50.0, 0.0),
)
"""The same of the cameras that are compared with the truth."""
REPEATS = 8
"""Frames of the video that repeats the image."""


@dataclass(frozen=True)
class Variant:
    """What is trained."""

    method: MethodSpecification
    """The preset."""
    interpolates: bool = False
    """Whether the consistency loss of clips in space is added."""
    repeats: bool = False
    """Whether it is trained on the video that repeats the image."""


VARIANTS = {
    "image": Variant(consistent4d_image_mini),
    "image+icl": Variant(consistent4d_image_mini, interpolates=True),
    "4d": Variant(consistent4d_mini, repeats=True),
}
"""All variants by name."""


@dataclass
class Options:
    """Options of the benchmark."""

    out: Annotated[Path, tyro.conf.Positional]
    """New JSON file for the results; beside it, a contact sheet of each object."""
    meshes: Path
    """Library of meshes."""
    objects: int = 20
    """How many of its held-out models."""
    skip: int = 0
    """How many of them to leave out, to go on where another run ended."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Names out of image (consistent4d-image-mini), image+icl (with the consistency loss, which needs RIFE's weights),
    and 4d (consistent4d-mini on a repeated frame)."""
    overrides: Annotated[tuple[tuple[str, ...], ...], tyro.conf.arg(name="set"), tyro.conf.UseAppendAction] = ()
    """Changes for all variants: PATH=VALUE, with VALUE as after ns-train's option of that name."""
    device: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
    """Device type."""
    perceptual: Path | None = None
    """Weights of the perceptual distance (see `benchmarks.four_d`), which is omitted without them."""

    def check(self) -> None:
        """Raises: InputError: there is no such variant, or the results file exists."""
        for variant in self.variants:
            if variant not in VARIANTS:
                raise InputError(f"--variants {variant}: there is no such variant; choose from {', '.join(VARIANTS)}.")
        if self.out.exists():
            raise InputError(f"{self.out} exists; name a new file.")


def held_out_models(library: MeshLibrary) -> list[int]:
    """The models that no training has seen, in an order that is random but always the same."""
    held_out = library.held_out.nonzero()[:, 0]
    return held_out[torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0))].tolist()


def views_of(library: MeshLibrary, model: int) -> Float[Tensor, "views 4 size size"]:
    """A model from the input camera, which looks from a random side, and from `VIEWS`; premultiplied RGBA."""
    generator = torch.Generator().manual_seed(model)
    side = 360.0 * float(torch.rand((), generator=generator))
    elevations, azimuths = zip(INPUT, *VIEWS, strict=True)
    turned = [side + azimuth for azimuth in azimuths]
    return clips_of(library, model, turned, elevations, generator, SIZE, frames=1)[:, 0]


def write_sequence(folder: Path, views: Float[Tensor, "views 4 size size"], frames: int) -> Path:
    """A sequence with ground truth (docs/data.md) that shows the same at all its frames."""
    cameras = {}
    for index, (rgba, (elevation, azimuth)) in enumerate(zip(views, (INPUT, *VIEWS), strict=True)):
        name = f"eval_{index - 1}" if index else "input"
        camera = {"elevation_deg": elevation, "azimuth_deg": azimuth}
        cameras[name] = camera | {"distance": DEFAULT_CAMERA["distance"], "fov_y_deg": DEFAULT_CAMERA["fovy"]}
        (folder / name).mkdir(parents=True)
        image = Image.fromarray(straight_bytes(rgba).contiguous().numpy())
        for frame in range(frames):
            image.save(folder / name / f"{frame}.png")
    (folder / "meta.json").write_text(json.dumps({"cameras": cameras}))
    return folder


def configure(variant: Variant, data: Path, out: Path, options: Options) -> Consistent4DTrainerConfig:
    """A variant's configuration for one object.

    Raises:
        InputError: an override names an unknown option or has an invalid value.
    """
    config = preset(variant.method)
    config.data = config.pipeline.datamanager.data = data
    config.output_dir, config.vis = out, "tensorboard"
    config.steps_per_eval_image = config.steps_per_save = 0
    config.logging.local_writer.enable = False
    config.machine.device_type = options.device
    config.pipeline.model.render_normals = False
    if variant.interpolates:
        config.pipeline.interpolation.kind = "rife"
    for assignment in (assignment for group in options.overrides for assignment in group):
        assign(config, assignment)
    config.set_timestamp()
    return config


def run(config: Consistent4DTrainerConfig, perceptual: PerceptualDistance | None) -> tuple[dict[str, float], list[Any]]:
    """Train and judge: scores, and pictures of all views at the first frame, the truth and what was made."""
    pipeline, _, truth, rendered, times = trained(config)
    images = {name: float(value.mean()) for name, value in measure_images(rendered, truth, perceptual).items()}
    scores = images | {"input_psnr": input_psnr(pipeline)} | times
    return scores, [[to_bytes(image) for image in clips.rgb[:, 0].movedim(1, -1)] for clips in (truth, rendered)]


def all_runs(options: Options, library: MeshLibrary, work: Path) -> Iterator[dict[str, Any]]:
    """Train every variant on every object; writes the contact sheets."""
    perceptual = None if options.perceptual is None else load_perceptual(options.perceptual).to(options.device)
    for model in held_out_models(library)[options.skip :][: options.objects]:
        views, name, rows = views_of(library, model), library.names[model], []
        for label in options.variants:
            variant = VARIANTS[label]
            frames = REPEATS if variant.repeats else 1
            data = work / f"{model}_{frames}"
            data = data if data.exists() else write_sequence(data, views, frames)
            scores, (truth, made) = run(configure(variant, data, work / "runs", options), perceptual)
            rows = rows or [[written("truth", SIZE), to_bytes(on_white(views[0])), *truth]]
            rows.append([written(label, SIZE), np.full_like(truth[0], 255), *made])
            sheet = options.out.with_name(f"{options.out.stem}_{name.replace('/', '_')}.png")
            Image.fromarray(contact_sheet(rows)).save(sheet)
            yield {"sequence": name, "label": label, "scores": scores}


def on_white(rgba: Float[Tensor, "4 size size"]) -> Float[Tensor, "size size 3"]:
    """An image with premultiplied alpha on white, channels last."""
    return (rgba[:3] + 1.0 - rgba[3:]).movedim(0, -1)


def main(options: Options) -> None:
    """Run everything, and write and print the results."""
    options.check()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        for result in all_runs(options, load_meshes(options.meshes, "cpu"), Path(work)):
            results.append(result)
            scores = result["scores"]
            figures = f"{scores['psnr']:.2f} dB, IoU {scores['iou']:.3f}, {scores['train_seconds']:.0f} s"
            print(f"{result['sequence']}, {result['label']}: {figures}", flush=True)
            options.out.write_text(json.dumps(results, indent=1))
    print("\n" + tables(results))
    for label in options.variants:
        psnr = mean(result["scores"]["psnr"] for result in results if result["label"] == label)
        print(f"{label}: {psnr:.2f} dB over {options.objects} objects")


if __name__ == "__main__":
    show_input_errors_in_one_line()
    main(tyro.cli(Options, description=__doc__))
