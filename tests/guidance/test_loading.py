"""Priors are loaded from every layout they come in, completely, safely, or refused in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance import hub
from consistent4d_ns.guidance.checksums import LIST
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.guidance.loading import build_guidance, load_networks
from consistent4d_ns.guidance.networks import Zero123Networks
from consistent4d_ns.guidance.prior_files import needed_files
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.guidance.saving import save_folder
from consistent4d_ns.guidance.zero123 import Zero123Guidance
from tests.conftest import golden_path
from tests.guidance.layouts import PROJECTIONS, change_json, hub_folder, original_tensors, write_json

NETWORKS = ("unet", "vae", "image_encoder", "projection")
WEIGHTED = ("unet", "vae", "image_encoder", "clip_camera_projection")
"""Folders with weights in them."""
PARTS = (*WEIGHTED, "scheduler", "feature_extractor")
CONFIGS = (
    *(f"{part}/config.json" for part in WEIGHTED),
    "scheduler/scheduler_config.json",
    "feature_extractor/preprocessor_config.json",
)


@pytest.fixture(scope="module")
def networks() -> Zero123Networks:
    return random_networks("small", "cpu", seed=0)


@pytest.fixture(scope="module")
def original(networks: Zero123Networks) -> dict[str, Tensor]:
    return original_tensors(networks)


@pytest.fixture(scope="module")
def saved(networks: Zero123Networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prior as the hub has it, in `hub`, and with checksums, in `listed`."""
    parent = tmp_path_factory.mktemp("saved")
    hub_folder(networks, parent / "hub")
    save_folder(networks, parent / "listed")
    return parent


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved / "hub", tmp_path / "prior"))


@pytest.fixture
def listed(saved: Path, tmp_path: Path) -> Path:
    """A folder with checksums."""
    return Path(shutil.copytree(saved / "listed", tmp_path / "prior"))


def weights_in(part: Path) -> Path:
    """The weight file of one part."""
    (path,) = part.glob("*.safetensors")
    return path


def assert_same_weights(found: Zero123Networks, expected: Zero123Networks) -> None:
    for part in NETWORKS:
        ours, theirs = getattr(found, part).state_dict(), getattr(expected, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), part


def refusal(prior: Path | str) -> str:
    """What the user reads when `prior` is asked for: one line that names it."""
    with pytest.raises(InputError) as error:
        load_networks(str(prior))
    message = str(error.value)
    assert "\n" not in message
    assert str(prior) in message
    return message


# Layouts


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_diffusers_folder(networks: Zero123Networks, tmp_path: Path, projection: str) -> None:
    networks = deepcopy(networks)
    networks.clip_mean, networks.clip_std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    found = load_networks(str(hub_folder(networks, tmp_path, projection)))
    assert_same_weights(found, networks)
    assert (found.image_size, found.latent_shape, found.image_tokens) == (64, (4, 16, 16), 17)
    assert found.scaling_factor == pytest.approx(0.6)
    assert (found.clip_mean, found.clip_std) == (networks.clip_mean, networks.clip_std)
    assert torch.equal(found.alphas, networks.alphas)


