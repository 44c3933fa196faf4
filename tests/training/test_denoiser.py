"""Training of the autoencoder and the denoiser with tiny networks: what is learned from, resuming, export."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from consistent4d_ns.data.cameras import OrbitViews, relative_pose
from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.guidance.diffusion import TIMESTEPS, alphas_cumprod
from consistent4d_ns.guidance.loading import load_networks
from consistent4d_ns.guidance.networks import Zero123Networks
from consistent4d_ns.guidance.zero123 import Zero123Guidance
from training import autoencoder, denoiser, export, networks
from training.denoiser import BINS, Balance, Course, LatentViews, Schedule, draw_batch
from training.networks import IMAGE_SIZE, LATENT, Denoiser, load_autoencoder, new_autoencoder, new_networks
from training.optimise import LARGEST_NORM, Journal, Optimiser, learning_rate, orthogonalised
from training.scenes import FOVY, INPUT_VIEWS
from training.viewset import HELD_OUT, VIEWS, ViewSet, save_views


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def _tiny_networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The prior's networks with few channels and layers; what training sets for the whole process is undone."""
    levels = len(networks.UNET["block_out_channels"])
    unet = {"block_out_channels": (32,) * levels, "transformer_layers_per_block": 1, "attention_head_dim": 2}
    vae = {"block_out_channels": (8,) * len(networks.VAE["block_out_channels"]), "norm_num_groups": 4}
    encoder = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    for name, changes in {"UNET": unet, "VAE": vae, "IMAGE_ENCODER": encoder}.items():
        monkeypatch.setattr(networks, name, getattr(networks, name) | changes)
    precision, benchmark = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.benchmark = benchmark


def random_views(scenes: int, seed: int) -> ViewSet:
    generator = seeded(seed)
    images = torch.randint(256, (scenes, VIEWS, 4, IMAGE_SIZE, IMAGE_SIZE), generator=generator, dtype=torch.uint8)
    return ViewSet(images, torch.randn(3, scenes, VIEWS, generator=generator))


