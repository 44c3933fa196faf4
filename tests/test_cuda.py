"""A CUDA device computes what the CPU computes."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from consistent4d_ns.data.planning import StepKind
from consistent4d_ns.export.deforming.fitting import Placement, body_of, fit, vertices_of
from consistent4d_ns.export.deforming.following import no_lines
from consistent4d_ns.export.deforming.graph import at_rest
from consistent4d_ns.export.deforming.matching import goal_of
from consistent4d_ns.export.deforming.moments import moment_of
from consistent4d_ns.export.surface import with_normals
from consistent4d_ns.field.cascade import CascadeKPlanes
from consistent4d_ns.field.types import PlaneReduction
from consistent4d_ns.guidance.base import Guidance, GuidanceDraws, draw
from consistent4d_ns.guidance.config import GuidanceConfig, Implementation, TextGuidanceConfig
from consistent4d_ns.guidance.loading import build_text_guidance
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.guidance.random_text_prior import write_random_text_prior
from consistent4d_ns.guidance.stable_diffusion import StableDiffusionGuidance
from consistent4d_ns.guidance.zero123 import Zero123Guidance
from consistent4d_ns.interpolation.consistency import Interpolator, consistency_loss
from consistent4d_ns.interpolation.ifnet import IFNet
from consistent4d_ns.media.camera_paths import InputVideo, PathOptions, camera_path, path_json
from consistent4d_ns.media.pictures import nerfstudio_path, render_rows, run_sheet
from consistent4d_ns.media.tiles import parse_tiles
from consistent4d_ns.method_configs import FieldOptimizerConfig
from consistent4d_ns.model import queried
from consistent4d_ns.pipeline import Consistent4DPipeline, StepDraws
from consistent4d_ns.targets.config import HoldConfig, TargetsConfig
from consistent4d_ns.targets.stages import TargetStages
from tests.export.deforming.test_maths import ball
from tests.field.test_planes import assert_no_sum_overflows, assert_sums_in_any_order_are_equal, kernel_error
from tests.guidance.test_stable_diffusion import FRONT_VIEW
from tests.support.one_order import deterministic
from tests.support.tiny import first_step, gradient_error, losses_and_gradients, map_tensors, tiny_pipeline, toy_folder

Precision = Literal["fp32", "fp16", "bf16"]

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def on_cuda(value):
    return map_tensors(value, Tensor.cuda)


STEPS = [(kind, None) for kind in (StepKind.REFERENCE, StepKind.INDEPENDENT, StepKind.AZIMUTHS, StepKind.TIMES)]
"""Kinds of steps on whole images, and how many pixels a reference step fits otherwise."""


@pytest.mark.parametrize(("kind", "pixels"), [*STEPS, (StepKind.REFERENCE, 500)])
def test_a_training_step(tmp_path, kind: StepKind, pixels: int | None):
    data = toy_folder(tmp_path)
    cpu, cuda = tiny_pipeline(data), tiny_pipeline(data, device="cuda")
    cuda.load_pipeline(cpu.state_dict(), 0)
    cpu.datamanager.config.plan.reference_rays = pixels
    draws = first_step(cpu, kind)
    # Plans stay on the CPU: they say what to do, the datamanager brings it to the device.
    moved = {name: on_cuda(getattr(draws, name)) for name in ("pixels", "rendering", "guidance")}
    moved = replace(draws, **moved)
    expected, expected_gradients = losses_and_gradients(cpu, draws)
    losses, gradients = losses_and_gradients(cuda, moved)
    for name, loss in losses.items():
        assert float(loss) == pytest.approx(float(expected[name]), rel=1e-3), name
    assert gradient_error(gradients, expected_gradients) < 1e-2


def eager(pipeline: Consistent4DPipeline) -> Consistent4DPipeline:
    """The same pipeline, with the same model, whose steps are not recorded."""
    other = copy.copy(pipeline)
    other.recorded = None
    return other


def assert_same_step(pipeline: Consistent4DPipeline, draws: StepDraws) -> None:
    """Fails where a recorded step has other losses or gradients than the step itself; leaves those of the recorded."""
    expected, expected_gradients = losses_and_gradients(eager(pipeline), draws)
    losses, gradients = losses_and_gradients(pipeline, draws)
    assert pipeline.recorded is not None
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert float(loss) == pytest.approx(float(expected[name]), rel=1e-4, abs=1e-7), name
    assert gradients.keys() == expected_gradients.keys()
    assert gradient_error(gradients, expected_gradients) < 1e-4


def test_a_recorded_step_of_pixels(tmp_path):
    """The simplest one: recorded, then replayed with other pixels, then the first again."""
    pipeline = tiny_pipeline(toy_folder(tmp_path), priors=False, device="cuda")
    pipeline.datamanager.config.plan.reference_rays = 500
    for step in (0, 2, 4, 0):
        assert_same_step(pipeline, pipeline.draw(step))


@pytest.mark.parametrize("kind", [kind for kind, _ in STEPS])
def test_a_recorded_step_of_images(tmp_path, kind: StepKind):
    pipeline = tiny_pipeline(toy_folder(tmp_path), device="cuda")
    draws = [d for d in map(pipeline.draw, range(100)) if d.plan.kind is kind][:3]
    for one in (*draws, draws[0]):
        assert_same_step(pipeline, one)


@pytest.mark.parametrize("kind", [kind for kind, _ in STEPS])
def test_steps_whose_sums_are_taken_in_one_order(tmp_path, monkeypatch, kind: StepKind):
    """The same losses and gradients to the last bit: computed twice, recorded, and after steps with more samples."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    with deterministic():
        pipeline = tiny_pipeline(toy_folder(tmp_path), device="cuda")
        draws, *others = [d for d in map(pipeline.draw, range(100)) if d.plan.kind is kind][:3]
        expected, expected_gradients = losses_and_gradients(eager(pipeline), draws)
        for one in (draws, *others, draws):
            losses, gradients = losses_and_gradients(pipeline, one)
            if one is draws:
                assert {name: float(loss) for name, loss in losses.items()} == {
                    name: float(loss) for name, loss in expected.items()
                }
                assert all(torch.equal(gradient, expected_gradients[name]) for name, gradient in gradients.items())