def test_no_weights_are_drawn_only_to_be_replaced(
    networks: Zero123Networks, original: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[nn.Module] = []

    def load_state_dict(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        assert all(parameter.is_meta for parameter in self.parameters())
        built.append(self)
        return loaded(self, *args, **kwargs)

    loaded = nn.Module.load_state_dict
    monkeypatch.setattr(nn.Module, "load_state_dict", load_state_dict)
    save_file({name: value.contiguous() for name, value in original.items()}, tmp_path / "zero123.safetensors")
    for prior in (hub_folder(networks, tmp_path / "folder"), tmp_path / "zero123.safetensors"):
        encoder = load_networks(str(prior)).image_encoder
        positions = dict(encoder.named_buffers())["vision_model.embeddings.position_ids"]
        assert positions.flatten().tolist() == list(range(positions.numel()))
    assert len(built) == 2 * len(NETWORKS)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_original_checkpoint(
    networks: Zero123Networks, original: dict[str, Tensor], tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"zero123{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": original, "global_step": 1}, path)
    else:
        save_file({name: value.contiguous() for name, value in original.items()}, path)
    found = load_networks(str(path))
    assert_same_weights(found, networks)
    assert (found.image_size, found.image_tokens, found.scaling_factor) == (256, 1, 0.18215)
    assert found.unet.config["down_block_types"] == ("CrossAttnDownBlock2D", "DownBlock2D")


@pytest.mark.slow
def test_golden_checkpoint_is_the_same_prior_in_every_layout(tmp_path: Path) -> None:
    path = golden_path("zero123/small_zero123_ckpt.safetensors")
    expected = load_networks(str(path))
    torch.save({"state_dict": load_file(path)}, tmp_path / "prior.ckpt")
    places = [hub_folder(expected, tmp_path / projection, projection) for projection in PROJECTIONS]
    frame = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    reference = Zero123Guidance(expected, GuidanceConfig(precision="fp32"), "cpu")
    reference.prepare(frame)
    for place in (*places, tmp_path / "prior.ckpt"):
        found = load_networks(str(place))
        guidance = Zero123Guidance(found, GuidanceConfig(precision="fp32"), "cpu")
        guidance.prepare(frame)
        assert torch.equal(guidance.conditions.tokens, reference.conditions.tokens)
        assert torch.equal(guidance.conditions.latents, reference.conditions.latents)
        ours, theirs = found.unet.state_dict(), expected.unet.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert found.unet.config["attention_head_dim"] == expected.unet.config["attention_head_dim"]


def test_checkpoint_without_averages_uses_the_raw_weights(original: dict[str, Tensor], tmp_path: Path) -> None:
    pruned = {name: value for name, value in original.items() if not name.startswith("model_ema")}
    torch.save(pruned, tmp_path / "pruned.ckpt")
    found = load_networks(str(tmp_path / "pruned.ckpt"))
    raw = original["model.diffusion_model.out.2.weight"]
    assert torch.equal(found.unet.state_dict()["conv_out.weight"], raw)


def test_averaged_weights_are_preferred(networks: Zero123Networks, folder: Path) -> None:
    plain = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({k: v.half() + 1 for k, v in load_file(plain).items()}, plain.with_suffix(".fp16_ema.safetensors"))
    expected = networks.unet.state_dict()["conv_out.bias"].half() + 1
    assert torch.equal(load_networks(str(folder)).unet.state_dict()["conv_out.bias"], expected)


def test_bin_files_of_old_diffusers(networks: Zero123Networks, folder: Path) -> None:
    """Pickled tensors, attention under its former names, and a table of positions that is no weight."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for part, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("image_encoder", "model"),
    ):
        file = next((folder / part).glob("*.safetensors"))
        tensors = load_file(file)
        file.unlink()
        if part == "vae":
            for new, old in names.items():
                tensors = {k.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): v for k, v in tensors.items()}
            assert any(".proj_attn." in name for name in tensors)
        if part == "image_encoder":
            tensors["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
        torch.save(tensors, folder / part / f"{'pytorch_' if stem == 'model' else ''}{stem}.bin")
    assert_same_weights(load_networks(str(folder)), networks)


def test_remote_code_is_not_run(networks: Zero123Networks, folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "was_run"
    for place in (folder, folder / "clip_camera_projection"):
        (place / "clip_camera_projection.py").write_text(f"open({str(marker)!r}, 'w')")
    write_json(folder / "model_index.json", {"clip_camera_projection": ["clip_camera_projection", "CameraProjection"]})
    assert_same_weights(load_networks(str(folder)), networks)
    assert not marker.exists()


# Pickles


class Malicious:
    """Runs `call` on `argument` when unpickled the ordinary way."""

    def __init__(self, call: Callable[..., Any], argument: Any) -> None:
        self.call, self.argument = call, argument

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any]]:
        return self.call, (self.argument,)


@pytest.mark.parametrize("zipped", [True, False])
def test_shell_commands_in_pickles_are_not_run(original: dict[str, Tensor], tmp_path: Path, zipped: bool) -> None:
    marker, path = tmp_path / "was_run", tmp_path / "evil.ckpt"
    content = {"state_dict": original, "callbacks": Malicious(os.system, f"touch {marker}")}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert "holds Python code, which is never run" in refusal(path)
    assert not marker.exists()


def test_other_calls_in_pickles_become_placeholders(
    networks: Zero123Networks, original: dict[str, Tensor], tmp_path: Path
) -> None:
    marker, path = tmp_path / "was_run", tmp_path / "evil.ckpt"
    calls = [Malicious(subprocess.check_call, ["touch", str(marker)]), Malicious(eval, f"open({str(marker)!r}, 'w')")]
    torch.save({"state_dict": original, "callbacks": calls}, path)
    assert_same_weights(load_networks(str(path)), networks)
    assert not marker.exists()


def test_unknown_classes_become_placeholders(
    networks: Zero123Networks, original: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in zero123-xl.ckpt, which refers to callbacks of an old pytorch-lightning, as keys and as objects."""
    name = "some_lightning.callbacks"
    callback = type("ModelCheckpoint", (), {"__module__": name})
    module = ModuleType(name)
    module.ModelCheckpoint = callback  # type: ignore[attr-defined]
    instance = callback()
    vars(instance)["best"] = 0.5
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "some_lightning", ModuleType("some_lightning"))
        patch.setitem(sys.modules, name, module)
        torch.save({"state_dict": original, "callbacks": {callback: {}, "last": instance}}, tmp_path / "xl.ckpt")
    assert_same_weights(load_networks(str(tmp_path / "xl.ckpt")), networks)
    assert name not in sys.modules


