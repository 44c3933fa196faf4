"""Text-to-image priors in Stable Diffusion's layout: the score is that of diffusers' own pipeline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews, orbit_views, relative_pose
from consistent4d_ns.device.cuda_graphs import Graphed
from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.base import ViewSampler, draw
from consistent4d_ns.guidance.config import TextGuidanceConfig
from consistent4d_ns.guidance.diffusion import add_noise, guided, noise_from_velocity
from consistent4d_ns.guidance.loading import build_text_guidance
from consistent4d_ns.guidance.prior_files import STABLE_DIFFUSION, missing_files, needed_files
from consistent4d_ns.guidance.random_text_prior import write_random_text_prior
from consistent4d_ns.guidance.stable_diffusion import StableDiffusionGuidance
from consistent4d_ns.guidance.view_prompts import BACK, FRONT, OVERHEAD, SIDE, view_kinds, view_prompts
from tests.guidance.layouts import change_json
from tests.support.recomputing import Recomputing

FRONT_VIEW = orbit_views(elevation=15.0, azimuth=0.0, distance=2.0, fovy=49.1)
PROMPT = "a wind-up cat"
NEGATIVE = "blurry"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reduced random priors in the exact layout: `epsilon` as in 1.5, `velocity` as in 2.1."""
    parent = tmp_path_factory.mktemp("priors")
    for name in ("epsilon", "velocity"):
        write_random_text_prior(parent / name, "small", seed=3, dtype=torch.float32, velocity=name == "velocity")
    return parent


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved / "epsilon", tmp_path / "prior"))


def guidance_of(prior: Path, prompt: str = PROMPT, **settings: Any) -> StableDiffusionGuidance:
    config = TextGuidanceConfig(prior=str(prior), negative_prompt=NEGATIVE, **settings)
    guidance = build_text_guidance(config, prompt, FRONT_VIEW, "cpu")
    assert guidance is not None
    return guidance


