"""Diffusion models in the layout of diffusers: finding a folder, and loading its networks from safetensors alone.

A folder's `model_index.json` names a class for each part. Only classes of diffusers and transformers themselves are
used; code that comes with a model is never run, and pickles are never opened.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Collection, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consistent4d_ns.enhancing.options import PseudoTruthOptions
from consistent4d_ns.errors import InputError
from consistent4d_ns.files.names import expanded
from consistent4d_ns.files.weight_files import damage_of_weights
from consistent4d_ns.guidance.hub import check_not_address, is_hub_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

INDEX = "model_index.json"
"""File that names the parts of a model."""
LIBRARIES = ("diffusers", "transformers")
"""Libraries whose classes a part may have."""
LEFT_OUT = ("safety_checker", "feature_extractor", "watermarker")
"""Parts that judge or mark images that are published; here they are only learned from."""
REMEDY = (
    "give the folder of a super-resolution or image-to-image model in the layout of diffusers, such as DeepFloyd-IF's "
    "second stage or Stable Diffusion"
)
SECOND_STAGES = ("IFSuperResolutionPipeline", "IFImg2ImgSuperResolutionPipeline")
"""DeepFloyd-IF's second stage, by the classes that its folder may name."""
OTHER_STAGES = ("IFPipeline", "IFImg2ImgPipeline", "IFInpaintingPipeline", "IFInpaintingSuperResolutionPipeline")
"""What else belongs to DeepFloyd-IF."""
UPSCALER = "StableDiffusionUpscalePipeline"
"""Stable Diffusion's upscaler."""
INSTALL = 'pip install "consistent4d_ns[enhance]"'
"""The command that installs what reads prompts for T5."""
HALF = "fp16"
"""Variant of weight files in half precision."""


@dataclass(frozen=True)
class ModelFolder:
    """A model on this machine; nothing of it is loaded yet."""

    path: Path
    """Its folder."""
    kind: str
    """Class of its pipeline."""
    parts: Mapping[str, tuple[str, str]]
    """Library and class of every part that is used, by its name."""
    left_out: tuple[str, ...]
    """Names of the parts that it has of `LEFT_OUT`."""


def find_model(options: PseudoTruthOptions) -> ModelFolder:
    """A model by its folder, or by the id of a repository in the hub's cache. Nothing is downloaded or loaded.

    Raises:
        InputError: It is not on this machine, no model in the layout of diffusers, or, as far as its folder tells, none
            that improves images; or an option does not apply to it.
    """
    path = expanded(Path(options.model))
    if path.is_file():
        raise InputError(f"--model {options.model} is a file: {REMEDY}.")
    folder = _folder(path if path.is_dir() else _cached(options.model))
    if folder.kind in OTHER_STAGES:
        raise InputError(f"{path} is a {folder.kind}: of DeepFloyd-IF give the second stage, IF-II.")
    if folder.kind == UPSCALER and options.strength is not None:
        raise InputError(f"{path} is an upscaler, which has no strength: leave out --strength.")
    if (folder.path / "tokenizer" / "spiece.model").exists() and not _reads_sentencepiece():
        raise InputError(f"{path} needs sentencepiece to read the prompt: {INSTALL}.")
    return folder


def _reads_sentencepiece() -> bool:
    """Whether there is a sentencepiece that works with the protobuf that is installed."""
    try:
        importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    except ImportError:
        return False
    return True


def _folder(path: Path) -> ModelFolder:
    """What is in a folder."""
    index = _read_index(path)
    kind = index.get("_class_name")
    if not isinstance(kind, str):
        raise InputError(f"{path / INDEX} names no pipeline of diffusers: {REMEDY}.")
    parts = {name: part for name, part in index.items() if isinstance(part, list) and name not in LEFT_OUT}
    checked = {name: _checked(path, name, part) for name, part in parts.items() if any(part)}
    return ModelFolder(path, kind, checked, tuple(name for name in LEFT_OUT if name in index))