# Bad input


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("share", [0.5, 0.0])
def test_truncated_checkpoint(original: dict[str, Tensor], tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": original}, path)
    else:
        save_file({name: value.contiguous() for name, value in original.items()}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "download it again" in refusal(path)


@pytest.mark.parametrize("part", WEIGHTED)
@pytest.mark.parametrize("size", [1000, 100, 4, 0])
def test_truncated_part_of_a_folder(folder: Path, part: str, size: int) -> None:
    path = weights_in(folder / part)
    path.write_bytes(path.read_bytes()[:size])
    message = refusal(folder)
    assert message.startswith(f"{path}: not a readable weight file " if size else f"{path} is an empty file ")
    assert message.endswith("download it again.")


@pytest.mark.parametrize("part", WEIGHTED)
def test_a_clone_without_git_lfs(folder: Path, part: str) -> None:
    path = weights_in(folder / part)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1048576\n")
    message = refusal(folder)
    assert message.startswith(f"{path} is a Git LFS pointer, not the weights it stands for: run `git lfs pull`")


def test_a_clone_without_git_lfs_of_a_folder_with_checksums(listed: Path) -> None:
    path = weights_in(listed / "vae")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1048576\n")
    assert f"{path.relative_to(listed)} is a Git LFS pointer" in refusal(listed)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("<!doctype html>\n<html>" + "x" * 10_000, "is a web page, not a weight file: download it again"),
        ("Invalid username or password.", "is text, not a weight file (it begins 'Invalid username or password.')"),
    ],
)
def test_what_a_server_sent_instead_of_a_checkpoint(tmp_path: Path, suffix: str, content: str, words: str) -> None:
    path = tmp_path / f"zero123{suffix}"
    path.write_text(content)
    assert words in refusal(path)


