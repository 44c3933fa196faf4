"""Stage 2: train the autoencoder.

    torchrun --nproc-per-node 2 -m training.autoencoder VIEWS OUT --steps 3000

reads VIEWS/train-*.safetensors, resumes from the checkpoint OUT/autoencoder.pt if it exists, updates it periodically,
and finally writes OUT/vae in diffusers' layout. OUT/autoencoder.jsonl is the training curve. A third of the images are
blurred, faded or blended, because the encoder receives such images while a 4D object is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float
from torch import Tensor, nn

from consistent4d_ns.errors import show_input_errors_in_one_line
from training import parallel
from training.networks import LATENT, new_autoencoder
from training.optimise import (
    SAVE_EVERY,
    Journal,
    Optimiser,
    learning_rate,
    on_device,
    prepare_for_speed,
    training_dtype,
)
from training.viewset import ViewSet, load_views, training_files

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

PEAK_RATE = 1e-3
WARM_UP = 200
COOL_DOWN = 0.5
"""Final fraction of the training over which the learning rate decays."""
REPORT_EVERY = 100
"""Steps between two lines of the training curve."""
FOREGROUND = 4.0
"""Additional weight of an opaque pixel's error; a transparent pixel has weight 1. Most of an image is background."""
EDGES = 0.5
"""Weight of the error of image gradients (differences between neighbouring pixels)."""
DIVERGENCE = 3e-4
"""Weight of the KL divergence of the posterior from the standard normal distribution."""


def draw_images(
    views: ViewSet, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "count 3 size size"], Float[Tensor, "count 1 size size"]]:
    """Images in [0, 1], some of them degraded, and their alpha."""
    device = generator.device
    scene, view = (torch.randint(n, (count,), generator=generator, device=device) for n in views.images.shape[:2])
    rgba = views.images[scene, view].float() / 255
    return degrade(rgba[:, :3], generator), rgba[:, 3:]


