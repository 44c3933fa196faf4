"""The field against recorded values and gradients, and its behaviour at the edges of what it is asked."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from consistent4d_ns.errors import InputError
from consistent4d_ns.field.cascade import NORMAL_STEP, CascadeKPlanes, KPlanesLevel, density_blob, in_box
from consistent4d_ns.field.heads import make_head
from consistent4d_ns.field.planes import in_parts, sample_plane
from tests.support.agreement import assert_agrees, gradient_summary
from tests.support.golden_field import recorded_field, recorded_name

FLOAT32_ROUNDING = 1e-7
"""Relative error of what was recorded in float32."""
RECORDED_NORMAL_STEP = torch.tensor(NORMAL_STEP, dtype=torch.float32).item()
"""The recorded float64 run shifted points by the float32 number next to 0.001."""
RECORDED = ["consistent4d_reduced", "low_vram_reduced", "4layers_reduced", "hybrid", "blob_dreamfusion"]
COARSE, FINE = ([50, 50, 50, 8], [100, 100, 100, 16])
FINEST = [200, 200, 200, 32]
CONFIGS: dict[str, dict[str, Any]] = {
    "consistent4d": {"resolutions": [COARSE, FINE], "channels": [16, 16], "hidden": 32},
    "consistent4d_low_vram": {"resolutions": [COARSE, FINE], "channels": [16, 8], "hidden": 12},
    "consistent4d_4layers": {"resolutions": [COARSE, FINE, FINEST, FINEST], "channels": [16] * 4, "hidden": 32},
}


@pytest.fixture(scope="module", params=RECORDED)
def recorded(request: pytest.FixtureRequest, golden, golden_json) -> SimpleNamespace:
    """Recorded arrays, the configuration they belong to, and their precision-independent inputs."""
    name = f"kplanes_{request.param}"
    arrays = golden(f"{name}.safetensors")
    return SimpleNamespace(
        arrays=arrays,
        config=golden_json(f"{name}.json")["config"],
        points=arrays["points"],
        times=arrays["timestamps"][:, 0],
    )


def small_field(**changes: Any) -> CascadeKPlanes:
    torch.manual_seed(0)  # small enough a field that an unlucky one is easy to draw
    options: dict[str, Any] = {"resolutions": [[5, 6, 7, 3], [8, 9, 10, 4]], "channels": [4, 2], "hidden": 8}
    return CascadeKPlanes(**{**options, **changes})


def trained_like_field(**changes: Any) -> CascadeKPlanes:
    """A float64 field whose planes all matter."""
    field = small_field(**changes).double()
    for parameter in field.parameters():
        nn.init.uniform_(parameter, -1.0, 1.0)
    return field


def random_inputs(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(count, 4, generator=generator) * 2 - 1
    return inputs[:, :3], inputs[:, 3]


@pytest.mark.parametrize(("run", "values", "normals"), [("f32", 2e-4, 2e-3), ("f64", 1e-9, 1e-6)])
def test_recorded_values(recorded: SimpleNamespace, run: str, values: float, normals: float) -> None:
    dtype = {"f32": torch.float32, "f64": torch.float64}[run]
    arrays = {key.removeprefix(f"{run}."): value for key, value in recorded.arrays.items()}
    field = recorded_field(recorded.arrays, recorded.config, dtype)
    points, times = recorded.points.to(dtype), recorded.times.to(dtype)

    density, features = field(points, times)

    assert density.dtype == features.dtype == dtype
    assert_agrees(f"density {run}", density, arrays["density"][..., 0], values)
    assert_agrees(f"features {run}", features, arrays["features"], values)
    assert_agrees(f"density alone {run}", field.density(points, times), arrays["forward_density"][..., 0], values)
    assert_agrees(f"occupancy density {run}", field.density(points, times)[0], arrays["occ_density"][:, 0], values)
    # softplus(x) = x + softplus(-x): its inverse is y + log(1 - exp(-y)).
    raw = density.double() + torch.log(-torch.expm1(-density.double()))
    assert_agrees(f"raw density {run}", raw, arrays["raw_density"][..., 0], values)
    assert_agrees(f"normals {run}", field.difference_normals(points, times), arrays["normal"], normals)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normals_agree_with_recorded_differences(recorded: SimpleNamespace, dtype: torch.dtype) -> None:
    """Where a difference crosses no line between cells and no kink of a head: elsewhere it averages two slopes."""
    field = recorded_field(recorded.arrays, recorded.config, torch.float64)
    smooth = [
        not kinks_between(field, point, time)
        for point, time in zip(recorded.points.double(), recorded.times.double(), strict=True)
    ]
    assert sum(smooth) > len(smooth) / 4
    normals = field.to(dtype).normals(recorded.points.to(dtype), recorded.times.to(dtype))
    assert_agrees("normals", normals[:, smooth], recorded.arrays["f64.normal"][:, smooth], 5e-5)


def kinks_between(field: CascadeKPlanes, point: Tensor, time: Tensor) -> bool:
    """Whether cells or active hidden units of the density differ between a point and its neighbours."""
    steps = NORMAL_STEP * torch.eye(3, dtype=point.dtype)
    around = point + torch.cat((torch.zeros_like(steps[:1]), steps, -steps))
    if (around.abs() > 1).any():
        return True
    coordinates = torch.cat((around, time.expand(7, 1)), dim=-1)
    for level in field.levels:
        (ny, nx), nz = level.planes[0].shape[2:], level.planes[1].shape[2]  # pyright: ignore
        cells = ((around + 1.0) / 2.0 * (torch.tensor([nx, ny, nz]) - 1)).floor()
        active = level.density_head[0](level(coordinates)) > 0  # pyright: ignore
        if (cells != cells[0]).any() or (active != active[0]).any():
            return True
    return False


@pytest.mark.parametrize(("run", "tolerance"), [("f32", 2e-4), ("f64", 1e-12)])
def test_recorded_densities_around_points(recorded: SimpleNamespace, run: str, tolerance: float) -> None:
    """The densities that normals are made of, at points shifted along each axis and kept in the box."""
    dtype = {"f32": torch.float32, "f64": torch.float64}[run]
    field = recorded_field(recorded.arrays, recorded.config, dtype)
    axes = torch.eye(3, dtype=dtype)
    offsets = RECORDED_NORMAL_STEP * torch.stack((axes, -axes), dim=1).reshape(6, 3)
    shifted = (recorded.points.to(dtype)[:, None] + offsets).clamp(-1, 1)

    density = field.density(shifted.reshape(-1, 3), recorded.times.to(dtype).repeat_interleave(6))

    around = recorded.arrays[f"{run}.density_offset6"][..., 0]
    assert_agrees(f"densities around points {run}", density.view(around.shape), around, tolerance)


def test_gradients_pass_on_the_surface_of_the_box() -> None:
    """Whatever the version of torch: in its clamp they do in 2.11, and do not in 2.14."""
    points = torch.tensor([[-1.0, 0.5, 1.0], [-1.5, 0.0, 2.0]], requires_grad=True)
    inside = in_box(points)
    inside.sum().backward()
    assert torch.equal(inside, points.clamp(-1.0, 1.0))
    assert points.grad is not None
    assert points.grad.tolist() == [[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float64, 1e-9)])
def test_recorded_gradients(recorded: SimpleNamespace, dtype: torch.dtype, tolerance: float) -> None:
    """Of densities and features, for points and every parameter; upstream's is NaN at the origin."""
    field, points = recorded_field(recorded.arrays, recorded.config, dtype), recorded.points.to(dtype, copy=True)
    density, features = field(points.requires_grad_(), recorded.times.to(dtype))
    density_part = (recorded.arrays["coef_density"].to(dtype)[..., 0] * density).mean()
    total = density_part + (recorded.arrays["coef_features"].to(dtype) * features).mean()
    assert_gradients_agree(recorded.arrays, "df", total, field, points, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-2), (torch.float64, 1e-9)])
