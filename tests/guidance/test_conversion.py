"""A converted checkpoint is the same prior: no pickle, half the size or less, and the same scores."""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from consistent4d_ns.cli.weights import Convert, weights
from consistent4d_ns.errors import InputError
from consistent4d_ns.files import disks
from consistent4d_ns.guidance.base import draw
from consistent4d_ns.guidance.checksums import verify_checksums
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.guidance.loading import load_networks
from consistent4d_ns.guidance.networks import Zero123Networks
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.guidance.zero123 import Zero123Guidance
from tests.conftest import golden_path
from tests.guidance.layouts import original_tensors
from tests.support.disks import file_limit

POSE = torch.tensor([[0.1, 0.5, 0.8, 0.0]])
Precision = Literal["fp16", "fp32"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the original authors publish it: a pickle with raw and EMA weights."""
    path = tmp_path_factory.mktemp("original") / "zero123-xl.ckpt"
    torch.save({"state_dict": original_tensors(random_networks("small", "cpu", seed=0)), "global_step": 1}, path)
    return path


def scores(prior: Path, precision: Precision) -> list[Tensor]:
    """The noise predicted for a view, the UNet computing in some precision; in fp32, loss and gradient, too.

    In half precision, a gradient of the image would take a CPU a minute.
    """
    guidance = Zero123Guidance(load_networks(str(prior)), GuidanceConfig(prior=str(prior), precision=precision), "cpu")
    image = torch.rand(1, 1, 3, 48, 48, generator=torch.Generator().manual_seed(1)).requires_grad_()
    guidance.prepare(image[0].detach())
    frame = torch.tensor([0])
    draws = draw(guidance, 1, 1, (200, 800), torch.Generator().manual_seed(2))
    found = [guidance.predict_noise(draws.noise, draws.timesteps, guidance.view_conditions(POSE, frame), 1.0)]
    if precision == "fp32":
        loss = guidance.loss(image, POSE, frame, draws, 5.0)
        found += [loss.detach(), *torch.autograd.grad(loss.sum(), image)]
    assert all(values.abs().sum() > 0 for values in found)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_scores_are_identical(tmp_path: Path, precision: Precision) -> None:
    """Those in the precision of the conversion, of the checkpoint that the original's numbers were recorded with."""
    checkpoint = tmp_path / "zero123.ckpt"
    torch.save({"state_dict": load_file(golden_path("zero123/small_zero123_ckpt.safetensors"))}, checkpoint)
    weights(Convert(checkpoint, tmp_path / "out", precision))
    for ours, theirs in zip(scores(tmp_path / "out", precision), scores(checkpoint, precision), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_weights_are_identical(checkpoint: Path, tmp_path: Path, precision: Precision) -> None:
    """In fp32 all of them; in fp16 the UNet's as rounded on loading, and the others, which always run in float32."""
    weights(Convert(checkpoint, tmp_path / "out", precision))
    found, original = load_networks(str(tmp_path / "out")), load_networks(str(checkpoint))
    assert_same_weights(found, original, torch.float16 if precision == "fp16" else torch.float32)


def assert_same_weights(found: Zero123Networks, original: Zero123Networks, unet: torch.dtype) -> None:
    for part in ("unet", "vae", "image_encoder", "projection"):
        ours, theirs = getattr(found, part).state_dict(), getattr(original, part).state_dict()
        assert ours.keys() == theirs.keys()
        dtype = unet if part == "unet" else torch.float32
        assert all(torch.equal(ours[name], value.to(dtype)) for name, value in theirs.items()), part
        assert {value.dtype for value in ours.values()} == {dtype}


def test_what_is_written(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Safetensors and JSON with checksums; EMA weights in place of raw ones; half the size."""
    out = tmp_path / "new" / "out"
    weights(Convert(checkpoint, out))
    assert {path.suffix for path in out.rglob("*") if path.is_file()} == {".safetensors", ".json", ""}
    verify_checksums(out)
    total = sum(path.stat().st_size for path in out.rglob("*.safetensors"))
    assert total < 0.52 * checkpoint.stat().st_size  # headers count in files as small as these
    assert f"--pipeline.guidance.prior {out}" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("name", "asked", "expected"),
    [
        ("zero123-xl.ckpt", "auto", "zero123"),
        ("stable_zero123.ckpt", "auto", "stable-zero123"),
        ("renamed.ckpt", "stable-zero123", "stable-zero123"),
    ],
)
def test_the_camera_convention_is_kept(
    checkpoint: Path, tmp_path: Path, name: str, asked: Literal["auto", "stable-zero123"], expected: str
) -> None:
    """In a folder whose name says nothing, or something else."""
    (tmp_path / name).symlink_to(checkpoint) if name.startswith("renamed") else (tmp_path / name).hardlink_to(
        checkpoint
    )
    out = tmp_path / "zero123-converted"
    weights(Convert(tmp_path / name, out, camera_convention=asked))
    networks = load_networks(str(out))
    assert networks.camera_convention == expected
    guidance = Zero123Guidance(networks, GuidanceConfig(prior=str(out)), "cpu", 30.0)
    assert (guidance.camera_convention, guidance.convention_reason) == (expected, "as the prior's files say")


def test_a_folder_of_pickles_is_converted_too(checkpoint: Path, tmp_path: Path) -> None:
    """As some priors are on the hub."""
    weights(Convert(checkpoint, tmp_path / "one", "fp32"))
    for file in (tmp_path / "one").rglob("*.safetensors"):
        torch.save(load_file(file), file.with_suffix(".bin"))
        file.unlink()
    (tmp_path / "one" / "SHA256SUMS").unlink()
    weights(Convert(tmp_path / "one", tmp_path / "two", "fp32"))
    assert not list((tmp_path / "two").rglob("*.bin"))
    two, original = load_networks(str(tmp_path / "two")), load_networks(str(checkpoint))
    assert_same_weights(two, original, torch.float32)


def refusal(action: Convert) -> str:
    """The one line with which a conversion ends; nothing is left of it."""
    before = set(action.out.parent.rglob("*"))
    with pytest.raises(InputError) as error:
        weights(action)
    assert "\n" not in str(error.value)
    assert set(action.out.parent.rglob("*")) == before
    return str(error.value)


def test_what_cannot_be_converted(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "does not exist: give a Zero123 checkpoint" in refusal(Convert(tmp_path / "none.ckpt", out))
    os.mkfifo(tmp_path / "pipe.ckpt")
    assert "is neither a file nor a folder" in refusal(Convert(tmp_path / "pipe.ckpt", out))
    (tmp_path / "empty.ckpt").touch()
    assert "is an empty file (zero bytes): download it again" in refusal(Convert(tmp_path / "empty.ckpt", out))
    (tmp_path / "cut.ckpt").write_bytes(checkpoint.read_bytes()[:-1000])
    assert f"{tmp_path / 'cut.ckpt'}: " in refusal(Convert(tmp_path / "cut.ckpt", out))
    (tmp_path / "pointer.ckpt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "is a Git LFS pointer" in refusal(Convert(tmp_path / "pointer.ckpt", out))
    torch.save({1: torch.zeros(1)}, tmp_path / "numbers.ckpt")
    assert "a tensor is named 1, which is no text" in refusal(Convert(tmp_path / "numbers.ckpt", out))
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert "not a Zero123 prior in the original layout" in refusal(Convert(tmp_path / "other.safetensors", out))
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    assert "is not empty: give another folder" in refusal(Convert(checkpoint, out))
    assert "not an earlier output" in refusal(Convert(checkpoint, out, overwrite=True))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "holds values that are not finite"),
        (float("inf"), "holds values that are not finite"),
        (1e6, "has values too large for fp16: give --precision fp32"),
    ],
)
def test_values_that_no_network_has(checkpoint: Path, tmp_path: Path, value: float, said: str) -> None:
    tensors = torch.load(checkpoint)["state_dict"]
    (name,) = (name for name in tensors if name.startswith("model_ema.") and name.endswith("out2bias"))
    tensors[name][0] = value
    torch.save({"state_dict": tensors}, tmp_path / "altered.ckpt")
    message = refusal(Convert(tmp_path / "altered.ckpt", tmp_path / "out"))
    assert f"conv_out.bias {said}" in message or f"conv_out.bias of the UNet {said}" in message
    assert str(tmp_path / "altered.ckpt") in message


def test_the_number_format_that_is_told_is_that_of_the_files(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Digits that the source does not have are not added."""
    weights(Convert(checkpoint, tmp_path / "half", "fp16"))
    assert "UNet in fp16.\n" in capsys.readouterr().out
    weights(Convert(tmp_path / "half", tmp_path / "my copy", "fp32"))
    said = capsys.readouterr().out
    assert "UNet in fp16 as in the source" in said
    assert f"--pipeline.guidance.prior '{tmp_path / 'my copy'}'" in said
    assert load_networks(str(tmp_path / "my copy")).unet.dtype == torch.float16


def test_an_earlier_conversion_is_replaced_if_asked(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    weights(Convert(checkpoint, out, "fp32"))
    assert "is not empty" in refusal(Convert(checkpoint, out))
    weights(Convert(checkpoint, out, "fp16", overwrite=True))
    verify_checksums(out)
    assert load_networks(str(out)).unet.dtype == torch.float16


def test_no_space(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with file_limit(1_000_000):
        assert refusal(Convert(checkpoint, out)).startswith(f"cannot write {out}: ")
    monkeypatch.setattr(disks, "free_space", lambda _: 1000)
    assert refusal(Convert(checkpoint, out)).startswith(f"{out}: ")
    assert not out.exists()


def test_an_interruption_leaves_nothing(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from consistent4d_ns.guidance import saving

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(saving, "_save_scheduler", interrupt)
    with pytest.raises(KeyboardInterrupt):
        weights(Convert(checkpoint, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_two_at_once(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that ends first has its place; the other says so."""
    from consistent4d_ns.guidance import conversion

    out, write = tmp_path / "out", conversion.write_prior

    def write_after_another(networks: Zero123Networks, folder: Path) -> None:
        monkeypatch.setattr(conversion, "write_prior", write)
        weights(Convert(checkpoint, out, "fp32"))
        write(deepcopy(networks), folder)

    monkeypatch.setattr(conversion, "write_prior", write_after_another)
    with pytest.raises(InputError, match="is not empty: give another folder"):
        weights(Convert(checkpoint, out, "fp16"))
    verify_checksums(out)
    assert load_networks(str(out)).unet.dtype == torch.float32
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
