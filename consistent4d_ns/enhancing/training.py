"""Trains the generator of the video enhancer on pairs of rendered and better frames (method.md section 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.swa_utils import update_bn

from consistent4d_ns.enhancing.networks import Discriminator, Generator, initialise
from consistent4d_ns.enhancing.options import TrainingOptions
from consistent4d_ns.errors import InputError

GROUP = 16
"""Most consecutive frames that are enhanced together."""
ENLARGED = 286 / 256
"""Side from which crops are cut, in sides of a crop."""
LEARNING_RATE = 0.002
"""Learning rate of both networks at the beginning."""
BETAS = (0.5, 0.999)
"""Decay rates of Adam's averages."""
L1_WEIGHT = 100.0
"""Weight of the mean absolute difference beside the adversarial loss."""

Clips = UInt8[Tensor, "clips frames 3 size size"]
Frames = Float[Tensor, "frames 3 size size"]
Progress = Callable[[Iterable[int], int], Iterable[int]]
"""Passes on so many steps while showing how many are done."""


def train_generator(
    rendered: Clips,
    truth: Clips,
    options: TrainingOptions,
    device: torch.device | str,
    progress: Progress = lambda steps, _: steps,
    channels: int = 64,
) -> Generator:
    """A generator that makes rendered frames look like the truth, in evaluation mode.

    Training depends on the arguments alone: the seed decides on initial weights, order, crops and flips.

    Args:
        rendered: Clips of consecutive rendered frames on white.
        truth: What they should look like.
        options: Epochs and seed.
        device: Where to compute.
        progress: Shows how many steps are done.
        channels: Channels of the generator's first level.

    Raises:
        InputError: Training diverges, or the truth is not of the rendered frames' shape.
    """
    if rendered.shape != truth.shape:
        raise InputError(f"rendered clips are {tuple(rendered.shape)} and their truth is {tuple(truth.shape)}.")
    generator, discriminator = new_networks(channels, options.seed, device)
    optimizers = [Adam(network.parameters(), LEARNING_RATE, BETAS) for network in (generator, discriminator)]
    pairs = [
        (enlarged(rendered[clip, first:end]), enlarged(truth[clip, first:end]))
        for clip in range(len(rendered))
        for first, end in groups(rendered.shape[1])
    ]
    draws = torch.Generator().manual_seed(options.seed)
    order: list[int] = []
    for step in progress(range(options.epochs * len(pairs)), options.epochs * len(pairs)):
        if not order:
            set_learning_rate(optimizers, learning_rate(step // len(pairs), options.epochs))
            order = torch.randperm(len(pairs), generator=draws).tolist()
        crops = shared_crop(pairs[order.pop()], rendered.shape[-1], draws)
        losses = train_step(generator, discriminator, optimizers, *(as_frames(crop.to(device)) for crop in crops))
        if not order and not losses.isfinite().all():
            raise InputError(f"training diverged in epoch {step // len(pairs) + 1}: give another --seed.")
    frames = (rendered[clip, first:end] for clip in range(len(rendered)) for first, end in groups(rendered.shape[1]))
    measure_norms(generator, (as_frames(group.to(device)) for group in frames))
    return generator.eval()


def measure_norms(generator: Generator, groups: Iterable[Frames]) -> None:
    """Set the running means and variances of the norms to those over all groups of whole frames.

    Those that training leaves are of enlarged crops, and most of them of earlier weights (quirk 38 had no such means).
    """
    update_bn(groups, generator)


def new_networks(channels: int, seed: int, device: torch.device | str) -> tuple[Generator, Discriminator]:
    """Networks with initial weights from a seed, on a device; the global random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator, discriminator = Generator(channels), Discriminator(channels)
        initialise(generator)
        initialise(discriminator)
    return generator.to(device), discriminator.to(device)


def train_step(
    generator: Generator, discriminator: Discriminator, optimizers: Sequence[Optimizer], rendered: Frames, truth: Frames
) -> Float[Tensor, " 3"]:
    """One step of the discriminator, then one of the generator, on frames in [-1, 1].

    Returns:
        Losses: the discriminator's, the generator's adversarial one, and its weighted absolute difference.
    """
    of_generator, of_discriminator = optimizers
    enhanced = generator(rendered)
    fake, real = discriminator(rendered, enhanced.detach()), discriminator(rendered, truth)
    loss = discriminator_loss(real, fake)
    of_discriminator.zero_grad()
    loss.backward()
    of_discriminator.step()

    discriminator.requires_grad_(False)
    adversarial, difference = generator_losses(discriminator(rendered, enhanced), enhanced, truth)
    of_generator.zero_grad()
    (adversarial + difference).backward()
    of_generator.step()
    discriminator.requires_grad_(True)
    return torch.stack((loss, adversarial, difference)).detach()


def discriminator_loss(real: Float[Tensor, "*patches"], fake: Float[Tensor, "*patches"]) -> Float[Tensor, ""]:
    """Mean of the cross entropies of true and of enhanced patches' logits."""
    cross_entropy = F.binary_cross_entropy_with_logits
    return 0.5 * (cross_entropy(real, torch.ones_like(real)) + cross_entropy(fake, torch.zeros_like(fake)))


def generator_losses(
    fake: Float[Tensor, "*patches"], enhanced: Frames, truth: Frames
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The adversarial loss of enhanced patches' logits, and the weighted mean absolute difference from the truth."""
    adversarial = F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))
    return adversarial, L1_WEIGHT * (enhanced - truth).abs().mean()


def learning_rate(epoch: int, epochs: int) -> float:
    """Learning rate of an epoch, counted from 0: constant in the first half, then falling to 0 in the last epoch."""
    falling = epochs // 2
    return LEARNING_RATE * (1.0 - max(0, epoch + 2 - (epochs - falling)) / (falling + 1))


def set_learning_rate(optimizers: Iterable[Optimizer], rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = rate


def groups(count: int) -> Iterator[tuple[int, int]]:
    """First and end of groups of at most `GROUP` consecutive frames, of lengths that differ by at most one."""
    number = -(-count // GROUP)
    return ((count * i // number, count * (i + 1) // number) for i in range(number))


def enlarged(frames: UInt8[Tensor, "frames 3 size size"]) -> UInt8[Tensor, "frames 3 larger larger"]:
    """Frames at the side that crops are cut from."""
    side = round(frames.shape[-1] * ENLARGED)
    larger = F.interpolate(frames.float(), (side, side), mode="bicubic", align_corners=False)
    return larger.round().clamp(0, 255).byte()


def shared_crop(
    pair: Sequence[UInt8[Tensor, "frames 3 larger larger"]], size: int, draws: torch.Generator
) -> list[UInt8[Tensor, "frames 3 size size"]]:
    """One random crop of all frames of a pair, mirrored in half of the cases (quirk 36 drew them frame by frame)."""
    margin = pair[0].shape[-1] - size
    top, left, flip = torch.rand(3, generator=draws).mul(torch.tensor([margin + 1, margin + 1, 2])).int().tolist()
    crops = [frames[..., top : top + size, left : left + size] for frames in pair]
    return [crop.flip(-1) for crop in crops] if flip else crops


def as_frames(images: UInt8[Tensor, "frames 3 h w"]) -> Float[Tensor, "frames 3 h w"]:
    """8-bit values to [-1, 1]."""
    return images.float() / 127.5 - 1.0
