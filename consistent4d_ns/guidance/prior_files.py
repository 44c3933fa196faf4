"""Which files a prior in the diffusers layout consists of, by their names alone. Nothing slow is imported."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from consistent4d_ns.errors import InputError

VARIANTS = (".ema", ".fp16_ema", "", ".fp16")
"""Variants of weight files in order of preference: EMA weights are meant for sampling."""
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
"""Stems of the file names that diffusers and transformers use."""


@dataclass(frozen=True)
class Layout:
    """The parts of a kind of prior, each in a folder of its own."""

    what: str
    """What such a prior is called."""
    parts: Mapping[str, tuple[str, ...]]
    """Possible folder names of each part that has weights."""
    settings: tuple[str, ...]
    """Files that are needed besides the weights and the `config.json` beside each of them."""
    suffixes: tuple[str, ...]
    """Types of weight files in order of preference."""


ZERO123 = Layout(
    "Zero123 prior",
    {
        "unet": ("unet",),
        "vae": ("vae",),
        "image_encoder": ("image_encoder",),
        "projection": ("clip_camera_projection", "cc_projection"),
    },
    ("scheduler/scheduler_config.json", "feature_extractor/preprocessor_config.json"),
    (".safetensors", ".bin"),
)
"""Zero123."""
STABLE_DIFFUSION = Layout(
    "prior in Stable Diffusion's layout",
    {"unet": ("unet",), "vae": ("vae",), "text_encoder": ("text_encoder",)},
    ("scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"),
    (".safetensors",),
)
"""Stable Diffusion 1.x and 2.x. Every publisher has safetensors of them, so that no pickle is read."""


def names_in(folder: Path) -> set[str]:
    """Files in the parts of a prior in `folder`, by their paths relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.glob("*/*")}


def weight_files(names: Collection[str], source: str, layout: Layout = ZERO123) -> dict[str, PurePosixPath]:
    """The weight file of each part, chosen from `names` (paths relative to the prior's folder).

    Raises:
        InputError: A part has no weight file, or pickles alone although its layout has none.
    """
    return {part: _weight_file(folders, names, source, layout) for part, folders in layout.parts.items()}


def _weight_file(folders: tuple[str, ...], names: Collection[str], source: str, layout: Layout) -> PurePosixPath:
    candidates = (
        f"{folder}/{stem}{variant}{suffix}"
        for variant in VARIANTS
        for suffix in layout.suffixes
        for folder in folders
        for stem in STEMS
    )
    file = next((name for name in candidates if name in names), None)
    if file is not None:
        return PurePosixPath(file)
    wanted = " or ".join(f"{folder}/" for folder in folders)
    if pickles := [name for name in names if name.startswith(tuple(f"{one}/" for one in folders)) and _is_pickle(name)]:
        raise InputError(
            f"{source}: {sorted(pickles)[0]} is a pickle, which may hold code and is not read; give a copy with "
            f"safetensors in {wanted}."
        )
    raise InputError(f"{source}: not a complete {layout.what}, no weights in {wanted}; download it again.")


def _is_pickle(name: str) -> bool:
    return PurePosixPath(name).suffix in (".bin", ".ckpt", ".pt", ".pth")


def needed_files(names: Collection[str], source: str, layout: Layout = ZERO123) -> list[str]:
    """The files of a hub repository that are needed: weights of all parts, JSON configurations, other settings."""
    weights = weight_files(names, source, layout).values()
    parents = {str(PurePosixPath(name).parent) for name in (*map(str, weights), *layout.settings)} | {"."}
    texts = [name for name in names if name.endswith(".json") and str(PurePosixPath(name).parent) in parents]
    others = [name for name in layout.settings if name in names and name not in texts]
    return [*texts, *others, *map(str, weights)]


def missing_files(names: Collection[str], source: str, layout: Layout = ZERO123) -> list[str]:
    """The configuration files that a prior with these files lacks (raises as `weight_files`)."""
    weights = weight_files(names, source, layout).values()
    wanted = [*(str(path.with_name("config.json")) for path in weights), *layout.settings]
    return [name for name in wanted if name not in names]
