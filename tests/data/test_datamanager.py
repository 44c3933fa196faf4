"""What the data manager hands out: batches by plan, times, whole images for evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from consistent4d_ns.data.datamanager import Consistent4DDataManager, Consistent4DDataManagerConfig
from consistent4d_ns.data.dataparser import FrameSequenceDataParserConfig
from consistent4d_ns.data.images import composite_white, resized
from consistent4d_ns.data.planning import PlanConfig, StepKind, StepPlan
from consistent4d_ns.data.rays import view_rays
from consistent4d_ns.errors import InputError
from consistent4d_ns.toy import write_sequence
from tests.data.media import clip, write_animation

FRAMES = 5
PLAN: dict[str, Any] = {"stage_steps": (0, 100), "image_sizes": (8, 16), "views": (3, 2), "clip_views": (3, 3)}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "toy"
    write_sequence(folder, size=16, frames=FRAMES, samples_per_side=1)
    return folder


def manager(data: Path, **plan: Any) -> Consistent4DDataManager:
    config = Consistent4DDataManagerConfig(
        dataparser=FrameSequenceDataParserConfig(data=data, image_size=16), plan=PlanConfig(**(PLAN | plan))
    )
    torch.manual_seed(3)
    return config.setup(device="cpu", test_mode="val", world_size=1, local_rank=0)


def first(data: Consistent4DDataManager, kind: StepKind) -> StepPlan:
    return next(plan for step in range(1000) if (plan := data.plan(step)).kind is kind)


@pytest.fixture
def data(toy: Path) -> Consistent4DDataManager:
    return manager(toy)


# Training


def test_reference_batch(data: Consistent4DDataManager) -> None:
    """All pixels of one frame from the input camera, row after row, scaled down to the size of the stage."""
    plan = first(data, StepKind.REFERENCE)
    rays, batch = data.batch(plan)
    frame = int(plan.frames)
    small = resized(data.train_dataset.rgba[frame : frame + 1].float(), 8)
    assert torch.equal(batch["image"], composite_white(small)[0].movedim(0, -1).reshape(64, 3))
    assert torch.equal(batch["alpha"], small[0, 3].flatten())
    assert batch["plan"] is plan
    expected = view_rays(data.input_view, torch.tensor([frame / (FRAMES - 1)]), 8)
    assert torch.equal(rays.directions, expected.directions)
    assert torch.equal(rays.origins, expected.origins)
    assert rays.times is not None
    assert torch.equal(rays.times, torch.full((64, 1), frame / (FRAMES - 1)))


@pytest.mark.parametrize("size", [8, 16, 24])
def test_reference_pixels(toy: Path, size: int) -> None:
    """As in whole frames of the stage's size, at the times of their frames; to half precision, in which frames are."""
    data = manager(toy, reference_sizes=(size, size), reference_rays=50)
    assert data.get_train_rays_per_batch() == 50
    rays, batch = data.next_train(0)
    pixels = data.draw_pixels(batch["plan"])
    assert pixels is not None
    assert len(rays) == len(pixels) == data.get_train_rays_per_batch() == 50
    whole, expected = data.batch(dataclasses.replace(batch["plan"], random_pixels=None))
    for name in ("image", "alpha"):
        torch.testing.assert_close(batch[name], expected[name][pixels], rtol=0, atol=5e-4)
    assert rays.times is not None
    assert whole.times is not None
    assert torch.equal(rays.times, whole.times[pixels])
    assert len(rays.times.unique()) == FRAMES


def test_every_pixel_of_every_frame_is_drawn(toy: Path) -> None:
    data = manager(toy, reference_rays=1000)
    drawn = [data.draw_pixels(data.plan(step)) for step in range(0, 10, 2)]
    pixels = torch.cat([part for part in drawn if part is not None])
    counts = torch.bincount(pixels, minlength=FRAMES * 8**2)
    assert len(counts) == FRAMES * 8**2
    assert counts.min() > 0
    assert data.draw_pixels(data.plan(1)) is None


def test_pixels_follow_from_seed_and_step(toy: Path) -> None:
    one, same = manager(toy, reference_rays=20), manager(toy, reference_rays=20)
    other = manager(toy, reference_rays=20)
    other.seed += 1  # as the next rank's
    first, again, elsewhere, later = (
        data.draw_pixels(data.plan(step)) for data, step in ((one, 2), (same, 2), (other, 2), (one, 4))
    )
    assert first is not None
    assert again is not None
    assert torch.equal(first, again)
    assert elsewhere is not None
    assert not torch.equal(first, elsewhere)
    assert later is not None
    assert not torch.equal(first, later)


def test_a_new_stage_has_pixels_of_its_own_size(toy: Path) -> None:
    data = manager(toy, reference_rays=20)
    for step, size in ((0, 8), (100, 16), (2, 8)):
        _, batch = data.next_train(step)
        assert batch["plan"].image_size == size
        pixels = data.draw_pixels(batch["plan"])
        assert pixels is not None
        _, whole = data.batch(dataclasses.replace(batch["plan"], random_pixels=None))
        torch.testing.assert_close(batch["image"], whole["image"][pixels], rtol=0, atol=5e-4)


@pytest.mark.parametrize("kind", [StepKind.INDEPENDENT, StepKind.AZIMUTHS, StepKind.TIMES])
def test_novel_view_batch(data: Consistent4DDataManager, kind: StepKind) -> None:
    """View after view; nothing is known about them."""
    plan = first(data, kind)
    rays, batch = data.batch(plan)
    assert batch == {"plan": plan}
    assert rays.times is not None
    per_view = rays.times.view(3, 64)
    assert torch.equal(per_view, (plan.frames / (FRAMES - 1))[:, None].expand(3, 64))
    assert torch.equal(rays.origins.view(3, 64, 3)[:, 0], plan.views.poses()[:, :, 3])


