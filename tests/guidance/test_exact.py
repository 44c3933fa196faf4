"""The exact-score guidance pulls images to the truth, by as much as the formula says."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews, orbit_views, relative_pose
from consistent4d_ns.guidance.base import GuidanceDraws, draw
from consistent4d_ns.guidance.config import TextGuidanceConfig
from consistent4d_ns.guidance.diffusion import alphas_cumprod
from consistent4d_ns.guidance.exact import ExactPromptGuidance, ExactScoreGuidance, absolute_view
from consistent4d_ns.toy import ToyTruth

SIZE = 16
CONDITION = orbit_views(elevation=10.0, azimuth=30.0, distance=2.0, fovy=49.1)
VIEWS = OrbitViews(
    elevation=torch.tensor([-10.0, 0.0, 60.0]),
    azimuth=torch.tensor([-179.0, 30.0, 225.0]),
    distance=torch.tensor([2.0, 2.0, 2.2]),
    fovy=torch.full((3,), 49.1),
)
FRAMES = torch.tensor([0, 3, 5])


def make_guidance() -> ExactScoreGuidance:
    return ExactScoreGuidance(ToyTruth(size=2 * SIZE, frames=8), CONDITION, latent_size=SIZE)


def make_draws(guidance: ExactScoreGuidance, levels: int = 1, seed: int = 0) -> GuidanceDraws:
    return draw(guidance, levels, len(VIEWS), (100, 900), torch.Generator().manual_seed(seed))


def true_images() -> Float[Tensor, "views 3 size size"]:
    return ToyTruth(size=2 * SIZE, frames=8)(VIEWS.elevation, VIEWS.azimuth, VIEWS.distance, FRAMES)


def test_absolute_view_undoes_relative_pose() -> None:
    elevation, azimuth, distance = absolute_view(relative_pose(VIEWS, CONDITION), CONDITION)
    torch.testing.assert_close(elevation, VIEWS.elevation, atol=1e-4, rtol=0)
    torch.testing.assert_close((azimuth - VIEWS.azimuth + 180) % 360, torch.full((3,), 180.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(distance, VIEWS.distance)


def test_noise_schedule_ends_where_zero123_says() -> None:
    values = alphas_cumprod()
    assert values.shape == (1000,)
    assert values[0].item() == pytest.approx(1 - 0.00085, abs=1e-12)
    assert values[-1].item() == pytest.approx(0.0046600, abs=1e-6)


def test_gradient_is_the_closed_form() -> None:
    """Images of the latents' size: dloss/dimage = 2 sqrt(ac (1 - ac)) (z - z*) / views, whatever the noise."""
    guidance, levels = make_guidance(), 2
    draws = make_draws(guidance, levels)
    images = torch.rand(levels, len(VIEWS), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = guidance.loss(images, relative_pose(VIEWS, CONDITION), FRAMES, draws, scale=5.0)
    assert loss.shape == (levels,)
    loss.sum().backward()
    ac = alphas_cumprod()[draws.timesteps].float()[..., None, None, None]
    gradient = (ac * (1 - ac)).sqrt() * (guidance.encode(images) - guidance.encode(true_images()))
    torch.testing.assert_close(images.grad, 2 * gradient / len(VIEWS), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(loss, 0.5 * gradient.square().sum((1, 2, 3, 4)) / len(VIEWS), rtol=1e-4, atol=1e-5)


def test_the_truth_is_left_alone() -> None:
    guidance, images = make_guidance(), true_images()[None].requires_grad_()
    guidance.loss(images, relative_pose(VIEWS, CONDITION), FRAMES, make_draws(guidance), scale=5.0).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() < 1e-5


def test_descent_arrives_at_the_truth() -> None:
    truth, poses = true_images(), relative_pose(VIEWS, CONDITION)
    guidance = ExactScoreGuidance(lambda *_: truth, CONDITION, latent_size=SIZE)
    images = torch.full((1, len(VIEWS), 3, SIZE, SIZE), 0.5).requires_grad_()
    optimizer = torch.optim.SGD([images], lr=1.0)
    for step in range(60):
        optimizer.zero_grad()
        guidance.loss(images, poses, FRAMES, make_draws(guidance, seed=step), scale=5.0).sum().backward()
        optimizer.step()
    torch.testing.assert_close(guidance.encode(images.detach())[0], guidance.encode(truth), atol=1e-3, rtol=0)


@pytest.mark.parametrize("wrong", [FRAMES.flip(0), FRAMES + 1], ids=["reversed", "late"])
def test_frames_matter(wrong: Tensor) -> None:
    """The truth of one moment is not that of another: a mixed-up frame order is noticed."""
    guidance, images = make_guidance(), true_images()[None]
    loss = guidance.loss(images, relative_pose(VIEWS, CONDITION), wrong, make_draws(guidance), scale=5.0)
    assert loss.item() > 0.1


def prompt_guidance(azimuths: list[float]) -> ExactPromptGuidance:
    """A prior for which the toy is seen from these azimuths, at the height of the condition."""
    cameras = CONDITION[torch.zeros(len(azimuths), dtype=torch.int64)]
    cameras = OrbitViews(cameras.elevation, 30.0 + torch.tensor(azimuths), cameras.distance, cameras.fovy)
    truth = ToyTruth(size=2 * SIZE, frames=8)
    return ExactPromptGuidance(truth, CONDITION, cameras, TextGuidanceConfig(), latent_size=SIZE)


def test_one_image_of_a_kind_is_what_all_views_of_that_kind_should_show() -> None:
    """From wherever they look: a prompt does not tell the camera. Then the score is that of the image itself."""
    guidance = prompt_guidance([0.0, 180.0])
    seen = OrbitViews(
        torch.tensor([0.0, 20.0]), torch.tensor([55.0, 190.0]), torch.full((2,), 2.0), torch.full((2,), 49.1)
    )
    images = torch.rand(1, 2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).requires_grad_()
    draws = draw(guidance, 1, 2, (100, 900), torch.Generator().manual_seed(0))
    guidance.loss(images, relative_pose(seen, CONDITION), torch.tensor([0, 0]), draws, scale=1.0).sum().backward()
    kept = alphas_cumprod().float()[draws.timesteps][..., None, None, None]
    truth = guidance._possible[None]  # the front for the first view, the back for the second
    expected = 2 * (kept * (1 - kept)).sqrt() * ((2 * images.detach() - 1) - truth) / 2
    assert images.grad is not None
    torch.testing.assert_close(images.grad, expected, rtol=1e-3, atol=1e-4)


def test_much_noise_leaves_the_mean_and_little_the_nearest_image() -> None:
    guidance = prompt_guidance([-20.0, 20.0])
    near = guidance._possible[1] * 0.9 + guidance._possible[0] * 0.1
    own = torch.ones(1, 2, dtype=torch.bool)
    little, much = (
        guidance._expected(kept**0.5 * near[None, None], torch.tensor([[kept]]), own)[0, 0] for kept in (0.999, 1e-6)
    )
    torch.testing.assert_close(little, guidance._possible[1], rtol=0, atol=1e-3)
    torch.testing.assert_close(much, guidance._possible.mean(dim=0), rtol=0, atol=1e-2)