def test_recorded_training(tmp_path):
    """Every step, recorded and not, while parameters, occupancy and images change and pictures are rendered.

    At step 100 images become larger. Target views begin at step 104, and a checkpoint is loaded at step 108.
    """
    pipeline = tiny_pipeline(toy_folder(tmp_path), device="cuda")
    data, model = pipeline.datamanager, pipeline.model
    data.config.plan.reference_rays = 500
    held = TargetsConfig(hold=HoldConfig(steps=8, begin_step=104, views=3, rays=300, image_size=16))
    pipeline.targets = TargetStages(held, GuidanceConfig(), data, 0)
    optimizer = FieldOptimizerConfig().setup(list(model.field.parameters()))
    saved = {name: value.clone() for name, value in pipeline.state_dict().items()}
    camera = pipeline.datamanager.train_dataset.cameras[0:1].to("cuda")
    for step in range(92, 120):
        if step == 108:
            pipeline.load_pipeline(saved, 0)
        if step % 4 == 0:
            model.update_occupancy(step)
        assert_same_step(pipeline, pipeline.draw(step))
        optimizer.step()
        with torch.no_grad():
            pipeline.eval()
            model.get_outputs_for_camera(camera)
            pipeline.train()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_recorded_steps_grow_with_their_samples(tmp_path):
    """All are rendered when the grid fills up; recordings of other sizes share their memory."""
    pipeline = tiny_pipeline(toy_folder(tmp_path), priors=False, device="cuda")
    pipeline.datamanager.config.plan.reference_rays = 20_000
    occupancy, draws, held = pipeline.model.occupancy, pipeline.draw(0), []
    radii = occupancy.centres().norm(dim=-1)
    for radius in (2.0, 0.3, 0.5, 0.7, 2.0):
        occupancy.occupied.copy_(radii < radius)
        assert_same_step(pipeline, draws)
        torch.cuda.empty_cache()  # leaves what recordings hold
        held.append(torch.cuda.memory_reserved())
    assert held[-1] < 1.5 * held[0]