def test_steps_follow_from_the_seed(toy: Path) -> None:
    one, other = manager(toy), manager(toy)
    torch.rand(5)  # What is drawn in between changes nothing.
    for step in (0, 1, 7, 101):
        (rays, batch), (again, batch_again) = one.next_train(step), other.next_train(step)
        assert torch.equal(rays.directions, again.directions)
        assert batch["plan"].kind is batch_again["plan"].kind
    assert one.train_count == 4


def test_rays_per_batch_are_those_of_the_latest_batch(data: Consistent4DDataManager) -> None:
    """The viewer's rate of frames is derived from them."""
    assert data.get_train_rays_per_batch() == 64
    data.next_train(0)
    assert data.get_train_rays_per_batch() == 64
    data.batch(first(data, StepKind.INDEPENDENT))
    assert data.get_train_rays_per_batch() == 3 * 64
    data.next_train(100)
    assert data.get_train_rays_per_batch() == 256
    assert data.get_eval_rays_per_batch() == 256


def test_contradicting_plans_are_refused(toy: Path) -> None:
    with pytest.raises(InputError, match="number of stages"):
        manager(toy, views=(1,))


def test_reference_images_are_on_white(data: Consistent4DDataManager) -> None:
    images = data.reference_images()
    assert images.shape == (FRAMES, 3, 16, 16)
    assert images.dtype == torch.float32
    assert torch.equal(images[:, :, 0, 0], torch.ones(FRAMES, 3))


# Times


def test_times_of_even_frames(data: Consistent4DDataManager) -> None:
    assert data.frame_times.times == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert (data.num_frames, data.fps) == (5, 16.0)


@pytest.fixture
def uneven(tmp_path: Path) -> Consistent4DDataManager:
    """Frames at 0, .1, .2, .3 and 1 s."""
    return manager(write_animation(tmp_path / "clip.webp", clip(5), [100, 100, 100, 700, 100]))


def test_uneven_frames_are_seen_at_their_times(uneven: Consistent4DDataManager) -> None:
    times = torch.tensor([0.0, 0.1, 0.2, 0.3, 1.0])
    assert uneven.frame_times.times == pytest.approx(times.tolist())
    assert uneven.fps == pytest.approx(4.0)
    assert uneven.train_dataset.cameras.times is not None
    torch.testing.assert_close(uneven.train_dataset.cameras.times[:, 0], times)
    for kind in (StepKind.REFERENCE, StepKind.INDEPENDENT):
        plan = first(uneven, kind)
        torch.testing.assert_close(plan.times, times[plan.frames])
    assert uneven.frame_times.nearest(0.5) == 3


def test_clips_in_time_take_even_steps(uneven: Consistent4DDataManager) -> None:
    """Each with the nearest frame: half-way from the first frame to the last, .3 is nearest."""
    uneven.config.plan.time_step = 0.5
    plan = first(uneven, StepKind.TIMES)
    torch.testing.assert_close(plan.times, torch.tensor([0.0, 0.5, 1.0]))
    assert plan.frames.tolist() == [0, 3, 4]
    rays, _ = uneven.batch(plan)
    assert rays.times is not None
    torch.testing.assert_close(rays.times.view(3, 64)[:, 0], plan.times)


# Evaluation


def test_all_evaluation_images_come_by(data: Consistent4DDataManager) -> None:
    """Steps are multiples of 500, as is the number of images or one of its factors: the step itself must not choose."""
    count = len(data.eval_dataset)
    assert count == 6 * FRAMES
    cameras = [data.next_eval_image(step)[0] for step in range(0, count * count, count)]
    seen = {(tuple(c.camera_to_worlds.flatten().tolist()), float(c.times)) for c in cameras if c.times is not None}
    assert len(seen) == count


def test_all_frames_are_evaluated(data: Consistent4DDataManager) -> None:
    batches = [data.next_eval(step)[1] for step in range(0, FRAMES * FRAMES, FRAMES)]
    assert [int(batch["plan"].frames) for batch in batches] == list(range(FRAMES))
    assert data.eval_count == FRAMES


def test_evaluation_uses_the_size_of_the_stage(data: Consistent4DDataManager) -> None:
    for step, size in ((0, 8), (100, 16)):
        rays, batch = data.next_eval(step)
        assert len(rays) == size**2
        assert batch["plan"].kind is StepKind.REFERENCE
        assert batch["image"].shape == (size**2, 3)


def test_reference_images_have_their_own_size_in_evaluation_too(toy: Path) -> None:
    data = manager(toy, reference_sizes=(12, 16))
    assert data.get_train_rays_per_batch() == 12**2
    assert len(data.next_train(0)[0]) == len(data.next_eval(0)[0]) == 12**2
    assert len(data.next_train(1)[0]) == 3 * 8**2


def test_evaluation_shows_whole_frames_where_training_fits_pixels(toy: Path) -> None:
    rays, batch = manager(toy, reference_rays=5).next_eval(0)
    assert len(rays) == len(batch["image"]) == 8**2


def test_evaluation_image_and_camera_belong_together(data: Consistent4DDataManager) -> None:
    for index in range(7):
        camera, batch = data.next_eval_image(500 * index)
        assert torch.equal(camera.camera_to_worlds[0], data.eval_dataset.cameras.camera_to_worlds[index])
        assert torch.equal(batch["image"], data.eval_dataset[index]["image"])


def test_camera_paths_are_kept_beside_the_frames(toy: Path, uneven: Consistent4DDataManager) -> None:
    assert manager(toy).get_datapath() == toy
    assert uneven.get_datapath() == uneven.dataparser.source.parent
