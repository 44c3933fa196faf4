"""Priors that cannot be used, given to `ns-train`: one line says what is wrong."""

from __future__ import annotations

import os

import pytest
from safetensors.torch import load_file, save_file

from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.guidance.saving import save_folder
from consistent4d_ns.toy import write_sequence
from tests.cli.test_commands import Workplace

pytestmark = pytest.mark.slow

OPTIONS = (
    *("--data", "toy", "--output-dir", "out", "--vis", "tensorboard"),
    *("--pipeline.interpolation.kind", "none"),
    *("--pipeline.datamanager.dataparser.image-size", "16"),
    *("--pipeline.guidance.kind", "zero123"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A toy, a folder `prior` with checksums of which one byte is altered, and only its UNet as `unet.safetensors`."""
    folder = tmp_path_factory.mktemp("refused")
    write_sequence(folder / "toy", size=16, frames=3, samples_per_side=1)
    save_folder(random_networks("small", "cpu", seed=0), folder / "prior")
    weights = folder / "prior" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(weights), folder / "unet.safetensors")
    content = bytearray(weights.read_bytes())
    content[-7] ^= 1
    weights.write_bytes(content)
    (folder / "empty").mkdir()
    return Workplace(folder, os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize(
    ("prior", "said"),
    [
        ("prior", "unet/diffusion_pytorch_model.safetensors does not match its checksum (truncated or altered)"),
        ("empty", "not a complete Zero123 prior, no weights in unet/"),
        ("unet.safetensors", "not a Zero123 prior in the original layout"),
    ],
)
def test_unusable_priors_are_one_line(place: Workplace, prior: str, said: str) -> None:
    result = place.try_run("ns-train", "consistent4d-mini", *OPTIONS, "--pipeline.guidance.prior", prior)
    assert result.returncode == 2
    last = result.stderr.rstrip().splitlines()[-1]
    assert last.startswith(f"error: {place.folder / prior}")
    assert said in last
    assert "Traceback" not in result.stderr + result.stdout
