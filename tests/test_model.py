"""Images of the model: what nerfstudio's viewer and render commands rely on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.model_components.renderers import background_color_override_context
from torch import Tensor

from consistent4d_ns import model as model_module
from consistent4d_ns.data.cameras import orbit_views
from consistent4d_ns.data.rays import box_exit, view_rays
from consistent4d_ns.draws import draw_rendering
from consistent4d_ns.errors import InputError
from consistent4d_ns.field.cascade import CascadeKPlanes
from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.rendering.sampling import box_interval
from tests.support.tiny import tiny_config, tiny_pipeline, toy_folder

SIDE = 24
DISTANCE = 2.0
Outputs = dict[str, Tensor]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(data) -> Consistent4DModel:
    """The initial blob, stirred so that it changes with time, in evaluation mode."""
    model = tiny_pipeline(data, priors=False).model
    with torch.no_grad():
        for parameter in model.field.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    model.update_occupancy(0)
    return model.eval()


def rays_at(time: float | None, side: int = SIDE, distance: float = DISTANCE) -> RayBundle:
    """Rays of one view, flat."""
    rays = view_rays(orbit_views(20.0, 30.0, distance, 49.1), torch.tensor([time or 0.0]), side)
    rays.times = None if time is None else rays.times
    return rays


def picture(model: Consistent4DModel, rays: RayBundle) -> Outputs:
    """All outputs, each [rays, channels]."""
    with torch.no_grad():
        return model(rays)


def limited(near: float, far: float) -> RayBundle:
    rays = rays_at(0.5)
    rays.nears, rays.fars = (torch.full((len(rays), 1), value) for value in (near, far))
    return rays


@pytest.fixture(scope="module")
def outputs(model) -> Outputs:
    return picture(model, rays_at(0.5))


@pytest.fixture
def chunk(model) -> Iterator[Consistent4DModel]:
    """The model, with its chunk size put back afterwards."""
    size = model.config.eval_num_rays_per_chunk
    yield model
    model.config.eval_num_rays_per_chunk = size


def test_outputs_are_one_tensor_per_ray(outputs, model):
    names = ["rgb", "accumulation", "depth", "expected_depth", "normals"]
    names += [f"{name}_{level}" for level in range(model.field.num_levels) for name in ("rgb", "accumulation", "depth")]
    assert list(outputs) == names
    for name, value in outputs.items():
        assert value.shape == (SIDE**2, 3 if name.startswith(("rgb", "normals")) else 1), name
        assert torch.isfinite(value).all(), name


def test_the_finest_level_is_shown(outputs):
    for name in ("rgb", "accumulation", "depth"):
        assert torch.equal(outputs[name], outputs[f"{name}_1"])
        assert not torch.equal(outputs[name], outputs[f"{name}_0"])


def test_images_change_with_time_and_show_the_first_frame_without(model):
    first, last = picture(model, rays_at(0.0)), picture(model, rays_at(1.0))
    assert float((first["rgb"] - last["rgb"]).abs().max()) > 0.01
    timeless = picture(model, rays_at(None))
    assert all(torch.equal(timeless[name], first[name]) for name in first)


def cameras(count: int, times: Tensor | None = None) -> Cameras:
    """A path of `count` cameras that all stand at the same place."""
    poses = orbit_views(20.0, 30.0, DISTANCE, 49.1, count).poses()
    return Cameras(poses, 26.3, 26.3, SIDE / 2, SIDE / 2, SIDE, SIDE, times=times)


def test_a_copied_camera_keeps_its_time_and_one_without_is_refused(model):
    path = cameras(5, torch.linspace(0.0, 1.0, 5)[:, None])
    last = path[4:]
    alone = cameras(1, torch.ones(1, 1))
    assert torch.equal(model.get_outputs_for_camera(last)["rgb"], model.get_outputs_for_camera(alone)["rgb"])
    with pytest.raises(InputError, match="the camera has no time: set its `times`"):
        model.get_outputs_for_camera(cameras(5)[4:])


@pytest.mark.parametrize("time", [-0.5, 1.5, float("nan")])
def test_times_of_cameras_are_checked(model, time: float):
    with pytest.raises(InputError, match=r"time .* of the camera is outside 0\.\.1"):
        model.get_outputs_for_camera(cameras(1, torch.tensor([time])))


def test_cameras_of_whole_numbers_are_rendered(model):
    """As Nerfstudio's reader makes them of a camera path with whole numbers; x, y and z are permuted."""
    pose = torch.tensor([[0, 0, 1, 2], [1, 0, 0, 0], [0, 1, 0, 0]])
    lens: dict[str, Any] = {"fx": 20.0, "fy": 20.0, "cx": SIDE / 2, "cy": SIDE / 2, "width": SIDE, "height": SIDE}
    whole = Cameras(camera_to_worlds=pose[None], times=torch.tensor([[1]]), **lens)
    floats = Cameras(camera_to_worlds=pose[None].float(), times=torch.tensor([[1.0]]), **lens)
    assert torch.equal(model.get_outputs_for_camera(whole)["rgb"], model.get_outputs_for_camera(floats)["rgb"])