def test_recorded_gradients_of_normals(
    recorded: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tolerance: float
) -> None:
    """Looser in float32, where normals are differences of nearly equal numbers."""
    monkeypatch.setattr("consistent4d_ns.field.cascade.NORMAL_STEP", RECORDED_NORMAL_STEP)
    field, points = recorded_field(recorded.arrays, recorded.config, dtype), recorded.points.to(dtype, copy=True)
    normals = field.difference_normals(points.requires_grad_(), recorded.times.to(dtype))
    total = (recorded.arrays["coef_normal"].to(dtype) * normals).mean()
    assert_gradients_agree(recorded.arrays, "n", total, field, points, tolerance)


def assert_gradients_agree(
    arrays: dict[str, Tensor], objective: str, total: Tensor, field: CascadeKPlanes, points: Tensor, tolerance: float
) -> None:
    """Compare the gradients of `total`, recorded in full or as a summary, relative to their largest component."""
    label = f"S_{objective} {str(points.dtype).removeprefix('torch.')}"
    assert_agrees(label, total.reshape(1), arrays[f"S_{objective}"], tolerance, relative=True)
    inputs = {"points": points} | {recorded_name(name): parameter for name, parameter in field.named_parameters()}
    gradients = torch.autograd.grad(total, list(inputs.values()), materialize_grads=True)
    for name, gradient in zip(inputs, gradients, strict=True):
        if f"grad_{objective}.{name}" in arrays:
            result, wanted = gradient, arrays[f"grad_{objective}.{name}"]
        else:
            result, wanted = gradient_summary(gradient.double()), arrays[f"gradsum_{objective}.{name}"]
        assert gradient.isfinite().all(), name
        known = wanted.isfinite()
        assert known.all() or (name == "points" and known[points.any(dim=-1)].all()), name
        bound = tolerance if wanted.dtype == torch.float64 else max(tolerance, FLOAT32_ROUNDING)
        assert_agrees(f"gradient of {label}, {name}", result[known], wanted[known], bound, relative=True)


