"""Weights are found where they are kept, and what is wrong with them is seen at a glance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from consistent4d_ns.cli.weights import described
from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance import bundled_prior
from consistent4d_ns.guidance.hub import PUBLISHED
from consistent4d_ns.guidance.hub_cache import cache_folder
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.interpolation.cache import cached_weight_file
from consistent4d_ns.setup.machine import look
from consistent4d_ns.setup.weights import Found, find_all
from tests.guidance.layouts import hub_folder

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def found(name: str) -> Found:
    (result,) = (result for result in find_all() if result.weights.name == name)
    return result


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub_folder(random_networks("small", "cpu", seed=0), tmp_path_factory.mktemp("prior"))


@pytest.fixture
def snapshot(prior: Path) -> Path:
    """Zero123-XL in the hub's cache, of a small size."""
    repository = cache_folder(PUBLISHED["zero123-xl"])
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c" * 40)
    for file in (file for file in prior.rglob("*") if file.is_file()):
        name = repository / "snapshots" / ("c" * 40) / file.relative_to(prior)
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_bytes(file.read_bytes())
    return repository / "snapshots" / ("c" * 40)


def test_nothing_but_the_bundled_prior():
    assert {result.weights.name: result.state for result in find_all()} == {
        "bundled": "present",
        "rife": "missing",
        "zero123-xl": "missing",
        "stable-zero123": "missing",
        "stable-diffusion": "missing",
        "clip": "missing",
        "lpips": "missing",
        "i3d": "missing",
    }
    assert found("bundled").path == bundled_prior.FOLDER
    assert found("bundled").size == pytest.approx(found("bundled").weights.size, rel=0.05)
    assert found("bundled").command == ""
    for name in ("rife", "zero123-xl", "stable-zero123"):
        assert found(name).command == f"consistent4d weights {name}"
        assert not found(name).path.exists()


def test_an_installation_without_the_bundled_prior(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bundled_prior, "FOLDER", tmp_path)
    assert found("bundled").state == "missing"
    assert found("bundled").command.startswith("pip install")


def test_priors_of_the_hub(snapshot: Path):
    assert (found("zero123-xl").state, found("zero123-xl").path) == ("present", snapshot)
    assert found("zero123-xl").size == sum(path.stat().st_size for path in snapshot.rglob("*") if path.is_file())
    assert found("stable-zero123").state == "missing"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[:1000], "cut off"),
        (lambda _: b"", "is an empty file"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (lambda _: b"<html>Log in</html>", "is a web page"),
    ],
    ids=["cut off", "empty", "pointer", "page"],
)
def test_damaged_files(snapshot: Path, damage: Callable[[bytes], bytes], said: str):
    (snapshot / UNET).write_bytes(damage((snapshot / UNET).read_bytes()))
    result = found("zero123-xl")
    assert result.state == "damaged"
    assert result.fault.startswith(UNET)
    assert said in result.fault
    cached_weight_file().parent.mkdir(parents=True)
    save_file({"a": torch.zeros(300)}, cached_weight_file())
    assert found("rife").state == "present"
    cached_weight_file().write_bytes(damage(cached_weight_file().read_bytes()))
    assert found("rife").state == "damaged"
    assert said in found("rife").fault


def test_places_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The state is unknown, and which variable helps is said."""
    from huggingface_hub import constants

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ("x" * 300)))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / ("x" * 300)))
    for name, variable in (("rife", "XDG_CACHE_HOME"), ("zero123-xl", "HF_HOME")):
        assert found(name).state == "unknown"
        assert "cannot be read (File name too long)" in found(name).fault
        assert variable in found(name).command
        assert variable in described(found(name))
    assert look().free_disk["RIFE's cache"] is None


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert (found("rife").state, found("rife").fault) == ("unknown", "this user has no home directory")
    assert "XDG_CACHE_HOME" in described(found("rife"))
    assert look().free_disk["RIFE's cache"] is None
    with pytest.raises(InputError, match=r"no home directory .*; set XDG_CACHE_HOME"):
        cached_weight_file()


def test_an_unfinished_download(snapshot: Path):
    (snapshot / UNET).unlink()
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir()
    (blobs / "abc").write_bytes(b"x" * 500)
    (blobs / "dangling").symlink_to("nowhere")
    assert (found("zero123-xl").state, found("zero123-xl").size) == ("incomplete", 500)
    assert found("zero123-xl").command == "consistent4d weights zero123-xl"
