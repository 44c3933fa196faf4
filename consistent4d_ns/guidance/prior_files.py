"""Which files a prior in the diffusers layout consists of, by their names alone. Nothing slow is imported."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from consistent4d_ns.errors import InputError

PARTS = {
    "unet": ("unet",),
    "vae": ("vae",),
    "image_encoder": ("image_encoder",),
    "projection": ("clip_camera_projection", "cc_projection"),
}
"""Possible folder names of each part."""
VARIANTS = (".ema", ".fp16_ema", "", ".fp16")
"""Variants of weight files in order of preference: EMA weights are meant for sampling."""
SUFFIXES = (".safetensors", ".bin")
"""File types in order of preference."""
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
"""Stems of the file names that diffusers and transformers use."""
SETTINGS = ("scheduler/scheduler_config.json", "feature_extractor/preprocessor_config.json")
"""Configuration files that are needed besides the `config.json` beside each weight file."""


def names_in(folder: Path) -> set[str]:
    """Files in the parts of a prior in `folder`, by their paths relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.glob("*/*")}


def weight_files(names: Collection[str], source: str) -> dict[str, PurePosixPath]:
    """The weight file of each part, chosen from `names` (paths relative to the prior's folder).

    Raises:
        InputError: A part has no weight file.
    """
    chosen = {}
    for part, folders in PARTS.items():
        candidates = (
            f"{folder}/{stem}{variant}{suffix}"
            for variant in VARIANTS
            for suffix in SUFFIXES
            for folder in folders
            for stem in STEMS
        )
        file = next((name for name in candidates if name in names), None)
        if file is None:
            wanted = " or ".join(f"{folder}/" for folder in folders)
            raise InputError(f"{source}: not a complete Zero123 prior, no weights in {wanted}; download it again.")
        chosen[part] = PurePosixPath(file)
    return chosen


def needed_files(names: Collection[str], source: str) -> list[str]:
    """The files of a hub repository that are needed: one weight file per part, and all JSON configuration files."""
    weights = weight_files(names, source).values()
    folders = {str(path.parent) for path in weights} | {"scheduler", "feature_extractor"}
    texts = [name for name in names if name.endswith(".json") and str(PurePosixPath(name).parent) in folders | {"."}]
    return [*texts, *map(str, weights)]


def missing_files(names: Collection[str], source: str) -> list[str]:
    """The configuration files that a prior with these files lacks (raises as `weight_files`)."""
    weights = weight_files(names, source).values()
    wanted = [*(str(path.with_name("config.json")) for path in weights), *SETTINGS]
    return [name for name in wanted if name not in names]