@pytest.mark.parametrize("config", CONFIGS)
def test_recorded_parameters(golden_json, config: str) -> None:
    """Number, shapes and starting values."""
    wanted = golden_json("kplanes_param_shapes.json")[config]
    field = CascadeKPlanes(**CONFIGS[config])
    parameters = {recorded_name(name): parameter for name, parameter in field.named_parameters()}

    assert sum(parameter.numel() for parameter in parameters.values()) == wanted["total"]
    shapes = {name: list(parameter.shape) for name, parameter in parameters.items()}
    assert shapes == {name: shape for name, shape in wanted["shapes"].items() if name != "bbox"}
    for name, parameter in parameters.items():
        lowest, highest, mean = wanted["init"][name]
        if "network" in name:  # uniform in the fan-in, but too few to meet their bounds closely
            assert max(-lowest, highest, parameter.abs().max().item()) <= parameter.shape[1] ** -0.5, name
        else:
            assert parameter.min().item() == pytest.approx(lowest, abs=1e-3), name
            assert parameter.max().item() == pytest.approx(highest, abs=1e-3), name
        assert parameter.mean().item() == pytest.approx(mean, abs=3 * parameter.numel() ** -0.5 * (highest - lowest))


def test_new_planes_do_not_depend_on_time() -> None:
    field = small_field()
    points, times = random_inputs(50)
    assert torch.equal(field.density(points, times), field.density(points, -times))
    for level in field.levels:
        for index, plane in enumerate(level.planes):  # pyright: ignore[reportArgumentType]
            low, high = (1.0, 1.0) if index in (2, 4, 5) else (0.1, 0.5)
            assert low <= plane.min() <= plane.max() <= high


def test_new_heads_are_uniform_in_their_fan_in() -> None:
    for inputs, hidden in ((16, 32), (8, 12)):
        first, _, last = make_head(inputs, hidden, 3, "torch")  # pyright: ignore[reportGeneralTypeIssues]
        assert first.weight.abs().max() <= inputs**-0.5
        assert last.weight.abs().max() <= hidden**-0.5
        assert first.bias is None
        assert last.bias is None


def test_planes_are_read_where_their_axes_say() -> None:
    """Rows run along the second axis; corners lie on the corner values; outside, the border value holds."""
    plane = torch.arange(6.0).view(1, 1, 2, 3)
    coordinates = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [0.5, 0.0], [2.0, -3.0]])
    values = sample_plane(plane, torch.stack((coordinates, coordinates.flip(0))))
    assert values[:, 0].tolist() == [[0.0, 2.0, 3.0, 3.0, 2.0], [2.0, 3.0, 3.0, 2.0, 0.0]]


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_part_for_each_thread_changes_nothing(monkeypatch: pytest.MonkeyPatch, count: int, threads: int) -> None:
    field = small_field()
    points, times = random_inputs(count)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    whole = field(points, times)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert in_parts(torch.ones(count, 4)).shape[0] == threads
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(field(points, times), whole, strict=True))


