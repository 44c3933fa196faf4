"""How much the video enhancer helps on truth: novel views of a finished run before and after it.

    python -m benchmarks.enhancer RUN --out enhancer.json --perceptual stlpips*.whl
    python -m benchmarks.enhancer RUN --out enhancer.json --kinds truth model --prompt "a fox"

The run's data must have evaluation views (eval_*/ and meta.json). They are rendered at all times at the size of the
run's frames, and an enhancer is trained on them for each kind of pseudo-truth (on a CPU: --views 2 --size 64):

- truth: the true images of the same views, as if the diffusion model knew them: the upper limit.
- other-views: the true images of every second view; measured on the others, and the other way round.
- bicubic: the renderings, shrunk to a quarter and enlarged again, as if the diffusion model added nothing: the lower
  limit.
- model: what a diffusion model makes of the renderings.

What bicubic and model make is measured itself, too.

Every measure is a mean over all views and times. Beside the results file, a contact sheet shows the middle frame of
every view.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
import tyro
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from benchmarks.four_d import Clips, measure, overall, render_clips, true_clips, written
from benchmarks.perceptual import PerceptualDistance, load_perceptual
from consistent4d_ns.cli.progress import announce, progress
from consistent4d_ns.enhancing.enhancer import Enhancer, enhanced_clip
from consistent4d_ns.enhancing.options import STRIDE, PseudoTruthOptions, TrainingOptions
from consistent4d_ns.enhancing.training import train_generator
from consistent4d_ns.errors import InputError, show_input_errors_in_one_line
from consistent4d_ns.media.pictures import contact_sheet, to_bytes
from consistent4d_ns.runs import load_run

Kind = Literal["truth", "other-views", "bicubic", "model"]
SHRUNK = 4
"""Factor of a super-resolution model, by which frames are shrunk for the lower limit."""
COLUMNS = {
    "psnr": ("PSNR (dB)", 2),
    "foreground_psnr": ("PSNR of the foreground (dB)", 2),
    "ssim": ("SSIM", 4),
    "st_lpips": ("ST-LPIPS", 4),
    "flicker": ("flicker", 2),
}
"""Title and decimals of each measure in the table."""

Images = UInt8[Tensor, "views frames 3 size size"]


@dataclass
class Options:
    """Options of the benchmark."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's config.yml, or its folder."""
    out: Path
    """New JSON file for the results."""
    data: Path | None = None
    """Where the run's frames are now, if they were moved."""
    views: int | None = None
    """Only the first so many evaluation views; default: all."""
    size: int | None = None
    """Side to which renderings and truth are shrunk first, in pixels; default: the frames' own."""
    epochs: int = 200
    """Passes of each training over all frames."""
    seed: int = 0
    """Seed of everything random."""
    device: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to compute."""
    perceptual: Path | None = None
    """Weights of the perceptual distance, which is omitted without them: the wheel downloaded by
    `pip download --no-deps stlpips-pytorch==0.0.2`, or the alex_shift_tolerant.pth in it."""
    kinds: tuple[Kind, ...] = ("truth", "other-views", "bicubic")
    """Which pseudo-truth enhancers learn from, of truth, other-views, bicubic and model."""
    diffusion: Annotated[PseudoTruthOptions, tyro.conf.arg(name="", prefix_name=False)] = field(
        default_factory=PseudoTruthOptions
    )
    """The diffusion model of the kind model, and how it is used."""


def bicubic(images: Images) -> Images:
    """Images that are shrunk and enlarged again."""
    flat = images.flatten(0, 1).float()
    size = flat.shape[-1]
    small = F.interpolate(flat, size=(size // SHRUNK,) * 2, mode="bicubic", antialias=True)
    large = F.interpolate(small, size=(size, size), mode="bicubic")
    return large.round().clamp(0, 255).byte().view_as(images)


class Bench:
    """The views of a run, their truth, and the results so far."""

    def __init__(self, options: Options) -> None:
        self.training = TrainingOptions(epochs=options.epochs, seed=options.seed)
        self.device = options.device
        perceptual = None if options.perceptual is None else load_perceptual(options.perceptual)
        self.perceptual: PerceptualDistance | None = perceptual
        announce(f"Loading {options.run}")
        pipeline = load_run(options.run, data=options.data, device=options.device).pipeline
        pipeline.model.config.render_normals = False
        views, truth = true_clips(pipeline)
        announce("Rendering the evaluation views")
        rendered = render_clips(pipeline, [view.camera for view in views])
        size = options.size or rendered.rgb.shape[-1]
        if size % STRIDE or not 2 * STRIDE <= size <= rendered.rgb.shape[-1]:
            raise InputError(f"--size {size}: give a multiple of {STRIDE}, at least 32 and at most the frames' side.")
        rendered, self.truth = (on_cpu(clips, options.views, size) for clips in (rendered, truth))
        self.alpha = rendered.alpha
        self.rendered, self.true_images = as_bytes(rendered.rgb), as_bytes(self.truth.rgb)
        self.scores: dict[str, dict[str, float]] = {}
        self.shown = {"truth": self.true_images}

    def add(self, name: str, images: Images, **more: float) -> None:
        """Measure images, print their row, and keep them for the contact sheet."""
        clips = Clips(images.float() / 255.0, self.alpha)
        self.scores[name] = overall(measure(clips, self.truth, self.perceptual)) | more
        self.shown[name] = images
        print(row([name, *cells(self.scores[name])]), flush=True)

    def enhance(self, name: str, truth: Images, trained: Sequence[int], applied: Sequence[int]) -> Images:
        """Train on some views and their pseudo-truth, and enhance others (all by their indices)."""

        def shown(steps: Iterable[int], total: int) -> Iterable[int]:
            return progress(steps, f"Training on {name}", total)

        rendered = self.rendered[list(trained)]
        generator = train_generator(rendered, truth[list(trained)], self.training, self.device, shown)
        enhancer = Enhancer(generator, rendered.shape[-1])
        clips = [torch.stack(list(enhanced_clip(self.rendered[view], enhancer))) for view in applied]
        return as_bytes(torch.stack(clips))

    def add_enhanced(self, name: str, truth: Images) -> None:
        """Train on all views and enhance these."""
        begin, every = time.perf_counter(), range(len(self.rendered))
        images = self.enhance(name, truth, every, every)
        self.add(f"enhanced by {name}", images, seconds=time.perf_counter() - begin)

    def add_enhanced_by_others(self, truth: Images) -> None:
        """Train on every second view and enhance the others, twice."""
        if len(self.rendered) < 2:
            raise InputError("--kinds other-views needs at least two evaluation views.")
        begin, every = time.perf_counter(), range(len(self.rendered))
        images = torch.empty_like(self.rendered)
        for trained, applied in ((every[::2], every[1::2]), (every[1::2], every[::2])):
            images[list(applied)] = self.enhance("truth of other views", truth, trained, applied)
        self.add("enhanced by truth of other views", images, seconds=time.perf_counter() - begin)

    def sheet(self) -> Image.Image:
        """A row for each set of images: the middle frame of every view."""
        middle, size = self.rendered.shape[1] // 2, self.rendered.shape[-1]
        rows = [
            [written(name, size), *(image.movedim(0, -1).numpy() for image in images[:, middle])]
            for name, images in self.shown.items()
        ]
        return Image.fromarray(contact_sheet(rows))


def on_cpu(clips: Clips, views: int | None, size: int) -> Clips:
    """The first views on the CPU, as 8-bit images of a size show them."""

    def shrunk(images: Tensor) -> Tensor:
        return F.interpolate(images.flatten(0, 1), (size, size), mode="area").unflatten(0, images.shape[:2]).cpu()

    alpha = shrunk(clips.alpha[:views, :, None])[:, :, 0]
    return Clips(as_bytes(shrunk(clips.rgb[:views])).float() / 255.0, alpha)


def as_bytes(images: Tensor) -> Images:
    """Values in [0, 1] as 8-bit values, on the CPU."""
    return torch.from_numpy(to_bytes(images))


def cells(scores: dict[str, float]) -> list[str]:
    """The measures of one row."""
    return [f"{scores[name]:.{decimals}f}" if name in scores else "-" for name, (_, decimals) in COLUMNS.items()]


def row(texts: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(texts)} |"


def pseudo_truth_of(bench: Bench, options: Options) -> Images:
    """What the diffusion model makes of the renderings."""
    from consistent4d_ns.enhancing.pseudo_truth import pseudo_truth

    def shown(batches: Iterable[int], total: int) -> Iterable[int]:
        return progress(batches, "Pseudo-truth", total)

    return pseudo_truth(bench.rendered, options.diffusion, options.seed, options.device, shown)


def main(options: Options) -> None:
    """Measure, print the table, write results and contact sheet."""
    if options.out.exists():
        raise InputError(f"--out {options.out} exists; name a new file.")
    bench = Bench(options)
    print(row(["images", *(title for title, _ in COLUMNS.values())]))
    print(row(["---"] * (1 + len(COLUMNS))))
    bench.add("rendered", bench.rendered)
    for kind in options.kinds:
        if kind == "truth":
            bench.add_enhanced(kind, bench.true_images)
        elif kind == "other-views":
            bench.add_enhanced_by_others(bench.true_images)
        else:
            made = bicubic(bench.rendered) if kind == "bicubic" else pseudo_truth_of(bench, options)
            bench.add(kind, made)
            bench.add_enhanced(kind, made)
    results: dict[str, Any] = {"run": str(options.run), "epochs": options.epochs, "scores": bench.scores}
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    bench.sheet().save(options.out.with_suffix(".png"))


if __name__ == "__main__":
    show_input_errors_in_one_line()
    main(tyro.cli(Options, description=__doc__))