def degrade(
    images: Float[Tensor, "count 3 size size"], generator: torch.Generator
) -> Float[Tensor, "count 3 size size"]:
    """Degrade a third of the images: a ninth is blurred to half the resolution, a ninth to a quarter, and a ninth is
    faded towards white or blended with another image."""
    size, chosen = images.shape[-1], len(images) // 9
    halved, quartered = _blur(images[:chosen], size // 2), _blur(images[chosen : 2 * chosen], size // 4)
    kept = torch.rand(chosen, 1, 1, 1, generator=generator, device=images.device)
    other = torch.where(kept < 0.5, images[:chosen], torch.ones_like(images[:chosen]))
    faded = kept * images[2 * chosen : 3 * chosen] + (1 - kept) * other
    return torch.cat((halved, quartered, faded, images[3 * chosen :]))


def _blur(images: Float[Tensor, "count 3 size size"], size: int) -> Float[Tensor, "count 3 size size"]:
    """The images averaged down to `size` pixels and enlarged again."""
    small = F.interpolate(images, (size, size), mode="area")
    return F.interpolate(small, images.shape[-2:], mode="bilinear", align_corners=False)


class Reconstruction(nn.Module):
    """The autoencoder with its training loss."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(
        self,
        images: Float[Tensor, "batch 3 size size"],
        alpha: Float[Tensor, "batch 1 size size"],
        noise: Float[Tensor, "batch c h w"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
        """Loss, mean squared error of the reconstruction (for values in [0, 1]) and KL divergence of the posterior.

        Args:
            images: Values in [0, 1].
            alpha: Opacity in [0, 1]; opaque pixels have more weight.
            noise: Standard normal, of the latents' shape, to sample the posterior.
        """
        vae: Any = self.vae
        target = 2 * images - 1
        mean, logvar = vae.quant_conv(vae.encoder(target)).float().chunk(2, dim=1)
        logvar = logvar.clamp(-20.0, 5.0)
        latents = mean + torch.exp(0.5 * logvar) * noise
        decoded = vae.decoder(vae.post_quant_conv(latents.to(images.dtype))).float()
        difference = (1 + FOREGROUND * alpha) * (decoded - target)
        edges = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        loss = difference.abs().mean() + EDGES * edges + DIVERGENCE * divergence
        return loss, (0.5 * (decoded - target)).square().mean(), divergence


@torch.no_grad()
def latent_scale(vae: AutoencoderKL, images: Float[Tensor, "count 3 size size"]) -> float:
    """Factor that brings the root mean square of the images' latents to 1."""
    encoder: Any = vae
    latents = encoder.encode(2 * images - 1).latent_dist.parameters.chunk(2, dim=1)[0]
    return float(1 / latents.float().square().mean().sqrt())


def main(
    views: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    /,
    steps: int = 3000,
    batch: int = 512,
    shards: int = 8,
    compile: bool = True,
) -> None:
    """Train the autoencoder.

    Args:
        views: Folder of rendered views.
        out: Output folder.
        steps: Training steps.
        batch: Images per step and process.
        shards: Maximum number of files of views that each process uses.
        compile: Compile the network; not worthwhile for short runs.
    """
    device, rank = parallel.start()
    prepare_for_speed()
    network = on_device(Reconstruction(new_autoencoder(seed=0)), device)
    optimiser = Optimiser(network, weight_decay=0.01, decay=0.995)
    if (state := out / "autoencoder.pt").exists():
        optimiser.load(state)
    data = load_views(training_files(views, rank, parallel.processes())[:shards], device)
    out.mkdir(parents=True, exist_ok=True)
    generator = parallel.generator(device, rank, optimiser.steps)
    journal = Journal(out / "autoencoder.jsonl", rank == 0)
    forward: Any = torch.compile(network, dynamic=False) if compile else network
    while optimiser.steps < steps:
        rate = learning_rate(optimiser.steps, PEAK_RATE, WARM_UP, 1 - optimiser.steps / steps, COOL_DOWN)
        figures = train_step(forward, optimiser, draw_images(data, batch, generator), generator, rate)
        if optimiser.steps % REPORT_EVERY == 0 or optimiser.steps == steps:
            journal.write({"step": optimiser.steps} | figures)
        if rank == 0 and optimiser.steps % SAVE_EVERY == 0:
            optimiser.save(state)
    if rank == 0:
        optimiser.save(state)
        save_autoencoder(optimiser, out / "vae", draw_images(data, batch, generator)[0])
    parallel.finish()


def train_step(
    reconstruction: Callable[..., tuple[Tensor, Tensor, Tensor]],
    optimiser: Optimiser,
    images: tuple[Float[Tensor, "count 3 size size"], Float[Tensor, "count 1 size size"]],
    generator: torch.Generator,
    rate: float,
) -> dict[str, Tensor]:
    """Perform one training step on images and their alpha; returns what the training curve records of it."""
    rgb, alpha = images
    noise = torch.randn(len(rgb), *LATENT, generator=generator, device=rgb.device)
    loss, error, divergence = reconstruction(rgb.to(training_dtype(rgb.device)), alpha, noise)
    loss.backward()
    norm = optimiser.step(rate)
    return {"loss": loss, "psnr": -10 * torch.log10(error), "divergence": divergence, "norm": norm}


def save_autoencoder(optimiser: Optimiser, folder: Path, images: Float[Tensor, "count 3 size size"]) -> None:
    """Write the network with averaged weights in float32; its latents' scaling factor is measured on `images`."""
    network: Any = optimiser.network.float()
    optimiser.use_averages()
    finished = new_autoencoder(seed=0, scaling_factor=round(latent_scale(network.vae, images), 5))
    finished.load_state_dict(network.vae.state_dict())
    finished.save_pretrained(folder)


if __name__ == "__main__":
    show_input_errors_in_one_line()
    tyro.cli(main)