# The network as training and guidance use it


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_denoiser_predicts_what_the_guidance_will(kept: float) -> None:
    prior, generator, count = new_networks(seed=1), seeded(0), 3
    guidance = Zero123Guidance(deepcopy(prior), GuidanceConfig(precision="fp32", previews=True), "cpu")
    images = torch.rand(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    poses, noisy = torch.randn(count, 4, generator=generator), torch.randn(count, *LATENT, generator=generator)
    timesteps = torch.tensor([10, 500, 990])
    guidance.prepare(images)
    conditions = guidance.view_conditions(poses, torch.arange(count))
    expected = guidance.predict_noise(noisy[None], timesteps[None], conditions, scale=kept)[0]
    keep = torch.full((count,), kept)
    found = Denoiser(prior)(noisy, timesteps, images, conditions.latents, poses, keep)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    other = Denoiser(prior)(noisy, timesteps, images, conditions.latents, poses, 1 - keep)
    assert (other - expected).abs().max() > 1e-3


def test_networks_are_the_same_for_the_same_seed_and_leave_other_randomness_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (new_networks(seed).projection.weight for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# What a step learns from


def numbered_views(scenes: int = 5) -> LatentViews:
    """Every value of a view's latent is its number, scene * VIEWS + view; the autoencoder is sure of it."""
    number = torch.arange(scenes * VIEWS).view(scenes, VIEWS, 1, 1, 1).expand(-1, -1, *LATENT).half()
    return LatentViews(random_views(scenes, 0), number, torch.zeros_like(number), scale=0.5)


def test_batches_pair_different_views_of_one_scene() -> None:
    data, alphas = numbered_views(), alphas_cumprod().float()
    batch = draw_batch(data, 3000, alphas, seeded(0))
    source = batch.latents[:, 0, 0, 0].long()
    kept = alphas[batch.timesteps][:, None, None, None]
    clean = (batch.noisy - (1 - kept).sqrt() * batch.noise) / (kept.sqrt() * data.scale)
    sharp = batch.timesteps < 500
    target = clean.mean((1, 2, 3))[sharp].round().long()
    assert torch.equal(target // VIEWS, source[sharp] // VIEWS)
    assert (target != source[sharp]).all()
    assert (target % VIEWS).unique().tolist() == list(range(VIEWS))
    assert (source % VIEWS).unique().tolist() == list(range(INPUT_VIEWS))
    assert (source // VIEWS).unique().tolist() == list(range(5))
    images = data.views.images[source // VIEWS, source % VIEWS, :3].float() / 255
    assert torch.equal(batch.images, images)
    expected = pose(data.views, target, source[sharp])
    torch.testing.assert_close(batch.poses[sharp], expected)


def pose(views: ViewSet, target: Tensor, source: Tensor) -> Tensor:
    """Camera vectors between numbered views."""

    def orbit(number: Tensor) -> OrbitViews:
        elevation, azimuth, distance = views.cameras[:, number // VIEWS, number % VIEWS]
        return OrbitViews(elevation, azimuth, distance, torch.full_like(azimuth, FOVY))

    return relative_pose(orbit(target), orbit(source))


def test_timesteps_and_conditions_have_their_shares() -> None:
    batch = draw_batch(numbered_views(), 3000, alphas_cumprod().float(), seeded(1))
    assert batch.timesteps.min() >= 0
    assert 990 < batch.timesteps.max() < TIMESTEPS
    # 1000 u^0.7 < 500 for u < 0.371.
    assert (batch.timesteps < 500).float().mean() == pytest.approx(0.371, abs=0.03)
    assert batch.keep.unique().tolist() == [0, 1]
    assert batch.keep.mean() == pytest.approx(0.9, abs=0.02)
    assert batch.noise.std() == pytest.approx(1, abs=0.01)


def test_posterior_spreads_the_targets() -> None:
    data = numbered_views(1)
    wide = LatentViews(data.views, torch.zeros_like(data.mean), torch.full_like(data.std, 3.0), data.scale)
    noisy = draw_batch(wide, 500, torch.ones(TIMESTEPS), seeded(2)).noisy
    assert noisy.std() == pytest.approx(3 * data.scale, rel=0.02)


def test_all_noise_levels_come_to_count_the_same() -> None:
    balance = Balance(torch.device("cpu"))
    timesteps = torch.arange(0, TIMESTEPS, TIMESTEPS // BINS).repeat_interleave(2)[:-2]
    usual = 10.0 ** -(torch.arange(len(timesteps)) // 2 % 4)
    # Errors go up and down around what is usual.
    errors = usual * torch.tensor((0.5, 1.5)).repeat(len(usual) // 2)
    losses = [balance.loss(errors, timesteps) for _ in range(300)]
    assert losses[-1] == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(balance.errors[:-1], usual[::2], rtol=1e-3, atol=0)
    assert balance.errors[-1] == 1, "a range that never came up"


def test_balance_scales_gradients_but_has_none_itself() -> None:
    balance = Balance(torch.device("cpu"))
    balance.errors[:] = 0.25
    errors = torch.tensor([0.25, 0.25], requires_grad=True)
    balance.loss(errors, torch.tensor([0, 999])).backward()
    assert errors.grad is not None
    assert errors.grad.tolist() == pytest.approx([2, 2])


# Optimisation


def test_learning_rate_rises_stays_and_falls() -> None:
    rates = [learning_rate(step, 2.0, warm_up=4, left=1 - step / 100, cool_down=0.1) for step in range(101)]
    assert rates[:5] == [0.5, 1, 1.5, 2, 2]
    assert rates[50] == rates[89] == 2
    assert rates[95] == pytest.approx(1)
    assert rates[99] == pytest.approx(0.2)
    assert rates[100] == 0


def test_the_last_slice_cools_down_in_its_time() -> None:
    usual, last = (Schedule(steps=1000, minutes=10, finish=finish) for finish in (False, True))
    for schedule in (usual, last):
        assert schedule.rate(step=600, seconds=0) == denoiser.PEAK_RATE
        assert schedule.rate(step=1000, seconds=0) == 0
        assert [schedule.over(step, time) for step, time in ((999, 599), (1000, 0), (0, 600))] == [False, True, True]
    half = 600 * (1 - denoiser.COOL_DOWN / 2)
    assert usual.rate(step=600, seconds=half) == denoiser.PEAK_RATE
    assert last.rate(step=600, seconds=half) == pytest.approx(denoiser.PEAK_RATE / 2)
    assert last.rate(step=600, seconds=600) == 0


def small_network(seed: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).to(dtype)


def take_step(optimiser: Optimiser, seed: int, size: float = 1.0, rate: float = 0.01) -> Tensor:
    """One step with random gradients."""
    generator = seeded(seed)
    for parameter in optimiser.network.parameters():
        parameter.grad = size * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return optimiser.step(rate)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resuming_is_exact(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = Optimiser(small_network(0, dtype), weight_decay=0.1, decay=0.9)
    for seed in (0, 1):
        take_step(whole, seed)
    whole.save(tmp_path / "state.pt")
    resumed = Optimiser(small_network(7, dtype), weight_decay=0.1, decay=0.9)
    resumed.load(tmp_path / "state.pt")
    for seed in (2, 3):
        take_step(whole, seed)
        take_step(resumed, seed)
    assert resumed.steps == whole.steps == 4
    for name in ("parameters", "masters", "averages"):
        assert all(torch.equal(a, b) for a, b in zip(getattr(whole, name), getattr(resumed, name), strict=True)), name


def test_masters_learn_what_half_precision_would_lose() -> None:
    optimiser = Optimiser(nn.Linear(1, 1, bias=False).to(torch.bfloat16), weight_decay=0.0, decay=0.9)
    optimiser.masters[0].fill_(1.0)
    weight = optimiser.parameters[0]
    for _ in range(64):
        weight.grad = torch.ones_like(weight)
        optimiser.step(1e-4)
    assert weight.dtype == torch.bfloat16
    assert optimiser.masters[0].item() == pytest.approx(1 - 64e-4, abs=1e-5)
    assert weight.item() == pytest.approx(1 - 64e-4, abs=4e-3)
    assert weight.item() < 1


@pytest.mark.parametrize("shape", [(40, 90), (90, 40)])
def test_orthogonalised_matrices_keep_their_directions_and_lose_their_sizes(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=seeded(0)) * torch.tensor([1e-4, 1.0, 1e4])[:, None, None]
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    sizes = torch.linalg.diagonal(u.mT @ orthogonalised(matrices).float() @ vh.mT)
    assert sizes.min() > 0.6
    assert sizes.max() < 1.3


def wide_network(seed: int) -> nn.Module:
    """Two matrices of one shape and a kernel for Muon; an embedding, biases and a thin matrix for AdamW."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Embedding(64, 32), nn.Linear(32, 32), nn.Linear(32, 32, bias=False), nn.Conv2d(32, 32, 3), nn.Linear(32, 2)
    )


def test_muon_updates_matrices_of_feature_maps_by_their_orthogonalised_gradient() -> None:
    optimiser = Optimiser(wide_network(0), weight_decay=0.5, decay=0.9, muon=True)
    before = [master.clone() for master in optimiser.masters]
    take_step(optimiser, 0)
    suited = [tuple(m.shape) for group in optimiser.muon.groups for m in group]
    assert sorted(suited) == [(32, 32), (32, 32), (32, 32, 3, 3)]
    for old, new in zip(before, optimiser.masters, strict=True):
        assert new.grad is not None
        if tuple(new.shape) in suited:
            matrix = new.grad.flatten(1)
            update = 0.2 * math.sqrt(max(matrix.shape)) * orthogonalised(matrix[None])[0].view(new.shape)
            torch.testing.assert_close(new, old * (1 - 0.5e-2) - 1e-2 * update, atol=5e-4, rtol=1e-3)
        else:
            kept = 1 - 0.5e-2 if new.ndim > 1 else 1.0
            torch.testing.assert_close(new, old * kept - 1e-2 * new.grad.sign(), atol=1e-4, rtol=1e-3)


def test_resuming_with_muon_is_exact(tmp_path: Path) -> None:
    whole = Optimiser(wide_network(0), weight_decay=0.1, decay=0.9, muon=True)
    take_step(whole, 0)
    whole.save(tmp_path / "state.pt")
    resumed = Optimiser(wide_network(1), weight_decay=0.1, decay=0.9, muon=True)
    resumed.load(tmp_path / "state.pt")
    for seed in (1, 2):
        take_step(whole, seed)
        take_step(resumed, seed)
    assert all(torch.equal(a, b) for a, b in zip(whole.masters, resumed.masters, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters, resumed.parameters, strict=True))


def test_averages_follow_the_parameters() -> None:
    optimiser = Optimiser(small_network(0), weight_decay=0.0, decay=0.15)
    expected = [master.clone() for master in optimiser.masters]
    for step in range(1, 4):
        take_step(optimiser, step)
        kept = min(0.15, step / (10 + step))
        expected = [kept * old + (1 - kept) * new for old, new in zip(expected, optimiser.masters, strict=True)]
    for found, wanted in zip(optimiser.averages, expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert not torch.equal(optimiser.averages[0], optimiser.masters[0])
    optimiser.use_averages()
    assert torch.equal(next(optimiser.network.parameters()), optimiser.averages[0])


def test_long_gradients_are_shortened() -> None:
    optimiser = Optimiser(small_network(0), weight_decay=0.0, decay=0.9)
    for size, length in ((100.0, LARGEST_NORM), (1e-3, None)):
        norm = take_step(optimiser, 0, size)
        used = torch.cat([master.grad.flatten() for master in optimiser.masters if master.grad is not None]).norm()
        assert norm.item() == pytest.approx(size * take_step(optimiser, 0).item(), rel=1e-4)
        assert used.item() == pytest.approx(length or norm.item(), rel=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_gradients_that_are_not_numbers_change_nothing_but_decay(bad: float) -> None:
    optimiser = Optimiser(small_network(0), weight_decay=0.1, decay=0.9)
    before = [parameter.detach().clone() for parameter in optimiser.parameters]
    assert not take_step(optimiser, 0, bad).isfinite()
    for old, new in zip(before, optimiser.parameters, strict=True):
        torch.testing.assert_close(new, old * (1 - 0.01 * 0.1 * (old.ndim > 1)))
    assert take_step(optimiser, 0).isfinite()
    assert all(parameter.isfinite().all() for parameter in optimiser.parameters)


def test_parameters_without_gradient_stay_and_others_get_their_own() -> None:
    optimiser = Optimiser(small_network(0), weight_decay=0.0, decay=0.9)
    before = [parameter.detach().clone() for parameter in optimiser.parameters]
    optimiser.parameters[2].grad = torch.ones_like(optimiser.parameters[2])
    optimiser.step(0.01)
    changes = [float((new.detach() - old).abs().max()) for old, new in zip(before, optimiser.parameters, strict=True)]
    assert changes == pytest.approx([0, 0, 0.01, 0], abs=1e-4)


@pytest.mark.parametrize("content", ["missing", "damaged", "other"])
def test_states_of_other_networks_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.pt"
    if content == "damaged":
        path.write_bytes(b"no state")
    elif content == "other":
        Optimiser(nn.Linear(2, 2), weight_decay=0.0, decay=0.9).save(path)
    with pytest.raises(InputError) as error:
        Optimiser(small_network(0), weight_decay=0.0, decay=0.9).load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_journal_is_written_by_one_process(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "curve.jsonl"
    for active in (True, False, True):
        Journal(path, active).write({"step": 1, "loss": torch.tensor(0.5)})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 0.5), (1, 0.5)]
    assert len(capsys.readouterr().out.splitlines()) == 2


# Autoencoder


def test_degraded_images_keep_shape_and_range() -> None:
    images = torch.rand(40, 3, 16, 16, generator=seeded(0))
    found = autoencoder.degrade(images, seeded(1))
    assert found.shape == images.shape
    assert found.min() >= 0
    assert found.max() <= 1
    changed = (found != images).flatten(1).any(1)
    assert changed.tolist() == [True] * 12 + [False] * 28
    # Coarse noise is flatter, and keeps its mean.
    spread = [found[i : i + 4].flatten(1).std(1).mean() for i in (0, 4)]
    assert spread[1] < spread[0] < images.std()
    torch.testing.assert_close(found[:8].mean((2, 3)), images[:8].mean((2, 3)), atol=0.05, rtol=0)


def test_latents_are_scaled_to_one() -> None:
    images = torch.rand(6, 3, IMAGE_SIZE, IMAGE_SIZE, generator=seeded(0))
    vae: Any = new_autoencoder(seed=0)
    scale = autoencoder.latent_scale(vae, images)
    with torch.no_grad():
        latents = scale * vae.encode(2 * images - 1).latent_dist.mean
    assert latents.square().mean().sqrt() == pytest.approx(1, rel=1e-4)


def test_missing_autoencoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no autoencoder"):
        load_autoencoder(tmp_path / "vae")


# Whole stages


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Views as the first stage leaves them, and a folder for the results."""
    (tmp_path / "views").mkdir()
    for seed, name in enumerate(("train-0-000.safetensors", "train-0-001.safetensors", HELD_OUT)):
        save_views(random_views(2, seed), tmp_path / "views" / name)
    return tmp_path / "views", tmp_path / "out"


def curve(path: Path) -> list[int]:
    """Steps of a training curve, whose figures must be numbers."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(value == value for line in lines for value in line.values())
    return [line["step"] for line in lines]


def steps(path: Path) -> int:
    return torch.load(path, weights_only=True)["steps"]


@pytest.mark.slow
def test_stages_from_views_to_prior(folders: tuple[Path, Path], tmp_path: Path) -> None:
    views, out = folders
    for stage, name, batch in ((autoencoder.main, "autoencoder", 9), (denoiser.main, "denoiser", 16)):
        for total in (2, 4):
            stage(views, out, steps=total, batch=batch, compile=False)
            assert steps(out / f"{name}.pt") == total
        assert curve(out / f"{name}.jsonl") == [2, 4]
    export.main(out, tmp_path / "prior")
    loaded, trained = load_networks(str(tmp_path / "prior")), export.trained_networks(out)
    assert loaded.image_tokens == trained.image_tokens == 65
    assert loaded.scaling_factor == trained.scaling_factor != 1
    for part in ("unet", "vae", "image_encoder", "projection"):
        expected = getattr(trained, part).state_dict()
        for name, value in getattr(loaded, part).state_dict().items():
            torch.testing.assert_close(value.float(), expected[name].half().float(), msg=f"{part}: {name}")
    assert_averages(trained, out)
    with pytest.raises(InputError, match="not an empty folder"):
        export.main(out, tmp_path / "prior")


def assert_averages(trained: Zero123Networks, out: Path) -> None:
    """The networks have the averages, not the last parameters, and differ from the untrained ones."""
    state = torch.load(out / "denoiser.pt", weights_only=True)
    parameters = list(Denoiser(trained).parameters())
    assert all(torch.equal(found, average) for found, average in zip(parameters, state["averages"], strict=True))
    assert not all(torch.equal(found, last) for found, last in zip(parameters, state["masters"], strict=True))
    assert not torch.equal(trained.projection.weight, new_networks(seed=0).projection.weight)


@pytest.mark.slow
def test_a_slice_ends_when_its_time_is_over(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    views, out = folders
    monkeypatch.setattr(denoiser, "REPORT_EVERY", 2)
    out.mkdir()
    new_autoencoder(seed=0).save_pretrained(out / "vae")
    denoiser.main(views, out, steps=6, minutes=1e-9, batch=16, compile=False)
    assert steps(out / "denoiser.pt") == 2


def test_warming_up_changes_nothing(folders: tuple[Path, Path]) -> None:
    views, out = folders
    denoiser.main(views, out, batch=2, compile=False, compile_only=True)
    assert not out.exists()
    course = Course(new_networks(seed=0), 2, False, torch.device("cpu"))
    course.warm_up()
    untrained = Denoiser(new_networks(seed=0)).parameters()
    assert all(torch.equal(a, b) for a, b in zip(course.optimiser.parameters, untrained, strict=True))


def test_the_evaluation_batch_is_always_the_same() -> None:
    course = Course(new_networks(seed=0), 4, False, torch.device("cpu"))
    data = numbered_views(2)
    first = course.evaluation_batch(data)
    course.step(data, 0.0)
    again = course.evaluation_batch(data)
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(again).values(), strict=True))


@pytest.mark.slow
def test_an_exported_prior_can_be_trained_further(folders: tuple[Path, Path], tmp_path: Path) -> None:
    views, out = folders
    for stage, batch in ((autoencoder.main, 9), (denoiser.main, 16)):
        stage(views, out, steps=1, batch=batch, compile=False)
    export.main(out, tmp_path / "prior")
    (out / "denoiser.pt").unlink()
    denoiser.main(views, out, steps=1, batch=16, compile=False, start_from=str(tmp_path / "prior"))
    masters = torch.load(out / "denoiser.pt", weights_only=True)["masters"]
    begun = list(Denoiser(load_networks(str(tmp_path / "prior"))).parameters())
    assert max(float((a - b.detach()).abs().max()) for a, b in zip(masters, begun, strict=True)) < 1e-3
