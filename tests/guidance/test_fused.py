"""Fused blocks compute what diffusers' blocks compute: values, gradients, the whole guidance."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import nn

from consistent4d_ns.guidance.fused import FusedNorm, fuse, shorten_cross_attention
from consistent4d_ns.guidance.random_prior import random_networks
from tests.support.agreement import assert_agrees
from tests.support.interpreted import needs_interpreted_loops, needs_triton, run_interpreted


def check_norms(device: str) -> None:
    """Norms with and without offset and activation; pixels, channels and group sizes are no multiples of blocks."""
    generator = torch.Generator().manual_seed(0)
    for channels, groups, side, silu in ((96, 32, 7, True), (40, 4, 12, False), (320, 32, 3, True)):
        norm = nn.GroupNorm(groups, channels, eps=1e-5)
        nn.init.normal_(norm.weight, generator=generator)
        nn.init.normal_(norm.bias, generator=generator)
        norm = norm.to(device).requires_grad_(False)
        x, upstream = (torch.randn(2, channels, side, side + 1, generator=generator).to(device) for _ in range(2))
        x = (3 * x + 1).requires_grad_()
        for rows in (0, 1, 2):
            offset = torch.randn(rows, channels, generator=generator).to(device) if rows else None
            expected = norm(x if offset is None else x + offset[:, :, None, None])
            expected = nn.functional.silu(expected) if silu else expected
            found = FusedNorm(norm, silu)(x, offset)
            assert_agrees("values", found, expected, 1e-5)
            gradient, expected_gradient = (torch.autograd.grad(y, x, upstream)[0] for y in (found, expected))
            assert_agrees("gradient", gradient, expected_gradient, 1e-5)


def check_networks(device: str, count: int = 2, side: int = 32) -> None:
    """UNet and VAE encoder of the small prior, for some images of a size."""
    plain = random_networks("small", "cpu", 0)
    fused = deepcopy(plain)
    generator = torch.Generator().manual_seed(0)
    for networks in (plain, fused):
        for network in (networks.unet, networks.vae):
            nn.Module.to(network, torch.device(device)).eval().requires_grad_(False)
    fuse(fused.unet)
    fuse(fused.vae.encoder)
    kinds = [type(module).__name__ for part in (fused.unet, fused.vae.encoder) for module in part.modules()]
    assert "ResnetBlock2D" not in kinds
    assert plain.unet.state_dict().keys() == fused.unet.state_dict().keys()

    images = torch.rand(count, 3, side, side, generator=generator).to(device).requires_grad_()
    latents = [networks.vae.encoder(images) for networks in (plain, fused)]
    assert_agrees("latents", latents[1], latents[0], 1e-4, relative=True)
    upstream = torch.randn(latents[0].shape, generator=generator).to(device)
    gradients = [torch.autograd.grad(latent, images, upstream)[0] for latent in latents]
    assert_agrees("gradient", gradients[1], gradients[0], 1e-4, relative=True)

    noisy, context = (torch.randn(count, *size, generator=generator) for size in ((8, side // 2, side // 2), (17, 24)))
    with torch.no_grad():
        call = (noisy.to(device), torch.tensor([100, 900][:count], device=device), context.to(device))
        predicted = [networks.unet(*call).sample for networks in (plain, fused)]
    assert_agrees("noise", predicted[1], predicted[0], 1e-4, relative=True)


@pytest.mark.slow
def test_attention_to_one_token_needs_no_queries() -> None:
    plain = random_networks("small", "cpu", 0).unet.eval().requires_grad_(False)
    short = deepcopy(plain)
    shorten_cross_attention(short)
    generator = torch.Generator().manual_seed(0)
    noisy, context = torch.randn(2, 8, 16, 16, generator=generator), torch.randn(2, 1, 24, generator=generator)
    noise = [unet(noisy, torch.tensor([100, 900]), context).sample for unet in (plain, short)]
    assert_agrees("noise", noise[1], noise[0], 1e-5, relative=True)


@pytest.mark.slow
@needs_triton
@needs_interpreted_loops
@pytest.mark.parametrize(("check", "options"), [(check_norms, ()), (check_networks, (1, 16))])
def test_agreement_when_interpreted(check: Callable[..., None], options: tuple[int, ...]) -> None:
    """Of the networks, for one image: the interpreter is slow."""
    run_interpreted(check, "cpu", *options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("check", [check_norms, check_networks])
def test_agreement_on_cuda(check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    check("cuda")