def test_colours_and_opacity_are_in_range(outputs):
    for name in ("rgb", "accumulation", "normals"):
        assert float(outputs[name].min()) >= 0.0
        assert float(outputs[name].max()) <= 1.0 + 1e-6
    assert float(outputs["accumulation"].max()) > 0.9
    assert float(outputs["accumulation"].min()) == 0.0


def test_empty_rays_are_white_and_far(outputs):
    empty = outputs["accumulation"][:, 0] == 0.0
    assert torch.equal(outputs["rgb"][empty], torch.ones(int(empty.sum()), 3))
    assert torch.equal(outputs["normals"][empty], torch.zeros(int(empty.sum()), 3))
    assert torch.allclose(outputs["depth"][empty], box_exit(torch.tensor(DISTANCE)))


def test_depth_of_what_is_seen_lies_in_the_box(outputs):
    rays = rays_at(0.5)
    near, far = box_interval(rays.origins, rays.directions)
    seen = outputs["accumulation"][:, 0] > 0.5
    depth = outputs["depth"][seen, 0]
    assert ((near[seen] < depth) & (depth < far[seen])).all()
    assert torch.allclose(
        outputs["expected_depth"][seen], outputs["depth"][seen] * outputs["accumulation"][seen], atol=1e-5
    )


def test_normals_are_unit_vectors_faded_by_opacity(outputs):
    seen = outputs["accumulation"][:, 0] > 0.5
    normals = 2.0 * outputs["normals"][seen] / outputs["accumulation"][seen] - 1.0
    assert torch.allclose(normals.norm(dim=-1), torch.ones(int(seen.sum())), atol=1e-4)


