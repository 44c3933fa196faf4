"""A prior's camera convention follows from the user's word, the prior's files, or the name it was published under."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.camera_convention import resolve_convention
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.guidance.loading import build_guidance, load_networks
from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.guidance.saving import save_folder
from tests.guidance.layouts import change_json

SNAPSHOT = "snapshots/2dd4a4ff0bf6f2a2b1d4ea2d4ba1b2d2b5a3a2c1"


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        ("ashawkey/zero123-xl-diffusers", "zero123"),
        ("ashawkey/stable-zero123-diffusers", "stable-zero123"),
        ("kxic/stable-zero123", "stable-zero123"),
        ("kxic/zero123-105000", "zero123"),
        ("/models/Stable_Zero123.ckpt", "stable-zero123"),
        ("stable_zero123_c.ckpt", "stable-zero123"),
        ("/models/stablezero123/model.ckpt", "stable-zero123"),
        ("/models/stable_zero123/model.ckpt", "stable-zero123"),
        (f"/home/me/.cache/huggingface/hub/models--kxic--stable-zero123/{SNAPSHOT}", "stable-zero123"),
        (f"/home/me/.cache/huggingface/hub/models--ashawkey--zero123-xl-diffusers/{SNAPSHOT}", "zero123"),
        # The most specific name decides.
        ("/models/stable-zero123/zero123-xl.ckpt", "zero123"),
        ("/models/zero123/stable-zero123.ckpt", "stable-zero123"),
        ("/x/stable-zero123/zero123-xl", "zero123"),
        ("/x/zero123-xl/stable-zero123.bak", "stable-zero123"),
        # Names that merely contain the word.
        ("/models/stable/zero123-xl.ckpt", "zero123"),
        ("/models/stable/model.ckpt", "zero123"),
        ("runs/unstable-run/prior.ckpt", "zero123"),
        ("unstable-zero123/prior.ckpt", "zero123"),
        ("stable-diffusion/prior", "zero123"),
        ("bundled", "zero123"),
    ],
)
def test_published_names_decide(prior: str, expected: str) -> None:
    assert resolve_convention("auto", prior)[0] == expected


def test_files_overrule_names_and_the_user_overrules_both() -> None:
    assert resolve_convention("auto", "kxic/stable-zero123", "zero123") == ("zero123", "as the prior's files say")
    convention, reason = resolve_convention("stable-zero123", "kxic/zero123-xl", "zero123")
    assert convention == "stable-zero123"
    assert "guidance.camera-convention" in reason


def test_the_bundled_prior_has_a_known_convention(capsys: pytest.CaptureFixture[str]) -> None:
    guidance = build_guidance(GuidanceConfig(prior="bundled"), 0.0, "cpu")
    assert guidance is not None
    printed = " ".join(capsys.readouterr().out.split())
    assert "Loading the bundled prior ..." in printed
    assert "Camera convention of the bundled prior: zero123 (the one it was trained with)." in printed


def test_a_link_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "models--kxic--stable-zero123" / SNAPSHOT
    folder.mkdir(parents=True)
    (tmp_path / "prior").symlink_to(folder)
    assert resolve_convention("auto", str(tmp_path / "prior")) == ("stable-zero123", "from the name stable-zero123")


def test_the_convention_is_saved_loaded_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    networks = random_networks("small", "cpu", seed=0)
    networks.camera_convention = "stable-zero123"
    save_folder(networks, tmp_path / "prior")
    assert load_networks(str(tmp_path / "prior")).camera_convention == "stable-zero123"
    guidance = build_guidance(GuidanceConfig(prior=str(tmp_path / "prior")), 10.0, "cpu")
    assert guidance is not None
    assert guidance.camera_convention == "stable-zero123"
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Loading the prior {tmp_path / 'prior'} ..." in printed
    assert ": stable-zero123 (as the prior's files say)." in printed


@pytest.mark.parametrize("stored", ["stable", 3, ["zero123"]])
def test_an_unknown_convention_in_the_files_is_refused(tmp_path: Path, stored: Any) -> None:
    save_folder(random_networks("small", "cpu", seed=0), tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    config = tmp_path / "clip_camera_projection" / "config.json"
    change_json(config, camera_convention=stored)
    with pytest.raises(InputError, match=r"camera_convention is .* not zero123 or stable-zero123") as error:
        load_networks(str(tmp_path))
    assert str(config) in str(error.value)