def test_folders_of_the_hub_s_cache_around_a_prior(folder: Path, tmp_path: Path) -> None:
    """The cache's root, the folder around that, and a repository's folder; only a snapshot is a prior."""
    root = tmp_path / "huggingface" / "hub"
    (root / "models--openai--clip-vit").mkdir(parents=True)
    repository = root / "models--someone--zero123-xl"
    snapshot = repository / "snapshots" / "0f1e2d"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    for place in (root, root.parent):
        message = refusal(place)
        assert "the hub's cache, not a prior" in message
        assert "(someone/zero123-xl or openai/clip-vit)" in message
    message = refusal(repository)
    assert "a repository's folder in the hub's cache, not a prior" in message
    assert f"({snapshot} or someone/zero123-xl)" in message
    load_networks(str(snapshot))


@pytest.mark.parametrize("part", WEIGHTED)
def test_folder_without_weights(folder: Path, part: str) -> None:
    weights_in(folder / part).unlink()
    assert f"no weights in {part}/" in refusal(folder)


@pytest.mark.parametrize("part", PARTS)
def test_folder_without_a_part(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    assert part in refusal(folder)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff", b"[]"])
def test_folder_with_a_broken_configuration(folder: Path, config: str, content: bytes | None) -> None:
    if content is None:
        (folder / config).unlink()
    else:
        (folder / config).write_bytes(content)
    assert refusal(folder).startswith(f"{folder / config}: ")


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ("unet/config.json", {"block_out_channels": "wide"}),
        ("unet/config.json", {"norm_num_groups": 0}),
        ("vae/config.json", {"down_block_types": ["UnknownBlock"] * 3}),
        ("image_encoder/config.json", {"hidden_size": "wide"}),
        ("image_encoder/config.json", {"num_attention_heads": 0}),
        ("scheduler/scheduler_config.json", {"beta_start": "small"}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": -1}),
    ],
)
def test_folder_with_a_senseless_configuration(folder: Path, config: str, settings: dict[str, Any]) -> None:
    change_json(folder / config, **settings)
    assert refusal(folder).startswith(f"{folder / config}: describes no ")


@pytest.mark.parametrize("part", WEIGHTED)
def test_altered_part_of_a_folder_with_checksums(listed: Path, part: str) -> None:
    """One bit of one weight: without checksums nobody would know."""
    path = weights_in(listed / part)
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    file = path.relative_to(listed)
    assert f"{file} does not match its checksum (truncated or altered)" in refusal(listed)
    (listed / LIST).unlink()
    load_networks(str(listed))


@pytest.mark.parametrize("part", WEIGHTED)
def test_truncated_part_of_a_folder_with_checksums(listed: Path, part: str) -> None:
    path = weights_in(listed / part)
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path.relative_to(listed)} does not match its checksum" in refusal(listed)


@pytest.mark.parametrize("part", PARTS)
def test_folder_with_checksums_without_a_part(listed: Path, part: str) -> None:
    shutil.rmtree(listed / part)
    message = refusal(listed)
    assert f": {part}/" in message
    assert "is missing" in message


def test_checksums_come_before_anything_is_read(listed: Path) -> None:
    change_json(listed / "model_index.json", _class_name="Other")
    (listed / "unet" / "config.json").write_text("{")
    assert "model_index.json does not match its checksum" in refusal(listed)


def test_folder_of_another_size_than_its_configuration(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: value[:1] for name, value in load_file(path).items()}, path)
    with pytest.raises(InputError, match="tensors are of another shape, first "):
        load_networks(str(folder))


def test_prior_without_condition_latents(tmp_path: Path) -> None:
    """A text-to-image UNet takes the noisy latent only."""
    from diffusers import UNet2DConditionModel

    networks = random_networks("small", "cpu", seed=0)
    config: dict[str, Any] = {**networks.unet.config, "in_channels": 4}
    networks.unet = UNet2DConditionModel(**config)
    message = refusal(hub_folder(networks, tmp_path))
    assert "UNet input channels (noisy and condition latent): 4, expected 8" in message