def views(azimuths: list[float], elevations: list[float]) -> OrbitViews:
    count = len(azimuths)
    return OrbitViews(
        torch.tensor(elevations), torch.tensor(azimuths), torch.full((count,), 2.0), torch.full((count,), 49.1)
    )


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "scale", "rescale"), [("epsilon", 100.0, 0.0), ("velocity", 7.5, 0.7)])
def test_the_score_is_that_of_diffusers(saved: Path, kind: str, scale: float, rescale: float) -> None:
    """For given noise, timesteps, prompt and negative prompt: latents, prompts, guidance, rescaling and loss."""
    from diffusers import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    pipeline: Any = StableDiffusionPipeline.from_pretrained(
        saved / kind, safety_checker=None, requires_safety_checker=False
    )
    guidance = guidance_of(saved / kind, rescale=rescale)
    shown = views([10.0, 100.0], [0.0, 20.0])
    draws = draw(guidance, 1, 2, (20, 980), torch.Generator().manual_seed(0))
    images = torch.rand(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()

    with torch.no_grad():
        posterior = pipeline.vae.encode(2 * images[0] - 1).latent_dist
        latents = pipeline.vae.config.scaling_factor * (posterior.mean + posterior.std * draws.posterior_noise[0])
        noisy = pipeline.scheduler.add_noise(latents, draws.noise[0], draws.timesteps[0])
        prompts = [f"{PROMPT}, front view", f"{PROMPT}, side view"]
        positive, negative = pipeline.encode_prompt(prompts, "cpu", 1, True, negative_prompt=[NEGATIVE] * 2)
        timesteps = draws.timesteps[0].repeat(2)
        predicted = pipeline.unet(noisy.repeat(2, 1, 1, 1), timesteps, torch.cat((negative, positive))).sample
        unconditional, conditional = predicted.chunk(2)
        mixed = unconditional + scale * (conditional - unconditional)
        mixed = rescale_noise_cfg(mixed, conditional, rescale)
        # The noise with which the scheduler steps: what is left of the noisy latent without its predicted clean part.
        alphas = pipeline.scheduler.alphas_cumprod[draws.timesteps[0]][:, None, None, None]
        if kind == "velocity":
            clean = alphas.sqrt() * noisy - (1 - alphas).sqrt() * mixed
            mixed = (noisy - alphas.sqrt() * clean) / (1 - alphas).sqrt()
        gradient = (1 - alphas) * (mixed - draws.noise[0])

    loss = guidance.loss(images, relative_pose(shown, FRONT_VIEW), torch.tensor([0, 0]), draws, scale)
    torch.testing.assert_close(loss, 0.5 * gradient.square().sum()[None] / 2, rtol=1e-3, atol=0)
    encoded = guidance.encode(images, draws.posterior_noise)
    torch.testing.assert_close(encoded[0], latents, rtol=1e-4, atol=1e-5)
    conditions = guidance.view_conditions(relative_pose(shown, FRONT_VIEW), torch.tensor([0, 0]))
    ours = guidance.predict_noise(noisy[None], draws.timesteps, conditions, scale)[0]
    torch.testing.assert_close(ours, mixed, rtol=1e-3, atol=1e-3)
    loss.sum().backward()
    (theirs,) = torch.autograd.grad(guidance.encode(images, draws.posterior_noise), images, gradient[None] / 2)
    assert images.grad is not None
    torch.testing.assert_close(images.grad, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def test_views_get_the_prompts_that_users_of_threestudio_expect() -> None:
    config = TextGuidanceConfig()
    azimuths = [
        0.0,
        45.0,
        -45.0,
        46.0,
        90.0,
        -90.0,
        134.0,
        135.0,
        180.0,
        -135.0,
        225.0,
        226.0,
        315.0,
        359.0,
        721.0,
        180.0,
    ]
    elevations = [0.0] * 15 + [61.0]
    kinds = view_kinds(torch.tensor(elevations), torch.tensor(azimuths), config).tolist()
    expected = [
        FRONT,
        FRONT,
        FRONT,
        SIDE,
        SIDE,
        SIDE,
        SIDE,
        BACK,
        BACK,
        BACK,
        BACK,
        SIDE,
        FRONT,
        FRONT,
        FRONT,
        OVERHEAD,
    ]
    assert kinds == expected
    narrow = TextGuidanceConfig(front_angle=10.0, back_angle=60.0, overhead_angle=80.0)
    assert view_kinds(torch.tensor([61.0, 0.0]), torch.tensor([11.0, 121.0]), narrow).tolist() == [SIDE, BACK]
    prompts = view_prompts("a {} cat", config)
    assert prompts == [f"a {{}} cat, {view} view" for view in ("front", "side", "back", "overhead")]


def test_views_read_their_own_prompts(saved: Path) -> None:
    """Whatever the front view is relative to which they are given, and one prompt for all where that is asked for."""
    guidance = guidance_of(saved / "epsilon")
    shown = views([0.0, 90.0, -170.0, 0.0], [15.0, -10.0, 30.0, 75.0])
    contexts = guidance.view_conditions(relative_pose(shown, FRONT_VIEW), torch.zeros(4, dtype=torch.int64))
    alone = [
        guidance_of(saved / "epsilon", prompt, view_prompts=("{}",) * 4)
        for prompt in view_prompts(PROMPT, guidance.config)
    ]
    for view, other in enumerate(alone):
        single = other.view_conditions(relative_pose(views([200.0], [80.0]), FRONT_VIEW), torch.tensor([0]))
        torch.testing.assert_close(contexts.prompts[view], single.prompts[0], rtol=1e-4, atol=1e-5)
        assert torch.equal(contexts.negative[view], contexts.negative[0])
    assert not torch.allclose(contexts.prompts[0], contexts.prompts[2], atol=1e-3)


def test_rescaled_guidance() -> None:
    generator = torch.Generator().manual_seed(0)
    unconditional, conditional = torch.randn(2, 3, 2, 4, 8, 8, generator=generator)
    plain = guided(unconditional, conditional, 100.0)
    assert torch.equal(plain, unconditional + 100.0 * (conditional - unconditional))
    whole, half = (guided(unconditional, conditional, 100.0, rescale) for rescale in (1.0, 0.5))
    torch.testing.assert_close(whole.std(dim=(2, 3, 4)), conditional.std(dim=(2, 3, 4)))
    torch.testing.assert_close(half, (plain + whole) / 2)


def test_noise_and_velocity() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 5, 4, 3, 3, generator=generator)
    kept = torch.rand(5, generator=generator)
    ac = kept[:, None, None, None]
    velocity = ac.sqrt() * noise - (1 - ac).sqrt() * clean
    torch.testing.assert_close(noise_from_velocity(velocity, add_noise(clean, noise, kept), kept), noise)


def test_what_is_not_needed_any_more_is_freed(saved: Path) -> None:
    guidance = guidance_of(saved / "epsilon")
    networks: Any = guidance._networks
    assert not hasattr(networks, "text_encoder")
    assert not hasattr(networks, "tokenizer")
    assert not hasattr(networks.vae, "decoder")
    assert not any(parameter.requires_grad for parameter in networks.unet.parameters())
    with pytest.raises(InputError, match="previews True keeps it"):
        guidance.sample(torch.zeros(1, 4), torch.tensor([0]), scale=1.0, generator=torch.Generator())


@pytest.mark.slow
def test_previews_are_sampled(saved: Path) -> None:
    guidance = guidance_of(saved / "velocity", previews=True)
    assert isinstance(guidance, ViewSampler)
    poses = relative_pose(views([0.0, 180.0], [0.0, 0.0]), FRONT_VIEW)
    images = guidance.sample(
        poses, torch.tensor([0, 0]), scale=7.5, generator=torch.Generator().manual_seed(0), steps=3
    )
    assert images.shape == (2, 3, 32, 32)
    assert 0.0 <= float(images.min()) < float(images.max()) <= 1.0
    assert not torch.allclose(images[0], images[1])


@pytest.mark.slow
def test_a_recorded_step_has_the_same_loss(saved: Path) -> None:
    """Distillation is a function of tensors alone, as a CUDA graph needs it."""
    guidance = guidance_of(saved / "epsilon", rescale=0.5)
    draws = draw(guidance, 2, 2, (20, 980), torch.Generator().manual_seed(0))
    images = torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    expected: list[Tensor] = []
    for graphed in (guidance._graphed_distil, Graphed(guidance._distil, enabled=True, recorder=Recomputing)):
        guidance._graphed_distil = graphed
        for azimuths in ([0.0, 90.0], [180.0, 0.0]):
            poses = relative_pose(views(azimuths, [0.0, 70.0]), FRONT_VIEW)
            expected.append(guidance.loss(images, poses, torch.tensor([0, 0]), draws, 100.0))
    assert torch.equal(expected[0], expected[2])
    assert torch.equal(expected[1], expected[3])
    assert not torch.equal(expected[0], expected[1])


def test_a_prompt_that_is_too_long_is_said_to_be(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guidance_of(saved / "epsilon", "cat " * 40)
    printed = capsys.readouterr()
    assert "has more than the 77 tokens that are read; shorten it." in " ".join(printed.out.split())
    assert not printed.err


def test_files_of_a_repository() -> None:
    """Weights once, of the variant that is preferred; settings; and nothing of other formats or safety checkers."""
    wanted = [
        *("model_index.json", "scheduler/scheduler_config.json"),
        *("tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer_config.json"),
        *("unet/config.json", "unet/diffusion_pytorch_model.safetensors"),
        *("vae/config.json", "vae/diffusion_pytorch_model.safetensors"),
        *("text_encoder/config.json", "text_encoder/model.safetensors"),
    ]
    other = [
        *("README.md", "v1-5-pruned.ckpt", "unet/diffusion_pytorch_model.non_ema.safetensors"),
        *("unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.safetensors"),
        *("safety_checker/model.safetensors", "safety_checker/config.json", "text_encoder/pytorch_model.bin"),
    ]
    assert sorted(needed_files([*other, *wanted], "someone/sd", STABLE_DIFFUSION)) == sorted(wanted)
    assert missing_files(wanted, "someone/sd", STABLE_DIFFUSION) == []
    rest = [name for name in wanted if name != "tokenizer/merges.txt"]
    assert missing_files(rest, "someone/sd", STABLE_DIFFUSION) == ["tokenizer/merges.txt"]


def remove_weights(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()


def multi_view(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    change_json(folder / "model_index.json", **index | {"unet": ["mv_unet", "MultiViewUNetModel"]})


def add_words(folder: Path) -> None:
    file = folder / "tokenizer" / "vocab.json"
    words = json.loads(file.read_text())
    file.write_text(json.dumps({word: number + 1000 for word, number in words.items()}))


def lose_tensor(folder: Path) -> None:
    weights = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    tensors.pop("text_model.final_layer_norm.weight")
    save_file(tensors, weights)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: shutil.rmtree(folder / "vae"), "not a complete prior in Stable Diffusion's layout"),
        (remove_weights, "unet/diffusion_pytorch_model.bin is a pickle, which may hold code and is not read"),
        (multi_view, "its UNet is a MultiViewUNetModel, whose code would have to come with the prior and is never run"),
        (lambda folder: (folder / "text_encoder_2").mkdir(), "two text encoders, such as Stable Diffusion XL"),
        (lambda folder: (folder / "transformer").mkdir(), "a transformer in place of a UNet"),
        (lambda folder: (folder / "clip_camera_projection").mkdir(), "a Zero123 prior, which reads an image"),
        (lambda folder: (folder / "tokenizer" / "merges.txt").unlink(), "merges.txt is missing"),
        (lambda folder: (folder / "tokenizer" / "vocab.json").write_text("{"), "holds no CLIP tokenizer"),
        (add_words, "this tokenizer knows more words than the text encoder"),
        (lambda folder: change_json(folder / "unet" / "config.json", sample_size=-8), "sample_size is -8, no size"),
        (lose_tensor, "1 of 36 tensors are missing, first"),
        (
            lambda folder: change_json(folder / "scheduler" / "scheduler_config.json", prediction_type="sample"),
            "prediction_type 'sample' is not supported, only 'epsilon' or 'v_prediction'",
        ),
        (
            lambda folder: change_json(folder / "text_encoder" / "config.json", model_type="t5"),
            "a t5 encoder, where Stable Diffusion has CLIP's text model",
        ),
    ],
)  # fmt: skip
def test_what_is_no_such_prior(folder: Path, change: Callable[[Path], Any], said: str) -> None:
    change(folder)
    assert said in refusal(folder)


def test_what_no_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    missing = refusal("someone/sd")
    assert "Get it with `hf download someone/sd`" in missing
    assert "reads an image, not a prompt: offline, make the object from an image" in missing
    assert "consistent4d weights stable-diffusion" in refusal("nowhere")
    assert "reads an image, not a prompt" in refusal("bundled")
    (tmp_path / "sd.ckpt").touch()
    assert "a folder in Stable Diffusion's layout is needed" in refusal(tmp_path / "sd.ckpt")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rescale": 1.5}, "guidance.rescale is 1.5: give a number from 0 to 1."),
        ({"front_angle": -1.0}, "guidance.front-angle is -1.0: give a number from 0 to 180."),
        ({"front_angle": 100.0, "back_angle": 90.0}, "guidance.back-angle is 90.0: give a number from 0 to 80."),
        ({"view_prompts": ("{}", "{}", "{}", "top")}, "guidance.view-prompts has 'top': write {} once"),
        ({"scale": float("nan")}, "guidance.scale is nan"),
    ],
)
def test_options_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as raised:
        TextGuidanceConfig(**settings).check()
    assert said in str(raised.value)


def refusal(prior: Path | str) -> str:
    config = TextGuidanceConfig(prior=str(prior))
    with pytest.raises(InputError) as raised:
        build_text_guidance(config, PROMPT, FRONT_VIEW, "cpu")
    message = str(raised.value)
    assert "\n" not in message
    assert str(prior) in message
    return message