def load_networks(folder: ModelFolder, dtype: torch.dtype, without: Collection[str] = ()) -> dict[str, Any]:
    """All networks of a model on the CPU, by the names of their parts; None for what is left out, and `without`.

    Raises:
        InputError: Weights are missing, damaged, only there as pickles, or do not fit.
    """
    from torch import nn

    networks: dict[str, Any] = dict.fromkeys((*without, *folder.left_out))
    for name, (library, kind) in folder.parts.items():
        found = getattr(importlib.import_module(library), kind, None)
        if name not in without and isinstance(found, type) and issubclass(found, nn.Module):
            networks[name] = _load_network(found, folder.path / name, dtype)
    return networks


@contextmanager
def described_as(path: Path) -> Iterator[None]:
    """Turn whatever a library raises about the files in `path` into one line that names it.

    Its warnings are for programmers: names of arguments that change between versions.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    except InputError:
        raise
    except Exception as error:  # Constructors raise all kinds of exceptions for wrong or missing files.
        reason = (str(error).strip() or type(error).__name__).split("\n", 1)[0]
        raise InputError(f"{path} cannot be used ({reason}): {REMEDY}, or download it again.") from error


def _cached(model: str) -> Path:
    """Folder of a repository in the hub's cache."""
    check_not_address(model, "--model")
    if not is_hub_id(model):
        raise InputError(f"--model {model} does not exist: {REMEDY}.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except LocalEntryNotFoundError:
        raise missing(model) from None


def missing(model: str) -> InputError:
    """The one-line error for a model of the hub that is not on this machine."""
    page = f"https://huggingface.co/{model}"
    patterns = "'*.json' '*.txt' '*.model' '*.fp16*.safetensors'"
    return InputError(
        f"--model {model} is not on this machine: accept its licence at {page}, log in with `hf auth login`, get it "
        f"with `hf download {model} --include {patterns}`; or {REMEDY}."
    )


def _read_index(path: Path) -> dict[str, Any]:
    """The contents of `model_index.json`."""
    file = path / INDEX
    if not file.is_file():
        hint = " (it is a repository in the hub's cache: give its id)" if (path / "snapshots").is_dir() else ""
        raise InputError(f"{path} holds no {INDEX}{hint}: {REMEDY}.")
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as JSON: download the model again.") from error
    if not isinstance(index, dict):
        raise InputError(f"{file} is not a JSON object: download the model again.")
    return index


def _checked(path: Path, name: str, part: Any) -> tuple[str, str]:
    """Library and class of a part."""
    if len(part) != 2 or not all(isinstance(word, str) for word in part) or part[0] not in LIBRARIES:
        raise InputError(
            f"{path / INDEX}: the part {name} is {part}, not a class of {' or '.join(LIBRARIES)}; code that comes "
            f"with a model is never run: {REMEDY}."
        )
    if Path(name).name != name:
        raise InputError(f"{path / INDEX} names a part {name}, which is no folder: {REMEDY}.")
    return part[0], part[1]


def _load_network(kind: Any, path: Path, dtype: torch.dtype) -> Any:
    """One network, with all of its weights."""
    files = sorted(path.glob("*.safetensors"))
    halves = [file for file in files if f".{HALF}" in file.name]
    if not files:
        raise InputError(f"{path} holds no .safetensors file, and pickles are not opened: download the model again.")
    variant = HALF if halves and (str(dtype) == "torch.float16" or len(halves) == len(files)) else None
    for file in halves if variant else [file for file in files if file not in halves]:
        if (damage := damage_of_weights(file)) is not None:
            raise InputError(f"{file} {damage}.")
    with described_as(path):
        network, info = kind.from_pretrained(
            path, torch_dtype=dtype, variant=variant, use_safetensors=True, output_loading_info=True
        )
    if info["missing_keys"]:
        lacking = sorted(info["missing_keys"])
        raise InputError(f"{path} lacks {len(lacking)} tensors, first {lacking[0]}: download the model again.")
    return network.eval().requires_grad_(False)