@pytest.mark.parametrize("haze", [4.0, 6.0, 9.0])
def test_normals_of_faint_rays_agree_with_all_samples(model, monkeypatch, haze: float):
    """To half a grey level, though samples that hardly count are left out."""
    field, rays = model.field, rays_at(0.5)
    densities = type(field).forward

    def thin(points: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        density, features = densities(field, points, times)
        return density * math.exp(-haze), features

    monkeypatch.setattr(field, "forward", thin)
    ours = picture(model, rays)
    faint = (ours["accumulation"] > 1e-4) & (ours["accumulation"] < 0.1)
    assert int(faint.sum()) > 20
    monkeypatch.setattr(model_module, "NORMAL_SHARE", 0.0)
    monkeypatch.setattr(model_module, "NORMAL_OPACITY", -1.0)
    exact = picture(model, rays)
    assert float((ours["normals"] - exact["normals"]).abs().max()) < 0.5 / 255


def test_a_cut_image_composites_to_the_whole(outputs, model):
    """Each sample falls on one side of the cut, so front over back must give the uncut image."""
    cut = DISTANCE - 0.123
    front, back = picture(model, limited(0.0, cut)), picture(model, limited(cut, 10.0))
    assert (front["depth"][front["accumulation"] > 0.1] <= cut).all()
    assert (back["depth"][back["accumulation"] > 0.1] >= cut).all()
    behind = 1.0 - front["accumulation"]
    rgb = front["rgb"] - behind + behind * back["rgb"]
    assert torch.allclose(rgb, outputs["rgb"], atol=1e-5)


def test_crop_box_and_its_background(model, outputs):
    """As the viewer renders a crop: rays limited to a box, and another colour behind."""
    camera = Cameras(orbit_views(20.0, 30.0, DISTANCE, 49.1).poses(), 26.3, 26.3, SIDE / 2, SIDE / 2, SIDE, SIDE)
    camera.times = torch.tensor([[0.5]])
    red = torch.tensor([1.0, 0.0, 0.0])
    missed = OrientedBox.from_params((5.0, 5.0, 5.0), (0.0, 0.0, 0.0), (0.5, 0.5, 0.5))
    whole = OrientedBox.from_params((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (4.0, 4.0, 4.0))
    with background_color_override_context(red):
        nothing = model.get_outputs_for_camera(camera, obb_box=missed)
        everything = model.get_outputs_for_camera(camera, obb_box=whole)
        on_red = picture(model, rays_at(0.5))
    assert torch.equal(nothing["rgb"], red.expand(SIDE, SIDE, 3))
    plain = model.get_outputs_for_camera(camera)
    expected = plain["rgb"] + (1.0 - plain["accumulation"]) * (red - 1.0)
    assert torch.allclose(everything["rgb"], expected, atol=1e-5)
    assert torch.allclose(on_red["rgb"], outputs["rgb"] + (1.0 - outputs["accumulation"]) * (red - 1.0), atol=1e-6)


def test_rgba_on_white_is_rgb(model, outputs):
    for name in ("rgb", "rgb_0"):
        rgba = model.get_rgba_image(outputs, name)
        colour, alpha = rgba[:, :3], rgba[:, 3:]
        assert float(alpha.min()) == 0.0
        assert torch.allclose(alpha * colour + 1.0 - alpha, outputs[name], atol=1e-5)


def test_chunks_do_not_show(chunk: Consistent4DModel):
    rays = rays_at(0.5).reshape((SIDE, SIDE))
    whole = chunk.get_outputs_for_camera_ray_bundle(rays)
    chunk.config.eval_num_rays_per_chunk = 37
    pieces = chunk.get_outputs_for_camera_ray_bundle(rays)
    for name, value in whole.items():
        assert torch.allclose(value, pieces[name], atol=1e-5), name


def test_only_given_draws_are_random(model, outputs):
    assert torch.equal(picture(model, rays_at(0.5))["rgb"], outputs["rgb"])
    model.train()
    assert torch.equal(picture(model, rays_at(0.5))["rgb"], outputs["rgb"])
    model.eval()
    draws = draw_rendering(SIDE**2, torch.Generator().manual_seed(1))
    with torch.no_grad():
        jittered = model(rays_at(0.5), draws)["rendering"].rgb[-1]
    assert not torch.equal(jittered, outputs["rgb"])
    assert float((jittered - outputs["rgb"]).abs().mean()) < 0.02


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 7), (11, 2)])
def test_odd_images(model, height: int, width: int):
    camera = Cameras(orbit_views(0.0, 0.0, DISTANCE, 49.1).poses(), 10.0, 10.0, width / 2, height / 2, width, height)
    camera.times = torch.zeros(1, 1)
    for value in model.get_outputs_for_camera(camera).values():
        assert value.shape[:2] == (height, width)


def looking(model: Consistent4DModel, position: list[float], direction: list[float]) -> Outputs:
    """Outputs of four equal rays."""
    row = [torch.tensor([vector]).expand(4, 3) for vector in (position, direction)]
    return picture(model, RayBundle(*row, pixel_area=torch.ones(4, 1)))