@pytest.mark.parametrize(("kind", "centre", "half"), [("linear", 10.0, 0.0), ("gaussian", 10.0, 10 * 0.6065306597)])
def test_density_blob(kind: Any, centre: float, half: float) -> None:
    values = density_blob(torch.tensor([[0.0, 0.0, 0.0], [0.0, -0.5, 0.0]]), kind)
    assert values.tolist() == pytest.approx([centre, half], abs=1e-5)


@pytest.mark.parametrize("reduction", ["product", "hybrid"])
def test_level_combines_its_planes(reduction: Any) -> None:
    """Planes that are constant: 2, 3, 5, ... for xy, xz, xt, yz, yt, zt."""
    level = KPlanesLevel([4, 4, 4, 4], channels=1, hidden=2, reduction=reduction)
    for plane, value in zip(level.planes, (2.0, 3.0, 5.0, 7.0, 11.0, 13.0), strict=True):
        nn.init.constant_(plane, value)
    expected = 2 * 3 * 5 * 7 * 11 * 13 if reduction == "product" else (2 + 3 + 7) * 5 * 11 * 13
    assert level(torch.zeros(1, 4)).item() == expected


def test_level_is_the_sum_of_the_heads_up_to_it() -> None:
    field = small_field()
    points, times = random_inputs(20)
    _, before = field(points, times)
    nn.init.zeros_(field.levels[1].feature_head[2].weight)  # pyright: ignore
    _, after = field(points, times)
    assert torch.equal(before[0], after[0])
    assert torch.equal(after[1], after[0])
    assert not torch.equal(before[1], after[1])


def test_normals_are_unit_and_point_out_of_the_blob() -> None:
    field = small_field()
    for parameter in field.parameters():
        nn.init.zeros_(parameter)
    points, times = random_inputs(100)
    normals = field.double().normals(points.double(), times.double())
    assert normals.shape == (2, 100, 3)
    outwards = nn.functional.normalize(points.double(), dim=-1)
    torch.testing.assert_close(normals, outwards.expand(2, -1, -1), atol=1e-2, rtol=0)


