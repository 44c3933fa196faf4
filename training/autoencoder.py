"""Stage 2: train the autoencoder.

    torchrun --nproc-per-node 2 -m training.autoencoder VIEWS OUT --steps 3000

reads VIEWS/train-*.safetensors, writes OUT/autoencoder.pt (to go on) and, at the end, OUT/vae in diffusers' layout.
A third of the images are blurred, faded or mixed: training a 4D object shows the encoder such images too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float
from torch import Tensor, nn

from training import parallel
from training.networks import new_autoencoder
from training.optimise import Journal, Optimiser, learning_rate, on_device, prepare_for_speed, training_dtype
from training.viewset import ViewSet, load_views

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

PEAK_RATE = 1e-3
WARM_UP = 200
FOREGROUND = 4.0
"""How much more an opaque pixel's error counts than a transparent one's; most of an image is white."""
EDGES = 0.5
"""Weight of the error of the differences between neighbouring pixels."""
DIVERGENCE = 3e-4
"""Weight of the divergence of the posterior from the standard normal distribution."""


def draw_images(
    views: ViewSet, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "count 3 size size"], Float[Tensor, "count 1 size size"]]:
    """Images in [0, 1], some of them degraded, and their alpha."""
    device = generator.device
    scene, view = (torch.randint(n, (count,), generator=generator, device=device) for n in views.images.shape[:2])
    rgba = views.images[scene, view].float() / 255
    return degrade(rgba[:, :3], generator), rgba[:, 3:]


def degrade(images: Float[Tensor, "count 3 size size"], generator: torch.Generator) -> Tensor:
    """A ninth each of the images: blurred to half, to a quarter; faded towards white or another image, or mixed."""
    size, chosen = images.shape[-1], len(images) // 9
    halved, quartered = (_blur(images[i * chosen : (i + 1) * chosen], size // (2, 4)[i]) for i in (0, 1))
    kept = torch.rand(chosen, 1, 1, 1, generator=generator, device=images.device)
    other = torch.where(kept < 0.5, images[:chosen], torch.ones_like(images[:chosen]))
    faded = kept * images[2 * chosen : 3 * chosen] + (1 - kept) * other
    return torch.cat((halved, quartered, faded, images[3 * chosen :]))


def _blur(images: Float[Tensor, "count 3 size size"], size: int) -> Float[Tensor, "count 3 size size"]:
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
        """Loss, squared error of the reconstruction (values in [0, 1]) and divergence from the normal distribution."""
        vae: Any = self.vae
        wanted = 2 * images - 1
        mean, logvar = vae.quant_conv(vae.encoder(wanted)).float().chunk(2, dim=1)
        logvar = logvar.clamp(-20.0, 5.0)
        latents = mean + torch.exp(0.5 * logvar) * noise
        made = vae.decoder(vae.post_quant_conv(latents.to(images.dtype))).float()
        difference = (1 + FOREGROUND * alpha) * (made - wanted)
        edges = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        loss = difference.abs().mean() + EDGES * edges + DIVERGENCE * divergence
        return loss, (0.5 * (made - wanted)).square().mean(), divergence


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
        out: Folder for the result.
        steps: Training steps.
        batch: Images per step and process.
        shards: Files of views to use.
        compile: Compile the network; off where the time does not pay.
    """
    device, rank = parallel.start()
    prepare_for_speed()
    out.mkdir(parents=True, exist_ok=True)
    dtype = training_dtype(device)
    network = on_device(Reconstruction(new_autoencoder(seed=0)), device)
    optimiser = Optimiser(network, weight_decay=0.01, decay=0.995)
    state = out / "autoencoder.pt"
    if state.exists():
        optimiser.load(state)
    data = load_views(sorted(views.glob("train-*.safetensors"))[rank :: parallel.processes()][:shards], device)
    generator = torch.Generator(device).manual_seed(1000 * rank + optimiser.steps)
    forward: Any = torch.compile(network, dynamic=False) if compile else network
    journal = Journal(out / "autoencoder.jsonl", rank == 0)
    while optimiser.steps < steps:
        images, alpha = draw_images(data, batch, generator)
        noise = torch.randn(batch, 8, 16, 16, generator=generator, device=device)
        loss, error, divergence = forward(images.to(dtype), alpha, noise)
        loss.backward()
        norm = optimiser.step(learning_rate(optimiser.steps, PEAK_RATE, steps, WARM_UP, steps // 2))
        if optimiser.steps % 100 == 0 or optimiser.steps == steps:
            psnr = -10 * torch.log10(error)
            journal.write({"step": optimiser.steps, "loss": loss, "psnr": psnr, "divergence": divergence, "norm": norm})
    if rank == 0:
        optimiser.save(state)
        save_autoencoder(optimiser, out / "vae", draw_images(data, batch, generator)[0])
    parallel.finish()


def save_autoencoder(optimiser: Optimiser, folder: Path, images: Float[Tensor, "count 3 size size"]) -> None:
    """Write the averaged network in float32, with the factor for its latents measured on `images`."""
    network: Any = optimiser.network.float()
    for parameter, value in zip(optimiser.parameters, optimiser.averages):
        parameter.data = value.clone()
    finished = new_autoencoder(seed=0, scaling_factor=round(latent_scale(network.vae, images), 5))
    finished.load_state_dict(network.vae.state_dict())
    finished.save_pretrained(folder)


if __name__ == "__main__":
    tyro.cli(main)