def test_projection_of_another_width(folder: Path) -> None:
    path = folder / "clip_camera_projection" / "diffusion_pytorch_model.safetensors"
    save_file({"proj.weight": torch.zeros(24, 24), "proj.bias": torch.zeros(24)}, path)
    assert "camera projection inputs (image embedding and 4 camera numbers): 24, expected 28" in refusal(folder)


@pytest.mark.parametrize("count", [18, 0, "all"])
def test_impossible_image_tokens(folder: Path, count: Any) -> None:
    change_json(folder / "clip_camera_projection" / "config.json", image_tokens=count)
    assert f"image_tokens is {count}, the encoder yields 1 to 17" in refusal(folder)


@pytest.mark.parametrize("mean", [0.5, [0.5], ["a", "b", "c"]])
def test_impossible_image_mean(folder: Path, mean: Any) -> None:
    path = folder / "feature_extractor" / "preprocessor_config.json"
    change_json(path, image_mean=mean)
    assert refusal(folder).startswith(f"{path}: image_mean is {mean!r}, not three numbers")


def test_scheduler_of_another_kind(folder: Path) -> None:
    change_json(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    with pytest.raises(InputError, match="prediction_type 'v_prediction' is not supported"):
        load_networks(str(folder))


def test_empty_folder(tmp_path: Path) -> None:
    assert "not a complete Zero123 prior, no weights in unet/" in refusal(tmp_path)


def test_folder_of_a_text_to_image_model(folder: Path) -> None:
    (folder / "image_encoder").rename(folder / "text_encoder")
    shutil.rmtree(folder / "clip_camera_projection")
    assert "no weights in image_encoder/" in refusal(folder)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_text_to_image_checkpoint(original: dict[str, Tensor], tmp_path: Path, suffix: str) -> None:
    """As Stable Diffusion is published: a text encoder, no camera projection, a UNet for the noisy latent alone."""
    ours = ("cond_stage_model.", "cc_projection.", "model_ema.")
    tensors = {k: v.contiguous() for k, v in original.items() if not k.startswith(ours)}
    first = "model.diffusion_model.input_blocks.0.0.weight"
    tensors[first] = tensors[first][:, :4].contiguous()
    tensors["cond_stage_model.transformer.text_model.final_layer_norm.weight"] = torch.zeros(24)
    path = tmp_path / f"v1-5-pruned{suffix}"
    torch.save({"state_dict": tensors}, path) if suffix == ".ckpt" else save_file(tensors, path)
    message = refusal(path)
    assert "not a Zero123 prior in the original layout, cond_stage_model.model.visual." in message


def test_checkpoint_without_condition_latents(original: dict[str, Tensor], tmp_path: Path) -> None:
    first = "input_blocks.0.0.weight"
    names = (f"model.diffusion_model.{first}", f"model_ema.diffusion_model{first.replace('.', '')}")
    torch.save(original | {name: original[name][:, :4] for name in names}, tmp_path / "narrow.ckpt")
    message = refusal(tmp_path / "narrow.ckpt")
    assert "UNet input channels (noisy and condition latent): 4, expected 8" in message


@pytest.mark.parametrize("part", WEIGHTED)
def test_lone_part_of_a_folder(folder: Path, part: str) -> None:
    assert "not a Zero123 prior in the original layout" in refusal(weights_in(folder / part))


def test_safetensors_of_something_else(tmp_path: Path) -> None:
    save_file({"embedding": torch.zeros(3)}, tmp_path / "other.safetensors")
    assert "not a Zero123 prior in the original layout" in refusal(tmp_path / "other.safetensors")


def test_checkpoint_of_another_kind(tmp_path: Path) -> None:
    torch.save({"pipeline": {"weight": torch.zeros(3)}}, tmp_path / "other.ckpt")
    message = refusal(tmp_path / "other.ckpt")
    assert "not a Zero123 prior in the original layout" in message
    assert "is missing" in message
    torch.save([1, 2], tmp_path / "list.ckpt")
    assert "holds no named tensors" in refusal(tmp_path / "list.ckpt")


@pytest.mark.parametrize(
    "name",
    [
        "model.diffusion_model.input_blocks.1.0.in_layers.0.bias",
        "model_ema.diffusion_modelmiddle_block0in_layers0weight",
        "first_stage_model.encoder.mid.attn_1.q.weight",
        "cond_stage_model.model.visual.ln_post.bias",
        "cond_stage_model.model.visual.proj",
        "cc_projection.weight",
        "cc_projection.bias",
    ],
)
def test_checkpoint_with_a_missing_tensor(original: dict[str, Tensor], tmp_path: Path, name: str) -> None:
    torch.save({k: v for k, v in original.items() if k != name}, tmp_path / "holes.ckpt")
    assert "missing" in refusal(tmp_path / "holes.ckpt")


def test_checkpoint_with_a_left_over_tensor(original: dict[str, Tensor], tmp_path: Path) -> None:
    """A network with a part that would silently go unused is another network."""
    extra = {"first_stage_model.encoder.extra.weight": torch.zeros(1)}
    torch.save(original | extra, tmp_path / "more.ckpt")
    assert "1 of" in (message := refusal(tmp_path / "more.ckpt"))
    assert "not part of this network, first encoder.extra.weight" in message


# Where priors come from


def test_no_guidance_needs_nothing() -> None:
    assert build_guidance(GuidanceConfig(kind="none", prior="nowhere/nothing"), 0.0, "cpu") is None


def test_guidance_from_a_folder(folder: Path) -> None:
    guidance = build_guidance(GuidanceConfig(prior=str(folder)), 10.0, "cpu")
    assert guidance is not None
    assert guidance.image_size == 64


@pytest.mark.parametrize("prior", ["missing/zero123.ckpt", "./missing", "/missing/a/b", "missing"])
def test_missing_file(prior: str) -> None:
    message = refusal(prior)
    assert "no such file or folder" in message
    assert "consistent4d weights zero123-xl" in message


def test_address_of_a_page_of_the_hub() -> None:
    message = refusal("https://huggingface.co/kxic/stable-zero123/tree/main")
    assert "the address of a page; give the hub id kxic/stable-zero123" in message


@pytest.mark.parametrize("offline", [True, False])
def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, offline: bool) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    message = refusal("someone/zero123")
    for said in (
        "someone/zero123",
        "hf download",
        "5 GB",
        "licence",
        "guidance.prior bundled",
        "consistent4d-mini",
        "consistent4d-image-mini",
    ):
        assert said in message
    assert ("HF_HUB_OFFLINE is set" if offline else "http://127.0.0.1:9 cannot be reached") in message


def test_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi, constants

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("reset by peer\nand more")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_reachable", lambda _: True)
    monkeypatch.setattr(HfApi, "model_info", fail)
    assert "download failed (reset by peer)" in refusal("someone/zero123")


def test_cached_prior_needs_no_network(
    networks: Zero123Networks, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(folder / "model_index.json"))
    monkeypatch.setattr(hub, "download", lambda _: pytest.fail("the cache was not used"))
    assert_same_weights(load_networks("someone/zero123"), networks)


def test_only_what_is_needed_is_downloaded() -> None:
    wanted = [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16_ema.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "image_encoder/config.json",
        "image_encoder/model.safetensors",
        "cc_projection/config.json",
        "cc_projection/diffusion_pytorch_model.bin",
        "scheduler/scheduler_config.json",
        "feature_extractor/preprocessor_config.json",
    ]
    other = [
        "README.md",
        "pipeline.py",
        "cc_projection/cc_projection.py",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.bin",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "image_encoder/pytorch_model.bin",
    ]
    assert sorted(needed_files([*other, *wanted], "someone/zero123")) == sorted(wanted)