@pytest.mark.parametrize("changes", [{}, {"reduction": "hybrid", "blob": "gaussian"}])
def test_normals_are_the_limit_of_differences(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    """And so are their gradients in the parameters; inside the box and outside, where differences are kept in it."""
    monkeypatch.setattr("consistent4d_ns.field.cascade.NORMAL_STEP", 1e-6)
    field = trained_like_field(**changes)
    points, times = (inputs.double() for inputs in random_inputs(200))
    points = points * torch.tensor([1.3, 1.3, 1.0])  # outside along all axes, differences are but rounding
    weights = torch.randn(2, 200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    gradients = []
    for normals in (field.normals(points, times), field.difference_normals(points, times)):
        total = (weights * normals).sum()
        parameters = dict(field.named_parameters())
        found = torch.autograd.grad(total, list(parameters.values()), materialize_grads=True)
        gradients.append(dict(zip(parameters, found, strict=True)))
    assert_agrees("normals", field.normals(points, times), field.difference_normals(points, times), 1e-5)
    for name, wanted in gradients[1].items():
        assert_agrees(name, gradients[0][name], wanted, 1e-4, relative=True)


def test_one_look_gives_what_three_give() -> None:
    field = trained_like_field()
    inputs = tuple(values.double() for values in random_inputs(50))
    results = field.with_normals(*inputs)
    for result, expected in zip(results, (*field(*inputs), field.normals(*inputs)), strict=True):
        torch.testing.assert_close(result, expected)


def test_normals_vanish_with_the_density() -> None:
    """Noise of empty space must not count as a surface; nothing there is NaN."""
    field = small_field(hidden=8)
    for level in field.levels:
        nn.init.constant_(level.density_head[2].weight, -1e6)  # pyright: ignore
        nn.init.constant_(level.density_head[0].weight, 1.0)  # pyright: ignore
    normals = field.normals(*random_inputs(50))
    assert not normals.any()
    normals.sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in field.parameters())


def test_autocast_does_not_change_anything() -> None:
    """Half precision would drown the finite differences that normals are made of."""
    inputs, results = random_inputs(64), []
    for enabled in (False, True):
        field = small_field()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            density, features = field(*inputs)
            normals = field.normals(*inputs)
            assert torch.equal(field.density(*inputs), density)
        (density.sum() + features.sum() + normals.sum()).backward()
        results.append([density, features, normals, *(parameter.grad for parameter in field.parameters())])
    for plain, autocast in zip(*results, strict=True):
        assert plain.dtype == autocast.dtype == torch.float32
        assert torch.equal(plain, autocast)


def test_no_points() -> None:
    """A ray that meets nothing must not stop training."""
    field = small_field()
    points, times = torch.empty(0, 3, requires_grad=True), torch.empty(0)
    density, features = field(points, times)
    normals = field.normals(points, times)
    assert (density.shape, features.shape, normals.shape) == ((2, 0), (2, 0, 3), (2, 0, 3))
    assert field.density(points, times).shape == (2, 0)
    (density.sum() + features.sum() + normals.sum()).backward()
    for parameter in field.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_gradients_are_finite_at_the_origin_and_in_the_corners() -> None:
    field = small_field()
    points = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 3).requires_grad_()
    density, features = field(points, torch.zeros(27))
    (density.sum() + features.sum() + field.normals(points, torch.zeros(27)).sum()).backward()
    gradients = [points.grad, *(parameter.grad for parameter in field.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


class FakeNetwork(nn.Module):
    """Stands in for tinycudann.Network: remembers what was asked for, answers in half precision."""

    asked: list[tuple[int, int, dict[str, Any]]]

    def __init__(self, inputs: int, outputs: int, config: dict[str, Any]) -> None:
        super().__init__()
        self.asked.append((inputs, outputs, config))
        self.linear = nn.Linear(inputs, outputs, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features).half()


@pytest.mark.parametrize(("hidden", "kind"), [(32, "FullyFusedMLP"), (12, "CutlassMLP"), (128, "FullyFusedMLP")])
def test_tinycudann_is_asked_for_the_same_heads(monkeypatch: pytest.MonkeyPatch, hidden: int, kind: str) -> None:
    module = ModuleType("tinycudann")
    FakeNetwork.asked = []
    monkeypatch.setattr(module, "Network", FakeNetwork, raising=False)
    monkeypatch.setitem(sys.modules, "tinycudann", module)

    field = small_field(hidden=hidden, implementation="tcnn")

    network = {"activation": "ReLU", "output_activation": "None", "n_neurons": hidden, "n_hidden_layers": 1}
    assert FakeNetwork.asked == [(i, o, {"otype": kind, **network}) for i in (4, 2) for o in (1, 3)]
    density, features = field(*random_inputs(5))
    assert density.dtype == features.dtype == torch.float32
    # Their weights are out of reach, so normals are differences.
    normals = field.with_normals(*random_inputs(5))[2]
    assert torch.equal(normals, field.difference_normals(*random_inputs(5)))
    assert torch.equal(normals, field.normals(*random_inputs(5)))


def test_missing_tinycudann_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    with pytest.raises(InputError, match=r"tinycudann.*--pipeline.model.implementation torch") as caught:
        small_field(implementation="tcnn")
    assert "\n" not in str(caught.value)


def test_tinycudann_without_a_device_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tinycudann.py").write_text("raise OSError('no CUDA device')")
    monkeypatch.delitem(sys.modules, "tinycudann", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"no CUDA device.*--pipeline.model.implementation torch"):
        small_field(implementation="tcnn")


def test_cascade_of_many_levels_runs() -> None:
    field = small_field(resolutions=[[4, 4, 4, 2]] * 5, channels=[2] * 5)
    density, features = field(*random_inputs(3))
    assert field.num_levels == 5
    assert (density.shape, features.shape) == ((5, 3), (5, 3, 3))
