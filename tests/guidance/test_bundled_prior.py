"""The prior that comes with the package is found under its own name, whole and small."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from consistent4d_ns.data.cameras import OrbitViews, orbit_views, relative_pose
from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance import bundled_prior
from consistent4d_ns.guidance.checksums import LIST, UNLISTED
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.guidance.loading import build_guidance, load_networks
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.guidance.saving import save_folder
from consistent4d_ns.method_configs import consistent4d_mini, preset
from consistent4d_ns.toy import ToyTruth
from consistent4d_ns.toy.sequence import FOVY
from tests.guidance.layouts import hub_folder

MOST_BYTES = 40_000_000
"""What the package may grow by."""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An untrained prior in place of the bundled one."""
    folder = tmp_path / "package_data"
    save_folder(random_networks("small", "cpu", seed=0), folder)
    monkeypatch.setattr(bundled_prior, "FOLDER", folder)
    return folder


def test_the_name_means_the_bundled_prior(stand_in: Path) -> None:
    guidance = build_guidance(GuidanceConfig(prior="bundled"), 0.0, "cpu")
    assert guidance is not None
    assert guidance.latent_shape == (4, 16, 16)


def test_a_folder_of_that_name_is_another_prior(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = random_networks("small", "cpu", seed=1)
    hub_folder(other, tmp_path / "bundled")
    ours, theirs = (load_networks(prior).projection.bias for prior in ("bundled", "./bundled"))
    assert torch.equal(theirs, other.projection.bias)
    assert not torch.equal(ours.float(), theirs.float())


def test_an_altered_bundled_prior_is_refused(stand_in: Path) -> None:
    path = stand_in / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"does not match its checksum .* reinstall consistent4d_ns"):
        load_networks("bundled")


@pytest.mark.parametrize("left", [(), ("MODEL_CARD.md",)])
def test_an_installation_without_weights_says_so(
    left: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in left:
        (tmp_path / name).touch()
    monkeypatch.setattr(bundled_prior, "FOLDER", tmp_path)
    with pytest.raises(InputError) as error:
        load_networks("bundled")
    message = str(error.value)
    assert "\n" not in message
    for said in ("guidance.prior bundled", str(tmp_path), "pip install .", "--pipeline.guidance.prior"):
        assert said in message


# The bundled weights themselves


@pytest.fixture
def bundled() -> Path:
    """The bundled folder; skips in a checkout that was stripped of it."""
    if not (bundled_prior.FOLDER / LIST).exists():
        pytest.skip("needs the bundled weights, which this checkout lacks")
    return bundled_prior.folder()


def test_bundled_files_are_few_and_all_listed(bundled: Path) -> None:
    files = [path for path in bundled.rglob("*") if path.is_file()]
    listed = {line.split("  ", 1)[1] for line in (bundled / LIST).read_text().splitlines()}
    assert {path.relative_to(bundled).as_posix() for path in files} == listed | set(UNLISTED)
    assert {path.suffix for path in files} == {".safetensors", ".json", ".md", ""}
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES


def test_bundled_weights_are_finite_and_in_half_precision(bundled: Path) -> None:
    for path in bundled.glob("*/*.safetensors"):
        for name, value in load_file(path).items():
            assert value.dtype == torch.float16, name
            assert value.isfinite().all(), name


def test_bundled_prior_is_a_zero123_for_small_images(bundled: Path) -> None:
    assert load_networks("bundled").image_size == 64


@pytest.mark.slow
def test_bundled_prior_knows_other_sides_better_than_the_input_does(bundled: Path) -> None:
    """The toy, which it never saw: every side is closer to the truth than the input view is, by 2 dB in the mean."""
    level = torch.zeros(6)
    views = OrbitViews(level, torch.arange(0.0, 360.0, 60.0), level + 2.0, level + FOVY)
    first = torch.zeros(6, dtype=torch.long)
    truth = ToyTruth(size=64, frames=8)(views.elevation, views.azimuth, views.distance, first)
    guidance = build_guidance(GuidanceConfig(prior="bundled", previews=True), 0.0, "cpu")
    assert guidance is not None
    guidance.prepare(truth[:1])
    poses = relative_pose(views, orbit_views(0.0, 0.0, 2.0, FOVY, 6))[1:]
    noise = torch.Generator().manual_seed(0)
    imagined = guidance.sample(poses, first[1:], scale=1.0, generator=noise, steps=4, temperature=0.0)
    ours, theirs = ((images - truth[1:]).square().mean((1, 2, 3)) for images in (imagined, truth[:1]))
    gain = 10 * torch.log10(theirs / ours)
    assert gain.min() > 1.0
    assert gain.mean() > 2.0


def test_it_is_what_the_mini_preset_uses(bundled: Path) -> None:
    config = preset(consistent4d_mini).pipeline.guidance
    assert (config.kind, config.prior) == ("zero123", bundled_prior.NAME)