def test_many_samples_are_queried_in_parts(model, monkeypatch):
    """With the same values and gradients, but for the order of sums; without gradients, all at once."""
    generator = torch.Generator().manual_seed(0)
    points, times = (2 * torch.rand(shape, generator=generator) - 1 for shape in ((1000, 3), (1000,)))

    def run() -> tuple[list[Tensor], list[Tensor]]:
        values = model_module.queried(model.field.with_normals, points, times)
        parameters = list(model.field.parameters())
        gradients = torch.autograd.grad([value.square().sum() for value in values], parameters)
        return [value.detach() for value in values], list(gradients)

    expected = run()
    monkeypatch.setattr(model_module, "SAMPLES_KEPT", 128)
    sizes = []
    query = model.field.with_normals
    monkeypatch.setattr(model.field, "with_normals", lambda *part: (sizes.append(len(part[0])), query(*part))[1])
    torch.testing.assert_close(run(), expected)
    assert max(sizes) == 64
    with torch.no_grad():
        model_module.queried(model.field.with_normals, points, times)
    assert sizes[-1] == 1000


def test_looking_away_and_from_inside(model):
    away = looking(model, [2.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    assert torch.equal(away["rgb"], torch.ones(4, 3))
    assert all(torch.isfinite(value).all() for value in away.values())
    inside = looking(model, [0.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    assert float(inside["accumulation"].min()) > 0.1
    assert (inside["depth"] > 0.0).all()
    assert (inside["depth"] < 1.0).all()


def test_normals_can_be_left_out(model, outputs, monkeypatch):
    monkeypatch.setattr(model.config, "render_normals", False)
    without = picture(model, rays_at(0.5))
    assert set(outputs) - set(without) == {"normals"}
    assert torch.equal(without["rgb"], outputs["rgb"])


def perfect(image: Float[Tensor, "height width 3"], alpha: Float[Tensor, "height width 1"]) -> Outputs:
    return {"rgb": image, "accumulation": alpha, "depth": 2.0 - alpha}


def test_image_metrics(model):
    image = torch.rand(SIDE, SIDE, 3)
    alpha = torch.zeros(SIDE, SIDE, 1)
    alpha[4:12] = 1.0
    batch = {"image": image, "alpha": alpha}
    metrics, images = model.get_image_metrics_and_images(perfect(image, alpha), batch)
    assert metrics["ssim"] == pytest.approx(1.0)
    assert metrics["iou"] == 1.0
    assert images["img"].shape == (SIDE, 2 * SIDE, 3)
    shifted = perfect((image + 0.1).clamp(max=1.0), alpha.roll(4, 0))
    worse, _ = model.get_image_metrics_and_images(shifted, batch)
    assert worse["iou"] == pytest.approx(1 / 3)
    assert 19.9 < worse["psnr"] < 21.5
    assert worse["ssim"] < 1.0


def test_a_checkpoint_of_another_cascade_is_refused(data, model):
    config = tiny_config(data).pipeline.model
    config.grid_resolutions = config.grid_resolutions[:1]
    config.loss_weights.sds = (0.1,)
    other = config.setup(scene_box=model.scene_box, num_train_data=1)
    with pytest.raises(InputError, match=r"does not fit this model.*config\.yml"):
        other.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples_per_ray", 0),
        ("hidden_width", 0),
        ("occupancy_times", -1),
        ("channels", (8, 0)),
        ("grid_resolutions", ((8, 8, 8, 4), (16, 16, 0, 8))),
    ],
)
def test_sizes_below_one_are_named(data, name: str, value: object):
    config = tiny_config(data).pipeline.model
    setattr(config, name, value)
    with pytest.raises(InputError, match=rf"model\.{name.replace('_', '-')} is .*at least 1"):
        config.check()


@pytest.mark.parametrize("channels", [(8,), (8, 8, 8)])
def test_every_level_needs_its_channels(channels: tuple[int, ...]):
    with pytest.raises(InputError, match=rf"2 levels of the field need as many channel counts, not {len(channels)}"):
        CascadeKPlanes(((8, 8, 8, 4), (16, 16, 16, 8)), channels)


def test_a_cascade_needs_levels(data):
    config = tiny_config(data).pipeline.model
    config.grid_resolutions = ()
    config.loss_weights.sds = (0.1,)
    with pytest.raises(InputError, match=r"grid-resolutions is \(\)"):
        config.check()