def test_the_host_waits_for_no_recorded_step(tmp_path):
    """But for the number of samples, while the device works."""
    pipeline = tiny_pipeline(toy_folder(tmp_path), priors=False, device="cuda")
    pipeline.datamanager.config.plan.reference_rays = 500
    losses_and_gradients(pipeline, pipeline.draw(0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses_and_gradients(pipeline, pipeline.draw(2))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_host_does_not_wait_for_random_pixels(tmp_path):
    """Those of the input view at another size than the frames', and those of target views."""
    pipeline = tiny_pipeline(toy_folder(tmp_path), device="cuda")
    data = pipeline.datamanager
    data.config.plan.reference_rays = 500
    held = TargetsConfig(hold=HoldConfig(steps=4, begin_step=0, views=3, rays=500, image_size=16))
    pipeline.targets = TargetStages(held, GuidanceConfig(), data, 0)

    def step(number: int) -> None:
        plan = pipeline.plan(number)
        pixels = data.draw_pixels(plan)
        data.batch(plan, pixels)
        if plan.kind is StepKind.TARGETS:
            assert pixels is not None
            pipeline.targets.batch(pixels)

    for mode in ("default", "error"):
        torch.cuda.set_sync_debug_mode(mode)
        try:
            step(0)
            step(1)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_the_allocator_extends_its_segments():
    """In a process of its own: the setting takes effect before the first use of CUDA."""
    code = """
import torch
from consistent4d_ns.device.cuda import use_device
use_device("cuda:0")
kept = torch.zeros(1 << 24, device="cuda")
segments = torch.cuda.memory_snapshot()
assert segments and all(segment["is_expandable"] for segment in segments)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("check", ["check_composite", "check_lattice", "check_heads"])
def test_kernels(check: str):
    """Imported here because Triton comes with torch on Linux alone."""
    kernel_agreement = pytest.importorskip("tests.support.kernel_agreement")
    getattr(kernel_agreement, check)("cuda")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("check", ["check_composite", "check_lattice", "check_heads"])
def test_kernels_on_a_device_that_is_not_the_current_one(check: str):
    kernel_agreement = pytest.importorskip("tests.support.kernel_agreement")
    getattr(kernel_agreement, check)("cuda:1")


def test_training_goes_on_on_the_cpu():
    """The optimiser is another there: its state must fit all the same."""
    (theirs,) = there = [torch.nn.Parameter(torch.ones(3, device="cuda"))]
    (ours,) = here = [torch.nn.Parameter(torch.ones(3))]
    there_optimizer, here_optimizer = (FieldOptimizerConfig().setup(side) for side in (there, here))
    for _ in range(2):
        theirs.grad = torch.tensor([1.0, -2.0, 0.0], device="cuda")
        there_optimizer.step()
    here_optimizer.load_state_dict(there_optimizer.state_dict())
    ours.data = theirs.data.cpu()
    for parameter, optimizer in ((theirs, there_optimizer), (ours, here_optimizer)):
        parameter.grad = torch.tensor([0.5, 1.0, -1.0], device=parameter.device)
        optimizer.step()
    torch.testing.assert_close(ours.data, theirs.data.cpu())


@pytest.mark.parametrize(("channels", "reduction"), [(16, "product"), (8, "hybrid"), (12, "product")])
def test_plane_kernel(channels: int, reduction: PlaneReduction):
    """Values, derivatives and gradients of many points, against torch in float64 on the CPU."""
    for frames in (8, 0):  # 0: no planes over time
        assert kernel_error((50, 40, 30, frames), channels, 200_000, reduction, "cuda") < 1e-5
        with deterministic():
            assert kernel_error((50, 40, 30, frames), channels, 200_000, reduction, "cuda") < 1e-5
    with deterministic():
        assert_sums_in_any_order_are_equal("cuda", 200_000)
        assert_no_sum_overflows("cuda")


def test_field_without_gradients_for_points_or_with():
    """The kernel gives no gradients for points; torch looks the planes up where they are asked for."""
    torch.manual_seed(0)
    field = CascadeKPlanes(((50, 50, 50, 8), (100, 100, 100, 16)), (16, 16)).cuda()
    points, times = torch.rand(10_000, 3, device="cuda") * 2 - 1, torch.rand(10_000, device="cuda") * 2 - 1
    kernel, plain = field.with_normals(points, times), field.with_normals(points.clone().requires_grad_(), times)
    for ours, theirs in zip(kernel, plain, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-4
    plain[0].sum().backward()


def test_many_samples_are_queried_in_parts(monkeypatch):
    """Each again in the backward pass, by the kernels."""
    torch.manual_seed(0)
    field = CascadeKPlanes(((50, 50, 50, 8), (100, 100, 100, 16)), (16, 16)).cuda()
    points, times = torch.rand(10_000, 3, device="cuda") * 2 - 1, torch.rand(10_000, device="cuda") * 2 - 1

    def run() -> list[torch.Tensor]:
        values = queried(field.with_normals, points, times)
        gradients = torch.autograd.grad([value.square().sum() for value in values], list(field.parameters()))
        return [*(value.detach() for value in values), *gradients]

    expected = run()
    monkeypatch.setattr("consistent4d_ns.model.SAMPLES_KEPT", 4000)
    for found, value in zip(run(), expected, strict=True):
        assert float((found - value).norm() / value.norm()) < 1e-5


def test_pictures(tmp_path):
    """A camera path with every sort of panel, and the contact sheet."""
    data = toy_folder(tmp_path)
    cpu, cuda = tiny_pipeline(data, priors=False), tiny_pipeline(data, priors=False, device="cuda")
    cuda.load_pipeline(cpu.state_dict(), 0)
    path = path_json(camera_path("orbit-in-time", PathOptions(frames=3, size=24), InputVideo()))
    for name in ("input", "rgb@90", "depth", "normals", "accumulation_0"):
        rows = [
            np.stack(list(render_rows(side.model, side.datamanager, cameras, parse_tiles([name]))))
            for side, (cameras, _) in ((side, nerfstudio_path(path)) for side in (cpu, cuda))
        ]
        assert np.abs(rows[0].astype(int) - rows[1]).mean() < 1, name
    sheets = [run_sheet(side.model, side.datamanager).astype(int) for side in (cpu, cuda)]
    assert np.abs(sheets[0] - sheets[1]).mean() < 1


def small_prior(**settings: Any) -> Zero123Guidance:
    """The small random prior on CUDA, in half precision, conditioned on two frames."""
    prior = Zero123Guidance(random_networks("small", "cpu", 0), GuidanceConfig(**settings), "cuda")
    prior.prepare(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    return prior


def small_text_prior(folder: Path, **settings: Any) -> StableDiffusionGuidance:
    """The small random text-to-image prior on CUDA, in half precision, kept in `folder`."""
    if not folder.exists():
        write_random_text_prior(folder, "small", 0)
    prior = build_text_guidance(TextGuidanceConfig(prior=str(folder), **settings), "a cat", FRONT_VIEW, "cuda")
    assert prior is not None
    return prior


def some_step(prior: Guidance, seed: int, views: int, side: int) -> tuple[Any, ...]:
    """Arguments of `Guidance.loss`: two levels, everything but the shapes follows from the seed."""
    generator = torch.Generator("cuda").manual_seed(seed)
    images = torch.rand(2, views, 3, side, side, generator=generator, device="cuda").requires_grad_()
    poses = torch.randn(views, 4, generator=generator, device="cuda")
    frames = torch.randint(2, (views,), generator=torch.Generator().manual_seed(seed))
    return images, poses, frames, draw(prior, 2, views, (200, 800), generator), 1.0 + seed % 3


STAGES = [(1, 4, 64), (2, 4, 64), (3, 2, 64), (4, 4, 64), (5, 1, 96), (6, 1, 96), (7, 4, 64)]
"""Seed, views and side of calls as a run makes them, and back again; the guidance scale of the third and the sixth
is 1."""


@pytest.mark.parametrize("reads_text", [False, True])
@pytest.mark.parametrize("implementation", ["torch", "fused"])
def test_recorded_distillation_is_distillation(tmp_path, implementation: Implementation, reads_text: bool):
    """Losses and gradients of recordings, over several steps and stages, are those of the function itself."""
    small = partial(small_text_prior, tmp_path / "prior") if reads_text else small_prior
    plain = small(cuda_graphs=False, implementation="torch")
    recorded = small(implementation=implementation)
    kept = []
    for seed, views, side in STAGES:
        results = []
        for prior in (plain, recorded):
            images, *rest = some_step(prior, seed, views, side)
            loss = prior.loss(images, *rest)
            results.append((loss, *torch.autograd.grad(2 * loss.sum(), images)))
        kept.append(results)
    # All compared at the end: later replays must leave earlier results alone.
    for results in kept:
        for expected, found in zip(*results, strict=True):
            assert float((found - expected).norm() / expected.norm()) < (1e-3 if implementation == "torch" else 2e-2)


@pytest.mark.parametrize("graphs", [False, True])
def test_the_host_waits_for_neither_prior(graphs: bool):
    """Distillation and interpolation only queue work, so the host prepares what comes next meanwhile."""
    prior = small_prior(cuda_graphs=graphs)
    interpolator = Interpolator(IFNet("residual").cuda().requires_grad_(False), cuda_graphs=graphs)
    images, *rest = some_step(prior, 1, 4, 64)

    def step() -> None:
        (prior.loss(images, *rest) + consistency_loss(interpolator, images)).sum().backward()

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_recorded_distillation_leaves_other_threads_alone():
    """A page of the viewer renders and copies while a step is recorded."""
    stop, failures = threading.Event(), []

    def page() -> None:
        try:
            while not stop.is_set():
                picture = torch.rand(256, 256, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
                (picture @ picture).cpu()
        except Exception as error:
            failures.append(error)

    prior, thread = small_prior(), threading.Thread(target=page)
    thread.start()
    for seed, views, side in STAGES:
        images, *rest = some_step(prior, seed, views, side)
        assert torch.isfinite(prior.loss(images, *rest)).all()
    stop.set()
    thread.join()
    assert not failures


def test_recorded_interpolation_is_interpolation():
    torch.manual_seed(0)
    net = IFNet("residual").cuda().requires_grad_(False)
    plain, recorded = (Interpolator(net, half=torch.float16, cuda_graphs=graphs) for graphs in (False, True))
    for seed, side in ((1, 64), (2, 64), (3, 96), (4, 64)):
        clip = torch.rand(2, 4, 3, side, side, generator=torch.Generator().manual_seed(seed)).cuda().requires_grad_()
        losses = [consistency_loss(interpolator, clip) for interpolator in (plain, recorded)]
        gradients = [torch.autograd.grad(loss.sum(), clip)[0] for loss in losses]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=0)
        assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 1e-3


def distil(
    device: str, precision: Precision, images: Tensor, poses: Tensor, frames: Tensor, draws: GuidanceDraws
) -> tuple[Tensor, Tensor]:
    """Losses of a small random prior and their gradient in the images, on the CPU."""
    prior = Zero123Guidance(random_networks("small", "cpu", 0), GuidanceConfig(precision=precision), device)
    prior.prepare(images[0])
    leaf = images.clone().requires_grad_(True)
    loss = prior.loss(leaf, poses, frames, draws, 5.0)
    loss.sum().backward()
    assert leaf.grad is not None
    return loss.detach().cpu(), leaf.grad.cpu()


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-2), ("fp16", 5e-2), ("bf16", 2e-1)])
def test_distillation(precision: Precision, tolerance: float):
    """Loss and image gradient of a small random prior, against float32 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 3, 32, 32, generator=generator)
    poses, frames = torch.randn(3, 4, generator=generator), torch.tensor([0, 1, 1])
    shape = (2, 3, 4, 16, 16)
    draws = GuidanceDraws(
        torch.randn(shape, generator=generator), torch.full((2, 3), 400), torch.randn(shape, generator=generator)
    )
    expected, gradient = distil("cpu", "fp32", images, poses, frames, draws)
    loss, found = distil("cuda", precision, images.cuda(), poses.cuda(), frames.cuda(), on_cuda(draws))
    assert float((loss - expected).norm() / expected.norm()) < tolerance
    assert float((found - gradient).norm() / gradient.norm()) < tolerance


def test_a_mesh_is_fitted_as_on_the_cpu():
    """Steps are recorded and nearest points are found otherwise, so that a mesh may slide a little along a surface."""
    template, goal = ball(), ball()
    shift = np.array((0.05, 0.0, 0.0), np.float32)
    moment = moment_of(with_normals(goal.vertices + shift, goal.faces))

    def fitted(device: str) -> Tensor:
        body = body_of(template, device)
        rest = Placement(at_rest(body.graph), torch.zeros_like(body.graph.rest))
        return vertices_of(body, fit(body, goal_of(moment, device), rest, no_lines(device))).cpu()

    expected, found = fitted("cpu"), fitted("cuda")
    assert (found - expected).norm(dim=1).mean() < 3e-3
    radius = (found - torch.from_numpy(shift)).norm(dim=1)
    assert (radius - 0.5).abs().mean() < 3e-3
